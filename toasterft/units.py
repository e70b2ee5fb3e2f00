"""Figures as people read them: bytes, seconds, dollars, points, and ranges of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Range:
    """Low, likely and high value of one quantity."""

    low: float
    likely: float
    high: float

    def times(self, factor: float) -> Range:
        return self.each(lambda value: value * factor)

    def each(self, change: Callable[[float], float]) -> Range:
        """The same change to all three, which must keep their order."""
        return Range(change(self.low), change(self.likely), change(self.high))

    @staticmethod
    def sum(parts: Iterable[Range]) -> Range:
        """All low together, all high together: what makes one part slow makes the others slow as well."""
        found = list(parts)
        return Range(
            sum(part.low for part in found),
            sum(part.likely for part in found),
            sum(part.high for part in found),
        )


def size(count: float | None) -> str:
    """Bytes as GB or MB (powers of ten, like the figures on the card's box)."""
    if count is None:
        return "–"
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.0f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def duration(seconds: float | None) -> str:
    """Seconds as s, min or h; two leading figures are all an estimate is worth."""
    if seconds is None:
        return "–"
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 9.5 or seconds == 0 else f"{seconds:.1f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def dollars(usd: float | None) -> str:
    if usd is None:
        return "–"
    return f"${usd:.2f}" if usd >= 0.095 or usd == 0 else f"${usd:.3f}"


def percent(rate: dict[str, float] | None) -> str:
    """A rate with its 95 % interval."""
    if rate is None:
        return "–"
    return f"{100 * rate['value']:.1f} % ({100 * rate['low']:.1f}–{100 * rate['high']:.1f})"


def points(difference: dict[str, float]) -> str:
    """A difference of two rates in percentage points, with its 95 % interval."""
    value, low, high = (100 * difference[name] for name in ("value", "low", "high"))
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"


def spread(values: Any, unit: Any) -> str:
    """low–high with the likely value first."""
    return f"{unit(values.likely)}  ({unit(values.low)} – {unit(values.high)})"


def ranged_time(values: Range) -> str:
    """likely (low–high), all in the unit that suits them."""
    if values.high < 600:
        unit, seconds = "s", 1
    else:
        unit, seconds = ("min", 60) if values.likely < 5400 else ("h", 3600)

    def figure(value: float) -> str:
        part = value / seconds
        return f"{part:.0f}" if part >= 9.5 or unit == "s" else f"{part:.1f}"

    return f"{figure(values.likely)} ({figure(values.low)}–{figure(values.high)}) {unit}"


def ranged_usd(values: Range) -> str:
    """likely (low–high) dollars; one figure where they are all nothing."""
    if not values.high:
        return dollars(0)
    digits = 0 if values.likely >= 9.5 else 2 if values.likely >= 0.095 else 3
    return f"{dollars(values.likely)} ({values.low:.{digits}f}–{values.high:.{digits}f})"
