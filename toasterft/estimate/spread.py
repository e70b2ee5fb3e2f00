"""A range instead of false precision."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Low, likely and high value of one quantity."""

    low: float
    likely: float
    high: float

    def times(self, factor: float) -> Spread:
        return self.each(lambda value: value * factor)

    def each(self, change: Callable[[float], float]) -> Spread:
        """The same change to all three, which must keep their order."""
        return Spread(change(self.low), change(self.likely), change(self.high))

    @staticmethod
    def sum(parts: Iterable[Spread]) -> Spread:
        """All low together, all high together: what makes one part slow makes the others slow as well."""
        found = list(parts)
        return Spread(
            sum(part.low for part in found),
            sum(part.likely for part in found),
            sum(part.high for part in found),
        )
