"""Asking on the side: work that wants a model's opinion, but must neither wait long nor fail for it."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass

from toasterft.errors import ToasterError
from toasterft.teachers.api.caller import Caller
from toasterft.teachers.api.client import Endpoint
from toasterft.teachers.api.types import Answer, EndpointError, EndpointRefused, Request

# A step of a training waits for an answer no longer than this, counted from sending.
WAIT_SECONDS = 60.0


@dataclass
class _Pending:
    """One request on its way; `wanted` answers of it have yet to be fetched."""

    future: Future[Answer]
    sent: float
    wanted: int = 0


class BackgroundRequests:
    """One service, asked while other work goes on: `start` returns at once, `answer` never raises.

    Args:
        beside: another one that pays from the same purse; both then share one event loop, as they must.

    Attributes:
        failures: requests without an answer, by kind; `late` came in after `WAIT_SECONDS`, if at all.
        problem: the last failure in words, for people.
    """

    def __init__(self, endpoint: Endpoint, beside: BackgroundRequests | None = None) -> None:
        self.failures: Counter[str] = Counter()
        self.problem = ""
        self._caller: Caller = Caller(endpoint, beside._caller if beside is not None else None)
        self._pending: dict[str, _Pending] = {}
        self._refused = False

    @property
    def service_name(self) -> str:
        return self._caller.endpoint.service.name

    def start(self, request: Request) -> None:
        """Send a request. To be called once for each `answer`; the same request leaves once."""
        if self._refused:
            return
        key = request.key(self._caller.endpoint.service)
        if key not in self._pending:
            self._pending[key] = _Pending(self._caller.start(request), time.monotonic())
        self._pending[key].wanted += 1

    def answer(self, request: Request) -> Answer | None:
        """The answer of a request that was started; None where there is none, counted by its reason.

        What comes too late is kept all the same, and is there when the same is asked again.
        """
        key = request.key(self._caller.endpoint.service)
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
        """Drop what is still on its way."""
        self._caller.close()

    def _failed(self, kind: str, problem: str) -> Answer | None:
        self.failures[kind] += 1
        self.problem = problem
        return None
