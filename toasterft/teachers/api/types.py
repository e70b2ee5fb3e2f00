"""Values of the API client: services, requests, replies, errors."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from toasterft.catalog import Teacher
from toasterft.data.example import ImageRef
from toasterft.data.token_stats import CHARACTERS_PER_TOKEN
from toasterft.errors import CapReached, ToasterError, UserError

# Raised whenever the same request would be sent in another form, so that old answers are not taken for it.
CACHE_VERSION = 1
# What Gemini 3 counts for a picture, the most of the models whose count is known; for those where it is not.
MOST_IMAGE_TOKENS = 1120
# What a message adds around its text: roles and separators. Assumed.
MESSAGE_TOKENS = 20

FailureKind = Literal[
    "rejected",
    "refused",
    "rate",
    "server",
    "timeout",
    "dropped",
    "unreachable",
    "malformed",
    "down",
    "cap",
    "cancelled",
]


Ending = Literal["", "empty", "cut off", "refused", "filtered"]


class EndpointError(ToasterError):
    """One request failed; `kind` is the reason, for counting."""

    exit_code = 4

    def __init__(self, what: str, *, kind: FailureKind, **facts: Any) -> None:
        super().__init__(what, **facts)
        self.kind: FailureKind = kind

    @property
    def in_short(self) -> str:
        """Kind and the endpoint's own words, as a row of rejects holds them."""
        return f"{self.kind}: {self.what}"


class EndpointRefused(EndpointError, UserError):
    """The endpoint refuses every request: a wrong key, address or model name."""

    exit_code = 2


class SpendCapReached(EndpointError, CapReached):
    """The next request might cost more than the cap leaves; nothing was sent."""

    exit_code = 3


@dataclass(frozen=True)
class Service:
    """Address, model and price of an API model.

    Attributes:
        name: as in ledgers and cards.
        base_url: up to and without `/chat/completions`.
        price: dollars per million tokens and tokens per picture; thinking tokens are output.
        api_key_env: the environment variable that holds the key; None where the server wants none.
        parameters: sent with every request, such as `reasoning_effort`.
    """

    name: str
    base_url: str
    model_id: str
    price: Teacher
    api_key_env: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def identity(self) -> dict[str, str]:
        """The service as the identity of a build names it."""
        return {"name": self.name, "endpoint": self.shown_url, "model_id": self.model_id}

    @property
    def shown_url(self) -> str:
        """The address as it may be shown and written down: without a name or password in it."""
        return re.sub(r"(?<=://)[^/?#]*@", "***@", self.base_url)

    def usd(self, input_tokens: float, output_tokens: float) -> float:
        return self.price.usd(input_tokens, output_tokens)


@dataclass(frozen=True)
class Request:
    """One question to a model.

    Attributes:
        max_tokens: longest reply, thinking included; the spend cap reserves as many.
        attempt: tells apart requests that are otherwise equal, to sample again instead of remembering.
        parameters: further settings of the chat completions call.
    """

    text: str
    images: tuple[ImageRef, ...] = ()
    system: str | None = None
    max_tokens: int = 1024
    temperature: float | None = None
    attempt: int = 0
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text_tokens(self) -> int:
        """Estimated from the length of the text."""
        letters = len(self.text) + len(self.system or "")
        return math.ceil(letters / CHARACTERS_PER_TOKEN) + MESSAGE_TOKENS

    def settings(self, service: Service) -> dict[str, Any]:
        """Everything that is sent besides model, messages and `max_tokens`."""
        own = {} if self.temperature is None else {"temperature": self.temperature}
        return {**service.parameters, **own, **self.parameters}

    def key(self, service: Service) -> str:
        """Hex digest of endpoint, model, messages and parameters; pictures by their content."""
        asked = {
            "version": CACHE_VERSION,
            "endpoint": service.base_url.rstrip("/"),
            "model": service.model_id,
            "system": self.system,
            "text": self.text,
            # Pictures that were once sent as they lie (sideways, 16-bit) are others now, and asked about anew.
            "images": [image.sha256 + " drawn" * image.drawn_anew for image in self.images],
            "max_tokens": self.max_tokens,
            "attempt": self.attempt,
            **self.settings(service),
        }
        return hashlib.sha256(json.dumps(asked, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    def messages(self) -> list[dict[str, Any]]:
        """The request as chat messages, pictures as data URLs before the text."""
        pictures = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in self.images]
        content: Any = [*pictures, {"type": "text", "text": self.text}] if pictures else self.text
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": content}]


@dataclass(frozen=True)
class Reply:
    """A reply and its bill.

    Attributes:
        output_tokens: all that is billed as output; `thinking_tokens` of it were not shown.
        usd: what it cost when it was paid.
        cached: it was paid for earlier, by this job or another one.
        refusal: the endpoint's words where the model refused.
        own_count: the bill named no tokens that can be believed, so they are counted here.
    """

    text: str
    finish_reason: str | None
    input_tokens: int
    output_tokens: int
    thinking_tokens: int
    usd: float
    cached: bool = False
    refusal: str = ""
    own_count: bool = False

    @classmethod
    def of_record(cls, record: Any) -> Reply | None:
        """A reply that was paid for earlier; None where its record is damaged."""
        if not isinstance(record, dict):
            return None
        known = {name: record[name] for name in cls.__dataclass_fields__ if name in record}
        try:
            return cls(**{**known, "cached": True})
        except TypeError:
            return None

    @property
    def ending(self) -> tuple[Ending, str]:
        """How it ended where it is no whole answer: the kind and the details, both empty where it is one."""
        finish = (self.finish_reason or "").lower()
        empty = not self.text.strip()
        thought = ", only thinking" if empty and self.thinking_tokens else ""
        if self.refusal or finish == "refusal":
            return "refused", (self.refusal or self.text)[:200]
        if finish in ("length", "max_tokens"):
            return "cut off", f"cut off after {self.output_tokens:,} tokens{thought}"
        if re.search("filter|safety|prohibited|blocklist|recitation|spii", finish):
            return "filtered", f"filtered by the endpoint: {finish}"
        return ("empty", f"empty{thought}, finish_reason {finish or 'none'}") if empty else ("", "")


def data_url(image: ImageRef) -> str:
    """A picture inside the request itself: the one that the student is shown."""
    data, media_type = image.encoded()
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def api_key(service: Service) -> str | None:
    """The key in the environment; None for a service that wants none.

    Raises:
        EndpointRefused: the variable is not set.
    """
    if service.api_key_env is None:
        return None
    key = os.environ.get(service.api_key_env, "").strip()
    if not key:
        raise EndpointRefused(
            f"no key for {service.name}",
            kind="refused",
            where=service.api_key_env,
            why="this environment variable is not set",
            next_step=f"export {service.api_key_env}=…, or name another variable with --api-key-env",
        )
    return key


def custom_service(
    base_url: str,
    model_id: str,
    *,
    input_usd_per_mtok: float = 0.0,
    output_usd_per_mtok: float = 0.0,
    image_tokens: int = MOST_IMAGE_TOKENS,
    api_key_env: str | None = None,
    name: str | None = None,
) -> Service:
    """Describe a service that is not in the catalog, such as a server on this machine.

    Args:
        image_tokens: tokens of one picture, for estimates and reserves.
    """
    price = Teacher(
        name=name or model_id,
        input_usd_per_mtok=input_usd_per_mtok,
        output_usd_per_mtok=output_usd_per_mtok,
        as_of=None,
        source="given on the command line",
        status="given",
        image_tokens=image_tokens,
    )
    return Service(price.name, base_url, model_id, price, api_key_env)
