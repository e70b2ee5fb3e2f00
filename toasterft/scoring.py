"""Is an answer right? Three scorers, and the rates and intervals made from them.

    robust    ours, the headline: formats are forgiven, values are not
    relaxed   ChartQA's relaxed accuracy to the letter, for comparison with published tables
    contains  the simplified-CoT ("Reasoning on a Toaster") script, lenient, for the same purpose

A scorer takes `(prediction, gold)`, both plain text with any tags already taken off, and never raises.
"""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

TOLERANCE = 0.05  # relative error forgiven in a number: ChartQA (Masry et al. 2022, section 5.1)

# ---------------------------------------------------------------------------------------- number words

_UNITS = "one|two|three|four|five|six|seven|eight|nine"
_ONES = f"zero|{_UNITS}|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|nineteen"
_TENS = "twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
_SCALES = {"trillion": 10**12, "billion": 10**9, "million": 10**6, "thousand": 10**3}
_WORD_VALUES = {word: value for value, word in enumerate(_ONES.split("|"))}
_WORD_VALUES |= {word: 10 * value for value, word in enumerate(_TENS.split("|"), start=2)} | {"a": 1}


def _number_words_pattern() -> re.Pattern[str]:
    """One group of words (a value below a thousand) per scale, largest first, then one without."""
    scales = "|".join(_SCALES)
    small = rf"\b(?:(?:{_TENS})(?:[-\s]+(?:{_UNITS}))?|(?:{_ONES}))\b"
    group = rf"(?:(?:{small}|a)[-\s]+hundred\b(?:\s+(?:and\s+)?{small})?|{small}|a(?=\s+(?:{scales})\b))"
    joint = r"(?:(?:\s+and)?[-\s]+)?"
    scaled = "".join(rf"(?:{joint}({group})[-\s]+{scale}\b)?" for scale in _SCALES)
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
    sizes = (*_SCALES.values(), 1)
    groups = zip(match.groups(), sizes, strict=True)
    return str(sum(_group_value(group) * size for group, size in groups if group))


def digits_for_words(text: str) -> str:
    """`text`, lower-case, with English number words (zero … trillions) written as digits."""
    return _NUMBER_WORDS.sub(_digits, text)


# ------------------------------------------------------------------------------- the published scorers


