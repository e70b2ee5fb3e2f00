"""Asking from code that is not asynchronous: an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future

from toasterft.errors import ToasterError
from toasterft.teachers.api.client import Endpoint
from toasterft.teachers.api.types import Answer, EndpointError, Request


class Caller:
    """An `Endpoint` for code that is not asynchronous; requests run while the caller does other things.

    >>> with Caller(endpoint) as teacher:
    ...     pending = [teacher.start(request) for request in requests]  # returns at once
    ...     found = teacher.answers(requests)                           # waits

    Args:
        beside: another caller, whose event loop this one uses; needed where both pay from one purse. It is
            to be closed after this one.
    """

    def __init__(self, endpoint: Endpoint, beside: Caller | None = None) -> None:
        self.endpoint = endpoint
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop = beside._loop if beside else asyncio.new_event_loop()
        if beside is not None:
            return
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
        if self._thread is None:
            return
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
