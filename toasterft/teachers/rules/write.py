"""The teacher that needs no network: traces written by program from the table behind a chart.

    Favorable 2015 = 38, Favorable 2013 = 35. 38 - 35 = 3.

Sentences are those of the charts drawn here (`charts.phrases`), so that one model can learn from both. With
the answer known, the best fitting way that ends in it is written down; blind, the best fitting way at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from toasterft.data.charts.phrases import HEADINGS, NEEDS
from toasterft.data.example import Example
from toasterft.scoring import robust, tables
from toasterft.scoring.numbers import fraction, shown
from toasterft.scoring.tables import Table
from toasterft.teachers.rules import claims, derive
from toasterft.teachers.rules.question import Asked
from toasterft.teachers.rules.terms import NAMED, Term, rounds_to

YES_NO = ("yes", "no")
# What makes a way more or less likely to be the one that was meant; set by looking at 100 traces.
SURELY_USED, USED, UNUSED, GUESSED, STEP = 0.5, 0.1, 0.1, 0.2, 0.05


ABOUT_AS_GOOD = 0.1
# A calculation that the words only may ask for needs its cells well named.
CALCULATIONS = frozenset({"sum", "difference", "ratio"})
WELL_NAMED, HARDLY_NAMED = 0.6, 0.3


@dataclass(frozen=True)
class Written:
    """A trace in both styles; `answer` is where it ends."""

    simplified: str
    structured: str
    answer: str


def write(example: Example, *, blind: bool = False) -> Written | None:
    """A trace for an example whose facts are a table; None where no way leads to its answer."""
    table = tables.numeric(example.facts)
    if table is None:
        return None
    term = choose(table, example.question, None if blind else example.answer)
    return None if term is None else _told(table, example.question, term, None if blind else example.answer)


def can_read(example: Example) -> bool:
    """Whether an example carries a table."""
    return tables.numeric(example.facts) is not None


def choose(table: Table, question: str, answer: str | None) -> Term | None:
    """The way that fits a question best, among those that end in `answer` where it is given."""
    asked = Asked(question, (*table.labels, *table.series))
    compared = _compared(table, question, asked)
    if answer is None:
        return _best(compared or derive.terms(table, asked), asked)
    if answer.strip().lower() in YES_NO:
        # Half of all comparisons end in the answer by chance, so it must be one of the best.
        least = max((_score(term, asked) for term in compared), default=0.0) - ABOUT_AS_GOOD
        right = [term for term in compared if term.picks == answer.strip().lower()]
        return _best((term for term in right if _score(term, asked) >= least), asked)
    several = _listed(answer)
    if several:
        found = list(claims.lists(table, asked, several))
    else:
        wanted = _wanted(answer)
        ending = (_ending(term, answer, wanted) for term in derive.terms(table, asked, wanted))
        found = [term for term in ending if term is not None]
    fitting = (term for term in found if _plausible(term, found, asked))
    return _best(fitting, asked) or _seen(table, asked, answer, found)


def _best(found: Iterable[Term], asked: Asked) -> Term | None:
    return max(found, key=lambda term: _score(term, asked), default=None)


def _seen(table: Table, asked: Asked, answer: str, found: Sequence[Term]) -> Term | None:
    """What only the picture can tell, "the largest bar", "the green line", where one mark bears the answer."""
    lone = [term for term in found if len(term.readings) == 1 and not term.used and not term.only_name]
    # "The median income in 2014" is read off at 2014, whatever the curve is called.
    seen = max(lone, key=lambda term: (term.fit, len(term.readings[0].label)), default=None)
    only_the_picture = asked.surely <= {"largest", "smallest"}
    # Names that were read off in two pieces carry their value twice: the longer piece is taken.
    of_one_series = len({term.readings[0].series for term in lone}) == 1
    if seen is not None and of_one_series and (only_the_picture or seen.fit >= NAMED):
        return seen
    if only_the_picture:
        return next(iter(claims.legends(table, asked, answer.strip())), None)
    return None


def _listed(answer: str) -> list[Fraction]:
    """The numbers of an answer such as `[47, 43]`; none where it is no such list."""
    inner = re.fullmatch(r"\[(.+,.+)\]", answer.strip())
    values = [fraction(part) for part in inner[1].split(",")] if inner else []
    return [value for value in values if value is not None] if None not in values else []


# What an answer is in the table: 56 for 0.56, 0.15 for 15 %, 64 for 64000 where the axis says thousands.
SCALES = (Fraction(1), Fraction(1, 100), Fraction(100), Fraction(1000))


def _wanted(answer: str) -> frozenset[Fraction]:
    """The numbers in the table's own units that an answer may be."""
    value = fraction(answer)
    return (
        frozenset()
        if value is None
        else frozenset(value / scale for scale in SCALES if _scaled(value, scale))
    )


