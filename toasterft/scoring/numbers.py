"""The number parser: numbers as people write them, in digits or words, and when two of them are the same.

    cleaned            signs, quotes and thousands separators written one way: `1,200`, `13 879` and `−5` as digits
    NUM, number        one number inside cleaned text, with its percent sign, scale and written precision
    fraction           a cell or an answer that is a number and nothing else
    digits_for_words   "two hundred and five" as 205

A reading of a whole number up to 100 or of a year is right only if it is exact, any other within 1 %; after
"about" or "around" 5 % are forgiven (ChartQA's own tolerance). The result of a calculation must be right to
the last digit that is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import isfinite
from typing import Any

from toasterft.scoring import lexicon
from toasterft.scoring.lexicon import SCALES

TOLERANCE = 0.05  # relative error forgiven in a number: ChartQA (Masry et al. 2022, section 5.1)
# A text's length in characters beyond which nothing is read; 300 tokens are about 1,500.
MAX_CHARACTERS = 4000

DASHES = "\u2212\u2010\u2011\u2012\u2013\uff0d"
_SIGNS = str.maketrans(
    {
        **dict.fromkeys(DASHES, "-"),
        **dict.fromkeys("×✕⋅·∙", "*"),
        **dict.fromkeys("‘’´", "'"),
        **dict.fromkeys('“”"`', ""),
        **dict.fromkeys("→⇒⟹", "="),
        **dict.fromkeys("\u00a0\u2009\u202f", " "),
        **{"÷": "/", "—": ", ", "~": "≈", "≃": "≈", "＝": "="},
        **dict.fromkeys("$€£¥₹", ""),
    }
)
_CLEANING = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"[\ue000-\uf8ff]", " "),  # stands for names, see `tables.Folded`
        (r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"(\1) / (\2)"),
        (r"\\(?:times|cdot)\b", "*"),
        (r"\\div\b", "/"),
        (r"\\approx\b", "≈"),
        (r"\\text\s*\{([^{}]*)\}", r"\1"),
        (r"\\[()\[\]]?|\*\*|__", ""),
        (r"(?<!\w)'|'(?!\w)", ""),
        (r"(?<=\d)[, ](?=\d{3}(?!\d))(?<!\d{4}[, ])", ""),  # 1,200 and 13 879
        (r"(?<=\d)\s*(?:%|percent\b|per cent\b)", "%"),
        (r"(?<=\d)\s*[xX]\s*(?=\d)", " * "),
        (r"\s*(?:=>|->|==)\s*", " = "),
        (r"(?<=\()\s+|\s+(?=\))|(?<=[ \t])[ \t]+", ""),  # so that later patterns match in one way only
    )
)
# `7`, `-0.5`, `.5`, `12%`, `5 million`; not the 12 of `12th`, `1.2.3` or `v12`
NUM = (
    r"(?<![\w.,])-?(?:\d{1,15}(?:\.\d{1,12})?|\.\d{1,12})(?:%|\s(?:thousand|million|billion|trillion)\b)?"
    r"(?![\w%]|[.,]\d)"
)
# A number in prose that is not cleaned: `1,200`, `-3.5`
DIGITS = r"-?\d[\d,]*(?:\.\d+)?"
# A number alone may be longer than one that stands in a sentence: `3.103853965520979` in a table.
_ALONE = re.compile(re.sub(r"\{1,1[25]\}", "{1,30}", NUM))
HEDGE = rf"(?:{lexicon.HEDGE})"
HEDGED = re.compile(HEDGE + r"\s*$", re.IGNORECASE)
_ONES = f"zero|{lexicon.UNITS}|{lexicon.TEENS}"
_WORD_VALUES = {word: value for value, word in enumerate(_ONES.split("|"))}
_WORD_VALUES |= {word: 10 * value for value, word in enumerate(lexicon.TENS.split("|"), start=2)} | {"a": 1}
WORD_NUMBERS = tuple(_WORD_VALUES)[:13]
"""The number words that stand for a count in a sentence: zero to twelve."""


# Names, the question and the gold answer are the same for every trace of an image.
@lru_cache(maxsize=2048)
def cleaned(text: str) -> str:
    """`text` with signs, quotes and thousands separators written one way."""
    text = text[:MAX_CHARACTERS].translate(_SIGNS)
    for pattern, replacement in _CLEANING:
        text = pattern.sub(replacement, text)
    return text


@dataclass(frozen=True)
class Number:
    """A number as it is written: 12 for `12%`.

    Attributes:
        unit: the value of one step of its last digit.
        scale: what "million" stands for.
        words: the rest of an answer, as a rule its unit.
    """

    value: Fraction
    unit: Fraction = Fraction(0)
    percent: bool = False
    hedged: bool = False
    scale: int = 1
    words: frozenset[str] = frozenset()

    @property
    def readings(self) -> tuple[Fraction, ...]:
        """What it can mean on a chart, whose unit may be the percent or the million already."""
        return self.value, self.value / (100 if self.percent else self.scale)


def number(text: str, hedged: bool = False) -> Number:
    """Read what `NUM` has found, or a number word up to twelve."""
    text = text.strip().lower()
    if text in WORD_NUMBERS:
        return Number(Fraction(_WORD_VALUES[text]), Fraction(1))
    text, _, scale = text.partition(" ")
    percent, text = text.endswith("%"), text.rstrip("%")
    times = SCALES.get(scale, 1)
    decimals = len(text.partition(".")[2])
    return Number(Fraction(text) * times, Fraction(times, 10**decimals), percent, hedged, times)


def numbers_in(text: str) -> list[Number]:
    """Every number in cleaned text."""
    return [number(found) for found in re.findall(NUM, text)]


# Gold answers and cells are the same for every sample of a group.
@lru_cache(maxsize=2048)
def number_alone(text: str) -> Number | None:
    """The number that a text is; None where it is anything else."""
    found = _ALONE.fullmatch(text) or _ALONE.fullmatch(cleaned(text).strip())
    return number(found[0]) if found else None


def fraction(value: Any) -> Fraction | None:
    """A cell's or an answer's number (`1,234.50`, `45 %`, `$5`, 0.5); None where it is anything else."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return Fraction(str(value)) if isfinite(value) else None
    found = number_alone(str(value))
    return found.value if found else None


