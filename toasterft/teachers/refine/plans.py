"""The ways to an answer that a question's wording allows: one function per kind of question."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise

from toasterft.data.charts.phrases import NONE
from toasterft.scoring import traces
from toasterft.scoring.traces import Cell, Table, number, same_result
from toasterft.teachers.refine.asked import (
    BOUND,
    LARGER,
    LARGEST,
    SMALLER,
    SMALLEST,
    SUPERLATIVE,
    Asked,
    gold_number,
    unique,
)


@dataclass(frozen=True)
class Plan:
    """How a question is answered: the kind of step, the rows it reads, and what fills its sentence.

    `rows` are positions in the table; `found` is what comes out, a number or one of several names.
    """

    kind: str
    rows: tuple[int, ...]
    found: Fraction | tuple[str, ...]
    words: dict[str, str] = field(default_factory=dict, hash=False)

    def reaches(self, gold: str) -> bool:
        """Whether what comes out is the gold answer: the same name, or the same number to its last digit."""
        if isinstance(self.found, tuple):
            return traces.name_key(gold) in map(traces.name_key, self.found)
        wanted = gold_number(gold)
        return wanted is not None and same_result(wanted, self.found)


def _difference(asked: Asked) -> Iterator[Plan]:
    for rows in asked.operands():
        if len(rows) == 2:
            more, less = sorted(rows, key=asked.value, reverse=True)
            gap = asked.value(more) - asked.value(less)
            words = {"x": asked.row(more).shown, "y": asked.row(less).shown}
            yield Plan("difference", tuple(sorted(rows)), gap, words)


def _ratio(asked: Asked) -> Iterator[Plan]:
    for rows in asked.operands():
        if len(rows) != 2:
            continue
        # In the question's order first; "how many times" puts the smaller first.
        for a, b in (rows, rows[::-1]):
            if asked.value(b):
                words = {"x": asked.row(a).shown, "y": asked.row(b).shown}
                yield Plan("ratio", tuple(sorted(rows)), asked.value(a) / asked.value(b), words)


def _several(asked: Asked) -> Iterator[list[int]]:
    """Operands of a sum or average: named rows, else all of a scope."""
    found = [rows for rows in asked.operands() if len(rows) > 1]
    yield from found
    everything = asked.says("all", "every", "each", "entire", "whole") or not asked.says("and")
    if not found and everything and not SUPERLATIVE.search(asked.text):
        yield from (rows for rows in asked.scopes() if len(rows) > 1)


def _terms(asked: Asked, rows: Sequence[int]) -> dict[str, str]:
    shown = [asked.row(row).shown for row in rows]
    return {"terms": " + ".join(shown), "reversed_terms": " + ".join(shown[::-1]), "n": str(len(rows))}


def _sum(asked: Asked) -> Iterator[Plan]:
    for rows in _several(asked):
        yield Plan(
            "sum", tuple(sorted(rows)), sum(map(asked.value, rows), Fraction()), _terms(asked, sorted(rows))
        )


def _average(asked: Asked) -> Iterator[Plan]:
    for rows in _several(asked):
        mean = sum(map(asked.value, rows), Fraction()) / len(rows)
        yield Plan("average", tuple(sorted(rows)), mean, _terms(asked, sorted(rows)))


def _count_beyond(asked: Asked) -> Iterator[Plan]:
    bound = BOUND.search(asked.text)
    if bound is None:
        return
    limit, above = number(bound["bound"]).value, bound["above"] is not None
    for rows in asked.scopes():
        inside = [row for row in rows if (asked.value(row) > limit if above else asked.value(row) < limit)]
        names, others = (
            ", ".join(asked.row(row).name for row in group) or NONE
            for group in (inside, [row for row in rows if row not in inside])
        )
        words = {"t": bound["bound"], "names": names, "others": others, "above": names, "not_above": others}
        yield Plan("count_above" if above else "count_below", tuple(rows), Fraction(len(inside)), words)


def _count(asked: Asked) -> Iterator[Plan]:
    rows = tuple(range(len(asked.table.cells)))
    labels, series = (
        unique(row.label for row in asked.table.cells),
        unique(row.series for row in asked.table.cells),
    )
    if asked.numbers or asked.says("same", "equal", *LARGER, *SMALLER, r"at (?:least|most)", "only"):
        return  # some of them, not all
    mark = re.search(r"\b(bars|points|slices|dots|segments|values)\b", asked.text)
    several = len(series) > 1
    for noun, names, fits in (
        ("series", series, several and asked.says("series", "groups", "lines", "colou?rs")),
        (mark[0] if mark and not several else "labels", labels, True),
    ):
        if fits:
            words = {"n": str(len(names)), "noun": noun, "names": ", ".join(names)}
            yield Plan("count", rows, Fraction(len(names)), words)


def _compare(asked: Asked) -> Iterator[Plan]:
    wants_more = asked.says(*LARGER)
    for rows in asked.named():
        if (
            len(rows) != 2
            or wants_more == asked.says(*SMALLER)
            or asked.says("sum", "total", "average", "both")
        ):
            continue
        a, b = rows
        larger = asked.value(a) > asked.value(b)
        sign, other = (">", "<") if larger else ("<", ">")
        if asked.value(a) != asked.value(b):
            words = {"x": asked.row(a).shown, "y": asked.row(b).shown, "sign": sign, "other_sign": other}
            yield Plan("compare", tuple(sorted(rows)), ("yes" if larger == wants_more else "no",), words)


def _trend(asked: Asked) -> Iterator[Plan]:
    for rows in asked.scopes():
        values = [asked.value(row) for row in rows]
        if len(rows) < 2 or any(a == b for a, b in pairwise(values)):
            continue
        words = {
            "chain": _chain([asked.row(row) for row in rows]),
            "reversed_chain": _chain([asked.row(row) for row in rows[::-1]]),
        }
        yield Plan("trend", tuple(rows), (traces.trend(values),), words)


def _chain(rows: Sequence[Cell]) -> str:
    """`3 < 5 > 4`: neighbours compared."""
    parts = [rows[0].shown]
    for old, new in pairwise(rows):
        parts += ["<" if new.value > old.value else ">", new.shown]
    return " ".join(parts)


def _extreme(asked: Asked) -> Iterator[Plan]:
    found = SUPERLATIVE.search(asked.text)
    if found is None or found["many"] or found["after"]:
        return
    kind, pick, sign = ("lowest", min, "<") if found["small"] else ("highest", max, ">")
    named = [rows for rows in asked.named() if len(rows) > 1]  # "which is larger, the red or the blue one"
    for rows in [*asked.scopes(), *named]:
        if len(rows) < 2:
            continue
        best = pick(asked.value(row) for row in rows)
        holders = [row for row in rows if asked.value(row) == best]
        top = asked.row(holders[0])
        against = ", ".join(
            f"{top.shown} {sign} {asked.row(row).shown}" for row in rows if row not in holders
        )
        words = {"x": top.shown, "against": against or f"{top.shown} = {top.shown}"}
        if len(holders) == 1:
            yield Plan(kind, tuple(rows), (top.label, *([top.series] if top.series else [])), words)
        yield Plan(kind, tuple(rows), best, words)


def _find(asked: Asked) -> Iterator[Plan]:
    """Which label has a given value; is a label's value as given."""
    for rows in asked.scopes():
        for row in rows:
            if asked.value(row) in asked.numbers:
                names = (asked.row(row).label, *([asked.row(row).series] if asked.row(row).series else []))
                yield Plan("find", (row,), names, reading(asked.row(row)))
    for rows in asked.named():
        if len(rows) == 1 and asked.numbers:
            verdict = "yes" if asked.value(rows[0]) in asked.numbers else "no"
            yield Plan("find", (rows[0],), (verdict,), reading(asked.row(rows[0])))


