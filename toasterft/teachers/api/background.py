"""API requests in the background that never raise: for code that is not asynchronous, such as a training step."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass

from toasterft.errors import ToasterError
from toasterft.teachers.api.client import Endpoint
from toasterft.teachers.api.types import EndpointError, EndpointRefused, Reply, Request

# A step of a training waits for a reply no longer than this, counted from sending.
WAIT_SECONDS = 60.0


@dataclass
class _Pending:
    """One request in flight; `wanted` replies of it have yet to be fetched."""

    future: Future[Reply]
    sent: float
    wanted: int = 0


class BackgroundRequests:
    """One endpoint on an event loop in a thread of its own: `start` returns at once, `reply` waits only so long.

    Args:
        beside: another one whose event loop this one uses, needed where both pay from one ledger; it is to be closed
            after this one.

    Attributes:
        failures: requests without a reply, by kind; `late` came in after `WAIT_SECONDS`, if at all.
        problem: the last failure in words, for people.
    """

    def __init__(self, endpoint: Endpoint, beside: BackgroundRequests | None = None) -> None:
        self.endpoint = endpoint
        self.failures: Counter[str] = Counter()
        self.problem = ""
        self._pending: dict[str, _Pending] = {}
        self._refused = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop = beside._loop if beside else asyncio.new_event_loop()
        if beside is None:
            self._thread = threading.Thread(target=self._loop.run_forever, name="toasterft-api", daemon=True)
            self._thread.start()

    def start(self, request: Request) -> None:
        """Send a request. To be called once for each `reply`; the same request leaves once."""
        if self._refused:
            return
        key = request.key(self.endpoint.service)
        if key not in self._pending:
            future = asyncio.run_coroutine_threadsafe(self.endpoint.ask(request), self._loop)
            self._pending[key] = _Pending(future, time.monotonic())
        self._pending[key].wanted += 1

    def reply(self, request: Request) -> Reply | None:
        """The reply to a request that was started; None where there is none, counted by its reason.

        A reply that comes too late is kept all the same, and is there when the same is asked again.
        """
        key = request.key(self.endpoint.service)
        if key not in self._pending:
            self.start(request)
        if self._refused:  # a wrong key does not become right by asking again
            return self._failed("refused", self.problem)
        pending = self._pending[key]
        pending.wanted -= 1
        if not pending.wanted:
            del self._pending[key]
        try:
            return pending.future.result(max(0.0, pending.sent + WAIT_SECONDS - time.monotonic()))
        except TimeoutError:
            return self._failed("late", f"no answer within {WAIT_SECONDS:g} s")
        except EndpointError as problem:
            self._refused = isinstance(problem, EndpointRefused)
            return self._failed(problem.kind, problem.what)
        except ToasterError as problem:
            return self._failed("other", problem.what)

    def close(self) -> None:
        """Cancel what is in flight, and end the thread."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._cancel(), self._loop).result()
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _cancel(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self.endpoint.close()

    def _failed(self, kind: str, problem: str) -> Reply | None:
        self.failures[kind] += 1
        self.problem = problem
        return None