def _chartqa_float(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100.0 if text.endswith("%") else float(text)
    except ValueError:
        return None


def relaxed(prediction: str, gold: str) -> bool:
    """ChartQA's relaxed accuracy as vis-nlp/ChartQA and pix2struct define it, nothing cleaned.

    So `12%` against `12`, `1,200` against `1200` and `0.0` against `0` are wrong, and the year 2017
    against 2010 is right. A gold `nan` is wrong even against itself.
    """
    predicted, wanted = _chartqa_float(prediction), _chartqa_float(gold)
    if predicted is not None and wanted:
        return abs(predicted - wanted) / abs(wanted) <= TOLERANCE
    return prediction.lower() == gold.lower()


_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def contains(prediction: str, gold: str) -> bool:
    """The simplified-CoT script: the gold occurs anywhere in the output, both made plain.

    Lower-case, number words to digits, ASCII punctuation off. It inflates, and is kept so: `1` is found
    in `16.9`, `Male` in `Female`, and a gold of punctuation alone in everything. Numbers have no
    tolerance. Words are turned first, because the hyphen of "twenty-five" is punctuation too.
    """
    plain, wanted = (digits_for_words(t.lower()).translate(_NO_PUNCTUATION) for t in (prediction, gold))
    return wanted.strip() in plain


# --------------------------------------------------------------------------- robust: what a text says


@dataclass(frozen=True)
class _Number:
    """The one number of a text; `percent` values are in hundredths, `words` is the rest of the text."""

    value: float
    percent: bool
    words: frozenset[str] = frozenset()


_SUFFIXES = _SCALES | {"hundred": 100, "lakh": 10**5, "crore": 10**7, "k": 10**3, "m": 10**6, "mn": 10**6}
_SUFFIXES |= {"b": 10**9, "bn": 10**9, "t": 10**12, "tn": 10**12}
_TOKEN = re.compile(
    r"(?P<digits>[+-]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+)(?:e[+-]?\d{1,2})?)(?P<suffix>%|°?[a-z]*)"
    r"|(?P<top>[+-]?\d{1,3})/(?P<bottom>\d{1,3})",
    re.ASCII,
)
_NOT_UNITS = re.compile(r"st|nd|rd|th|[a-z]")  # 12th, 1990s, 5g: names and ranks, not amounts
_YEAR = re.compile(r"(?:19|20)\d\d", re.ASCII)
_LOOK_ALIKES = str.maketrans(
    {**dict.fromkeys("\u2212\u2010\u2011\u2012\u2013\u2014\uff0d", "-"), **dict.fromkeys("‘’`", "'")}
    | dict.fromkeys("“”", '"')
)
_CLEANING = (
    (re.compile(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}(?!\d))"), ""),  # typeset thousands separators
    (re.compile(r"[*\\]"), " "),  # markdown and TeX marks; a space, so that 2*3 stays two numbers
    (re.compile(r"(?:\b[a-z]{1,3})?[$€£¥₹₩₽₺₪฿₫₱¢]\s*"), ""),  # also US$; the space too, for -$ 5
    (re.compile(r"\b(?:minus|negative)\s+(?=\.?\d)"), "-"),
    (re.compile(r"(?<=[\d.])\s*(?:%|percent\b|per\s+cent\b|pct\b)"), "%"),
    (re.compile(r"(?<=[\d.])\s+(hundred|thousand|lakh|crore|million|billion|trillion|mn|bn|tn)s?\b"), r"\1"),
)
# Beside one of these a number is not the answer itself: "not 12", "less than 12", "12 or 13", "one third".
_HEDGE = re.compile(
    r".*n't|not?|never|none|neither|nor|cannot|wrong|incorrect|than|less|more|fewer|greater|over|under|above|"
    r"below|least|or|between|except|without|minus|negative|plus|half|point|dozen|"
    r"(?:third|quarter|fourth|fifth|tenth)s?"
)


def _plain(text: str) -> str:
    """Lower-case, number words as digits, currency marks off, `5 million` and `5 %` drawn together."""
    text = digits_for_words(text.translate(_LOOK_ALIKES).lower())
    for pattern, replacement in _CLEANING:
        text = pattern.sub(replacement, text)
    return text


def _token_number(token: str) -> _Number | None:
    match = _TOKEN.fullmatch(token)
    if match and match["bottom"] and int(match["bottom"]):
        return _Number(int(match["top"]) / int(match["bottom"]), percent=False)
    if not match or match["bottom"]:
        return None
    suffix = match["suffix"]
    if suffix not in _SUFFIXES and _NOT_UNITS.fullmatch(suffix):
        return None
    return _Number(float(match["digits"].replace(",", "")) * _SUFFIXES.get(suffix, 1), suffix == "%")


def _only_number(text: str) -> _Number | None:
    """The only number in `text`; None where there are several, none, a hedge, or an unreadable token.

    A token with a digit that is no number by itself (`18-29`, `40+`, `<5`, `10:30`, `Q3`) is unreadable:
    half a token must not pass for a number.
    """
    numbers: list[_Number] = []
    words: set[str] = set()
    for raw in _plain(text).split():
        token = raw.lstrip("([{\"'~≈=:#").rstrip(".,;:!?)]}\"'")
        number = _token_number(token)
        if number:
            numbers.append(number)
        elif _HEDGE.fullmatch(token) or any(character.isnumeric() for character in token):
            return None
        elif any(character.isalnum() for character in token):
            words.add(token.rstrip("s"))
    return replace(numbers[0], words=frozenset(words)) if len(numbers) == 1 else None


def _gold_number(gold: str) -> _Number | None:
    """A gold is a number where it opens with one and at most two words, its unit, follow."""
    number = _only_number(gold)
    opens = re.match(r"[\"'(\[]*[+-]?\.?\d", _plain(gold).strip())
    return number if number and opens and len(number.words) <= 2 else None


_ALIKE = {"true": "yes", "correct": "yes", "false": "no", "incorrect": "no"}


def _tidy(text: str) -> str:
    """Text made comparable: case, articles, spacing and punctuation off; accents, `+`, `<`, `>` kept."""
    text = unicodedata.normalize("NFC", text).translate(_LOOK_ALIKES).lower()
    text = digits_for_words(text).replace("'", "").replace("&", " and ")
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    text = re.sub(r"-(?!\d)|(?<=\w)-|[^\w\s.+<>≤≥=-]|_", " ", text)  # a sign stays, a hyphen goes
    text = re.sub(r"\.(?!\d)", "", text)  # "U.S." is "US", 16.9 keeps its point
    # An article goes only before a word: the label "A" alone must not become nothing.
    text = " ".join(re.sub(r"\b(?:a|an|the)\s+(?=\w)", "", text).split())
    return _ALIKE.get(text, text)


_ANSWER_IS = re.compile(r"\banswers?\b[\s*\"']*(?:is|are|would be|:|=)[\s*:]*", re.IGNORECASE)


def _stated(prediction: str) -> str:
    """What follows "answer is" or "answer:"; the whole text without it, or where it is said twice."""
    parts = _ANSWER_IS.split(prediction)
    return parts[1] if len(parts) == 2 and parts[1].strip() else prediction


# ---------------------------------------------------------------------------------- robust: comparing


def _same_number(said: _Number, gold: _Number, exact: bool) -> bool:
    """Within 5 % or `exact`; a unit in the gold may be left out but not changed."""
    if said.words and not gold.words <= said.words:
        return False
    values = [said.value]
    if said.percent != gold.percent:  # only a % sign on one side opens the second reading
        values.append(said.value / 100 if said.percent else said.value * 100)
    # The tiny parts let 105 and 1.05 alike be 5 % off, and a gold of zero be zero.
    slack = 1e-9 + (0.0 if exact else (TOLERANCE + 1e-9) * abs(gold.value))
    return any(abs(value - gold.value) <= slack for value in values)


def _same_value(said: str, gold: str) -> bool:
    """One value, number or text, against another; a bare 1900 … 2099 is a year and exact."""
    wanted = _gold_number(gold)
    if wanted is None:
        return bool(_tidy(gold)) and _tidy(said) == _tidy(gold)
    number, is_year = _only_number(said), _YEAR.fullmatch(gold.strip("\"' ")) is not None
    return number is not None and _same_number(number, wanted, exact=is_year)


_RATIO = re.compile(r"(?<![\w.,:-])(\d+(?:\.\d+)?)\s*(?::|\bto\b)\s*(\d+(?:\.\d+)?)(?![\w:%]|[.,]\d)")


def _ratio(text: str) -> tuple[float, float] | None:
    """The two numbers of the only ratio (`2:1`, `2 to 1`) in `text`, if no other digit stands there."""
    text = _plain(text)
    found = _RATIO.findall(text)
    if len(found) != 1 or any(character.isnumeric() for character in _RATIO.sub("", text)):
        return None
    return float(found[0][0]), float(found[0][1])


def _in_brackets(text: str) -> bool:
    return text.startswith("[") and text.endswith("]")


def _parts(text: str, conjunctions: bool) -> list[str]:
    """A list's elements; "and", `&`, `;` and line ends separate only where `conjunctions` is set."""
    text = text.strip().rstrip(". ")
    # A comma may part thousands, except in [100,200], where no other separator is left.
    closed = _in_brackets(text) and not re.search(r",\s", text)
    comma = "," if closed else r",(?!(?<=\d,)\d{3}(?!\d))"
    separator = rf"{comma}|;|\n|&|\b(?i:and)\b" if conjunctions else comma
    return [part.strip() for part in re.split(separator, text.strip("[]")) if part.strip()]


def _gold_list(gold: str) -> list[str] | None:
    """A gold is a list where it stands in brackets, or where it is several numbers and nothing else."""
    closed = _in_brackets(gold.strip())
    parts = _parts(gold, conjunctions=not closed)
    if len(parts) < 2 or not (closed or (_gold_number(gold) is None and all(map(_gold_number, parts)))):
        return None
    return parts


def _same_list(said: list[str], gold: list[str]) -> bool:
    """Each gold element paired with a said one of its own, in any order (augmenting paths)."""
    if len(said) != len(gold):
        return False
    fits = [[j for j, part in enumerate(said) if _same_value(part, wanted)] for wanted in gold]
    taken: dict[int, int] = {}

    def pair(i: int, tried: set[int]) -> bool:
        for j in fits[i]:
            if j not in tried:
                tried.add(j)
                if j not in taken or pair(taken[j], tried):
                    taken[j] = i
                    return True
        return False

    return all(pair(i, set()) for i in range(len(gold)))


def robust(prediction: str, gold: str) -> bool:
    """Ours: the same value in any ordinary writing of it, and wrong in doubt.

    The gold's kind decides how the two are compared:
      number  `1,200`, `$5`, `12%`, `1/2`, `5 million`, "twelve"; within 5 %, but years (a bare 1900 … 2099)
              and zero exactly. The prediction may be a sentence holding this one number and no hedge.
              `12` and `0.12` are the same only where one side has a % sign.
      ratio   both numbers the same and in order; never a quotient or a time.
      list    elements paired in any order, equally many.
      text    equal after `_tidy`; a sentence only if it ends with "answer is GOLD".
    """
    if prediction.strip() == gold.strip():
        return True
    said, elements = _stated(prediction), _gold_list(gold)
    if elements:
        return any(_same_list(_parts(said, conjunctions), elements) for conjunctions in (False, True))
    ratio = _ratio(gold) if _RATIO.fullmatch(_plain(gold).strip()) else None
    return _ratio(said) == ratio if ratio else _same_value(said, gold)


SCORERS: dict[str, Callable[[str, str], bool]] = {"robust": robust, "relaxed": relaxed, "contains": contains}

# ------------------------------------------------------------------------------- rates and intervals


def wilson(correct: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval (1927) of `correct` in `n`, as fractions; z = 1.96 gives 95 %.

    Raises:
        ValueError: `correct` is not between 0 and `n`.
    """
    if not 0 <= correct <= n:
        raise ValueError(f"{correct} correct of {n} is no count")
    if n == 0:
        return 0.0, 1.0
    share, extra = correct / n, z * z / n
    middle = (share + extra / 2) / (1 + extra)
    half = math.sqrt(extra * (share * (1 - share) + extra / 4)) / (1 + extra)
    # Rounding must not put 4 right of 4 outside its own interval.
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))


@dataclass(frozen=True)
class Rate:
    """A share of `n` trials with its 95 % Wilson interval, all as fractions; 0 in [0, 1] for no trials."""

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, correct: int, n: int) -> Rate:
        low, high = wilson(correct, n)
        return cls(correct / n if n else 0.0, low, high, n)


@dataclass(frozen=True)
class Scored:
    """One item after scoring; `correct` by scorer name, `completion_tokens` as generated."""

    id: str
    kind: str | None
    correct: dict[str, bool]
    well_formed: bool
    completion_tokens: int
    pairs: tuple[int, int] | None = None
    """(right, in the table) of a transcription's `label = value` pairs; None for other questions."""


_LABEL_VALUE = re.compile(r"\s*(.+?)\s*=\s*([^,]+?)\s*(?:,|\.?\s*$)")


def table_pairs(said: str, gold: str) -> tuple[int, int] | None:
    """How many of a table's `label = value` pairs a transcription has right, and how many there are.

    A pair said twice counts once; None where `gold` is no table of at least two pairs.
    """
    wanted = _LABEL_VALUE.findall(gold)
    if len(wanted) < 2:
        return None
    return len(set(_LABEL_VALUE.findall(said)) & set(wanted)), len(set(wanted))


def _rate(outcomes: list[bool]) -> dict[str, float]:
    return _share(sum(outcomes), len(outcomes))


def _share(right: int, count: int) -> dict[str, float]:
    rate = Rate.of(right, count)
    return {"value": rate.value, "low": rate.low, "high": rate.high}


def summarise(rows: Iterable[Scored]) -> dict[str, Any]:
    """The JSON-ready summary of an evaluation: fractions with intervals, tokens as a mean per item.

    Raises:
        KeyError: a row lacks the verdict of one of `SCORERS`.
    """
    rows = list(rows)
    by_kind: dict[str, list[bool]] = {}
    for row in rows:
        if row.kind is not None:
            by_kind.setdefault(row.kind, []).append(row.correct["robust"])
    tables = [row.pairs for row in rows if row.pairs is not None]
    pairs = [right for right, _ in tables], [there for _, there in tables]
    return {
        "n": len(rows),
        **({"pairs": {"n": sum(pairs[1]), **_share(sum(pairs[0]), sum(pairs[1]))}} if tables else {}),
        "scores": {name: _rate([row.correct[name] for row in rows]) for name in SCORERS},
        "by_kind": {k: {"n": len(by_kind[k]), "robust": _rate(by_kind[k])} for k in sorted(by_kind)},
        "format_rate": _rate([row.well_formed for row in rows]),
        "mean_completion_tokens": sum(r.completion_tokens for r in rows) / len(rows) if rows else 0.0,
    }
