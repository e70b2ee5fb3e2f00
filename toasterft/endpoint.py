"""One client for every OpenAI-compatible endpoint: teachers, judges and refiners, with the bill held down.

    Service    where a model is asked and what it costs
    Request    what it is asked: text, pictures, settings
    Purse      what has been spent over all processes of one job, and how far it may go
    Endpoint   asks, asynchronously: at most so many at once, retried, remembered
    Caller     the same for ordinary code, such as a training step; its event loop has a thread of its own

Every answer is written to the purse's ledger, and synced to disk, before anybody sees it: a process that is
killed loses at most the answers that were on their way. Answers are also kept in the cache folder, under
(endpoint, model, messages, parameters), so that another job with the same question pays nothing.

A request that fails raises an `EndpointError`, one per request, after its retries. Callers count these and
go on without that answer; nothing here ends a run.
"""

from __future__ import annotations

import asyncio
import base64
import email.utils
import fcntl
import hashlib
import io
import json
import math
import os
import random
import re
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from toasterft import places
from toasterft.catalog import Teacher
from toasterft.data.example import ImageRef
from toasterft.data.survey import CHARACTERS_PER_TOKEN
from toasterft.errors import CapReached, ToasterError, UserError

# Raised whenever the same request would be sent in another form, so that old answers are not taken for it.
CACHE_VERSION = 1
# A server that asks for more patience than this is not waited for.
LONGEST_WAIT_SECONDS = 120.0
FIRST_WAIT_SECONDS = 1.0
# Formats that every endpoint reads; others are sent as PNG.
MAGIC = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}
# What Gemini 3 counts for a picture, the most of the models whose count is known; for those where it is not.
MOST_IMAGE_TOKENS = 1120
# What a message adds around its text: roles and separators. Assumed.
MESSAGE_TOKENS = 20

FailureKind = Literal[
    "rejected", "refused", "rate", "server", "timeout", "dropped", "unreachable", "malformed", "down", "cap"
]


class EndpointError(ToasterError):
    """One request got no answer; `kind` says why, for counting."""

    exit_code = 4

    def __init__(self, what: str, *, kind: FailureKind, **facts: Any) -> None:
        super().__init__(what, **facts)
        self.kind: FailureKind = kind


class EndpointRefused(EndpointError, UserError):
    """The endpoint turns every request away: a wrong key, address or model name."""

    exit_code = 2


class SpendCapReached(EndpointError, CapReached):
    """The next request might cost more than the cap leaves; nothing was sent."""

    exit_code = 3


@dataclass(frozen=True)
class Service:
    """Where a model is asked and what it costs.

    Attributes:
        name: what people call it; ledgers and cards say this.
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

    def usd(self, input_tokens: float, output_tokens: float) -> float:
        read = input_tokens * self.price.input_usd_per_mtok
        return (read + output_tokens * self.price.output_usd_per_mtok) / 1e6


@dataclass(frozen=True)
class Request:
    """One question to a model.

    Attributes:
        max_tokens: longest answer, thinking included; also what the spend cap reckons with.
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
        """Everything that is sent besides model and messages."""
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
            "images": [image.sha256 for image in self.images],
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
class Answer:
    """What came back.

    Attributes:
        output_tokens: all that is billed as output; `thinking_tokens` of it were not shown.
        usd: what it cost when it was paid.
        cached: it was paid for earlier, by this job or another one.
    """

    text: str
    finish_reason: str | None
    input_tokens: int
    output_tokens: int
    thinking_tokens: int
    usd: float
    cached: bool = False


def data_url(image: ImageRef) -> str:
    """A picture inside the request itself; formats that few endpoints read become PNG."""
    data = image.bytes()
    mime = next((mime for magic, mime in MAGIC.items() if data.startswith(magic)), None)
    if mime is None:
        buffer = io.BytesIO()
        image.open().save(buffer, format="PNG")
        data, mime = buffer.getvalue(), "image/png"
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


