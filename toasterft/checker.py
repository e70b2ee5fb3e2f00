"""How good a trace's thinking is, in [0, 1], with no model as a judge.

It takes the place of DyME's checker (arXiv 2506.23061v2), a 14B model that reads facts, question, answer
and trace and says low, medium or high. Here each statement is worked out again:

    readings     red = 7, "red has 7", "7 for red", "red (7)"   against the facts
    steps        16 - 10 = 6, "the sum of red and blue is 10", 15 > 8, "the largest is 18, so pink",
                 "two bars are above 5", "the values keep rising"
    conclusion   the last of "so X", "the answer is X", or the last statement, against the gold answer

A sentence that is not understood earns nothing and costs nothing, so that free text can be judged too; a
statement that is understood and false is named in `faults`. Saying a thing twice is saying it once.

Numbers. A reading of a whole number up to 100 or of a year is right only if it is exact, any other
within 1 %; after "about" or "around" 5 % are forgiven (ChartQA's own tolerance). The result of a
calculation must be right to the last digit that is written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from itertools import islice, pairwise, product
from math import isfinite, prod
from typing import TYPE_CHECKING, Any

from toasterft import scoring

if TYPE_CHECKING:
    from toasterft.data.example import Example
    from toasterft.rewards import Completion

# What the parts are worth. Reading right counts most: it is what small models get wrong (DyME's facts).
COVERAGE, ARITHMETIC, CONCLUSION = 0.4, 0.3, 0.3
# One fault takes a fifth off, four take half: no trace with a fault reaches 0.9.
FAULTS_TO_HALVE = 4
# Reading this many needed rows is full coverage: nobody should recite a table of fifty.
ENOUGH_ROWS = 12
# A trace's length in characters beyond which nothing is read; 300 tokens are about 1,500.
MAX_CHARACTERS = 4000

# ----------------------------------------------------------------------------------------------- text

_SIGNS = str.maketrans(
    {
        **dict.fromkeys("\u2212\u2010\u2011\u2012\u2013\uff0d", "-"),
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
        (r"[\ue000-\uf8ff]", " "),  # stands for names below
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
        (r"(?<=\()\s+|\s+(?=\))|(?<=[ \t])[ \t]+", ""),  # so that the patterns below match in one way only
    )
)
_HEADING = re.compile(
    r"\s*(?:[-*•#]+\s*|\d{1,2}[.)]\s+)*(?:(goal|requirements?|observations?|reasoning|extraction|calculations?|"
    r"facts|transcription|steps?(?: \d+)?|conclusion|recheck|check|(?:final )?answer)\s*:)?\s*",
    re.IGNORECASE,
)
_ENDS = re.compile(  # not in "U.S. dollars"
    r"(?<![A-Z]\.)(?<=[.!])\s+|(?<=;)\s+(?!its?\b)|(?<=[A-Z]\.)\s+(?![a-z(])|(?<=\?)\s*"
)
_UNCHECKED = ("goal", "requirement", "requirements")  # what is asked and needed states nothing


def cleaned(text: str) -> str:
    """`text` with signs, quotes and thousands separators written one way."""
    text = text[:MAX_CHARACTERS].translate(_SIGNS)
    for pattern, replacement in _CLEANING:
        text = pattern.sub(replacement, text)
    return text


@dataclass(frozen=True)
class Sentence:
    """One sentence without its full stop, and the heading (lower-case, or "") of its line."""

    text: str
    heading: str = ""


def sentences(trace: str) -> list[Sentence]:
    """The trace's sentences in order; bullets, numbering and headings taken off."""
    found = []
    for line in cleaned(trace).splitlines():
        opening = _HEADING.match(line)
        heading = (opening[1] or "").lower() if opening else ""
        for part in _ENDS.split(line[opening.end() if opening else 0 :]):
            if text := part.strip().rstrip(".;! "):
                found.append(Sentence(text, heading))
    return found


# -------------------------------------------------------------------------------------------- numbers

