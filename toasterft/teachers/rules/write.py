"""The teacher that needs no network: traces written by program from the table behind a chart.

    Favorable 2015 = 38, Favorable 2013 = 35. 38 - 35 = 3.

Sentences are those of the charts drawn here (`charts.phrases`), so that one model can learn from both. With
the answer known, the best fitting way that ends in it is written down; blind, the best fitting way at all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from toasterft.data.charts.phrases import HEADINGS, NEEDS
from toasterft.data.example import Example
from toasterft.scoring import tables
from toasterft.scoring.numbers import format_number, fraction
from toasterft.teachers.rules.choose import SCALES, YES_NO, choose
from toasterft.teachers.rules.claims import TRANSCRIBES
from toasterft.teachers.rules.terms import Term, conclude, readings, rounds_to

# What has to be read and done, by what a derivation uses.
_NEEDS = {
    "largest": NEEDS["highest"],
    "smallest": NEEDS["lowest"],
    "mean": "Read the values, add them and divide by their number.",
    **{kind: NEEDS[kind] for kind in ("transcribe", "difference", "sum", "ratio", "count")},
}
_COUNT_NEEDS = {
    "Above": NEEDS["count_above"],
    "Below": "Read every value and count the smaller ones.",
}


@dataclass(frozen=True)
class Written:
    """A trace in both styles; `answer` is where it ends."""

    simplified: str
    structured: str
    answer: str


def write(example: Example, *, blind: bool = False) -> Written | None:
    """A trace for an example whose facts are a table; None where no way leads to its answer."""
    table, gold = tables.numeric(example.facts), None if blind else example.answer
    term = None if table is None else choose(table, example.question, gold)
    if term is None:
        return None
    steps, answer = steps_to(term, gold), term.answer if gold is None else gold
    read = readings(term.readings) if term.readings else "none."
    # A trace that only reads says so once.
    reads_twice = term.used == TRANSCRIBES or (len(term.readings) == 1 == len(term.steps) and not term.used)
    first = [] if reads_twice or not term.readings else [read]
    parts = (example.question, needs(term), read, " ".join(steps), " ".join(term.rechecks), answer)
    structured = "\n".join(f"{heading}: {part}" for heading, part in zip(HEADINGS, parts))
    return Written(" ".join([*first, *steps]), structured, answer)


def can_read(example: Example) -> bool:
    """Whether an example carries a table."""
    return tables.numeric(example.facts) is not None


def steps_to(term: Term, answer: str | None) -> list[str]:
    """The sentences from the readings to the answer, in its own unit where that is known."""
    steps = list(term.steps)
    if term.picks and not any(step.endswith(f"{term.picks}.") for step in steps):
        steps[-1] = conclude(steps[-1], term.picks)
    goal = fraction(answer) if answer is not None and not term.picks else None
    if goal is not None and not rounds_to(term.value, goal):
        scale = next(scale for scale in SCALES if rounds_to(term.value, goal / scale))
        by = f"/ {format_number(1 / scale)}" if scale < 1 else f"* {format_number(scale)}"
        steps.append(f"{format_number(term.value)} {by} = {format_number(goal, 4)}.")
    return steps


def needs(term: Term) -> str:
    """What has to be read and done, in the words of the charts drawn here."""
    if term.picks in YES_NO:
        return NEEDS["compare"]
    if "count" in term.used:
        return _COUNT_NEEDS.get(term.steps[0].partition(" ")[0], NEEDS["count"])
    kinds = [_NEEDS[name] for name in sorted(term.used) if name in _NEEDS]
    if kinds:
        return " ".join(kinds)
    if len(term.readings) > 1:
        return "Read the values and work out the answer."
    return "Find the value and read its label." if term.only_name else NEEDS["lookup"]


def ending_in(steps: list[str], term: Term, answer: str) -> str:
    """The sentences as one text that ends in the answer as it is written, not as it was worked out."""
    *most, last = steps
    results = {term.answer, *((format_number(value, 4),) if (value := fraction(answer)) is not None else ())}
    tail = "|".join(map(re.escape, sorted(results, key=len, reverse=True)))
    last, replaced = re.subn(rf"(?<![\w.-])(?:{tail})\.$", lambda _: f"{answer}.", last, flags=re.IGNORECASE)
    return " ".join([*most, last if replaced else conclude(last, answer)])