def _lookup(asked: Asked) -> Iterator[Plan]:
    for rows in asked.named():
        if len(rows) == 1:
            yield Plan("lookup", (rows[0],), asked.value(rows[0]), reading(asked.row(rows[0])))


def reading(row: Cell) -> dict[str, str]:
    return {"a": row.name, "x": row.shown}


_COUNTS = r"\b(?:how many|count|number of)\b"
# In this order. A question with a firm wording is of that kind or of none that is understood here.
_KINDS: tuple[tuple[str, bool, Callable[[Asked], Iterator[Plan]]], ...] = (
    (r"\b(?:trend|rising|falling|increasing|decreasing)\b", True, _trend),
    (rf"{_COUNTS}.*{BOUND.pattern}", True, _count_beyond),
    (r"\b(?:average|mean)\b", True, _average),
    (r"\b(?:ratio|divided?|times)\b", True, _ratio),
    (
        r"\b(?:differences?|gap|deduct|subtract|minus|by how much|how far|how much (?:more|less|higher|lower|larger|"
        r"smaller|greater|bigger)|how many more|exceed)\b",
        True,
        _difference,
    ),
    (r"\b(?:sum|add|adding|together|combined|altogether|come to)\b", True, _sum),
    (r"\b(?:total|both)\b", False, _sum),
    (r"^\W*(?:is|are|was|were|does|do|did|has|have)\b", False, _compare),
    (rf"\b(?:{LARGEST}|{SMALLEST})\b", True, _extreme),
    (_COUNTS, False, _count),
    (r"\d", False, _find),
    (r"", False, _lookup),
)
# What no kind here works out: a plan that ended in the answer would do so by luck.
_BEYOND_US = re.compile(
    r"\b(?:median|modes?|product|multipl\w+|twice|double|half|second|third|fourth|2nd|3rd|missing|cross\w*|intersect\w*|"
    r"changes?|growth|grew|if|except|excluding|other than|left ?most|right ?most|first|last|next|previous|consecutive)\b"
)


def plans(question: str, table: Table, answer: str) -> Iterator[Plan]:
    """The ways to the gold answer that the question's wording allows, the likeliest first."""
    asked = Asked(question, table)
    if _BEYOND_US.search(asked.text):
        return
    for wording, firm, make in _KINDS:
        if not re.search(wording, asked.text):
            continue
        found = [plan for plan in make(asked) if plan.reaches(answer)]
        # Of several series that would all give the answer, none is known to be the one that is meant.
        if len({plan.rows for plan in found}) == 1:
            yield found[0]
        if firm:
            return