def decimal(value: Fraction) -> str:
    """A number as text with up to ten digits."""
    return str(value.numerator) if value.denominator == 1 else f"{float(value):.10g}"


@lru_cache(maxsize=2048)
def format_number(value: Fraction, decimals: int = 2) -> str:
    """A number as our own traces write it: exactly where four decimals suffice, else rounded: 45, 6.25, 6.33."""
    exact = value * 10**4
    text = f"{float(value):.4f}" if exact.denominator == 1 else f"{float(value):.{decimals}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def _exact(value: Fraction) -> bool:
    """Whole numbers up to 100 and years leave nothing to estimate."""
    return value.denominator == 1 and (abs(value) <= 100 or 1900 <= value <= 2099)


def same_reading(reading: Number, true: Fraction) -> bool:
    """Whether a value was read right: exactly, within 1 %, or within 5 % where the trace says "about"."""
    slack = TOLERANCE if reading.hedged else 0 if _exact(true) else 0.01
    return any(abs(value - true) <= slack * abs(true) for value in reading.readings)


def values_read(values: Iterable[Fraction], *readings: Number) -> set[Fraction]:
    """Those of `values` of which one of `readings` is right."""
    return {true for true in values if any(same_reading(each, true) for each in readings)}


def same_result(result: Number, true: Fraction) -> bool:
    """Whether a calculation's result is right to its last digit, rounded or cut off."""
    off = abs(result.value - true)
    if off == 0 or (result.hedged and off <= TOLERANCE * abs(true)):
        return True
    if result.unit == 0 or off >= result.unit or (true / result.unit).denominator == 1:
        return False
    if 2 * off > result.unit and abs(result.value) > abs(true):
        return False  # 10 / 3 is no 3.4
    return result.unit != 1 or off <= abs(true) / 100  # 10 / 3 is no 3, but 1000 / 3 is 333


def _number_words_pattern() -> re.Pattern[str]:
    """One group of words (a value below a thousand) per scale, largest first, then one without."""
    scales = "|".join(SCALES)
    small = rf"\b(?:(?:{lexicon.TENS})(?:[-\s]+(?:{lexicon.UNITS}))?|(?:{_ONES}))\b"
    group = rf"(?:(?:{small}|a)[-\s]+hundred\b(?:\s+(?:and\s+)?{small})?|{small}|a(?=\s+(?:{scales})\b))"
    joint = r"(?:(?:\s+and)?[-\s]+)?"
    scaled = "".join(rf"(?:{joint}({group})[-\s]+{scale}\b)?" for scale in SCALES)
    # Without the last look-ahead "two million and three million" would start as 2,000,003.
    return re.compile(rf"\b(?={group}){scaled}(?:{joint}({group})(?!\s+(?:hundred|{scales})\b))?")


_NUMBER_WORDS = _number_words_pattern()


def _group_value(group: str) -> int:
    """The value of words below a thousand: "two hundred and five" is 205."""
    value = 0
    for word in re.split(r"[-\s]+", group):
        value = value * 100 if word == "hundred" else value + _WORD_VALUES.get(word, 0)
    return value


def digits_for_words(text: str) -> str:
    """`text`, lower-case, with English number words (zero … trillions) written as digits."""

    def digits(match: re.Match[str]) -> str:
        groups = zip(match.groups(), (*SCALES.values(), 1), strict=True)
        return str(sum(_group_value(group) * size for group, size in groups if group))

    return _NUMBER_WORDS.sub(digits, text)
