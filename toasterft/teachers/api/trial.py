"""The first requests to an endpoint: no more of them leave than it takes to see that it is of no use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from toasterft.teachers.api.types import EndpointRefused

# A model that cannot answer, or not in the form that is wanted, is found out by so many requests.
FIRST_REQUESTS = 5


class Trial:
    """Holds requests back until one of the first few was of use; where none is, it refuses every further one.

    Args:
        where: the endpoint, for the refusal.
        holds: False lets every request pass, and counts only.

    Attributes:
        proven: a reply was of use.
    """

    def __init__(self, where: str, *, holds: bool) -> None:
        self.where, self.holds, self.proven = where, holds, False
        self._left = FIRST_REQUESTS
        self._problems: list[str] = []
        self._refusal: EndpointRefused | None = None
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def place(self, is_settled: Callable[[], bool]) -> AsyncIterator[None]:
        """Wait for one of the first places, while they are held; given back where a request says nothing.

        Args:
            is_settled: whether the request brought something to be judged.
        """
        if self.proven or not self.holds:
            yield
            return
        async with self._changed:
            await self._changed.wait_for(lambda: self.proven or self._refusal or self._left > 0)
            self._left -= 1
        try:
            if self._refusal is not None:
                raise self._refusal
            yield
        finally:
            if not is_settled():
                async with self._changed:
                    self._left += 1
                    self._changed.notify_all()

    async def judge(self, problem: str | None) -> None:
        """Note that a reply was of use, or what is wrong with its very form.

        Raises:
            EndpointRefused: none of the first ones was.
        """
        async with self._changed:
            if problem is None:
                self.proven = True
            elif not self.proven:
                self._problems.append(problem)
                if len(self._problems) >= FIRST_REQUESTS:
                    self._refusal = self._refusal or self._refuse()
            self._changed.notify_all()
        if self._refusal is not None:
            raise self._refusal

    def _refuse(self) -> EndpointRefused:
        last = self._problems[-1]
        return EndpointRefused(
            f"none of the first {FIRST_REQUESTS} requests brought an answer of use: {last}",
            kind="refused",
            where=self.where,
            details=sorted({*self._problems} - {last}),
            next_step="a larger --max-tokens, or a model that thinks less"
            if "cut off" in last
            else "check the model id, its settings and what it can do, or name another teacher",
        )