def _scaled(value: Fraction, scale: Fraction) -> bool:
    """Whether a table may be so much smaller than an answer."""
    if scale < 1:
        return value.denominator != 1 and abs(value) <= 1
    return scale == 1 or (value.denominator == 1 and value >= (1000 if scale == 1000 else 1))


def _ending(term: Term, answer: str, wanted: frozenset[Fraction]) -> Term | None:
    """The way as one that ends in the answer, by its name or its number; None where neither is."""
    if term.picks and robust(term.picks, answer) and fraction(answer) == fraction(term.picks):
        return term
    if not term.only_name and any(rounds_to(term.value, goal) for goal in wanted):
        return replace(term, picks="")
    return None


def _score(term: Term, asked: Asked) -> float:
    return (
        term.fit
        + SURELY_USED * len(term.used & asked.surely)
        + USED * len(term.used & asked.operations)
        - UNUSED * len(asked.operations - term.used)
        - GUESSED * len(term.used & CALCULATIONS - asked.surely)
        - STEP * len(term.steps)
    )


def _plausible(term: Term, found: Sequence[Term], asked: Asked) -> bool:
    """Nothing the question surely asks for is left out, and the way is named or the only one of its kind."""
    if not _meant(term, asked):
        return False
    if term.fit >= NAMED:
        return True
    alike = {
        # Zeros that may be gaps make no other way of it.
        other.picks or (tuple(cell for cell in other.readings if cell.value), other.steps)
        for other in found
        if other.used == term.used and other.fit >= term.fit - 0.01
    }
    return len(alike) == 1 and (not term.free or term.fit >= HARDLY_NAMED)


def _meant(term: Term, asked: Asked) -> bool:
    """Every sure operation is carried out, and no more than one that the words only may mean."""
    if asked.surely - term.used:
        return False
    perhaps = term.used & CALCULATIONS - asked.surely
    return not perhaps or term.only_name or (len(perhaps) == 1 and (term.fit >= WELL_NAMED or not term.free))


# --- yes and no ------------------------------------------------------------------------------

_GREATER = r"greater|larger|more|higher|bigger|above|exceeds?|longer|over|ahead|taller"
_SMALLER = r"smaller|less|lower|fewer|below|under|shorter"
_EQUAL = r"equals?(?: to)?|same|similar|exactly"
_YES_NO_QUESTION = re.compile(
    r"(?:^|[,.]|\band\b)\W*(?:is|are|was|were|do|does|did|has|have|can|will)\b", re.IGNORECASE
)
_ONLY_ASKS = re.compile(r"\W*(?:is|are|was|were|do|does|did)\W+(?:there\W*)?", re.IGNORECASE)
_AMOUNT = re.compile(r"\b(?!(?:19|20)\d\d\b)\d[\d.,]*%?")
_BETWEEN = re.compile(
    rf"\b(?:(?P<greater>{_GREATER})|(?P<smaller>{_SMALLER})|(?P<equal>{_EQUAL}))\b(?:\s+(?:than|then|to|as))?",
    re.IGNORECASE,
)


def _compared(table: Table, question: str, asked: Asked) -> list[Term]:
    """Comparisons of what stands before and after "greater than", or of one number with the question's."""
    if not _YES_NO_QUESTION.search(question):
        return []
    out = [*claims.always(table, asked), *claims.existing(table, asked)]
    if out:
        return out
    for found in _BETWEEN.finditer(question):
        left, right = (replace(asked, text=text, _known={}) for text in _halves(question, found))
        sign = next(name for name in ("greater", "smaller", "equal") if found[name])
        out += [
            verdict
            for first in _side(table, left)
            for second in _side(table, right)
            if (verdict := _verdict(first, second, sign)) is not None
        ]
    if not out and asked.numbers:
        number = Term(asked.numbers[-1], (), fit=0.5)
        rest = replace(asked, text=_AMOUNT.sub("", question), _known={})
        out += [
            verdict
            for first in _side(table, rest)
            if (verdict := _verdict(first, number, "equal")) is not None
        ]
    return out


