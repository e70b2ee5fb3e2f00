"""Asks one service: at most so many requests at once, each retried, each answer paid for once."""

from __future__ import annotations

import asyncio
import email.utils
import json
import math
import random
import re
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from toasterft import paths
from toasterft.data.token_stats import CHARACTERS_PER_TOKEN
from toasterft.errors import UserError
from toasterft.teachers.api.budget import SpendLedger
from toasterft.teachers.api.types import (
    Answer,
    EndpointError,
    EndpointRefused,
    FailureKind,
    Request,
    Service,
    api_key,
)

# A server that asks for more patience than this is not waited for.
LONGEST_WAIT_SECONDS = 120.0
FIRST_WAIT_SECONDS = 1.0


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
        purse: SpendLedger | None = None,
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
        self.purse = purse or SpendLedger()
        self.timeout_seconds, self.tries = timeout_seconds, tries
        self.give_up_after, self.rest_seconds = give_up_after, rest_seconds
        self.first_wait_seconds = first_wait_seconds
        self.failures: dict[str, int] = {}
        """Requests that failed for good, by kind."""
        self._key = api_key(service)
        self._cache = paths.cache_dir() / "answers" if cache else None
        self._slots = asyncio.Semaphore(concurrency)
        self._flying: dict[str, asyncio.Task[Answer]] = {}
        self._client: Any = None
        self._not_before = 0.0
        self._failed_in_a_row = 0
        self._down_until = 0.0
        self._first = asyncio.Lock()
        self._measured = self.purse.cap_usd is None
        self._dearer = 1.0
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
            return known
        if key not in self._flying:
            task = asyncio.ensure_future(self._fetch(key, request))
            self._flying[key] = task
            task.add_done_callback(lambda _: self._flying.pop(key, None))
        return await asyncio.shield(self._flying[key])

    def most_usd(self, request: Request) -> float:
        """The most a request can cost: every output token it allows, and input as this endpoint counts it."""
        return self.service.usd(self._input_tokens(request) * self._dearer, request.max_tokens)

    def _input_tokens(self, request: Request) -> int:
        """Estimated from the length of the text and the size of the pictures."""
        return request.text_tokens + sum(
            self.service.price.tokens_of_image(*image.size_px) for image in request.images
        )

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
                record = paths.read_json(self._cache / key[:2] / f"{key}.json")
            except UserError:
                record = None  # damaged: asked again
        if record is None:
            return None
        return Answer(**{name: record[name] for name in Answer.__dataclass_fields__} | {"cached": True})

    async def _fetch(self, key: str, request: Request) -> Answer:
        for number in range(self.tries):
            try:
                async with self._slots:
                    if time.monotonic() < self._down_until:
                        what = f"it rests after {self.give_up_after} failures in a row"
                        raise _Failed("down", what, again=False)
                    await self._patience()
                    answer = await self._measuring(key, request)
            except _Failed as failed:
                wait = self._wait_seconds(number, failed)
                if not failed.again or wait is None or number + 1 == self.tries:
                    raise self._error(failed) from None
                await asyncio.sleep(wait)
            else:
                self._failed_in_a_row = 0
                self._remember(key, answer)
                return answer
        raise AssertionError("unreachable")

    async def _measuring(self, key: str, request: Request) -> Answer:
        """Under a cap the first request goes alone: only its bill tells how this endpoint counts input."""
        if not self._measured:
            async with self._first:
                if not self._measured:
                    return await self._try(key, request)
        return await self._try(key, request)

    async def _try(self, key: str, request: Request) -> Answer:
        """One try, from reserve to booking; whatever ends it, the reserve is given back."""
        service, purse, most_usd = self.service, self.purse, self.most_usd(request)
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
            self._dearer = max(self._dearer, answer.input_tokens / self._input_tokens(request))
            self._measured = True
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
            usage: dict[str, Any] = {name: value or 0 for name, value in (reply.get("usage") or {}).items()}
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            what = f"the answer is no chat completion ({type(error).__name__})"
            raise _Failed("malformed", what, billed=True) from None
        read, written = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
        thought = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
        # Gemini's interface leaves thinking tokens out of `completion_tokens` and bills them as output; the
        # total has them. Some proxies give 0 completion tokens beside the thinking ones.
        written = max(written, usage.get("total_tokens", 0) - read, thought)
        if not usage:
            read, written = self._input_tokens(request), math.ceil(len(said) / CHARACTERS_PER_TOKEN)
        return Answer(
            text=said,
            finish_reason=choice.get("finish_reason"),
            input_tokens=read,
            output_tokens=written,
            thinking_tokens=max(thought, written - usage.get("completion_tokens", written)),
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
        paths.write_json(path, {"endpoint": self.service.base_url, **asdict(answer)})

    def _masked(self, text: str) -> str:
        """No key reaches a message, not even in part as some endpoints echo it."""
        if self._key:
            text = text.replace(self._key, "***")
        return re.sub(r"\b(?:sk-|AIza|key-|hf_)[\w*.-]{4,}|(?<=Bearer )\S+", "***", text)[:300]


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
