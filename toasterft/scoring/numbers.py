"""Numbers as they are written, and when two of them are the same.

A reading of a whole number up to 100 or of a year is right only if it is exact, any other within 1 %; after
"about" or "around" 5 % are forgiven (ChartQA's own tolerance). The result of a calculation must be right to
the last digit that is written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite
from typing import Any

from toasterft import scoring
from toasterft.scoring.traces.sentences import cleaned

_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
NUM = (
    r"(?<![\w.,])-?(?:\d{1,15}(?:\.\d{1,12})?|\.\d{1,12})(?:%|\s(?:thousand|million|billion|trillion)\b)?"
    r"(?![\w%]|[.,]\d)"
)
HEDGE = r"(?:≈|about|approximately|approx\.?|around|roughly|nearly|almost|close to|just (?:over|under|above|below))"
HEDGED = re.compile(HEDGE + r"\s*$", re.IGNORECASE)
WORD_NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six"),
    *("seven", "eight", "nine", "ten", "eleven", "twelve"),
)


@dataclass(frozen=True)
class Number:
    """A number as it is written: `unit` is the worth of its last digit, `scale` what "million" stands for."""

    value: Fraction
    unit: Fraction = Fraction(0)
    percent: bool = False
    hedged: bool = False
    scale: int = 1

    @property
    def readings(self) -> tuple[Fraction, ...]:
        """What it can mean on a chart, whose unit may be the percent or the million already."""
        return self.value, self.value / (100 if self.percent else self.scale)


def number(text: str, hedged: bool = False) -> Number:
    """Read what `NUM` has found, or a number word up to twelve."""
    text = text.strip().lower()
    if text in WORD_NUMBERS:
        return Number(Fraction(WORD_NUMBERS.index(text)), Fraction(1))
    text, _, scale = text.partition(" ")
    percent, text = text.endswith("%"), text.rstrip("%")
    times = _SCALES.get(scale, 1)
    decimals = len(text.partition(".")[2])
    return Number(Fraction(text) * times, Fraction(times, 10**decimals), percent, hedged, times)


def _exact(value: Fraction) -> bool:
    """Whole numbers up to 100 and years leave nothing to estimate."""
    return value.denominator == 1 and (abs(value) <= 100 or 1900 <= value <= 2099)


def same_reading(said: Number, true: Fraction) -> bool:
    """Whether a value was read right: exactly, within 1 %, or within 5 % where the trace says "about"."""
    slack = scoring.TOLERANCE if said.hedged else 0 if _exact(true) else 0.01
    return any(abs(value - true) <= slack * abs(true) for value in said.readings)


def same_result(said: Number, true: Fraction) -> bool:
    """Whether a calculation's result is right to its last digit, rounded or cut off."""
    off = abs(said.value - true)
    if off == 0 or (said.hedged and off <= scoring.TOLERANCE * abs(true)):
        return True
    if said.unit == 0 or off >= said.unit or (true / said.unit).denominator == 1:
        return False
    if 2 * off > said.unit and abs(said.value) > abs(true):
        return False  # 10 / 3 is no 3.4
    return said.unit != 1 or off <= abs(true) / 100  # 10 / 3 is no 3, but 1000 / 3 is 333


def fraction(value: Any) -> Fraction | None:
    """A cell's number, or None where it has none."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return Fraction(str(value)) if isfinite(value) else None
    found = re.fullmatch(NUM, cleaned(str(value)).strip())
    return number(found[0]).value if found else None


def decimal(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else f"{float(value):.10g}"
