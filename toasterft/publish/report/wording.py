"""Figures in words where a page needs more digits than a terminal's column."""

from __future__ import annotations

import math
from typing import Any

from toasterft.estimation import Range
from toasterft.units import duration, ranged_time

Rate = dict[str, float]
LONGEST_NAME = 60


def clock(seconds: float | None) -> str:
    """A measured time, with two or three figures."""
    if seconds is None or seconds < 100:
        return duration(seconds)
    unit, size = ("min", 60) if seconds < 5400 else ("h", 3600)
    return f"{seconds / size:.1f} {unit}"


def money(usd: float | None) -> str:
    """Dollars, small amounts with two figures."""
    if usd is None:
        return "–"
    if usd >= 0.095 or usd <= 0:
        return f"${usd:,.2f}"
    return f"${usd:.{min(6, 1 - math.floor(math.log10(usd)))}f}" if usd >= 1e-6 else "under $0.000001"


def money_range(values: Range) -> str:
    if not values.high:
        return "$0.00"
    low, high = (money(each).removeprefix("$") for each in (values.low, values.high))
    return f"{money(values.likely)} ({low}–{high})"


def time_range(values: Range) -> str:
    return "under 1 s" if values.high < 0.95 else ranged_time(values)


def time_like(values: Range, seconds: float | None) -> str:
    """A measured time in the unit in which `time_range` writes the predicted one."""
    if seconds is None:
        return "–"
    if values.high < 600:
        return f"{seconds:.0f} s" if seconds >= 9.5 else f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if values.likely < 5400 else f"{seconds / 3600:.1f} h"


def share(rate: Rate) -> str:
    return f"{100 * rate['value']:.1f} %"


def interval(rate: Rate) -> str:
    return f"{100 * rate['low']:.1f}–{100 * rate['high']:.1f}"


def points(difference: Rate) -> str:
    return f"{100 * difference['value']:+.1f}".replace("-", "−")


def points_interval(difference: Rate) -> str:
    return f"{100 * difference['low']:+.1f} to {100 * difference['high']:+.1f}".replace("-", "−")


def per_point(found: dict[str, float | None] | None, write: Any) -> tuple[str, str]:
    """What a point cost, and its bounds; where the upper one is open, the lower one is all that is known."""
    if found is None:
        return "–", ""
    if found["high"] is None:
        return write(found["low"]), "or more"
    return write(found["value"]), f"{write(found['low'])} to {write(found['high'])}"


def cut(text: str, longest: int) -> str:
    """The text, its end left out where it is long; that is said."""
    text = text.strip()
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text) - longest:,} more characters)"


def name(text: str) -> str:
    """A name that others gave (a kind, a label, a reward), short enough for a table."""
    return text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…"


def when(moment: Any) -> str:
    """Date and minute of an ISO time."""
    return str(moment or "").replace("T", " ")[:16]
