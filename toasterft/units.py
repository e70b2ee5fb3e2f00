"""The text of every figure a person reads: bytes, seconds, dollars, shares, points, and ranges of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

NOTHING = "–"
Rate = dict[str, float]
"""A share or a difference of shares, with the bounds of its 95 % interval: value, low, high."""


def amount(value: Any, *, free: bool = False) -> float:
    """Dollars, hours or a price that somebody gave, as a number.

    Args:
        free: 0 is one too: the price of a server of one's own.

    Raises:
        ValueError: it is not above 0, infinite, or no number (`nan` would be held against nothing, and never reached).
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if math.isfinite(number) and (number > 0 or (free and number == 0)):
        return number
    raise ValueError(f"{value} is no amount: it must be a finite number{'' if free else ' above 0'}")


@dataclass(frozen=True)
class Range:
    """Low, likely and high value of one quantity."""

    low: float
    likely: float
    high: float

    def times(self, factor: float) -> Range:
        return self.each(lambda value: value * factor)

    def each(self, change: Callable[..., float], *others: Range) -> Range:
        """The same change to all three (with those of `others`), which must keep their order."""
        ranges = (self, *others)
        return Range(
            change(*(one.low for one in ranges)),
            change(*(one.likely for one in ranges)),
            change(*(one.high for one in ranges)),
        )

    @staticmethod
    def sum(parts: Iterable[Range]) -> Range:
        """All low together, all high together: what makes one part slow makes the others slow as well."""
        return Range(0, 0, 0).each(lambda *values: sum(values), *parts)


def size(count: float | None) -> str:
    """Bytes as GB or MB (powers of ten, like the figures on the card's box)."""
    if count is None:
        return NOTHING
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.0f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def duration(seconds: float | None) -> str:
    """Seconds as s, min or h, with two or three figures."""
    if seconds is None:
        return NOTHING
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 9.5 or seconds == 0 else f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def ranged_time(values: Range) -> str:
    """likely (low–high), all in the unit that suits them."""
    if values.high < 0.95:
        return "under 1 s"
    unit, seconds = _time_unit(values)
    low, likely, high = (
        f"{part:.0f}" if part >= 9.5 or unit == "s" else f"{part:.1f}"
        for part in (value / seconds for value in (values.low, values.likely, values.high))
    )
    return f"{likely} ({low}–{high}) {unit}"


def time_like(values: Range, seconds: float | None) -> str:
    """A measured time in the unit in which `ranged_time` writes the predicted one."""
    if seconds is None:
        return NOTHING
    unit, factor = _time_unit(values)
    whole = unit == "s" and seconds >= 9.5
    return f"{seconds / factor:.{0 if whole else 1}f} {unit}"


def _time_unit(values: Range) -> tuple[str, int]:
    if values.high < 600:
        return "s", 1
    return ("min", 60) if values.likely < 5400 else ("h", 3600)


def dollars(usd: float | None) -> str:
    """Dollars and cents; less than ten cents with two figures."""
    if usd is None:
        return NOTHING
    if usd >= 0.095 or usd <= 0:
        return f"${usd:,.2f}"
    return f"${usd:.{min(6, 1 - math.floor(math.log10(usd)))}f}" if usd >= 1e-6 else "under $0.000001"


def ranged_usd(values: Range) -> str:
    """likely (low–high) dollars; one figure where they are all nothing."""
    if not values.high:
        return dollars(0)
    low, high = (
        f"{value:,.0f}" if value >= 9.5 else dollars(value).replace("$", "")
        for value in (values.low, values.high)
    )
    return f"{dollars(values.likely)} ({low}–{high})"


def share(rate: Rate) -> str:
    return f"{100 * rate['value']:.1f} %"


def interval(rate: Rate, decimals: int = 1) -> str:
    """The 95 % interval of a rate, in per cent without the sign."""
    return f"{100 * rate['low']:.{decimals}f}–{100 * rate['high']:.{decimals}f}"


def percent(rate: Rate | None) -> str:
    """A rate with its 95 % interval."""
    return NOTHING if rate is None else f"{share(rate)} ({interval(rate)})"


def points(difference: Rate) -> str:
    """A difference of two rates in percentage points."""
    return f"{100 * difference['value']:+.1f}".replace("-", "−")


def points_interval(difference: Rate) -> str:
    return f"{100 * difference['low']:+.1f} to {100 * difference['high']:+.1f}".replace("-", "−")


def gain(difference: Rate) -> str:
    """A difference of two rates in percentage points, with its 95 % interval."""
    return f"{points(difference)} ({points_interval(difference)})"


def p_value(value: float) -> str:
    return "<0.0001" if value < 1e-4 else f"{value:.4f}" if value < 0.01 else f"{value:.3f}"


def when(moment: Any) -> str:
    """Date and minute of an ISO time."""
    return str(moment or "").replace("T", " ")[:16]


def shorten(text: str, longest: int = 60) -> str:
    """The beginning of a text, short enough for a table, with an ellipsis where there was more."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def excerpt(text: str, longest: int) -> str:
    """The beginning of a text, and how many characters were left out."""
    text = text.strip()
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text) - longest:,} more characters)"


def one_line(text: Any) -> str:
    """Printable characters of a text on one line: what a model wrote may hold anything."""
    return " ".join("".join(each if each.isprintable() else " " for each in str(text)).split())


def markdown_table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown; columns that start with `>` are right-aligned."""

    def drawn(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("\\", "\\\\").replace("|", "\\|") for cell in cells) + " |"

    columns = list(columns)
    rule = "|" + "|".join("--:" if column.startswith(">") else "---" for column in columns) + "|"
    return "\n".join([drawn(column.removeprefix(">") for column in columns), rule, *map(drawn, rows)])