# --- what is spent ---------------------------------------------------------------------------


class Purse:
    """Dollars of one job, over all its processes and endpoints.

    Before a request is sent its largest possible cost is set aside; where the cap leaves no room for that,
    the request waits for others to come in below theirs, and is refused once nothing is on its way. So the
    cap is passed only by an endpoint that bills more than `max_tokens`, and then by no more than the
    requests in flight.

    The ledger is a file of JSON lines that only grows: `sent` before a request, then `paid` with the answer,
    or `failed`. A `sent` without an end belongs to a process that was killed: the endpoint may have billed
    it, so its likely cost counts as spent.

    Args:
        ledger: the file; None keeps nothing, for jobs that the cache alone is enough for.
        cap_usd: the most that may be spent; None for no cap.

    Raises:
        UserError: another process works with the same ledger.
    """

    def __init__(self, ledger: Path | None = None, cap_usd: float | None = None) -> None:
        self.cap_usd = cap_usd
        self.paid_usd = 0.0
        """Dollars of answers that arrived."""
        self.uncertain_usd = 0.0
        """Likely dollars of requests that may have been billed although no answer arrived."""
        self.reserved_usd = 0.0
        """Set aside for requests on their way."""
        self.paid = 0
        self.input_tokens = self.output_tokens = self.thinking_tokens = 0
        self.by_service: dict[str, dict[str, float]] = {}
        self.answers: dict[str, dict[str, Any]] = {}
        self._room = asyncio.Condition()
        self._file: int | None = None
        if ledger is not None:
            self._open(ledger)

    @property
    def spent_usd(self) -> float:
        return self.paid_usd + self.uncertain_usd

    async def reserve(self, usd: float) -> None:
        """Set dollars aside, waiting for room where others may still come in below their reserve.

        Raises:
            SpendCapReached: there is no room, and nothing on its way could make some.
        """
        async with self._room:
            while self.cap_usd is not None and self.spent_usd + self.reserved_usd + usd > self.cap_usd + 1e-9:
                if self.reserved_usd <= 1e-12:
                    raise SpendCapReached(
                        f"the budget of ${self.cap_usd:g} is used up",
                        kind="cap",
                        why=f"${self.spent_usd:.4f} are spent, and one more request may cost ${usd:.4f}",
                        next_step="the same command with a larger --budget goes on from here",
                    )
                await self._room.wait()
            self.reserved_usd += usd

    async def release(self, usd: float) -> None:
        """Give back what was set aside, once the true cost is booked."""
        async with self._room:
            self.reserved_usd = max(0.0, self.reserved_usd - usd)
            self._room.notify_all()

    def sent(self, key: str, service: str, usd: float) -> None:
        """A request is about to leave; `usd` is the most it can cost."""
        # Survives a killed process without a sync; only a power cut could lose it.
        self._append({"event": "sent", "key": key, "service": service, "usd": usd}, sync=False)

    def pay(self, key: str, service: str, answer: Answer) -> None:
        """Book an answer: on disk before this returns."""
        record = {"event": "paid", "key": key, "service": service, **asdict(answer), "at": round(time.time())}
        self._append(record, sync=True)
        self._book(record)

    def fail(self, key: str, service: str, why: str, usd: float) -> None:
        """Book a request without an answer; `usd` is what it may have cost all the same."""
        record = {"event": "failed", "key": key, "service": service, "why": why, "usd": usd}
        self._append(record, sync=False)
        self._book(record)

    def likely_usd(self, service: str, most_usd: float) -> float:
        """What a request that left no bill probably cost: the mean so far, else the most."""
        known = self.by_service.get(service)
        return min(most_usd, known["usd"] / known["answers"]) if known else most_usd

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open(self, ledger: Path) -> None:
        ledger.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._file = os.open(ledger, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise places.disk_error(error, ledger) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.close()
            raise UserError(
                "another process is working with this ledger",
                where=str(ledger),
                next_step="wait for it, or end it: what it paid for is kept",
            ) from None
        lines = ledger.read_bytes().split(b"\n")
        if lines[-1]:
            # A power cut can leave half a line; closing it keeps it from swallowing the next one.
            os.write(self._file, b"\n")
        open_requests: dict[str, dict[str, Any]] = {}
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if record["event"] == "sent":
                # The same request is sent again only after a failure, or by a process after a kill.
                if record["key"] in open_requests:
                    self._book_lost(open_requests[record["key"]])
                open_requests[record["key"]] = record
            else:
                open_requests.pop(record["key"], None)
                self._book(record)
        for record in open_requests.values():
            self._book_lost(record)

    def _book(self, record: dict[str, Any]) -> None:
        if record["event"] == "failed":
            self.uncertain_usd += record["usd"]
            return
        self.answers[record["key"]] = record
        self.paid += 1
        self.paid_usd += record["usd"]
        mine = self.by_service.setdefault(
            record["service"], {"answers": 0, "usd": 0.0, "input_tokens": 0, "output_tokens": 0}
        )
        mine["answers"] += 1
        mine["usd"] += record["usd"]
        for name in ("input_tokens", "output_tokens", "thinking_tokens"):
            setattr(self, name, getattr(self, name) + record[name])
            if name in mine:
                mine[name] += record[name]

    def _book_lost(self, record: dict[str, Any]) -> None:
        self.uncertain_usd += self.likely_usd(record["service"], record["usd"])

    def _append(self, record: dict[str, Any], *, sync: bool) -> None:
        if self._file is None:
            return
        try:
            os.write(self._file, (json.dumps(record, ensure_ascii=False) + "\n").encode())
            if sync:
                os.fsync(self._file)
        except OSError as error:
            raise places.disk_error(error, Path("ledger")) from error


# --- asking ----------------------------------------------------------------------------------


class _Failed(Exception):
    """One try without an answer.

    `again` says whether another try could help; `billed` whether the endpoint may charge for this one;
    `wait_seconds` what it asked for.
    """

    def __init__(
        self,
        kind: FailureKind,
        what: str,
        *,
        again: bool = True,
        billed: bool = False,
        wait_seconds: float | None = None,
    ) -> None:
        super().__init__(what)
        self.kind: FailureKind = kind
        self.what, self.again, self.billed, self.wait_seconds = what, again, billed, wait_seconds


class Endpoint:
    """Asks one service.

    Args:
        purse: where answers are booked; one of its own without a ledger or cap by default.
        concurrency: requests on their way at once.
        timeout_seconds: for one try, from sending to the last byte.
        tries: per request.
        give_up_after: this many requests failed in a row make the endpoint count as down: for
            `rest_seconds` every further one fails at once, so that a dead judge does not stall a training.
        cache: False asks again for what other jobs were answered.

    Raises:
        EndpointRefused: the environment variable that should hold the key is not set.
    """

    def __init__(
        self,
        service: Service,
        purse: Purse | None = None,
        *,
        concurrency: int = 8,
        timeout_seconds: float = 180.0,
        tries: int = 6,
        give_up_after: int = 5,
        rest_seconds: float = 60.0,
        first_wait_seconds: float = FIRST_WAIT_SECONDS,
        cache: bool = True,
    ) -> None:
        self.service = service
        self.purse = purse or Purse()
        self.timeout_seconds, self.tries = timeout_seconds, tries
        self.give_up_after, self.rest_seconds = give_up_after, rest_seconds
        self.first_wait_seconds = first_wait_seconds
        self.failures: dict[str, int] = {}
        """Requests that failed for good, by kind."""
        self.answered = self.remembered = 0
        self._key = _api_key(service)
        self._cache = places.cache_dir() / "answers" if cache else None
        self._slots = asyncio.Semaphore(concurrency)
        self._flying: dict[str, asyncio.Task[Answer]] = {}
        self._client: Any = None
        self._not_before = 0.0
        self._failed_in_a_row = 0
        self._down_until = 0.0
        # Newer models of OpenAI refuse `max_tokens`, older servers know nothing else.
        self._limit_name = "max_tokens"

    async def ask(self, request: Request) -> Answer:
        """The answer, from the ledger, the cache, or the endpoint.

        Raises:
            EndpointError: no answer after all tries; `SpendCapReached` where the cap leaves no room.
            DataError: a picture of the request cannot be read.
        """
        key = request.key(self.service)
        known = self._known(key)
        if known is not None:
            self.remembered += 1
            return known
        if key not in self._flying:
            task = asyncio.ensure_future(self._fetch(key, request))
            self._flying[key] = task
            task.add_done_callback(lambda _: self._flying.pop(key, None))
        return await asyncio.shield(self._flying[key])

    def most_usd(self, request: Request) -> float:
        """The most a request can cost: every output token it allows."""
        images = sum(self.service.price.tokens_of_image(*image.size_px) for image in request.images)
        return self.service.usd(request.text_tokens + images, request.max_tokens)

    async def settle(self) -> None:
        """Wait for requests whose askers have gone, so that what is paid for is booked."""
        await asyncio.gather(*self._flying.values(), return_exceptions=True)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    def _known(self, key: str) -> Answer | None:
        record = self.purse.answers.get(key)
        if record is None and self._cache is not None:
            try:
                record = places.read_json(self._cache / key[:2] / f"{key}.json")
            except UserError:
                record = None  # damaged: asked again
        if record is None:
            return None
        return Answer(**{name: record[name] for name in Answer.__dataclass_fields__} | {"cached": True})

    async def _fetch(self, key: str, request: Request) -> Answer:
        most_usd = self.most_usd(request)
        for number in range(self.tries):
            try:
                async with self._slots:
                    if time.monotonic() < self._down_until:
                        what = f"it rests after {self.give_up_after} failures in a row"
                        raise _Failed("down", what, again=False)
                    await self._patience()
                    answer = await self._try(key, request, most_usd)
            except _Failed as failed:
                wait = self._wait_seconds(number, failed)
                if not failed.again or wait is None or number + 1 == self.tries:
                    raise self._error(failed) from None
                await asyncio.sleep(wait)
            else:
                self.answered += 1
                self._failed_in_a_row = 0
                self._remember(key, answer)
                return answer
        raise AssertionError("unreachable")

    async def _try(self, key: str, request: Request, most_usd: float) -> Answer:
        """One try, from reserve to booking; whatever ends it, the reserve is given back."""
        service, purse = self.service, self.purse
        await purse.reserve(most_usd)
        try:
            purse.sent(key, service.name, most_usd)
            try:
                answer = await self._post(request)
            except _Failed as failed:
                usd = purse.likely_usd(service.name, most_usd) if failed.billed else 0.0
                purse.fail(key, service.name, failed.kind, usd)
                raise
            except BaseException:
                purse.fail(key, service.name, "cancelled", purse.likely_usd(service.name, most_usd))
                raise
            purse.pay(key, service.name, answer)
            return answer
        finally:
            await purse.release(most_usd)

    async def _post(self, request: Request) -> Answer:
        import openai

        body = {
            "model": self.service.model_id,
            "messages": request.messages(),
            self._limit_name: request.max_tokens,
            **request.settings(self.service),
        }
        client = self._opened()
        try:
            async with asyncio.timeout(self.timeout_seconds):
                reply = await client.chat.completions.with_raw_response.create(
                    **{name: body.pop(name) for name in ("model", "messages")}, extra_body=body
                )
                text = reply.text
        except (TimeoutError, openai.APITimeoutError):
            raise _Failed("timeout", f"no answer within {self.timeout_seconds:g} s", billed=True) from None
        except openai.APIConnectionError as error:
            # A connection that was never made carried no request; one that broke may have.
            never = type(error.__cause__).__name__.startswith("Connect")
            raise _Failed(
                "unreachable" if never else "dropped",
                self._masked(f"the connection failed ({error.__cause__ or error})"),
                billed=not never,
            ) from None
        except openai.APIStatusError as error:
            raise self._status_failure(error) from None
        except openai.OpenAIError as error:
            raise _Failed("malformed", self._masked(str(error)), billed=True) from None
        return self._read(text, request)

    def _opened(self) -> Any:
        if self._client is None:
            import openai

            self._client = openai.AsyncOpenAI(
                # The library would send OPENAI_API_KEY to whatever address; servers without a key get a word.
                api_key=self._key or "none",
                base_url=self.service.base_url,
                timeout=self.timeout_seconds,
                max_retries=0,
            )
        return self._client

    def _status_failure(self, error: Any) -> _Failed:
        """What an HTTP status means for the next try."""
        status, said = error.status_code, self._masked(_said(error))
        what = f"HTTP {status}: {said}"
        # "insufficient_quota" is a 429 that no patience mends.
        if status in (401, 402, 403, 404) or "insufficient_quota" in str(error.body):
            return _Failed("refused", what, again=False)
        if status == 429:
            return _Failed("rate", what, wait_seconds=_retry_after(error.response.headers))
        if status in (408, 409) or status >= 500:
            return _Failed("server", what, wait_seconds=_retry_after(error.response.headers))
        if self._limit_name == "max_tokens" and "max_completion_tokens" in said:
            self._limit_name = "max_completion_tokens"
            return _Failed("rejected", what, wait_seconds=0.0)
        return _Failed("rejected", what, again=False)

    def _read(self, text: str, request: Request) -> Answer:
        """A 200 as an `Answer`; it may have been billed even where it makes no sense."""
        try:
            reply = json.loads(text)
            choice = reply["choices"][0]
            said = choice["message"].get("content") or ""
            if not isinstance(said, str):
                said = "".join(part.get("text", "") for part in said)
            usage = {name: value or 0 for name, value in (reply.get("usage") or {}).items()}
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            what = f"the answer is no chat completion ({type(error).__name__})"
            raise _Failed("malformed", what, billed=True) from None
        read, written = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
        thought = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
        # Gemini's interface leaves thinking tokens out of `completion_tokens` and bills them as output; the
        # total has them. Some proxies give 0 completion tokens beside the thinking ones.
        written = max(written, usage.get("total_tokens", 0) - read, thought)
        if not usage:
            images = sum(self.service.price.tokens_of_image(*image.size_px) for image in request.images)
            read, written = request.text_tokens + images, math.ceil(len(said) / CHARACTERS_PER_TOKEN)
        return Answer(
            text=said,
            finish_reason=choice.get("finish_reason"),
            input_tokens=read,
            output_tokens=written,
            thinking_tokens=thought or max(0, written - usage.get("completion_tokens", written)),
            usd=self.service.usd(read, written),
        )

    async def _patience(self) -> None:
        """Wait while the endpoint has asked everybody to."""
        while (left := self._not_before - time.monotonic()) > 0:
            await asyncio.sleep(left)

    def _wait_seconds(self, number: int, failed: _Failed) -> float | None:
        """Seconds before the next try; None where the endpoint asks for too many."""
        if failed.wait_seconds is not None:
            if failed.wait_seconds > LONGEST_WAIT_SECONDS:
                return None
            # A rate limit holds for all requests, not for the one that met it.
            self._not_before = max(self._not_before, time.monotonic() + failed.wait_seconds)
            return failed.wait_seconds
        # Half to all of a doubling time, so that requests that failed together do not return together.
        return min(LONGEST_WAIT_SECONDS, self.first_wait_seconds * 2.0**number) * random.uniform(0.5, 1.0)

    def _error(self, failed: _Failed) -> EndpointError:
        """The last failure of a request, counted."""
        self.failures[failed.kind] = self.failures.get(failed.kind, 0) + 1
        where = f"{self.service.name} at {self.service.base_url}"
        if failed.kind == "refused":
            key = self.service.api_key_env
            return EndpointRefused(
                failed.what,
                kind="refused",
                where=where,
                next_step=f"check the key in {key}, the address and the model id"
                if key
                else "check the address and the model id, and name the key's variable with --api-key-env",
            )
        if failed.kind not in ("rejected", "down"):
            self._failed_in_a_row += 1
            if self._failed_in_a_row >= self.give_up_after:
                self._down_until = time.monotonic() + self.rest_seconds
                self._failed_in_a_row = 0
        return EndpointError(failed.what, kind=failed.kind, where=where)

    def _remember(self, key: str, answer: Answer) -> None:
        if self._cache is None:
            return
        path = self._cache / key[:2] / f"{key}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        places.write_json(path, {"endpoint": self.service.base_url, **asdict(answer)})

    def _masked(self, text: str) -> str:
        """No key reaches a message, not even in part as some endpoints echo it."""
        if self._key:
            text = text.replace(self._key, "***")
        return re.sub(r"\b(?:sk-|AIza|key-|hf_)[\w*.-]{4,}|(?<=Bearer )\S+", "***", text)[:300]


def _api_key(service: Service) -> str | None:
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


def _said(error: Any) -> str:
    """The endpoint's own words in an error body, whatever its shape (Google sends a list)."""
    body = error.body[0] if isinstance(error.body, list) and error.body else error.body
    inner = body.get("error", body) if isinstance(body, dict) else body
    text = inner.get("message", inner) if isinstance(inner, dict) else inner
    return " ".join(str(text or error.message).split())


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds asked for in `Retry-After`: a number, or a date."""
    value = headers.get("retry-after")
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


# --- ordinary code ---------------------------------------------------------------------------


class Caller:
    """An `Endpoint` for code that is not asynchronous; requests run while the caller does other things.

    >>> with Caller(endpoint) as teacher:
    ...     pending = [teacher.start(request) for request in requests]  # returns at once
    ...     found = teacher.answers(requests)                           # waits
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="toasterft-endpoint", daemon=True)
        self._thread.start()

    def start(self, request: Request) -> Future[Answer]:
        """Send a request and return at once; `.result()` waits, and raises what `Endpoint.ask` raises."""
        return asyncio.run_coroutine_threadsafe(self.endpoint.ask(request), self._loop)

    def answers(
        self, requests: Iterable[Request], timeout_seconds: float | None = None
    ) -> Sequence[Answer | ToasterError]:
        """One answer or error per request, in order; never raises for one of them.

        Args:
            timeout_seconds: for all of them together; those still missing become errors, and go on in the
                background, so that the next asking finds them.
        """
        pending = [self.start(request) for request in requests]
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        found: list[Answer | ToasterError] = []
        for future in pending:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                found.append(future.result(left))
            except TimeoutError:
                found.append(EndpointError("not answered in time", kind="timeout"))
            except ToasterError as problem:
                found.append(problem)
        return found

    def close(self) -> None:
        """Drop what is still on its way and end the thread."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self.endpoint.close()

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def given(
    base_url: str,
    model_id: str,
    *,
    input_usd_per_mtok: float = 0.0,
    output_usd_per_mtok: float = 0.0,
    image_tokens: int = MOST_IMAGE_TOKENS,
    api_key_env: str | None = None,
    name: str | None = None,
) -> Service:
    """A service that no catalog row describes, such as a server on this machine.

    Args:
        image_tokens: tokens of one picture, for estimates and for what is set aside before a request.
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


def with_price(service: Service, input_usd: float | None, output_usd: float | None) -> Service:
    """The same service at other prices per million tokens; None keeps one."""
    changed = {"input_usd_per_mtok": input_usd, "output_usd_per_mtok": output_usd}
    known = {name: value for name, value in changed.items() if value is not None}
    if not known:
        return service
    price = replace(service.price, **known, source="given on the command line", as_of=None, later=None)
    return replace(service, price=price)
