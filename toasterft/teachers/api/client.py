"""Sends requests to one service: at most so many at once, each retried, each reply paid for once."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from toasterft import paths
from toasterft.teachers.api import completion, transport
from toasterft.teachers.api.budget import SpendLedger
from toasterft.teachers.api.mask import Mask
from toasterft.teachers.api.reply_cache import ReplyCache
from toasterft.teachers.api.trial import Trial
from toasterft.teachers.api.types import (
    EndpointError,
    EndpointRefused,
    FailureKind,
    Reply,
    Request,
    Service,
    SpendCapReached,
    api_key,
)

# Failures after which the endpoint may charge all the same.
MAYBE_BILLED = {"timeout", "dropped", "cancelled"}


@dataclass
class _Call:
    """One request over all its tries, with the reply or the last try's failure, which may have been billed."""

    key: str
    request: Request
    reply: Reply | None = None
    kind: FailureKind = "malformed"
    what: str = ""
    billed: bool = False


# The client retries inside one task and knows nothing of ours: its HTTP client finds here whose try it sends.
_CALL: ContextVar[_Call] = ContextVar("_CALL")


class Endpoint:
    """One service behind the openai client, which retries and backs off; each of its tries is booked here.

    It tries again after a timeout, a broken connection, 408, 409, 429 and 5xx, waits as `Retry-After` asks for up to
    two minutes, and else from 0.5 s doubling to 8 s.

    Args:
        ledger: where replies are booked; one of its own without a file or cap by default.
        concurrency: requests in flight.
        timeout_seconds: for one try, from sending to the last byte.
        tries: per request.
        give_up_after: after this many failed requests in a row the endpoint counts as down: for `rest_seconds` every
            further one fails at once, so that a dead judge does not stall a training.
        cache: False asks again for what other jobs have paid for.
        on_trial: no more than the first five requests leave before `judge` has found a reply of use; where none of
            them is, every further request is refused.

    Attributes:
        notes: what was changed or counted otherwise on the endpoint's account, in words, and how often.

    Raises:
        EndpointRefused: the environment variable that should hold the key is not set.
    """

    def __init__(
        self,
        service: Service,
        ledger: SpendLedger | None = None,
        *,
        concurrency: int = 8,
        timeout_seconds: float = 180.0,
        tries: int = 7,
        give_up_after: int = 5,
        rest_seconds: float = 60.0,
        cache: bool = True,
        on_trial: bool = False,
    ) -> None:
        self.service = service
        self.ledger = ledger or SpendLedger()
        self.timeout_seconds, self.tries = timeout_seconds, tries
        self.give_up_after, self.rest_seconds = give_up_after, rest_seconds
        self.failures: Counter[str] = Counter()
        """Requests that failed for good, by kind."""
        self.notes: Counter[str] = Counter()
        self._where = f"{service.name} at {service.shown_url}"
        self._key = api_key(service)
        self._masked = Mask(self._key, service.base_url)
        self._cache = ReplyCache(paths.cache_dir() / "answers") if cache else None
        self._slots = asyncio.Semaphore(concurrency)
        self._in_flight: dict[str, asyncio.Task[Reply]] = {}
        self._client: Any = None
        self._failed_in_a_row = 0
        self._last_failure = ""
        self._down_until = 0.0
        self._trial = Trial(self._where, holds=on_trial)
        self._first = asyncio.Lock()
        self._calibrated = self.ledger.cap_usd is None
        self._input_factor = 1.0
        # Newer models of OpenAI refuse `max_tokens`, older servers know nothing else.
        self._limit_name = "max_tokens"
        self._left_out: frozenset[str] = frozenset()

    async def ask(self, request: Request) -> Reply:
        """The reply, from the ledger, the cache, or the endpoint.

        Raises:
            EndpointError: no reply after all tries; `SpendCapReached` where the cap leaves no room.
            DataError: an image of the request cannot be read.
        """
        key = request.key(self.service)
        if body := self.ledger.unread.pop(key, None):
            self._read_late(key, request, body)
        known = self._known(key)
        if known is not None:
            return known
        if key not in self._in_flight:
            task = asyncio.ensure_future(self._fetch(key, request))
            self._in_flight[key] = task
            task.add_done_callback(lambda _: self._in_flight.pop(key, None))
        return await asyncio.shield(self._in_flight[key])

    async def try_to_ask(self, request: Request) -> Reply | str:
        """The reply, or the failure in short; raises as `ask` only what ends every other request too."""
        try:
            return await self.ask(request)
        except (EndpointRefused, SpendCapReached):
            raise
        except EndpointError as problem:
            return problem.in_short

    async def judge(self, problem: str | None) -> None:
        """Note of a reply whether it could be used, or what is wrong with its very form.

        Raises:
            EndpointRefused: none of the first replies could be used.
        """
        await self._trial.judge(None if problem is None else self._masked(problem))

    def max_usd(self, request: Request) -> float:
        """The most a request can cost: every output token it allows, and input as this endpoint counts it."""
        return self.service.usd(self._input_tokens(request) * self._input_factor, request.max_tokens)

    def _input_tokens(self, request: Request) -> int:
        """Estimated from the length of the text and the size of the images."""
        return request.text_tokens + sum(
            self.service.price.tokens_of_image(*image.size_px) for image in request.images
        )

    async def settle(self) -> None:
        """Wait for requests that nobody awaits any more, so that what is paid for is booked."""
        await asyncio.gather(*self._in_flight.values(), return_exceptions=True)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    # --- what has been paid for

    def _known(self, key: str) -> Reply | None:
        record = self.ledger.replies.get(key)
        found = Reply.of_record(record) if record is not None else None
        return found or (self._cache.get(key) if self._cache is not None else None)

    def _read_late(self, key: str, request: Request, body: str) -> None:
        """Book a body that a process received and was killed over."""
        try:
            reply = completion.read(body, request, self.service, self._input_tokens(request))
        except completion.NoCompletion:
            return  # counted as lost already
        self.ledger.pay(key, self.service.name, reply)

    # --- a request

    async def _fetch(self, key: str, request: Request) -> Reply:
        import openai

        call = _Call(key, request)
        _CALL.set(call)
        async with self._slots, self._trial.place(lambda: call.reply is not None or call.kind == "rejected"):
            if time.monotonic() < self._down_until:
                call.kind = "down"
                call.what = (
                    f"paused after {self.give_up_after} failures in a row, the last: {self._last_failure}"
                )
                raise self._error(call)
            while call.reply is None:
                form = self._limit_name, self._left_out
                settings = {self._limit_name: request.max_tokens, **request.settings(self.service)}
                body = {name: value for name, value in settings.items() if name not in self._left_out}
                completions = self._opened().chat.completions.with_raw_response
                try:
                    await completions.create(
                        model=self.service.model_id, messages=request.messages(), extra_body=body
                    )
                except openai.OpenAIError:
                    if form == (self._limit_name, self._left_out):
                        error = self._error(call)
                        if call.kind == "rejected":
                            await self._trial.judge(call.what)
                        raise error from None
        self._failed_in_a_row = 0
        self._trial.proven |= not self._trial.holds
        if self._cache is not None:
            self._cache.put(key, call.reply, self.service.shown_url)
        return call.reply

    def _opened(self) -> Any:
        if self._client is None:
            import openai

            self._client = openai.AsyncOpenAI(
                # The library would send OPENAI_API_KEY to whatever address; servers without a key get a word.
                api_key=self._key or "none",
                base_url=self.service.base_url,
                timeout=self.timeout_seconds,
                max_retries=self.tries - 1,
                http_client=transport.http_client(self.timeout_seconds, self._calibrating),
            )
        return self._client

    # --- a try

    async def _calibrating(self, send: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Under a cap the first request goes alone: only its bill tells how this endpoint counts input."""
        if not self._calibrated:
            async with self._first:
                if not self._calibrated:
                    return await self._booked(send)
        return await self._booked(send)

    async def _booked(self, send: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """One try, from reserving its cost to booking what came of it; whatever ends it, the reserve is released."""
        import httpx2  # what the openai client sends with

        call, name, ledger = _CALL.get(), self.service.name, self.ledger
        max_usd = self.max_usd(call.request)
        await ledger.reserve(max_usd)
        call.kind, call.billed = "cancelled", False
        try:
            ledger.sent(call.key, name, max_usd)
            async with asyncio.timeout(self.timeout_seconds):
                text, response = await transport.take_in(await send())
            self._classify(call, text, response)
            return response
        except (TimeoutError, httpx2.TimeoutException):
            call.kind, call.what = "timeout", f"no answer within {self.timeout_seconds:g} s"
            raise httpx2.ReadTimeout(call.what) from None
        except transport.TooLarge as error:
            call.kind, call.what, call.billed = "malformed", str(error), True
            raise httpx2.ReadError(str(error)) from None
        except Exception as error:
            # A connection that was never made carried no request; one that broke may have.
            call.kind = "unreachable" if isinstance(error, httpx2.ConnectError) else "dropped"
            call.what = self._masked(f"the connection failed ({error})")
            raise
        finally:
            if call.reply is None:
                billed = call.billed or call.kind in MAYBE_BILLED
                ledger.fail(call.key, name, call.kind, ledger.likely_usd(name, max_usd) if billed else 0.0)
            else:
                ledger.pay(call.key, name, call.reply)
                factor = call.reply.input_tokens / self._input_tokens(call.request)
                self._input_factor, self._calibrated = max(self._input_factor, factor), True
                if call.reply.own_count:
                    self.notes["the bill of an answer named no believable tokens; they are counted here"] += 1
            await ledger.release(max_usd)

    def _classify(self, call: _Call, text: str, response: Any) -> None:
        """Note the reply or the kind of failure; change the response where the client should retry otherwise."""
        message = "" if response.is_success else completion.words(text)
        if response.is_success:
            self.ledger.receive(call.key, text)
            try:
                call.reply = completion.read(
                    text, call.request, self.service, self._input_tokens(call.request)
                )
                return
            except completion.NoCompletion as problem:
                # As behind a bad gateway where the body names no other status: tried again.
                response.status_code, call.billed, message = problem.status, problem.billed, str(problem)
                call.kind = "malformed"
        status = response.status_code
        call.what = self._masked(f"HTTP {status}: {message}")
        if 300 <= status < 400:
            call.kind = "refused"
            call.what = f"HTTP {status}: requests are sent on to another address, which is not followed"
            if there := urlsplit(response.headers.get("location", "")).hostname:
                call.what += f" ({there})"
        elif (
            status in (401, 402, 404)
            or (status == 403 and not self._trial.proven)
            or "insufficient_quota" in text
        ):
            call.kind = "refused"
            response.headers["x-should-retry"] = "false"  # no patience mends a 429 for want of money
        elif status == 429:
            call.kind = "rate"
        elif status in (408, 409) or status >= 500:
            call.kind = "malformed" if call.kind == "malformed" and status == 502 else "server"
        else:
            call.kind = "rejected"
            self._adapt(message, text, call.request)

    def _adapt(self, message: str, body: str, request: Request) -> None:
        """Leave out the parameter that the endpoint refuses, or call it as it wants it called, from here on."""
        if "max_completion_tokens" in message and self._limit_name == "max_tokens":
            self._limit_name = "max_completion_tokens"
            return
        # `"param": "temperature"`, as OpenAI has it; others name it in their message alone.
        named = message + " ".join(re.findall(r'"param": *"([\w.]+)"', body))
        for name in set(request.settings(self.service)) - self._left_out:
            if re.search(rf"\b{re.escape(name)}\b", named):
                self._left_out |= {name}
                self.notes[self._masked(f"{name} is left out: {message}")] += 1
                return

    def _error(self, call: _Call) -> EndpointError:
        """A request's last failure, counted."""
        self.failures[call.kind] += 1
        if call.kind == "refused":
            key = self.service.api_key_env
            return EndpointRefused(
                call.what,
                kind="refused",
                where=self._where,
                next_step=f"check the key in {key}, the address and the model id"
                if key
                else "check the address and the model id, and name the key's variable with --api-key-env",
            )
        if call.kind not in ("rejected", "down"):
            self._last_failure = call.what
            self._failed_in_a_row += 1
            if self._failed_in_a_row >= self.give_up_after:
                self._down_until = time.monotonic() + self.rest_seconds
                self._failed_in_a_row = 0
        return EndpointError(call.what, kind=call.kind, where=self._where)
