"""Numbers that follow from a table, the cells they may follow from, and the sentences that say how."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from toasterft.scoring.numbers import shown
from toasterft.scoring.tables import Cell, Table
from toasterft.teachers.rules.question import Asked

# A pair or a set that the question does not name must at least be the only one that fits.
NAMED = 0.45
MOST_READINGS = 26  # a longer list is no trace for a small model

ABOVE = re.compile(r"\b(?:above|over|more|greater|higher|larger|exceeds?|at least)\b", re.IGNORECASE)
BELOW = re.compile(r"\b(?:below|under|less|fewer|smaller|lower)\b", re.IGNORECASE)
# What "above", "below" and no such word make of a number in the question.
SIDES: tuple[tuple[re.Pattern[str] | None, str, Callable[[Fraction, Fraction], bool]], ...] = (
    (ABOVE, "Above", lambda value, limit: value > limit),
    (BELOW, "Below", lambda value, limit: value < limit),
    (None, "At", lambda value, limit: value == limit),
)


@dataclass(frozen=True)
class Term:
    """A number that follows from the table.

    Attributes:
        readings: the cells it is read from, in reading order.
        steps: sentences from the readings to the number; none where it is a reading.
        rechecks: the same another way.
        fit: how well it suits the question; comparable within one question.
        used: operations of the question that it carries out.
        picks: the name that the last step leads to; `only_name` where the number is no answer by itself.
        free: it takes cells out of the table that nothing but the question's names can justify.
    """

    value: Fraction
    readings: tuple[Cell, ...]
    steps: tuple[str, ...] = ()
    rechecks: tuple[str, ...] = ()
    fit: float = 0.0
    used: frozenset[str] = frozenset()
    picks: str = ""
    only_name: bool = False
    free: bool = False

    @property
    def said(self) -> str:
        return self.picks or shown(self.value)


@dataclass(frozen=True)
class Group(Term):
    """A set whose members are not simply its readings: the two largest of them, say."""

    members: tuple[Fraction, ...] = ()


@dataclass(frozen=True)
class Scope:
    """Cells that a question may be about together, and how well it names them."""

    cells: tuple[Cell, ...]
    fit: float
    by_label: bool
    """Whether its cells are told apart by label (one series) or by series (one label)."""

    def tell(self, cell: Cell) -> str:
        return cell.label if self.by_label else cell.series


def scopes(table: Table, asked: Asked) -> list[Scope]:
    """Each series, each label of several series, and everything; lines with and without their gaps."""
    several = len(table.series) > 1
    found = [
        (table.of_series(series), asked.mention(series) if several else 0.5, True) for series in table.series
    ]
    if several:
        # An unnamed bar is more often one of a colour than all of one label.
        found += [(table.of_label(label), asked.mention(label) - 0.1, False) for label in table.labels]
        found.append((list(table.cells), -0.1, True))
    out = []
    for cells, fit, by_label in [*found, *_parts(found, asked)]:
        if table.zeros_are_gaps and any(cell.value == 0 for cell in cells):
            out.append(Scope(tuple(cell for cell in cells if cell.value != 0), fit, by_label))
            fit -= 0.2
        out.append(Scope(tuple(cells), fit, by_label))
    return [scope for scope in out if 2 <= len(scope.cells) <= MOST_READINGS]


def _parts(
    found: Sequence[tuple[list[Cell], float, bool]], asked: Asked
) -> Iterator[tuple[list[Cell], float, bool]]:
    """What a question cuts out of a series: "from 2009 to 2014", "the first three"."""
    for cells, fit, by_label in found:
        if not by_label:
            continue
        ends = [place for place, cell in enumerate(cells) if asked.mention(cell.label) >= 1]
        if len(ends) >= 2 and ends[-1] - ends[0] < len(cells) - 1 and asked.says_range:
            yield cells[ends[0] : ends[-1] + 1], fit + 0.4, by_label
        if asked.amount and asked.amount < len(cells):
            words = set(asked.words)
            # Tables read off bars that lie down start at the top or at the bottom.
            either = bool({"top", "bottom"} & words)
            if {"first", "leftmost", "starting"} & words or either:
                yield cells[: asked.amount], fit + 0.3, by_label
            if {"last", "rightmost", "recent"} & words or either:
                yield cells[-asked.amount :], fit + 0.3, by_label


def named(cell: Cell, table: Table, asked: Asked) -> float:
    """How well the question names a cell: by its label, and by its series where there are several."""
    label = asked.mention(cell.label) if len(table.labels) > 1 else 0.5
    return (label + asked.mention(cell.series)) / 2 if len(table.series) > 1 else label


# --- sentences -------------------------------------------------------------------------------


def rounds_to(value: Fraction, goal: Fraction) -> bool:
    """Whether `goal` is `value`, written with fewer decimals: rounded, or cut off as many people do."""
    if value == goal:
        return True
    decimals = next((places for places in range(10) if (goal * 10**places).denominator == 1), 10)
    off = (abs(value) - abs(goal)) * 10**decimals
    return decimals > 0 and value * goal >= 0 and -1 <= 2 * off < 2


def is_short(value: Fraction) -> bool:
    return (value * 10**4).denominator == 1


def averaged(values: Sequence[Fraction]) -> tuple[Fraction, tuple[str, ...]]:
    total = sum(values, Fraction(0))
    return total, (summed(values), chain((total, Fraction(len(values))), "/", total / len(values)))


def multiplied(values: Sequence[Fraction]) -> Fraction:
    product = Fraction(1)
    for value in values:
        product *= value
    return product


def summed(values: Sequence[Fraction]) -> str:
    return chain(values, "+", sum(values, Fraction(0)))


def chain(values: Sequence[Fraction], sign: str, result: Fraction) -> str:
    """`3 + 4 = 7.`; a rounded result is said to be one."""
    equals = "=" if is_short(result) else "≈"
    return f"{f' {sign} '.join(map(shown, values))} {equals} {shown(result)}."


def order(values: Sequence[Fraction]) -> str:
    parts = [shown(values[0])]
    for old, new in pairwise(values):
        parts += ["<" if new > old else ">", shown(new)]
    return " ".join(parts)


def listed(values: Sequence[Fraction]) -> str:
    *most, last = map(shown, values)
    return f"{', '.join(most)} and {last}" if most else last
