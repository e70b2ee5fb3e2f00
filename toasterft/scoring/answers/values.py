"""Parse the value of a text, and compare two values in any ordinary notation."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache

from toasterft.scoring.answers.unwrap import unwrapped
from toasterft.scoring.lexicon import SCALES, UNITS
from toasterft.scoring.numbers import DASHES, TOLERANCE, Number, digits_for_words, number_alone

_SUFFIXES = SCALES | {"hundred": 100, "lakh": 10**5, "crore": 10**7, "k": 10**3, "m": 10**6, "mn": 10**6}
_SUFFIXES |= {"b": 10**9, "bn": 10**9, "t": 10**12, "tn": 10**12}
# `+1,200.5`, `12%`, `1.2e6`, `5million`: sign and digits, power of ten, and what follows
_TOKEN = re.compile(
    r"(?:\+(?!-))?(?P<digits>-?[\d,]*\.?\d+)\.?(?:e(?P<power>[+-]?\d{1,2}))?(?P<suffix>%|°?[a-z]*)", re.ASCII
)
_SHARE = re.compile(r"([+-]?\d{1,3})/(\d{1,3})", re.ASCII)  # `1/2`
_NOT_UNITS = re.compile(r"st|nd|rd|th|[a-z]")  # 12th, 1990s, 5g: names and ranks, not amounts
# A whole number from 1900 to 2099 without a thousands separator, a currency or a % sign: `2016`, `2010.0`, `2018 (Russia)`
_YEAR = re.compile(
    r"(?<![\w.,$€£-])(?:19|20)\d\d(?:\.0+)?(?![\d%]|[.,]\d|\s*(?:%|percent|[mb]illion|thousand))", re.ASCII
)
_IN_A_YEAR = re.compile(
    r"\b(?:in|for|during)\s+(?:the\s+year\s+)?(?:19|20)\d\d\b,?", re.IGNORECASE
)  # `12 in 2015`
_SEASON = re.compile(r"(?:19|20)?(\d\d)[/-](?:19|20)?(\d\d)(?=$)", re.ASCII)  # `17/18`, `2016-17`
LOOK_ALIKES = str.maketrans(
    {**dict.fromkeys(f"{DASHES}\u2014", "-"), **dict.fromkeys("‘’`", "'")} | dict.fromkeys("“”", '"')
)
_CLEANING = (
    (re.compile(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}(?!\d))"), ""),  # typeset thousands separators
    (re.compile(r"[*\\]"), " "),  # markdown and TeX marks; a space, so that 2*3 stays two numbers
    (re.compile(r"(?:\b[a-z]{1,3})?[$€£¥₹₩₽₺₪฿₫₱¢]\s*"), ""),  # also US$; the space too, for -$ 5
    (re.compile(r"\b(?:minus|negative)\s+(?=\.?\d)"), "-"),
    (re.compile(r"(?<=\d) point(\d+)"), r".\1"),
    (re.compile(r"\b(\d+) (?:half|halves)\b"), r"\1/2"),
    (re.compile(r"\b(\d+) thirds?\b"), r"\1/3"),  # "two thirds"
    (re.compile(r"\b(\d+) (?:quarters?|fourths?)\b"), r"\1/4"),
    (re.compile(r"(?<=[\d.])\s*(?:%|percent\b|per\s+cent\b|pct\b)"), "%"),
    (re.compile(r"\bup to\b"), "upto"),  # a bound, not "went up to"
    (re.compile(r"(?<=[\d.])\s+(hundred|thousand|lakh|crore|million|billion|trillion|mn|bn|tn)s?\b"), r"\1"),
)
_POINT = re.compile(rf" point((?: (?:zero|{UNITS}|\d+))+)\b")  # "twelve point five", "one point two million"
# Beside one of these a number is not the answer itself: "not 12", "less than 12", "12 or 13", "before 1987", "> 12".
HEDGE = re.compile(
    r".*n't|not?|never|none|neither|nor|cannot|wrong|incorrect|than|less|more|fewer|greater|over|under|above|"
    r"below|least|most|upto|or|between|except|without|minus|negative|plus|half|point|dozen|before|after|since|"
    r"until|twice|thrice|doubled?|tripled?|[<>≤≥]=?|(?:third|quarter|fourth|fifth|tenth)s?"
)


# The gold answer is read for each of a group's completions, and each text in several ways.
@lru_cache(maxsize=1024)
def plain(text: str) -> str:
    """Lower-case, number words as digits, currency marks off, `5 million` and `5 %` drawn together."""
    text = _POINT.sub(
        lambda at: " point" + digits_for_words(at[1]).replace(" ", ""), text.translate(LOOK_ALIKES).lower()
    )
    text = digits_for_words(text)
    for pattern, replacement in _CLEANING:
        text = pattern.sub(replacement, text)
    return text


def _token_number(token: str) -> Number | None:
    if (share := _SHARE.fullmatch(token)) and int(share[2]):
        return Number(Fraction(int(share[1]), int(share[2])))
    found = _TOKEN.fullmatch(token)
    written = number_alone(found["digits"]) if found else None
    if found is None or written is None:
        return None
    suffix = found["suffix"]
    if suffix not in _SUFFIXES and _NOT_UNITS.fullmatch(suffix):
        return None
    value = written.value * _SUFFIXES.get(suffix, 1) * Fraction(10) ** int(found["power"] or 0)
    return Number(value, percent=suffix == "%")


def only_number(text: str) -> Number | None:
    """The only number in `text`; None where there are several, none, a hedge, or an unreadable token.

    A token with a digit that is no number by itself (`18-29`, `40+`, `<5`, `10:30`, `Q3`) is unreadable:
    half a token must not pass for a number.
    """
    numbers: list[Number] = []
    words: set[str] = set()
    for raw in plain(text).split():
        token = raw.lstrip("([{\"'~≈=:#").rstrip(".,;:!?)]}\"'")
        number = _token_number(token)
        if number:
            numbers.append(number)
        elif HEDGE.fullmatch(token) or any(character.isnumeric() for character in token):
            return None
        elif any(character.isalnum() for character in token):
            words.add(token.rstrip("s"))
    return replace(numbers[0], words=frozenset(words)) if len(numbers) == 1 else None


def gold_number(gold: str) -> Number | None:
    """A gold is a number where it opens with one and at most two words, its unit, follow."""
    number = only_number(gold)
    opens = re.match(r"[\"'(\[]*[+-]?\.?\d", plain(gold).strip())
    return number if number and opens and len(number.words) <= 2 else None


_SPAN = re.compile(r"(\d+)(?:-| - | to )(\d+)", re.ASCII)  # `18-29`, `18 to 29`
_ONWARDS = re.compile(
    r"(\d+)(?:\+| (?:and|or) (?:older|over|above|up|more))", re.ASCII
)  # `65+`, `65 and older`


def _age_band(text: str) -> tuple[int, int | None] | None:
    """The first and last number of a span such as `18-29`; None for the last of an open one such as `65+`."""
    text = " ".join(text.translate(LOOK_ALIKES).lower().strip(" .*\"'").split())
    text = re.sub(r"^(?:ages?|aged)\s+|\s*years?(?: olds?)?(?=$| (?:and|or) )|-year-olds?$", "", text)
    if found := _SPAN.fullmatch(text):
        return int(found[1]), int(found[2])
    found = _ONWARDS.fullmatch(text)
    return (int(found[1]), None) if found else None


_VALUE_BEHIND = re.compile(
    r"\s*(?:\(\s*[$€£]?\d[\d.,]*\s*[%\w]*\s*\)|(?:[,:]|\swith|\sat)\s*[$€£]?\d[\d.,]*\s*%?(?:\s?[mb]illion)?)[.\s]*$"
)  # `Italy (43%)`, `Italy, 43`, `Italy with 43 %`
_IT_IS = re.compile(r"\s*(?:it|this|that)(?:\s+is|'s)\s+", re.IGNORECASE)  # `It is Italy.`
# `Yes, because …`, `No. It is lower.`: the word, and what may follow it
_YES_OR_NO = re.compile(
    r"\W*(yes|no)\b(?:\s*[,.;:!—–-]|\s+(?:it|they|this|that|there|because|since|as)\b|\W*$)"
)


def _same_text(answer: str, gold: str) -> bool:
    """Equal once tidy; a yes or no may give its reason, and a label the value beside it or "it is" before it."""
    wanted = tidy(gold)
    if not wanted or tidy(answer) == wanted:
        return bool(wanted)
    if wanted in ("yes", "no"):
        found = _YES_OR_NO.match(answer.translate(LOOK_ALIKES).lower())
        other = {"yes": "no", "no": "yes"}[wanted]
        return found is not None and found[1] == wanted and not re.search(rf"\b{other}\b", answer.lower())
    bare = _IT_IS.sub("", answer.translate(LOOK_ALIKES), count=1)
    if not any(character.isnumeric() for character in gold):
        bare = _VALUE_BEHIND.sub("", bare)
    return tidy(bare) == wanted or tidy(re.sub(r"\s+seasons?\W*$", "", bare, flags=re.IGNORECASE)) == wanted


_ALIKE = {"true": "yes", "correct": "yes", "false": "no", "incorrect": "no"}


def tidy(text: str) -> str:
    """Text made comparable: case, articles, spacing and punctuation off; accents, `+`, `<`, `>` kept."""
    text = unicodedata.normalize("NFC", text).translate(LOOK_ALIKES).lower()
    text = digits_for_words(text).replace("'", "").replace("&", " and ")
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    # A sign stays, a hyphen goes; so do `C#` and the mark `A-`.
    text = re.sub(r"(?<!^[a-z])-(?!\d)|(?<=\w)-(?=\w)|(?<!\w)#|[^\w\s.+#<>≤≥=-]|_", " ", text)
    text = re.sub(r"\.(?!\d)", "", text)  # "U.S." is "US", 16.9 keeps its point
    # An article goes only before a word: the label "A" alone must not become nothing.
    text = " ".join(re.sub(r"\b(?:a|an|the)\s+(?=\w)", "", text).split())
    return _ALIKE.get(text, text)


_ANSWER_IS = re.compile(r"\banswers?\b[\s*\"']*(?:is|are|would be|:|=)[\s*:]*", re.IGNORECASE)


def stated(prediction: str) -> str:
    """What follows "answer is" or "answer:"; the whole text without it, or where it occurs twice."""
    parts = _ANSWER_IS.split(prediction)
    return parts[1] if len(parts) == 2 and parts[1].strip() else prediction


# ---------------------------------------------------------------------------------- robust: comparing


def same_number(answer: Number, gold: Number, exact: bool) -> bool:
    """Within 5 % or `exact`; a unit in the gold may be left out but not changed."""
    if answer.words and not gold.words <= answer.words:
        return False
    values = [answer.value]
    if answer.percent != gold.percent:  # only a % sign on one side opens the second reading
        values.append(answer.value / 100 if answer.percent else answer.value * 100)
    # The tiny parts let 105 and 1.05 alike be 5 % off, and a gold of zero be zero.
    slack = 1e-9 + (0.0 if exact else (TOLERANCE + 1e-9) * abs(gold.value))
    return any(abs(value - gold.value) <= slack for value in values)


def same_amount(answer: str, gold: Number) -> bool:
    """Whether `said` holds this number alone, without tolerance, and a % sign where the gold has one."""
    number = only_number(answer)
    return number is not None and number.percent == gold.percent and same_number(number, gold, exact=True)


def _same_value(answer: str, gold: str) -> bool:
    """One value, number or text, against another; 1900 … 2099 is a year and exact, whatever stands beside it."""
    if band := _age_band(gold):
        return _age_band(answer) == band
    wanted = None if _SEASON.fullmatch(gold.strip()) else gold_number(gold)
    if wanted is None:
        return _same_text(answer, gold)
    is_year = _YEAR.search(gold) is not None
    number = only_number(answer if is_year else _IN_A_YEAR.sub(" ", answer))
    return number is not None and same_number(number, wanted, exact=is_year)


# `20 - 8 = 12`: a calculation in front of its result
_CALCULATED = re.compile(r"[\s\d.,()$€£%]*\d[\s\d.,()$€£%]*[-+−–*/×x÷][-+−–*/×x÷\s\d.,()$€£%]*=([^=]+)")
_LOSS = re.compile(r"[$€£]?\(\s*[$€£]?(\d[\d.,]*%?)\s*\)")  # accountants' (104.5)


def _result(answer: str) -> str:
    """The right side of a calculation; the whole text where it is none."""
    found = _CALCULATED.fullmatch(answer.strip())
    return found[1] if found else answer


_RATIO = re.compile(r"(?<![\w.,:-])(\d+(?:\.\d+)?)\s*(?::|\bto\b)\s*(\d+(?:\.\d+)?)(?![\w:%]|[.,]\d)")


def _ratio(text: str) -> tuple[float, float] | None:
    """The two numbers of the only ratio (`2:1`, `2 to 1`) in `text`, if no other digit stands there."""
    text = plain(text)
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
    if len(parts) < 2 or not (closed or (gold_number(gold) is None and all(map(gold_number, parts)))):
        return None
    return parts


def _same_list(answer: list[str], gold: list[str]) -> bool:
    """Each gold element paired with a said one of its own, in any order (augmenting paths)."""
    if len(answer) != len(gold):
        return False
    fits = [[j for j, part in enumerate(answer) if _same_value(part, wanted)] for wanted in gold]
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
      text    equal after `tidy`; a sentence only if it ends with "answer is GOLD".
    """
    if prediction.strip() == gold.strip():
        return True
    answer, gold = _result(stated(unwrapped(prediction))), unwrapped(gold)
    if loss := _LOSS.fullmatch(gold.strip()):
        gold = f"-{loss[1]}"
    if (loss := _LOSS.fullmatch(answer.strip(" ."))) and _same_value(f"-{loss[1]}", gold):
        return True
    if elements := _gold_list(gold):
        return any(_same_list(_parts(answer, conjunctions), elements) for conjunctions in (False, True))
    ratio = _ratio(gold) if _RATIO.fullmatch(plain(gold).strip()) else None
    return _ratio(answer) == ratio if ratio and not _age_band(gold) else _same_value(answer, gold)
