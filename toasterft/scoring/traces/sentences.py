"""Split a trace into sentences; pieces of patterns, and `TraceState`: the results so far.

Signs, quotes and separators are written one way (`numbers.cleaned`), bullets and headings taken off; a name of the
table is a single character (`tables.Folded`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from toasterft.scoring import lexicon
from toasterft.scoring.numbers import HEDGE, NUM, Number, cleaned, fraction, number, numbers_in, values_read
from toasterft.scoring.tables import NAME, Folded, Mention, Table, read_json

# "2) Final Answer:", "- Step 1:", "**"
_HEADING = re.compile(
    r"\s*(?:[-*•#]+\s*|\d{1,2}[.)]\s+)*(?:(goal|requirements?|observations?|reasoning|extraction|calculations?|"
    r"facts|transcription|steps?(?: \d+)?|conclusion|recheck|check|(?:final )?answer)\s*:)?\s*",
    re.IGNORECASE,
)
# ". ", "; ", "? "
_ENDS = re.compile(  # not in "U.S. dollars"
    r"(?<![A-Z]\.)(?<=[.!])\s+|(?<=;)\s+(?!its?\b)|(?<=[A-Z]\.)\s+(?![a-z(])|(?<=\?)\s*"
)
UNCHECKED = ("goal", "requirement", "requirements")  # a question and its needs state nothing


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


# --- pieces of patterns ----------------------------------------------------------------------

OPERAND = rf"(?:{NUM}|{NAME})"
# `=`, "which gives us about"
EQUALS = (
    r"\s*,?\s*(?:=|≈|(?:which\s+|that\s+)?(?:is|are|was|were|equals?|gives?|makes?|yields?|leaves|comes\s+to|come\s+to|"
    rf"results?\s+in|amounts?\s+to)\b)\s*(?:equal\s+to\s+|us\s+|a\s+total\s+of\s+)?(?:{HEDGE}\s*)?"
)
MORE, FEWER = f"(?:{lexicon.MORE})", f"(?:{lexicon.FEWER})"
POINTS = r"(?:\s+(?:percentage\s+)?(?:points?|units?))?"
# "above 5"
BOUND = rf"(?:(?P<above>{lexicon.ABOVE})|(?P<below>{lexicon.BELOW}))\s+(?P<bound>{NUM})"
# `red = 7`
ASSIGNED = re.compile(rf"(?P<name>[^=,]{{1,80}}?)\s*=\s*(?P<value>{NUM})")
# What may stand left of "=" or "is" and be no label.
GENERIC = re.compile(
    r"\b(?:sum|totals?|difference|ratio|average|mean|median|result|answer|values?|numbers?|counts?|gap|product|quotient|"
    r"change|increase|decrease|share|percentages?|max(?:imum)?|min(?:imum)?|largest|smallest|highest|lowest|range|axis|"
    r"scale|title|units?|step|interval|legend|it|this|that|there|here|which|what|each|one|years?|label|x|y|n|half|rest|"
    r"remainder|all|both|other|the|and|bars?|first|second|last|latest|previous|next|order|rank|¤)\b|¤",
    re.IGNORECASE,
)
USED = "¤"  # stands where a step was read


# --- the table, and what of it a question is about --------------------------------------------


MUST_REASON = re.compile(
    r"\b(?:differences?|sum|total|add|together|combined|ratio|times|divided?|average|mean|median|how many|count|"
    r"(?:larg|high|great|bigg|tall|long|small|low|short|few)est|most|least|peak|maximum|minimum|max|min|higher|lower|larger|smaller|greater|bigger|more|less|fewer|exceeds?|"
    r"below|above|than|trend|rising|falling|compare|gap|deduct|subtract|product|twice|double|all)\b",
    re.IGNORECASE,
)


def needed_rows(table: Table, question: Folded) -> list[int]:
    """The rows that an answer rests on: those named in the question, else a named series, else all."""
    whole = [mention.rows for mention in question.mentions if mention.label and mention.series]
    labels = [mention.rows for mention in question.mentions if mention.label and not mention.series]
    series = [mention.rows for mention in question.mentions if mention.series and not mention.label]
    if whole:
        return sorted(frozenset().union(*whole))
    given = {each.value for each in numbers_in(question.text)}
    holders = [row for row, each in enumerate(table.cells) if each.number in given]
    if holders and not labels and not MUST_REASON.search(question.text):
        return holders  # "which bar has a value of 6?"
    some = frozenset().union(*labels) if labels else frozenset(range(len(table.cells)))
    return sorted((some & frozenset().union(*series) if series else some) or range(len(table.cells)))


# --- what was found --------------------------------------------------------------------------

_ASKS_TREND = re.compile(rf"\b(?:{lexicon.TREND})\b", re.IGNORECASE)


@dataclass(frozen=True)
class Premises:
    """What every trace about one question starts from.

    Attributes:
        question: with the table's names folded.
        needed: the rows that the answer rests on.
        constants: numbers that a step may use without a source.
        known: numbers of the facts and the question.
    """

    table: Table
    question: Folded
    asks_trend: bool
    needed: list[int]
    constants: frozenset[Fraction]
    known: frozenset[Fraction]


@lru_cache(maxsize=1024)
def premises(facts: str, question: str) -> Premises:
    """The premises of facts as JSON and a question; made once per question, not once per completion."""
    table, text = read_json(facts).without_gaps(), cleaned(question)
    folded, rows = table.fold(text), table.cells
    sizes = {len(rows), len(table.by_label), len(table.by_series)} if rows else set()
    given = {each.value for each in numbers_in(text)}
    given |= {value for row in rows if (value := fraction(row.label)) is not None}
    return Premises(
        table,
        folded,
        bool(_ASKS_TREND.search(question)),
        needed_rows(table, folded),
        frozenset(map(Fraction, {1, 2, 10, 100, 1000, 10**6} | sizes)),
        table.numbers | given,
    )


class TraceState:
    """Kept while the sentences of one trace are read.

    Attributes:
        credit: by row, 1 where it was read right, less where only a part of that was seen.
        known: numbers that a step may start from.
        results: of right steps; None where the result is no number.
        listed: how many names the last list had.
        last: the last result or reading.
    """

    def __init__(self, start: Premises) -> None:
        self.table, self.question, self.needed = start.table, start.question, start.needed
        self.asks_trend, self.constants = start.asks_trend, start.constants
        self.known = set(start.known)
        self.has_facts = bool(self.table.numbers)
        self.seen: set[str] = set()
        self.credit: dict[int, float] = {}
        self.pairs_wrong = self.steps_right = self.steps_wrong = 0
        self.results: list[Fraction | None] = []
        self.listed: int | None = None
        self.last: str = ""
        self.faults: list[str] = []

    def add_step(self, right: bool | None, step: str, result: Fraction | None = None) -> None:
        """Book one step, once; None is a step that could not be worked out."""
        key = "".join(step.lower().split())
        if right is None or key in self.seen:
            return
        self.seen.add(key)
        if right:
            self.steps_right += 1
            self.results.append(result)
            self._credit_values(step)
        else:
            self.steps_wrong += 1
            self.faults.append(f"wrong step: {step.strip()}")
        if result is not None:
            self.known.add(result)

    def _credit_values(self, step: str) -> None:
        """Half the credit for a needed row whose value, without its name, stands in a right step."""
        for row in self.rows_with(self.needed, *numbers_in(step)):
            self.credit[row] = max(self.credit.get(row, 0.0), 0.5)

    def add_wrong_reading(self, reading: str) -> None:
        """Book one wrong reading, once."""
        reading = reading.strip(" ,:")
        if reading.lower() not in self.seen:
            self.seen.add(reading.lower())
            self.pairs_wrong += 1
            self.faults.append(f"wrong reading: {reading}")

    def context(self, mention: Mention, at: int, folded: Folded) -> frozenset[int]:
        """The rows a name means here: narrowed by the nearest series (or label) of the same sentence."""
        if len(mention.rows) < 2:
            return mention.rows
        nearby = sorted((place > at, abs(place - at), other.rows) for place, other in folded.beside(mention))
        return next((mention.rows & rows for _, _, rows in nearby if mention.rows & rows), mention.rows)

    def rows_with(self, rows: Iterable[int], *readings: Number) -> list[int]:
        """Those of `rows` that have one of these values."""
        values = [(row, value) for row in rows if (value := self.table.cells[row].number) is not None]
        right = values_read({value for _, value in values}, *readings)
        return [row for row, value in values if value in right]

    def value(self, row: int) -> Fraction | None:
        return self.table.cells[row].number

    def options(self, operand: str, folded: Folded, at: int = 0) -> list[Number]:
        """What an operand can stand for."""
        if not re.fullmatch(NAME, operand):
            return [number(operand)]
        mention = folded[operand]
        if mention.value is not None:
            return [mention.value]
        values = (self.table.cells[row].number for row in sorted(self.context(mention, at, folded)))
        own = re.fullmatch(NUM, mention.text)  # a year may be counted with
        found = [Number(value) for value in values if value is not None]
        return [*found[:4], *([number(mention.text)] if own else [])]

    def is_known(self, operand: Number) -> bool:
        """Whether a number comes from a fact, the question or a step."""
        return not self.has_facts or operand.value in self.known or bool(values_read(self.known, operand))

    def scopes(self, folded: Folded) -> list[frozenset[int]]:
        """The groups of rows that "the largest" or "above 5" can be about."""
        every = frozenset(range(len(self.table.cells)))
        for mentions in (folded.mentions, self.question.mentions):
            series = {mention.rows for mention in mentions if mention.series and not mention.label}
            if series and len(self.table.by_series) > 1:
                return [*series, frozenset().union(*series)]
        whole = {mention.series for mention in self.question.mentions if mention.series and mention.label}
        named = [mention.rows for mention in self.question.mentions if mention.label]
        scopes = [every]
        if len(self.table.by_series) > 1 and not whole:
            scopes += [*self.table.by_label.values(), *self.table.by_series.values()]
        return scopes + ([frozenset().union(*named)] if len(named) > 1 else [])


# --- words in common -------------------------------------------------------------------------

# `7.5`, "chart's"
_WORD = re.compile(r"\d+(?:\.\d+)?|[^\W\d_]+(?:'[^\W\d_]+)?")


def _lemma(word: str) -> str:
    """A crude lemma: plural, -ing and -ed taken off. Both sides go through it, so a stem will do."""
    if word in lexicon.IRREGULAR or len(word) < 4 or not word.isalpha():
        return lexicon.IRREGULAR.get(word, word)
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
    return {_lemma(word) for word in words if word not in lexicon.STOP and (len(word) > 1 or word.isdigit())}


def lemma_f1(trace: str, reference: str) -> float:
    """F1 over the two sets of content lemmas: the thinking reward of "Pure DyME" (official code).

    The paper's lemmas are spaCy's (en_core_web_sm) of nouns, names, verbs, adjectives and numbers. Here
    a word is what the stop list leaves, so adverbs count too, and `_lemma` strips endings by rule; both
    sides alike, which keeps the F1 of equal texts at 1 and of texts without a common word at 0.
    """
    words, wanted = lemmas(trace), lemmas(reference)
    both = len(words & wanted)
    return 2 * both / (len(words) + len(wanted)) if both else 0.0
