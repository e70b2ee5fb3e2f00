"""English number words as digits."""

from __future__ import annotations

import re

_UNITS = "one|two|three|four|five|six|seven|eight|nine"
_ONES = f"zero|{_UNITS}|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|nineteen"
_TENS = "twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
SCALES = {"trillion": 10**12, "billion": 10**9, "million": 10**6, "thousand": 10**3}
_WORD_VALUES = {word: value for value, word in enumerate(_ONES.split("|"))}
_WORD_VALUES |= {word: 10 * value for value, word in enumerate(_TENS.split("|"), start=2)} | {"a": 1}


def _number_words_pattern() -> re.Pattern[str]:
    """One group of words (a value below a thousand) per scale, largest first, then one without."""
    scales = "|".join(SCALES)
    small = rf"\b(?:(?:{_TENS})(?:[-\s]+(?:{_UNITS}))?|(?:{_ONES}))\b"
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


def _digits(match: re.Match[str]) -> str:
    sizes = (*SCALES.values(), 1)
    groups = zip(match.groups(), sizes, strict=True)
    return str(sum(_group_value(group) * size for group, size in groups if group))


def digits_for_words(text: str) -> str:
    """`text`, lower-case, with English number words (zero … trillions) written as digits."""
    return _NUMBER_WORDS.sub(_digits, text)