_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
NUM = (
    r"(?<![\w.,])-?(?:\d{1,15}(?:\.\d{1,12})?|\.\d{1,12})(?:%|\s(?:thousand|million|billion|trillion)\b)?"
    r"(?![\w%]|[.,]\d)"
)
_HEDGE = r"(?:≈|about|approximately|approx\.?|around|roughly|nearly|almost|close to|just (?:over|under|above|below))"
_HEDGED = re.compile(_HEDGE + r"\s*$", re.IGNORECASE)
_WORD_NUMBERS = (
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
    if text in _WORD_NUMBERS:
        return Number(Fraction(_WORD_NUMBERS.index(text)), Fraction(1))
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
    """Whether a calculation's result is right to its last digit (rounded either way)."""
    off = abs(said.value - true)
    if off == 0 or (said.hedged and off <= scoring.TOLERANCE * abs(true)):
        return True
    if said.unit == 0 or off >= said.unit or (true / said.unit).denominator == 1:
        return False
    return said.unit != 1 or off <= abs(true) / 100  # 10 / 3 is no 3, but 1000 / 3 is 333


def _fraction(value: Any) -> Fraction | None:
    """A cell's number, or None where it has none."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return Fraction(str(value)) if isfinite(value) else None
    found = re.fullmatch(NUM, cleaned(str(value)).strip())
    return number(found[0]).value if found else None


# --------------------------------------------------------------------------------------------- lemmas

_STOP = frozenset(
    re.findall(
        r"\w+",
        "a about above after again all also am an and any are as at be because been before being below "
        "between both but by can cannot clearly could did do does doing down during each either every few "
        "finally for from further had has have having he hence her here hers him his how however i if in into "
        "is it its itself just let like may me more most much must my need neither next no nor not now of off "
        "on once only or other our out over own please she should since so some such than that the their them "
        "then there therefore these they this those through thus to too under until up us very was we well "
        "were what when where which while who whom whose why will with within without would yet you your ",
    )
)
_WORD = re.compile(r"\d+(?:\.\d+)?|[^\W\d_]+(?:'[^\W\d_]+)?")
_IRREGULAR = {
    "men": "man", "women": "woman", "people": "person", "children": "child", "less": "less", "series": "series",
    "highest": "high", "higher": "high", "lowest": "low", "lower": "low", "largest": "large", "larger": "large",
    "smallest": "small", "smaller": "small", "greatest": "great", "greater": "great", "biggest": "big",
    "bigger": "big", "found": "find", "shown": "show", "gave": "give", "given": "give", "rose": "rise",
    "risen": "rise", "fell": "fall", "fallen": "fall", "grew": "grow", "grown": "grow", "made": "make",
    "taken": "take", "took": "take", "added": "add", "adding": "add",
}  # fmt: skip


def _lemma(word: str) -> str:
    """A crude lemma: plural, -ing and -ed taken off. Both sides go through it, so a stem will do."""
    if word in _IRREGULAR or len(word) < 4 or not word.isalpha():
        return _IRREGULAR.get(word, word)
    for ending, put in (("ies", "y"), ("sses", "ss"), ("ches", "ch"), ("shes", "sh"), ("xes", "x")):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            return word[: -len(ending)] + put
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1].removesuffix("e")
    for ending in ("ing", "ed"):
        stem = word.removesuffix(ending)
        if stem != word and len(stem) >= 3 and re.search("[aeiouy]", stem):
            doubled = stem[-1] == stem[-2] and stem[-1] not in "lsz"
            return stem[:-1] if doubled else stem
    return word.removesuffix("e")


def lemmas(text: str) -> set[str]:
    """The content lemmas of a text: lower-case, stop words off, numbers kept."""
    words = (word.removesuffix("'s") for word in _WORD.findall(cleaned(text).lower()))
    return {_lemma(word) for word in words if word not in _STOP and (len(word) > 1 or word.isdigit())}


def lemma_f1(trace: str, reference: str) -> float:
    """F1 over the two sets of content lemmas: the thinking reward of "Pure DyME" (official code).

    The paper's lemmas are spaCy's (en_core_web_sm) of nouns, names, verbs, adjectives and numbers. Here
    a word is what the stop list leaves, so adverbs count too, and `_lemma` strips endings by rule; both
    sides alike, which keeps the F1 of equal texts at 1 and of texts without a common word at 0.
    """
    said, wanted = lemmas(trace), lemmas(reference)
    both = len(said & wanted)
    return 2 * both / (len(said) + len(wanted)) if both else 0.0


# ------------------------------------------------------------------------------------------ the facts


@dataclass(frozen=True)
class Row:
    """One fact: a label's value (of a series), or an object with `words` said of it and no value."""

    label: str
    value: Fraction | None
    series: str = ""
    shown: str = ""
    words: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """What the row is called: its label, after its series where there is one."""
        return f"{self.series} {self.label}" if self.series else self.label


def rows_of(facts: Any) -> list[Row]:
    """Facts of any of their forms as rows.

    Forms: `{"label", "value"}` with or without "series"; `{"objects": [{"name", "attributes",
    "position"}]}` (DyME's fact JSON), alone or in a list; a table row as a dict of its cells.
    """
    if isinstance(facts, Mapping):
        return _rows_of_one(facts)
    if isinstance(facts, str) or not isinstance(facts, Iterable):
        return []
    return [row for fact in facts if isinstance(fact, Mapping) for row in _rows_of_one(fact)]


def _rows_of_one(fact: Mapping[str, Any]) -> list[Row]:
    if "objects" in fact:
        return rows_of(fact["objects"])
    label = next((fact[key] for key in ("label", "name", "object") if key in fact), None)
    if label is not None and "value" in fact:
        value = _fraction(fact["value"])
        words = frozenset() if value is not None else frozenset(lemmas(str(fact["value"])))
        return [Row(str(label), value, str(fact.get("series") or ""), str(fact["value"]), words)]
    if label is not None and ("attributes" in fact or "position" in fact):
        return [_object(str(label), fact)]
    return _table_row(fact)


def _object(name: str, fact: Mapping[str, Any]) -> Row:
    attributes = fact.get("attributes") or ()
    said = [attributes] if isinstance(attributes, str) else [str(each) for each in attributes]
    values = [re.fullmatch(rf"(?:value\s*[:=]?\s*)?({NUM})", cleaned(each).strip(), re.I) for each in said]
    value = next((number(found[1]).value for found in values if found), None)
    words = lemmas(" ".join([*said, str(fact.get("position") or "")]))
    return Row(name, value, "", "" if value is None else _decimal(value), frozenset(words))


def _table_row(fact: Mapping[str, Any]) -> list[Row]:
    """One row of a table: its first cell names it, every other cell with a number is a fact."""
    cells = list(fact.items())
    if len(cells) < 2:
        return []
    label, numbers = str(cells[0][1]), [(key, cell, _fraction(cell)) for key, cell in cells[1:]]
    several = len(cells) > 2
    return [
        Row(label, value, str(key) if several else "", str(cell))
        for key, cell, value in numbers
        if value is not None
    ]


def _decimal(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else f"{float(value):.10g}"


@dataclass(frozen=True)
class Mention:
    """A name in a sentence: the rows it can mean, and the value that stands beside it in brackets."""

    text: str
    rows: frozenset[int]
    label: str | None = None
    series: str | None = None
    said: Number | None = None


@dataclass(frozen=True)
class Folded:
    """A sentence with each name as one character, so that patterns need not know the names."""

    text: str
    mentions: tuple[Mention, ...]

    def __getitem__(self, character: str) -> Mention:
        return self.mentions[ord(character) - _FIRST_NAME]

    def plain(self, text: str) -> str:
        """`text` with the names back in."""
        return re.sub(NAME, lambda found: self[found[0]].text, text)


_FIRST_NAME = 0xE000
NAME = "[\ue000-\uf8ff]"
_MARK_NOUN = r"(?:bars?|slices?|segments?|sections?|points?|dots?|columns?|lines?|values?|labels?|categor(?:y|ies)|graphs?)"
_VALUE_OF = re.compile(
    rf"(?:\b(?:the|a|an)\s+)?\b(?:values?|numbers?|percentages?|shares?|figures?|amounts?|{_MARK_NOUN})\s+"
    rf"(?:of|for|in|labell?ed|called)\s+(?:the\s+)?(?={NAME})",
    re.IGNORECASE,
)
_ARTICLE = re.compile(rf"\b(?:the|a|an)\s+(?={NAME})", re.IGNORECASE)
_OWN_NOUN = re.compile(rf"({NAME})(?:'s)?\s+{_MARK_NOUN}\b", re.IGNORECASE)
_JOINT = re.compile(
    rf"({NAME})(?:'s)?(?:\s+(?:in|for|of|at|on|during|from|among|with)(?:\s+the)?(?:\s+year)?)?\s+({NAME})",
    re.IGNORECASE,
)
# Names that are everyday words in a trace: they only count where a value is given to them.
_SHY = frozenset(
    re.findall(r"\w+", "yes no none other others total value values all a i the more less average sum so is")
)


class Table:
    """Rows, and how to find their names in a sentence."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = tuple(rows)
        self.labels = self._by_name(row.label for row in rows)
        self.series = self._by_name(row.series for row in rows)
        self.series.pop("", None)
        self.values = frozenset(row.value for row in rows if row.value is not None)
        names = {name: row for row in rows for name in (row.label, row.series) if name_key(name)}
        ordered = sorted(names, key=lambda name: (-len(name), name))
        self._pattern = re.compile("|".join(map(_name_pattern, ordered)) or r"(?!)", re.IGNORECASE)

    @staticmethod
    def _by_name(names: Iterable[str]) -> dict[str, frozenset[int]]:
        found: dict[str, set[int]] = {}
        for position, name in enumerate(names):
            found.setdefault(name_key(name), set()).add(position)
        return {name: frozenset(rows) for name, rows in found.items()}

    def fold(self, text: str) -> Folded:
        """`text` (cleaned) with names as characters; `shop tennis` and `tennis for shop` as one."""
        mentions: list[Mention] = []

        def put(mention: Mention) -> str:
            mentions.append(mention)
            return chr(_FIRST_NAME + len(mentions) - 1)

        def name(found: re.Match[str]) -> str:
            key = name_key(found[0])
            if key not in self.labels and key not in self.series:
                key = key.removesuffix("s").removesuffix("'")
            if key in self.labels:
                return put(Mention(found[0], self.labels[key], label=key))
            return put(Mention(found[0], self.series[key], series=key)) if key in self.series else found[0]

        def joint(found: re.Match[str]) -> str:
            first, second = (mentions[ord(each) - _FIRST_NAME] for each in found.groups())
            both = first.rows & second.rows
            if (first.label is None) == (second.label is None) or not both:
                return found[0]
            label, series = first.label or second.label, first.series or second.series
            return put(Mention(f"{first.text} {second.text}", both, label, series))

        text = self._pattern.sub(name, text)
        for pattern, replacement in ((_VALUE_OF, ""), (_ARTICLE, ""), (_OWN_NOUN, r"\1")):
            text = pattern.sub(replacement, text)
        return Folded(_JOINT.sub(joint, text), tuple(mentions))


def name_key(name: str) -> str:
    """A name made comparable."""
    return " ".join(cleaned(name).lower().split()).strip(" .,:*").removesuffix("'s")


def _name_pattern(name: str) -> str:
    key = name_key(name)
    written = " ".join(cleaned(name).split()).strip(" .,:*")
    body = re.sub(r"(?:\\ )+", r"\\s+", re.escape(written))
    if len(key) <= 3 and not written.islower():
        body = f"(?-i:{body})"  # the label May is no "may"
    year = re.fullmatch(r"(?:19|20)\d\d", key)
    shy = key in _SHY or (re.fullmatch(r"-?[\d.,]+%?", key) and not year)
    after = r"(?=\s*[=:(])" if shy else r"(?![.,]\d|%)" if year else ""
    plural = "" if key[-1:].isdigit() else "s?"
    return rf"(?<![\w.])(?:{body}){plural}(?!\w)(?:\*+(?=\s*[=:(,]))?{after}"


@lru_cache(maxsize=1024)
def _table(facts: str) -> Table:
    return Table(rows_of(json.loads(facts)))


def table_of(facts: Any) -> Table:
    """The table of an example's facts; made once per image, not once per completion."""
    return _table(json.dumps(facts, default=str))


# --------------------------------------------------------------------------------------- what is asked

_MUST_REASON = re.compile(
    r"\b(?:differences?|sum|total|add|together|combined|ratio|times|divided?|average|mean|median|how many|count|"
    r"(?:larg|high|great|bigg|tall|long|small|low|short|few)est|most|least|peak|maximum|minimum|max|min|higher|lower|larger|smaller|greater|bigger|more|less|fewer|exceeds?|"
    r"below|above|than|trend|rising|falling|compare|gap|deduct|subtract|product|twice|double|all)\b",
    re.IGNORECASE,
)


def needed_rows(table: Table, question: str) -> list[int]:
    """The rows that an answer rests on: those named in the question, else a named series, else all."""
    asked = table.fold(cleaned(question))
    whole = [mention.rows for mention in asked.mentions if mention.label and mention.series]
    labels = [mention.rows for mention in asked.mentions if mention.label and not mention.series]
    series = [mention.rows for mention in asked.mentions if mention.series and not mention.label]
    if whole:
        return sorted(frozenset().union(*whole))
    given = {number(found).value for found in re.findall(NUM, asked.text)}
    holders = [row for row, each in enumerate(table.rows) if each.value in given]
    if holders and not labels and not _MUST_REASON.search(asked.text):
        return holders  # "which bar has a value of 6?"
    some = frozenset().union(*labels) if labels else frozenset(range(len(table.rows)))
    return sorted((some & frozenset().union(*series) if series else some) or range(len(table.rows)))


# ------------------------------------------------------------------------------------ grammar of steps

_OPERAND = rf"(?:{NUM}|{NAME})"
_UNIT_WORDS = r"(?:\s+(?!(?:is|are|was|and|equals?|gives?|makes?|than|to|by|or|in|for|from|of)\b)[a-z]+){0,2}"
_ITEM = rf"(?>\(*{_OPERAND}{_UNIT_WORDS}\)*)"
_SIGN = r"(?>\s*[-+*/]\s*)"
_EQUALS = (
    r"\s*,?\s*(?:=|≈|(?:which\s+|that\s+)?(?:is|are|was|were|equals?|gives?|makes?|yields?|leaves|comes\s+to|come\s+to|"
    rf"results?\s+in|amounts?\s+to)\b)\s*(?:equal\s+to\s+|us\s+|a\s+total\s+of\s+)?(?:{_HEDGE}\s*)?"
)
_STEP = re.compile(
    rf"{_ITEM}(?:{_SIGN}{_ITEM}){{1,40}}+(?:{_EQUALS}{_ITEM}(?:{_SIGN}{_ITEM}){{0,40}})+", re.IGNORECASE
)
_EQUALS_SIGN = re.compile(_EQUALS, re.IGNORECASE)
_TOKEN = re.compile(rf"{_OPERAND}|[-+*/()]", re.IGNORECASE)
_OPERATORS = tuple(
    (re.compile(rf"(?<=[\d%)\ue000-\uf8ff])\s+(?:{words})\s+(?=[-\d(.\ue000-\uf8ff])", re.IGNORECASE), sign)
    for words, sign in (
        ("plus", " + "),
        ("minus", " - "),
        ("times|multiplied by", " * "),
        ("divided by", " / "),
    )
)
_PERCENT_OF = re.compile(r"(?<=%)\s+of\s+(?=\d)", re.IGNORECASE)
_TIGHT = re.compile(r"\d[-/]\d|(?:19|20)\d\d\s?-\s?(?:19|20)\d\d")  # the season 2019/20, the years 2010-2015

_SEVERAL = rf"{_OPERAND}(?:\s*(?:,\s*and|,|and|&|\+)\s*{_OPERAND}){{1,20}}+"
_SAYS_STEP = re.compile(
    r"\b(?:sum|total|add|combin|together|differ|gap|subtract|taking|deduct|ratio|divid|average|mean|product|multipl)",
    re.IGNORECASE,
)
_RESULT = rf"{_EQUALS}(?P<result>{NUM})"
_MORE = r"(?:more|higher|larger|greater|bigger|above|taller|longer|over)"
_FEWER = r"(?:less|lower|smaller|fewer|below|under|shorter)"
_POINTS = r"(?:\s+(?:percentage\s+)?(?:points?|units?))?"


def _ratio(numbers: Sequence[Fraction]) -> Fraction | None:
    return numbers[0] / numbers[1] if numbers[1] else None


# Calculations in words: the pattern, and what the operands come to.
_IN_WORDS = tuple(
    (re.compile(pattern.replace("RESULT", _RESULT), re.IGNORECASE), work_out)
    for pattern, work_out in (
        (rf"\b(?:sum|total)\s+(?:of|for)\s+(?P<list>{_SEVERAL})RESULT", sum),
        (rf"\b(?:adding|add|combining|summing)\s+(?:up\s+)?(?P<list>{_SEVERAL})(?:\s+together)?RESULT", sum),
        (rf"(?P<list>{_SEVERAL})\s+(?:together|combined|in\s+total)RESULT", sum),
        (
            rf"(?P<list>{_SEVERAL})\s+(?:together\s+)?(?:adds?\s+up\s+to|sums?\s+(?:up\s+)?to|total)\s+(?P<result>{NUM})",
            sum,
        ),
        (
            rf"\b(?:differences?|gap)\s+(?:between|of)\s+(?P<list>{_OPERAND}\s+and\s+{_OPERAND})RESULT",
            lambda numbers: abs(numbers[0] - numbers[1]),
        ),
        (
            rf"\b(?:subtract(?:ing)?|taking|deducting)\s+(?P<list>{_OPERAND}\s+(?:away\s+)?from\s+{_OPERAND})RESULT",
            lambda numbers: numbers[1] - numbers[0],
        ),
        (rf"\bratio\s+of\s+(?P<list>{_OPERAND}\s+to\s+{_OPERAND})RESULT", _ratio),
        (rf"\bdivid(?:e|ing)\s+(?P<list>{_OPERAND}\s+by\s+{_OPERAND})RESULT", _ratio),
        (
            rf"\b(?:average|mean)\s+of\s+(?P<list>{_SEVERAL})RESULT",
            lambda numbers: Fraction(sum(numbers), len(numbers)),
        ),
        (rf"\b(?:product\s+of|multiplying)\s+(?P<list>{_SEVERAL})RESULT", prod),
    )
)
_BY = re.compile(
    rf"(?P<a>{_OPERAND})\s+(?:is|are|was|exceeds|has)\s+(?:by\s+)?(?P<result>{NUM}){_POINTS}\s+"
    rf"(?:(?P<more>{_MORE})|(?P<fewer>{_FEWER})|(?P<times>times|\*))(?:\s+(?:than|as\s+\w+\s+as))?\s+(?P<b>{_OPERAND})|"
    rf"(?P<a2>{_OPERAND})\s+exceeds\s+(?P<b2>{_OPERAND})\s+by\s+(?P<result2>{NUM})",
    re.IGNORECASE,
)
_SUM_IS = re.compile(
    rf"\b(?:sum|total)\b[^.,;\d]{{0,40}}?(?:\bis|\bare|=|\bto)\s+(?P<result>{NUM})(?!\s*[-+*/=])",
    re.IGNORECASE,
)
_CHAIN = re.compile(rf"{_OPERAND}(?:\s*[<>]\s*{_OPERAND})+")
_COMPARED = re.compile(
    rf"(?P<a>{_OPERAND})\s+(?:(?:is|are|was|were|has|have|had|lies|stands|reaches)\s+)?(?P<not>not\s+)?"
    rf"(?:(?:a|an|much|slightly|also|clearly|still|far|well|only)\s+)*(?:(?P<more>{_MORE}|exceeds)|(?P<fewer>{_FEWER}))"
    rf"(?:\s+(?:values?|share|percentage|number|bar))?(?:\s+than)?(?:\s+that\s+(?:of|for))?\s+(?P<b>{_OPERAND})",
    re.IGNORECASE,
)
_BOUND = (
    rf"(?:(?P<above>above|over|greater\s+than|more\s+than|higher\s+than|larger\s+than|exceeding|exceeds?)|"
    rf"(?P<below>below|under|less\s+than|lower\s+than|smaller\s+than|fewer\s+than))\s+(?P<bound>{NUM})"
)
_LISTED = re.compile(
    rf"(?:^|(?P<lead>\b\w{{3,}}s|\b{_MARK_NOUN}|\bthose|\bonly|\bthat\s+are)\s+)(?P<not>not\s+)?{_BOUND}{_POINTS}"
    rf"(?:\s+for\s+{NAME})?\s*(?::|are|is|include)\s*:?\s*"
    rf"(?P<names>none\b|no\s+\w+|{NAME}(?:\s*(?:,\s*and|,|and|&)\s*{NAME})*|[^.;]*$)",
    re.IGNORECASE,
)
_COUNT = rf"(?P<count>{NUM}|{'|'.join(_WORD_NUMBERS)})"
_SO_MANY_ARE = re.compile(
    rf"(?<![\w-]){_COUNT}\s+(?:of\s+(?:them|these|(?:the|these)\s+(?:\w+\s+)?{_MARK_NOUN})|(?:\w+\s+)?{_MARK_NOUN}|"
    rf"\w{{3,}}s)\s*(?:that\s+)?(?:are|is|have|has|lie|lies|were|with|stand)?\s*(?:a\s+)?(?:values?\s+)?"
    rf"(?P<not>not\s+)?{_BOUND}",
    re.IGNORECASE,
)
_THERE_ARE = re.compile(
    rf"there\s+(?:are|is)\s+{_COUNT}\s+(?P<noun>{_MARK_NOUN}|series)(?:\s*,\s*so\s+(?P<again>{NUM}))?",
    re.IGNORECASE,
)
_COUNTED = re.compile(r"counted:\s*(?P<names>.+)", re.IGNORECASE)
_NAMES_ARE = re.compile(
    rf"(?:the\s+)?\w{{3,}}s\s+are:?\s+(?P<names>{NAME}(?:(?:\s*,\s*and|\s*,|\s+and)\s+{NAME})+)",
    re.IGNORECASE,
)
_SO_MANY = re.compile(
    rf"(?:so|thus|therefore|hence|that\s+makes|that\s+is|making|in\s+total)\s*,?\s+(?:there\s+(?:are|is)\s+|that\s+is\s+|"
    rf"it\s+is\s+|the\s+(?:count|number|total|answer)\s+is\s+)?{_COUNT}(?:\s+{_MARK_NOUN})?(?:\s+in\s+(?:all|total))?",
    re.IGNORECASE,
)

_LARGEST = r"(?:largest|highest|greatest|biggest|maximum|max|tallest|longest|peak|top)"
_SMALLEST = r"(?:smallest|lowest|least|minimum|min|shortest|fewest)"
_WORST = rf"(?:(?P<large>(?:the\s+)?(?:{_LARGEST}|(?<=the\s)most))|(?P<small>(?:the\s+)?{_SMALLEST}))\b"
_EXTREME_NOUN = (
    rf"(?:\s+(?:{_MARK_NOUN}|one|number|share|percentage|amount|figure|rate|count|reading|"
    r"of\s+(?:all|them|these)|(?:on|in|of)\s+(?:the|this)\s+(?:line|chart|graph|table|bars|values)))*"
)
_EXTREME = re.compile(
    rf"(?<!second\s)(?<!third\s)(?<!second-)(?<!not\s)(?<!not\sthe\s)(?<!than\s)(?<!than\sthe\s)\b{_WORST}{_EXTREME_NOUN}"
    rf"(?:\s+for\s+(?P<scope>{NAME}))?\s*"
    rf"(?:(?:is|was|:|=|belongs\s+to|goes\s+to|at|of|,|\(|with|by|are|the\s+one\s+(?:of|for))\s*)*(?:{_HEDGE}\s*)?"
    rf"(?:(?P<value>{NUM})|(?P<name>{NAME}))?"
    rf"(?:\s*,?\s*(?:(?:so|for|at|with|in|which\s+is|and\s+it\s+is|reached\s+by|that\s+is|belonging\s+to|from|it\s+is|"
    rf"the\s+\w+\s+is|its\s+\w+\s+is)\s+)+"
    rf"(?:a\s+value\s+of\s+)?(?:(?P<value2>{NUM})|(?P<name2>{NAME})|(?P<other>\w+)$))?",
    re.IGNORECASE,
)
_HAS_EXTREME = re.compile(
    rf"({_OPERAND})\s*,?\s*(?:(?:is|has|was|had|shows?|reaches|with|being|at|as|of)\s+)*$", re.I
)
_SUMMED = re.compile(r"\b(?:sum|total|combined|together|average|mean|difference|gap|change|increase)\b", re.I)

_CHAIN_VERDICT = re.compile(r"\bso\s+(rising|falling|neither)\b", re.IGNORECASE)
_TREND = re.compile(
    r"\b(?:trend|values?|numbers?|line|it|they)\s+(?:is|are|keeps?|always|steadily|\s)+(rising|falling|increasing|"
    r"decreasing|rises?|falls?|increases?|decreases?|neither)\b",
    re.IGNORECASE,
)
_ASKS_TREND = re.compile(r"\b(?:trend|rising|falling|increasing|decreasing)\b", re.IGNORECASE)

# Words that may stand between a name and its value.
_FILL = (
    "is|was|are|were|be|being|has|had|have|having|shows?|showing|showed|stands?|at|of|the|a|an|values?|reads?|reading|"
    "reaches|reached|equals?|equal|with|it|its|which|exactly|only|just|also|bar|bars|slice|point|percentage|share|"
    "number|figure|height|count|labell?ed|recorded|chart|data|as|indicated|by|displays?|"
    "displayed|there|this|measured|marked|sits|scored|scores|got|gets|gives?|amount|year|that|says|we|see|can|"
    r"(?:corresponds|corresponding|comes|amounts|extends|equal|up|close)\s+to|"
    "about|approximately|around|roughly|nearly|almost|≈"
)
_LINK = rf"(?P<sure>\s*[=:]\s*|\s*,?(?:\s+(?:{_FILL}))+,?\s+)|(?P<loose>,?\s+)"
_NOT_A_VALUE = (
    r"(?!\s*[-+*/<>]\s*[\d(\ue000-\uf8ff]|\s+(?:times|more|less|fewer|higher|lower|larger|smaller|greater|bigger|"
    r"out\s+of|of\s+the|of\s+these|of\s+them|others?|bars|labels|series|rows|categories|(?:percentage\s+)?points?\s+\w+er|"
    r"(?:percentage\s+)?points?\s+more|years?)\b)"
)
_NAME_VALUE = re.compile(rf"(?P<name>{NAME})(?:{_LINK})(?P<value>{NUM}){_NOT_A_VALUE}", re.IGNORECASE)
_VALUE_NAME = re.compile(
    rf"(?P<value>{NUM})\s*(?:\s(?P<sure>for|is\s+(?:the\s+value\s+)?(?:of|for)|belongs\s+to|represents|corresponds\s+to|"
    rf"goes\s+to)|\s(?P<loose>in|at|by|from))\s+(?:the\s+)?(?:year\s+)?(?P<name>{NAME})",
    re.IGNORECASE,
)
_BESIDE = re.compile(
    rf"(?P<name>{NAME})\s*(?:\(\s*(?:{_FILL}|\s)*(?P<in>{NUM})[^()\d]*\)|,?\s+(?:at|with)\s+(?:a\s+value\s+of\s+)?"
    rf"(?:{_HEDGE}\s*)?(?P<at>{NUM}){_NOT_A_VALUE})|(?P<before>{NUM})\s*\(\s*(?:for\s+)?(?P<after>{NAME})\s*\)",
    re.IGNORECASE,
)
_RESPECTIVELY = re.compile(
    rf"(?P<names>{NAME}(?:\s*(?:,\s*and|,|and|&)\s*{NAME})+)\s+(?:are|have|were|had|show)\s+"
    rf"(?P<values>{NUM}(?:\s*(?:,\s*and|,|and|&)\s*{NUM})+)",
    re.IGNORECASE,
)
# After one of these a name belongs to a group, or a number to a calculation: too unsure to call wrong.
_GROUPED = re.compile(
    r"\b(?:sum|total|difference|ratio|average|mean|median|gap|combined|together|product|quotient|change|increase|"
    r"decrease|drop|growth|between|number|counts?|how\s+many|than|half|twice|double|not|both|if)\b|n't\b",
    re.IGNORECASE,
)
_JOINED = re.compile(rf"({NAME})\s*(?:,\s*and|,|and|or|&|plus|to)\s+(?:the\s+)?$", re.IGNORECASE)
_ASSIGNED = re.compile(rf"(?P<name>[^=,]{{1,80}}?)\s*=\s*(?P<value>{NUM})")
_PLAIN_IS = re.compile(rf"(?P<name>\w+(?:\s+\w+)?)\s+is\s+(?P<value>{NUM})", re.IGNORECASE)
# What may stand left of "=" or "is" and be no label.
_GENERIC = re.compile(
    r"\b(?:sum|totals?|difference|ratio|average|mean|median|result|answer|values?|numbers?|counts?|gap|product|quotient|"
    r"change|increase|decrease|share|percentages?|max(?:imum)?|min(?:imum)?|largest|smallest|highest|lowest|range|axis|"
    r"scale|title|units?|step|interval|legend|it|this|that|there|here|which|what|each|one|years?|label|x|y|n|half|rest|"
    r"remainder|all|both|other|the|and|bars?|first|second|last|latest|previous|next|order|rank|¤)\b|¤",
    re.IGNORECASE,
)
_USED = "¤"  # stands where a step was read


# -------------------------------------------------------------------------------------------- reading


class _Reader:
    """Goes through the sentences once, keeping what was right, what was wrong and what is known."""

    def __init__(self, table: Table, question: str) -> None:
        self.table = table
        self.has_facts = bool(self.table.values)
        self.asked = self.table.fold(cleaned(question))
        self.asks_trend = bool(_ASKS_TREND.search(question))
        self.needed = needed_rows(table, question)
        self.seen: set[str] = set()
        self.credit: dict[int, float] = {}
        self.pairs_wrong = self.steps_right = self.steps_wrong = 0
        self.results: list[Fraction | None] = []  # of right steps; None where it is no number
        self.listed: int | None = None  # how many names the last list had
        self.last: str = ""  # the result or reading stated last
        self.faults: list[str] = []
        rows = self.table.rows
        sizes = {len(rows), len(self.table.labels), len(self.table.series)} if rows else set()
        self.constants = {Fraction(each) for each in {1, 2, 10, 100, 1000, 10**6} | sizes}
        self.known: set[Fraction] = set(self.table.values)
        self.known |= {number(found).value for found in re.findall(NUM, cleaned(question))}
        self.known |= {value for row in rows if (value := _fraction(row.label)) is not None}

    def read(self, sentence: str) -> None:
        """Judge every statement of one sentence."""
        for pattern, sign in _OPERATORS:
            sentence = pattern.sub(sign, sentence)
        folded = self._beside(self.table.fold(_PERCENT_OF.sub(" * ", sentence)))
        for pattern, sign in _OPERATORS:  # again, for names are now single characters
            folded = replace(folded, text=pattern.sub(sign, folded.text))
        text = folded.text
        for read in (
            self._sums,
            self._calculations,
            self._words,
            self._counts,
            self._order,
            self._extremes,
            self._trends,
        ):
            text = read(text, folded)
        self._readings(text, folded)
        self._unknown_names(text, folded)
        self._glimpses(folded)

    # -- keeping score

    def _step(self, right: bool | None, said: str, result: Fraction | None = None) -> None:
        key = "".join(said.lower().split())
        if right is None or key in self.seen:
            return
        self.seen.add(key)
        if right:
            self.steps_right += 1
            self.results.append(result)
            self._worked_with(said)
        else:
            self.steps_wrong += 1
            self.faults.append(f"wrong step: {said.strip()}")
        if result is not None:
            self.known.add(result)

    def _worked_with(self, said: str) -> None:
        """Half the credit for a needed row whose value, without its name, stands in a right step."""
        for value in map(number, re.findall(NUM, said)):
            for row in self.needed:
                if self._reads(row, value):
                    self.credit[row] = max(self.credit.get(row, 0.0), 0.5)

    def _wrong_reading(self, said: str) -> None:
        said = said.strip(" ,:")
        if said.lower() not in self.seen:
            self.seen.add(said.lower())
            self.pairs_wrong += 1
            self.faults.append(f"wrong reading: {said}")

    # -- readings

    def _context(self, mention: Mention, at: int, folded: Folded) -> frozenset[int]:
        """The rows a name means here: narrowed by the nearest series (or label) of the same sentence."""
        if len(mention.rows) < 2:
            return mention.rows
        nearby = sorted(
            (found.start() > at, abs(found.start() - at), folded[found[0]].rows)
            for found in re.finditer(NAME, folded.text)
            if (folded[found[0]].label is None) != (mention.label is None)
        )
        return next((mention.rows & rows for _, _, rows in nearby if mention.rows & rows), mention.rows)

    def _pair(self, mention: Mention, said: Number, at: int, folded: Folded, sure: bool, text: str) -> None:
        """One claim that a name has a value."""
        if not self.has_facts or all(self.table.rows[row].value is None for row in mention.rows):
            return
        rows = self._context(mention, at, folded)
        right = [row for row in rows if self._reads(row, said)]
        if right:
            for row in right if len(rows) == 1 else right[:1]:
                self.credit[row] = 1.0
            self.known.add(said.value)
            self.last = text
            return
        elsewhere = any(self._reads(row, said) for row in mention.rows)
        if sure and not elsewhere and (mention.label or len(rows) == 1):
            self._wrong_reading(text)
            self.known.add(said.value)  # what follows from it is not a second fault
        elif sure and elsewhere and len(rows) < len(mention.rows) and self._told_apart(mention, at, folded):
            self._wrong_reading(text)

    def _told_apart(self, mention: Mention, at: int, folded: Folded) -> bool:
        """Whether the sentence leaves no doubt which series (or label) goes with a name: one before it, or only one."""
        others = [
            found
            for found in re.finditer(NAME, folded.text)
            if (folded[found[0]].label is None) != (mention.label is None)
        ]
        return (
            any(found.start() < at for found in others) or len({folded[each[0]].rows for each in others}) == 1
        )

    def _reads(self, row: int, said: Number) -> bool:
        value = self.table.rows[row].value
        return value is not None and same_reading(said, value)

    def _beside(self, folded: Folded) -> Folded:
        """`red (7)`, `red at 7`, `7 (red)`: judge the reading, and leave one name that knows its value."""
        mentions = list(folded.mentions)

        def put(found: re.Match[str]) -> str:
            mention = folded[found["name"] or found["after"]]
            value = found["in"] or found["at"] or found["before"]
            said = number(value, bool(_HEDGED.search(found[0][: found[0].find(value)])))
            rows = self._context(mention, found.start(), folded)
            here = frozenset(row for row in rows if self._reads(row, said)) or rows
            self._pair(mention, said, found.start(), folded, True, folded.plain(found[0]))
            mentions.append(replace(mention, rows=here, said=said))
            return chr(_FIRST_NAME + len(mentions) - 1)

        text = _BESIDE.sub(put, folded.text)
        return Folded(text, tuple(mentions))

    def _readings(self, text: str, folded: Folded) -> None:
        def respectively(found: re.Match[str]) -> str:
            names, values = re.findall(NAME, found["names"]), re.findall(NUM, found["values"])
            if len(names) != len(values):
                return _USED
            for name, value in zip(names, values):
                said = f"{folded[name].text} = {value}"
                self._pair(folded[name], number(value), found.start(), folded, True, said)
            return _USED

        text = _RESPECTIVELY.sub(respectively, text)
        for pattern in (_NAME_VALUE, _VALUE_NAME):
            for found in pattern.finditer(text):
                before = re.split(r"[,:;]", text[: found.start()])[-1]
                joined = _JOINED.search(text[: found.start()])
                grouped = bool(_GROUPED.search(before)) or (
                    pattern is _NAME_VALUE
                    and joined is not None
                    and (folded[joined[1]].label is None) == (folded[found["name"]].label is None)
                )
                sure = bool(found["sure"]) and not grouped
                said = number(found["value"], bool(_HEDGED.search(text[: found.start("value")])))
                at = found.start("name")
                self._pair(folded[found["name"]], said, at, folded, sure, folded.plain(found[0]))

    def _unknown_names(self, text: str, folded: Folded) -> None:
        """`rod = 7`, "rod is 7": a value given to a label that the facts do not have."""
        parts = [(_ASSIGNED.fullmatch(part.strip()), True) for part in text.split(",")]
        parts.append((_PLAIN_IS.fullmatch(text), False))
        for found, _ in parts:
            if found is None:
                continue
            name, value = found["name"].strip(), number(found["value"])
            if re.fullmatch(NUM, name):
                self._step(number(name).value == value.value, found[0])
                continue
            bare = re.sub(NAME, "", name).strip()
            if not self.has_facts or _GENERIC.search(bare) or not re.search(r"[^\W_]", bare):
                continue
            near = re.findall(NAME, name)
            plain = any(self._reads(row, value) for each in near for row in folded[each].rows)
            if not (plain and not self.table.series) and len(bare) > 1:
                self._wrong_reading(folded.plain(found[0]))

    def _glimpses(self, folded: Folded) -> None:
        """Half the credit where a row's name and value stand together in no form that is understood."""
        numbers = [(found.start(), number(found[0])) for found in re.finditer(NUM, folded.text)]
        words = None
        for found in re.finditer(NAME, folded.text):
            mention = folded[found[0]]
            rows = self._context(mention, found.start(), folded)
            for row in rows if len(rows) == 1 else ():
                fact = self.table.rows[row]
                if fact.value is None:
                    words = lemmas(folded.plain(folded.text)) if words is None else words
                    earned = 1.0 if not fact.words or fact.words & (words - lemmas(fact.label)) else 0.5
                    self.credit[row] = max(self.credit.get(row, 0.0), earned)
            if numbers:
                _, nearest = min(numbers, key=lambda each: abs(each[0] - found.start()))
                fits = [row for row in rows if self._reads(row, nearest)]
                if len(fits) == 1:
                    self.credit[fits[0]] = max(self.credit.get(fits[0], 0.0), 0.5)

    # -- steps

    def _options(self, operand: str, folded: Folded, at: int = 0) -> list[Number]:
        """What an operand can stand for."""
        if not re.fullmatch(NAME, operand):
            return [number(operand)]
        mention = folded[operand]
        if mention.said is not None:
            return [mention.said]
        values = (self.table.rows[row].value for row in sorted(self._context(mention, at, folded)))
        own = re.fullmatch(NUM, mention.text)  # a year may be counted with
        found = [Number(value) for value in values if value is not None]
        return [*found[:4], *([number(mention.text)] if own else [])]

    def is_known(self, said: Number) -> bool:
        return not self.has_facts or any(same_reading(said, value) for value in self.known)

    def _calculations(self, text: str, folded: Folded) -> str:
        def judge(found: re.Match[str]) -> str:
            if "=" not in found[0] and _TIGHT.search(found[0]):
                return found[0]
            signs = [sign[0] for sign in _EQUALS_SIGN.finditer(found[0])]
            sides = [_TOKEN.findall(side) for side in _EQUALS_SIGN.split(found[0])]
            right = self._equal(sides, ["≈" in sign or bool(_HEDGED.search(sign)) for sign in signs], folded)
            said = folded.plain(found[0]).strip()
            result = number(sides[-1][-1]).value if re.fullmatch(NUM, sides[-1][-1]) else None
            if right and (stray := self._stray(sides[0])):
                right, said = False, f"{said} ({stray} is in no fact or step)"
            self._step(right, said, result)
            self.last = said
            return _USED

        return _STEP.sub(judge, text)

    def _stray(self, tokens: list[str]) -> str:
        """The first operand that comes from nowhere, or "". Factors may be round numbers or counts."""
        terms = 1 + sum(token in ("+", "-") for token in tokens)
        for position, token in enumerate(tokens):
            if re.fullmatch(NUM, token):
                said = number(token)
                factor = {"*", "/"} & {*tokens[max(0, position - 1) : position + 2]}
                shares = tokens[position - 1 : position] == ["/"] and self._is_sum(tokens[position - 2])
                if factor and (said.value in self.constants or said.value == terms):
                    continue
                if shares and said.value.denominator == 1 and 1 < said.value <= len(self.table.rows):
                    continue  # an average over some of the rows
                if not self.is_known(said):
                    return token
        return ""

    def _is_sum(self, token: str) -> bool:
        """Whether a token is a bracket's end or an earlier result."""
        return token == ")" or (re.fullmatch(NUM, token) is not None and number(token).value in self.results)

    def _equal(self, sides: list[list[str]], hedged: list[bool], folded: Folded) -> bool | None:
        """Whether all sides come to the same; None where that cannot be worked out."""
        if not all(sides):
            return None
        names = sorted({token for side in sides for token in side if re.fullmatch(NAME, token)})
        options = [self._options(name, folded) for name in names]
        tried = False
        for choice in islice(product(*options), 16):
            given = dict(zip(names, choice))
            for hundredths in (False, True):
                values = [_evaluate(side, given, hundredths) for side in sides]
                if any(value is None for value in values):
                    continue
                tried = True
                if all(
                    self._matches(side, value, values[0], about) or self._matches(side, value, before, about)
                    for side, value, before, about in zip(sides[1:], values[1:], values, hedged)
                ):
                    return True
        return False if tried else None

    @staticmethod
    def _matches(side: list[str], value: Fraction | None, true: Fraction | None, about: bool) -> bool:
        assert value is not None
        assert true is not None
        operands = [token for token in side if token not in "()"]
        if len(operands) != 1 or not re.fullmatch(NUM, operands[0]):
            return same_result(Number(value, hedged=about), true) or abs(value - true) * 1000 <= abs(true)
        said = number(operands[0], about)
        return same_result(said, true) or (said.percent and same_result(said, true * 100))

    def _words(self, text: str, folded: Folded) -> str:
        """The same in words: "the sum of 7 and 12 is 19", "red is 5 more than blue"."""
        for pattern, work_out in _IN_WORDS if _SAYS_STEP.search(text) else ():

            def judge(found: re.Match[str], work_out: Any = work_out) -> str:
                said = number(found["result"], bool(_HEDGED.search(found[0][: -len(found["result"])])))
                choices = product(
                    *(self._options(each, folded) for each in re.findall(_OPERAND, found["list"]))
                )
                true = [work_out([each.value for each in choice]) for choice in islice(choices, 16)]
                self._word_step(true, said, found, folded)
                return _USED

            text = pattern.sub(judge, text)

        def by(found: re.Match[str]) -> str:
            said = number(found["result"] or found["result2"])
            operands = found["a"] or found["a2"], found["b"] or found["b2"]
            pairs = product(*(self._options(each, folded) for each in operands))
            true = [
                _ratio([a.value, b.value])
                if found["times"]
                else (b.value - a.value if found["fewer"] else a.value - b.value)
                for a, b in islice(pairs, 16)
            ]
            self._word_step(true, said, found, folded)
            return _USED

        return _BY.sub(by, text)

    def _sums(self, text: str, folded: Folded) -> str:
        return _SUM_IS.sub(lambda found: self._sum_is(found, folded), text) if self.has_facts else text

    def _sum_is(self, found: re.Match[str], folded: Folded) -> str:
        """ "Their sum is 480": right if some group of rows has this sum, else not understood."""
        said = number(found["result"])
        groups = [*self._scopes(folded), frozenset(self.credit)]
        sums = (
            sum((value for row in group if (value := self._value(row)) is not None), Fraction())
            for group in groups
        )
        if not any(same_result(said, each) for each in sums):
            return found[0]
        self._step(True, found[0], said.value)
        return _USED

    def _word_step(
        self, true: Sequence[Fraction | None], said: Number, found: re.Match[str], folded: Folded
    ) -> None:
        values = [value for value in true if value is not None]
        readings = [
            replace(said, value=each, unit=said.unit * each / said.value if said.value else said.unit)
            for each in said.readings
        ]
        right = any(same_result(reading, value) for reading in readings for value in values)
        self.last = folded.plain(found[0])
        self._step(right if values else None, self.last, said.value)

    def _scopes(self, folded: Folded) -> list[frozenset[int]]:
        """The groups of rows that "the largest" or "above 5" can be about."""
        every = frozenset(range(len(self.table.rows)))
        for mentions in (folded.mentions, self.asked.mentions):
            series = {mention.rows for mention in mentions if mention.series and not mention.label}
            if series and len(self.table.series) > 1:
                return [*series, frozenset().union(*series)]
        whole = {mention.series for mention in self.asked.mentions if mention.series and mention.label}
        named = [mention.rows for mention in self.asked.mentions if mention.label]
        scopes = [every]
        if len(self.table.series) > 1 and not whole:
            scopes += [*self.table.labels.values(), *self.table.series.values()]
        return scopes + ([frozenset().union(*named)] if len(named) > 1 else [])

    def _value(self, row: int) -> Fraction | None:
        return self.table.rows[row].value

    def _counts(self, text: str, folded: Folded) -> str:
        """Lists of what is above or below a bound, and how many there are."""
        if not self.has_facts:
            return text
        if found := _THERE_ARE.fullmatch(text):
            count = int(number(found["count"]).value)
            noun, sizes = found["noun"].lower(), {len(self.table.rows), len(self.table.labels)}
            if noun.startswith("series"):
                sizes = {len(self.table.series) or 1}
            elif noun.startswith("label") or noun.startswith("categor"):
                sizes = {len(self.table.labels)}
            right = count in sizes and (found["again"] is None or number(found["again"]).value == count)
            self._step(right, folded.plain(found[0]), Fraction(count))
            return _USED
        if found := _COUNTED.fullmatch(text):
            names = [folded.plain(each).strip().lower() for each in found["names"].split(",")]
            self.listed = len(names)
            groups = ([row.name for row in self.table.rows], self.table.labels, self.table.series)
            right = any(sorted(names) == sorted(name_key(name) for name in group) for group in groups)
            self._step(right, folded.plain(found[0]))
            return _USED
        if self.listed is not None and (found := _SO_MANY.fullmatch(text)):
            said = number(found["count"]).value
            # Either the last list is counted, or one before it that has been counted already.
            right = said == self.listed or said in self.results
            self._step(right, f"{self.listed} listed, but {folded.plain(text)}", said)
            return _USED
        if found := _NAMES_ARE.fullmatch(text):
            self.listed = len(re.findall(NAME, found["names"]))
            return text
        text = _LISTED.sub(lambda found: self._list(found, folded), text)
        return _SO_MANY_ARE.sub(lambda found: self._so_many(found, folded), text)

    def _beyond(self, found: re.Match[str], scope: frozenset[int]) -> frozenset[int]:
        bound, above = number(found["bound"]).value, bool(found["above"]) != bool(found["not"])
        values = ((row, self._value(row)) for row in scope)
        return frozenset(
            row for row, value in values if value is not None and (value > bound if above else value < bound)
        )

    def _list(self, found: re.Match[str], folded: Folded) -> str:
        names = re.sub(r"^(?:none|no\s+\w+)$", "", found["names"].strip(), flags=re.I)
        mentions = re.findall(NAME, names)
        if not mentions and names:
            if found["lead"] is None and found["names"] and ":" in found[0]:
                self._step(False, folded.plain(found[0]))  # a list of names that the facts do not have
                return _USED
            return found[0]
        unknown = re.sub(rf"{NAME}|\band\b|[,&\s]", "", names)
        self.listed = len(mentions)
        right = not unknown and any(
            len(mentions) == len(rows := self._beyond(found, scope))
            and all(folded[each].rows & rows for each in mentions)
            and len({folded[each].rows for each in mentions}) == len(mentions)
            for scope in self._scopes(folded)
        )
        self._step(right, folded.plain(found[0]), Fraction(len(mentions)))
        return _USED

    def _so_many(self, found: re.Match[str], folded: Folded) -> str:
        count = number(found["count"]).value
        if count > len(self.table.rows):
            return found[0]  # an amount, not a count
        right = any(len(self._beyond(found, scope)) == count for scope in self._scopes(folded))
        self._step(right, folded.plain(found[0]), count)
        return _USED

    def _order(self, text: str, folded: Folded) -> str:
        """Comparisons: `15 > 8`, `3 < 5 > 4`, "red is higher than blue"."""

        def chain(found: re.Match[str]) -> str:
            operands = re.findall(_OPERAND, found[0])
            values = [next(iter(self._options(each, folded)), None) for each in operands]
            signs = re.findall("[<>]", found[0])
            if any(value is None for value in values):
                return _USED
            said = [value for value in values if value is not None]
            holds = all(
                a.value < b.value if sign == "<" else a.value > b.value
                for sign, (a, b) in zip(signs, pairwise(said))
            )
            stray = [operand for operand, value in zip(operands, said) if not self.is_known(value)]
            self._step(holds and not stray, folded.plain(found[0]))
            return _USED

        def compared(found: re.Match[str]) -> str:
            pairs = list(islice(product(*(self._options(found[each], folded) for each in "ab")), 16))
            verdicts = {(a.value > b.value if found["more"] else a.value < b.value) for a, b in pairs}
            right = None if len(verdicts) != 1 else verdicts.pop() != bool(found["not"])
            right = right and all(self.is_known(number(each)) for each in re.findall(NUM, found[0]))
            self._step(right, folded.plain(found[0]))
            return _USED

        return _COMPARED.sub(compared, _CHAIN.sub(chain, text))

    def _extremes(self, text: str, folded: Folded) -> str:
        """ "The largest is 18, so pink", "pink has the highest value", "the lowest bar is red at 3"."""
        if not self.has_facts or _SUMMED.search(text):
            return text
        pieces, end = [], 0
        for found in _EXTREME.finditer(text):
            names = [name for name in (found["name"], found["name2"]) if name]
            values = [value for value in (found["value"], found["value2"]) if value]
            start = found.start()
            if not (names and values) and (owner := _HAS_EXTREME.search(text[end:start])):
                (names if re.fullmatch(NAME, owner[1]) else values).append(owner[1])
                start = end + owner.start()
            if not (names or values):
                continue
            stranger = bool(values and not names and found["other"]) and not _GENERIC.search(found["other"])
            right = not stranger and self._is_extreme(
                bool(found["large"]), names, [number(value) for value in values], folded, found["scope"]
            )
            said = folded.plain(text[start : found.end()])
            self._step(right, said, number(values[0]).value if values else None)
            if right and names and values:
                at = [folded[name].rows for name in names]
                held = [row for rows in at for row in rows if self._reads(row, number(values[0]))]
                self.credit |= {row: 1.0 for row in held if len(held) == 1}
            self.last = said
            pieces += [text[end:start], _USED]
            end = found.end()
        return "".join([*pieces, text[end:]])

    def _is_extreme(
        self, large: bool, names: list[str], values: list[Number], folded: Folded, scoped: str | None
    ) -> bool:
        """Whether some group of rows has this extreme value at this name."""
        for scope in [folded[scoped].rows] if scoped else self._scopes(folded):
            numbers = [value for row in scope if (value := self._value(row)) is not None]
            if not numbers:
                continue
            best = max(numbers) if large else min(numbers)
            holders = {row for row in scope if self._value(row) == best}
            if all(same_reading(value, best) for value in values) and all(
                folded[name].rows & holders for name in names
            ):
                return True
        return False

    def _trends(self, text: str, folded: Folded) -> str:
        found = _CHAIN_VERDICT.search(text) or _TREND.search(text)
        if not (found and self.has_facts and self.asks_trend):
            return text
        scopes = self._scopes(folded)
        if len(scopes) > 1 and len(self.table.series) > 1 and len(scopes[0]) == len(self.table.rows):
            return text  # several series and none named: which one is meant cannot be told
        values = [value for row in sorted(scopes[0]) if (value := self._value(row)) is not None]
        self._step(trend(values) == _verdict(found[1]), folded.plain(found[0]))
        return text


def trend(values: Sequence[Fraction]) -> str:
    """ "rising" if every value is larger than the one before, "falling" if smaller, else "neither"."""
    rises = [new > old for old, new in pairwise(values)]
    falls = [new < old for old, new in pairwise(values)]
    return (
        "neither" if len(values) < 2 else "rising" if all(rises) else "falling" if all(falls) else "neither"
    )


def _verdict(word: str) -> str:
    word = word.lower()
    return "neither" if word == "neither" else "rising" if word[:3] in ("ris", "inc") else "falling"


def _evaluate(tokens: list[str], names: Mapping[str, Number], hundredths: bool) -> Fraction | None:
    """The value of a calculation with the usual precedence; None where it is malformed or divides by 0."""
    position = 0

    def peek() -> str:
        return tokens[position] if position < len(tokens) else ""

    def take() -> str:
        nonlocal position
        position += 1
        return tokens[position - 1]

    def factor() -> Fraction:
        token = take() if peek() else ")"
        if token == "(":
            value = total()
            if peek() == ")":
                take()
            return value
        if token == "-":
            return -factor()
        if token in "+*/)":
            raise ValueError(token)
        said = names[token] if token in names else number(token)
        return said.value / 100 if said.percent and hundredths else said.value

    def term() -> Fraction:
        value = factor()
        while peek() in ("*", "/"):
            value = value * factor() if take() == "*" else value / factor()
        return value

    def total() -> Fraction:
        value = term()
        while peek() in ("+", "-"):
            value = value + term() if take() == "+" else value - term()
        return value

    try:
        value = total()
        while peek() == ")":  # a bracket of the sentence, not of the calculation
            take()
        return None if peek() else value
    except (ValueError, ZeroDivisionError, IndexError, RecursionError):
        return None


# ----------------------------------------------------------------------------------------- conclusion

_ANSWER_IS = re.compile(r"\banswers?\b\s*(?:is|are|would be|:|=)+\s*", re.IGNORECASE)
_SO = re.compile(
    r"(?:^|,\s*|\band\s+)(?:so|therefore|thus|hence|consequently|which means|this means|that means|in conclusion|"
    r"we conclude|that makes|this gives)\b[,:]?\s*(?:that\s+)?(?!that\b|far\b|the question\b)(?=\S)",
    re.IGNORECASE,
)
_COPULA = re.compile(rf"\s*(?:=|≈|:)\s*|\s+(?:is|are|was|were|equals)\s+(?:{_HEDGE}\s+)?", re.IGNORECASE)
_YES_NO = re.compile(r"\b(yes|no|true|false)\b", re.IGNORECASE)
_GOLD_PAIR = re.compile(rf"\s*([^=,]+?)\s*=\s*({NUM})\s*")


def _gold_pairs(gold: str) -> set[tuple[str, Fraction]] | None:
    """A transcription's pairs, where the gold answer is a table."""
    parts = [_GOLD_PAIR.fullmatch(part) for part in cleaned(gold).strip(" .").split(",")]
    if len(parts) < 2 or not all(parts):
        return None
    return {(name_key(found[1]), number(found[2]).value) for found in parts if found}


@dataclass(frozen=True)
class _Conclusion:
    """What the trace ends in: how far it agrees, and whether it says something else outright."""

    agrees: float
    said: str = ""
    differs: bool = False


def _conclude(spoken: list[Sentence], reader: _Reader, gold: str) -> _Conclusion:
    """The trace's last word against the gold answer."""
    if not spoken or not gold.strip():
        return _Conclusion(0.0)
    if wanted := _gold_pairs(gold):
        return _table_conclusion(spoken, wanted)
    asked = {each.split()[0] for each in re.findall(NUM, reader.asked.text)}
    clause, outright = _last_word(spoken)
    verdict = _agrees(clause, gold, reader.table, asked, outright)
    if verdict is None and outright and clause.count(" ") < 4:
        verdict = False  # a short answer that is something else altogether
    if verdict is False and _agrees(spoken[-1].text, gold, reader.table, asked, False):
        verdict = True  # the last sentence says it plainly
    if not outright:
        # A remark after the conclusion takes nothing back.
        for sentence in spoken[-2:-4:-1] if verdict is None else ():
            if _agrees(sentence.text, gold, reader.table, asked, False):
                clause, verdict = sentence.text, True
        # A trace that ends in a calculation or reading has said its answer.
        outright = reader.last != "" and clause.endswith(reader.last.strip()[-8:])
    stray = _YES_NO.match(gold.strip()) and any(
        said[0].lower() != gold.strip().lower()
        for sentence in spoken
        if (found := _SO.search(sentence.text)) and (said := _YES_NO.fullmatch(sentence.text[found.end() :]))
    )
    return _Conclusion(
        float(bool(verdict) and not stray), clause, bool(stray) or (verdict is False and outright)
    )


def _table_conclusion(spoken: list[Sentence], wanted: set[tuple[str, Fraction]]) -> _Conclusion:
    said = {
        (name_key(found[1]), number(found[2]).value)
        for sentence in spoken
        for part in sentence.text.split(",")
        if (found := _GOLD_PAIR.fullmatch(part))
    }
    return _Conclusion(len(said & wanted) / len(said | wanted), spoken[-1].text, bool(said - wanted))


def _last_word(spoken: list[Sentence]) -> tuple[str, bool]:
    """The clause that concludes, and whether it is marked as a conclusion."""
    for sentence in reversed(spoken):
        if sentence.heading.endswith("answer"):
            return _ANSWER_IS.split(sentence.text)[-1], True
        if found := _ANSWER_IS.search(sentence.text):
            return sentence.text[found.end() :], True
    told = [sentence for sentence in spoken if not sentence.heading.endswith("check")]
    for sentence in reversed(told[-2:]):
        if marks := list(_SO.finditer(sentence.text)):
            return sentence.text[marks[-1].end() :], True
    return (told or spoken)[-1].text, False


def _agrees(clause: str, gold: str, table: Table, asked: set[str], outright: bool) -> bool | None:
    """Whether a clause states the gold answer; None where it states nothing of its kind.

    `asked` are the question's own numbers; a clause that is not `outright` a conclusion may be a list of
    readings, which concludes nothing.
    """
    clause = clause.strip(" .")
    if not outright and sum(bool(_ASSIGNED.fullmatch(part.strip())) for part in clause.split(",")) > 1:
        return None
    if scoring.robust(clause, gold) or scoring.robust(_after_copula(clause), gold):
        return True
    if re.fullmatch(r"(?i)yes|no", gold.strip()):
        said = {word.lower() for word in _YES_NO.findall(clause)}
        return scoring.robust(said.pop(), gold) if len(said) == 1 else None
    folded = table.fold(clause)
    names = [folded[found] for found in re.findall(NAME, folded.text)]
    numbers = re.findall(NUM, folded.text) or re.findall(NUM, clause)
    if _is_number(gold, table):
        if not numbers:
            return None
        calculated = "=" in clause or _STEP.search(clause)
        told = numbers[-1:] if calculated or len(numbers) > 3 else numbers
        own = [each for each in numbers if each.split()[0] not in asked]
        if not outright and not calculated and len(own) > 1:
            return None
        # "35 million" is the 35 of a chart in millions; a number of the question is no answer to it.
        if any(scoring.robust(each, gold) for far in (told[0], told[-1]) for each in (far, far.split()[0])):
            return True
        return False if calculated or len(own) == 1 else None
    if names:
        key = name_key(gold)
        # A bare list of names picks none of them.
        several = len({each.rows for each in names}) > 2
        near = (
            names[:1]
            if several and re.search(r"\b(?:is|has|was|had)\b", clause)
            else names[:0]
            if several
            else names
        )
        if any(key in (name_key(each.text), each.label, each.series) for each in near):
            return True
        if several:
            return None
        return False if key in table.labels or key in table.series else None
    words = rf"(?<!\w){re.escape(name_key(gold))}(?!\w)"
    return True if re.search(words, name_key(clause)) else None


def _is_number(gold: str, table: Table) -> bool:
    """Whether the answer is an amount: the label 2015 is none."""
    return bool(re.fullmatch(NUM, cleaned(gold).strip())) and name_key(gold) not in table.labels


def _after_copula(clause: str) -> str:
    """What follows the last "is" or "=": "the value for red is 7" says 7."""
    return _COPULA.split(clause)[-1]


# ---------------------------------------------------------------------------------------------- check


@dataclass(frozen=True)
class Checked:
    """A trace's worth.

    Attributes:
        score: in [0, 1]; see `check`.
        coverage: share of the needed facts read, times the share of readings that are right; None
            without facts.
        arithmetic: share of the steps that are right; half of it where none leads to the answer.
        conclusion: 1 where the trace ends in the gold answer (a table's share of right pairs), else 0.
        faults: a line for each wrong thing.
    """

    score: float
    coverage: float | None
    arithmetic: float
    conclusion: float
    faults: tuple[str, ...] = ()


def check(trace: str, facts: list[dict[str, Any]] | None, question: str, answer: str) -> Checked:
    """How well `trace` reasons from `facts` to `answer`.

    The score is the weighted sum of the parts, divided by 1 + faults / 4. A conclusion that neither a
    reading nor a step supports counts half; without facts the other two parts share the weight. Nothing
    is earned by repeating, nor by a list of readings without a step and a conclusion (0.4 at most).

    Args:
        facts: rows or objects (`rows_of`), or None where the data has none.
        answer: the gold answer, compared by the `robust` scorer.
    """
    reader = _Reader(table_of(facts or []), question)
    spoken = [each for each in sentences(trace or "") if each.heading not in _UNCHECKED]
    spoken = [each for each in spoken if not each.text.endswith("?") and each.text != question.strip(" .")]
    for sentence in spoken:
        # "Final Answer: 7" and "so yes" are conclusions; what they rest on stands before them.
        if not sentence.heading.endswith("answer"):
            reader.read(sentence.text)
    conclusion = _conclude(spoken, reader, answer)
    faults = list(reader.faults)
    if conclusion.differs:
        faults.append(f"the conclusion is {conclusion.said!r}, not {answer!r}")
    elif conclusion.agrees and (loose := _loose(conclusion.said, reader, answer)):
        faults.append(f"the conclusion {loose} follows from no fact or step")
    coverage = _coverage(reader, answer) if reader.table.rows else None
    return _scored(reader, coverage, answer, conclusion.agrees, tuple(faults))


def _loose(clause: str, reader: _Reader, gold: str) -> str:
    """A conclusion's number that is near the gold answer but comes from nothing that was said."""
    found = [each for each in re.finditer(NUM, clause)]
    if len(found) != 1 or not reader.has_facts or not _is_number(gold, reader.table):
        return ""
    said = number(found[0][0], bool(_HEDGED.search(clause[: found[0].start()])))
    wanted = number(cleaned(gold).strip()).value
    near = said.hedged or same_result(said, wanted) or same_reading(said, wanted)
    # Another number than a known answer, or one from nowhere.
    return "" if near or (wanted not in reader.known and reader.is_known(said)) else found[0][0]


def _scored(
    reader: _Reader, coverage: float | None, answer: str, agrees: float, faults: tuple[str, ...]
) -> Checked:
    """The parts put together, as `check` says."""
    steps = reader.steps_right + reader.steps_wrong
    if steps:
        leads = any(
            result is not None and scoring.robust(_decimal(result), answer) for result in reader.results
        )
        leads = leads or (agrees > 0 and not _is_number(answer, reader.table))
        arithmetic = reader.steps_right / steps * (1.0 if leads else 0.5)
    elif coverage is None:
        arithmetic = 0.0
    else:
        # A look-up needs no step; anything else without one is half shown at best.
        must_reason = _MUST_REASON.search(reader.asked.text) and not _gold_pairs(answer)
        arithmetic = (0.5 if must_reason else 1.0) * coverage * agrees
    supported = bool(coverage) or reader.steps_right > 0
    ended = agrees * (1.0 if supported else 0.5)
    if coverage is None:
        score = (ARITHMETIC * arithmetic + CONCLUSION * ended) / (ARITHMETIC + CONCLUSION)
    else:
        score = COVERAGE * coverage + ARITHMETIC * arithmetic + CONCLUSION * ended
    return Checked(score / (1 + len(faults) / FAULTS_TO_HALVE), coverage, arithmetic, agrees, faults)


def _coverage(reader: _Reader, answer: str) -> float:
    """Share of the needed rows that were read, times the share of readings that are right."""
    needed = reader.needed
    labels = {reader.table.rows[row].label for row in needed}
    # "The red line" names no series: reading any one of them through may be all that is needed.
    vague = not _gold_pairs(answer) and not any(mention.series for mention in reader.asked.mentions)
    enough = min(len(labels if vague else needed), ENOUGH_ROWS)
    read = min(1.0, sum(reader.credit.get(row, 0.0) for row in needed) / enough)
    right = sum(1 for credit in reader.credit.values() if credit == 1.0)
    told = right + reader.pairs_wrong
    return read * (right / told if told else 1.0)


# -------------------------------------------------------------------------------------------- rewards


def thinking(completion: Completion, example: Example) -> float:
    """How well the completion reasons: against the facts, else the reference trace, else on its own."""
    trace = completion.parsed.reasoning or ""
    if not example.facts and example.reasoning:
        return lemma_f1(trace, example.reasoning)
    return check(trace, example.facts, example.question, example.answer).score


def thinking_lemma(completion: Completion, example: Example) -> float:
    """`lemma_f1` against the reference trace, the reward of "Pure DyME"; 0 where there is none."""
    return lemma_f1(completion.parsed.reasoning or "", example.reasoning or "")