def _halves(question: str, found: re.Match[str]) -> tuple[str, str]:
    """What is compared with what: the text before and after the comparing word, as a rule."""
    before, after = question[: found.start()], question[found.end() :]
    than = re.search(r"\btha?[en]\b", after, re.IGNORECASE)
    if than and _ONLY_ASKS.fullmatch(before):
        # "Are there more A than B"
        return after[: than.start()], after[than.end() :]
    if found["equal"] and not re.search(r"\w", after):
        # "Are A and B equal"
        first, _, second = before.partition(" and ")
        return first, second
    return before, after


def _side(table: Table, asked: Asked) -> list[Term]:
    """The best readings of one side of a comparison: what it names, or a number as it stands."""
    literal = re.fullmatch(r"\W*(\d[\d,.]*?)\W*", asked.text)
    value = fraction(literal[1]) if literal else None
    if value is not None:
        return [Term(value, (), fit=0.5)]
    found = [term for term in derive.terms(table, asked) if _meant(term, asked)]
    ranked = sorted(found, key=lambda term: -_score(term, asked))[:2]
    return [term for term in ranked if term.fit >= NAMED or term.used]


def _verdict(first: Term, second: Term, sign: str) -> Term | None:
    """Two numbers compared; None where both are the same figure."""
    a, b = first.value, second.value
    if first.readings == second.readings and first.steps == second.steps:
        return None
    said = YES_NO[0] if {"greater": a > b, "smaller": a < b, "equal": a == b}[sign] else YES_NO[1]
    real = "=" if a == b else ">" if a > b else "<"
    other = {"=": "=", ">": "<", "<": ">"}[real]
    lead = [step for term in (first, second) if term.used for step in term.steps]
    return Term(
        a,
        tuple(dict.fromkeys((*first.readings, *second.readings))),
        (*dict.fromkeys(lead), f"{shown(a)} {real} {shown(b)}, so {said}."),
        (*dict.fromkeys((*first.rechecks, *second.rechecks)), f"{shown(b)} {other} {shown(a)}."),
        (first.fit + second.fit) / 2,
        first.used | second.used | {"difference", "ratio", "sum"},
        picks=said,
        only_name=True,
    )


# --- sentences -------------------------------------------------------------------------------


def _told(table: Table, question: str, term: Term, answer: str | None) -> Written:
    steps, final = list(term.steps), term.said
    if term.picks and not any(step.endswith(f"{term.picks}.") for step in steps):
        steps[-1] = f"{steps[-1].removesuffix('.')}, so {term.picks}."
    goal = fraction(answer) if answer is not None and not term.picks else None
    if goal is not None and not rounds_to(term.value, goal):
        scale = next(scale for scale in SCALES if rounds_to(term.value, goal / scale))
        by = f"/ {shown(1 / scale)}" if scale < 1 else f"* {shown(scale)}"
        steps.append(f"{shown(term.value)} {by} = {shown(goal, 4)}.")
    read = ", ".join(f"{cell.name} = {shown(cell.value)}" for cell in term.readings)
    lone = len(term.readings) == 1 and len(term.steps) == 1 and not term.used
    first = [] if lone or not read else [f"{read}."]
    final = answer if answer is not None else final
    parts = (
        question,
        _needs(term),
        f"{read}." if read else "none.",
        " ".join(steps),
        " ".join(term.rechecks),
        final,
    )
    return Written(
        simplified=" ".join([*first, *steps]),
        structured="\n".join(f"{heading}: {part}" for heading, part in zip(HEADINGS, parts)),
        answer=final,
    )


def _needs(term: Term) -> str:
    """What has to be read and done, in the words of the charts drawn here."""
    names = {
        "largest": "highest",
        "smallest": "lowest",
        "difference": "difference",
        "sum": "sum",
        "ratio": "ratio",
    }
    if term.picks in YES_NO:
        return NEEDS["compare"]
    if "count" in term.used:
        return NEEDS["count"]
    kinds = [names[name] for name in sorted(term.used) if name in names]
    if kinds:
        return " ".join(NEEDS[kind] for kind in kinds)
    return NEEDS["lookup"] if len(term.readings) == 1 else "Read the values and work out the answer."
