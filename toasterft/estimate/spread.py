"""A range instead of false precision."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Low, likely and high value of one quantity."""

    low: float
    likely: float
    high: float

    def times(self, factor: float) -> Spread:
        return Spread(self.low * factor, self.likely * factor, self.high * factor)
