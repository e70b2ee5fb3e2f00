"""Terms (numbers and names that follow from a table), the cells they follow from, and their sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from operator import eq, gt, lt

from toasterft.data.charts import phrases
from toasterft.scoring import lexicon
from toasterft.scoring.numbers import format_number
from toasterft.scoring.tables import Cell, Table
from toasterft.teachers.rules.question import Question

# A pair or a set that the question does not name must at least be the only one that fits.
NAMED = 0.45
MOST_READINGS = 26  # a longer list is no trace for a small model

# The word of a sentence, the question's words for it ("" for none), and which values lie there.
SIDES: tuple[tuple[str, str, Callable[[Fraction, Fraction], bool]], ...] = (
    ("Above", rf"{lexicon.MORE}|exceeds?|at least", gt),
    ("Below", lexicon.FEWER, lt),
    ("At", "", eq),
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
        members: of a set that an operation may run over: its numbers, where they are not the readings.
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
    members: tuple[Fraction, ...] | None = None

    @property
    def answer(self) -> str:
        return self.picks or format_number(self.value)


@dataclass(frozen=True)
class Scope:
    """Cells that a question may be about together, and how well it names them."""

    cells: tuple[Cell, ...]
    fit: float
    by_label: bool
    """Whether its cells differ by label (one series) or by series (one label)."""

    def names(self, cells: Iterable[Cell]) -> list[str]:
        """The names that identify cells in this scope."""
        return [cell.label if self.by_label else cell.series for cell in cells]


def scopes(table: Table, question: Question) -> list[Scope]:
    """Each series, each label of several series, and everything; lines with and without their gaps."""
    several = len(table.series) > 1
    found = [
        (
            [cell for cell in table.cells if cell.series == series],
            question.mention(series) if several else 0.5,
            True,
        )
        for series in table.series
    ]
    if several:
        # An unnamed bar is more often one of a colour than all of one label.
        for label in table.labels:
            cells = [cell for cell in table.cells if cell.label == label]
            found.append((cells, question.mention(label) - 0.1, False))
        found.append((list(table.cells), -0.1, True))
    out = []
    for cells, fit, by_label in [*found, *_parts(found, question)]:
        if table.zeros_are_gaps and any(cell.value == 0 for cell in cells):
            out.append(Scope(tuple(cell for cell in cells if cell.value != 0), fit, by_label))
            fit -= 0.2
        out.append(Scope(tuple(cells), fit, by_label))
    return [scope for scope in out if 2 <= len(scope.cells) <= MOST_READINGS]


def _parts(
    found: Sequence[tuple[list[Cell], float, bool]], question: Question
) -> Iterator[tuple[list[Cell], float, bool]]:
    """What a question cuts out of a series: "from 2009 to 2014", "the first three"."""
    # Tables read off bars that lie down start at the top or at the bottom.
    either = not {"top", "bottom"}.isdisjoint(question.words)
    for cells, fit, by_label in found:
        if not by_label:
            continue
        ends = [place for place, cell in enumerate(cells) if question.mention(cell.label) >= 1]
        if len(ends) >= 2 and ends[-1] - ends[0] < len(cells) - 1 and question.is_range:
            yield cells[ends[0] : ends[-1] + 1], fit + 0.4, by_label
        if question.amount and question.amount < len(cells):
            if either or not {"first", "leftmost", "starting"}.isdisjoint(question.words):
                yield cells[: question.amount], fit + 0.3, by_label
            if either or not {"last", "rightmost", "recent"}.isdisjoint(question.words):
                yield cells[-question.amount :], fit + 0.3, by_label


def name_match(cell: Cell, table: Table, question: Question) -> float:
    """How well the question names a cell: by its label, and by its series where there are several."""
    label = question.mention(cell.label) if len(table.labels) > 1 else 0.5
    return (label + question.mention(cell.series)) / 2 if len(table.series) > 1 else label


def most_frequent(scope: Scope) -> tuple[Fraction, int, str] | None:
    """The value that occurs more often than any other, how often, and the sentence; None where there is none."""
    (value, times), *others = Counter(cell.value for cell in scope.cells).most_common(2)
    if times == 1 or (others and others[0][1] == times):
        return None
    return value, times, f"{format_number(value)} occurs {times} times, more often than any other."


# --- numbers ---------------------------------------------------------------------------------


def rounds_to(value: Fraction, goal: Fraction) -> bool:
    """Whether `goal` is `value`, written with fewer decimals: rounded, or cut off as many people do."""
    if value == goal:
        return True
    decimals = next((places for places in range(10) if (goal * 10**places).denominator == 1), 10)
    off = (abs(value) - abs(goal)) * 10**decimals
    return decimals > 0 and value * goal >= 0 and -1 <= 2 * off < 2


def rounding_to(values: Iterable[Fraction], goals: Iterable[Fraction]) -> set[Fraction]:
    """Those of `values` that one of `goals` is, written with fewer decimals."""
    return {value for value in {*values} if any(rounds_to(value, goal) for goal in goals)}


def is_short(value: Fraction) -> bool:
    """Whether four decimals write a number in full."""
    return (value * 10**4).denominator == 1


# --- sentences -------------------------------------------------------------------------------


def readings(cells: Iterable[Cell], verb: str = "=") -> str:
    """`red = 7, blue = 3.`"""
    return ", ".join(f"{cell.name} {verb} {format_number(cell.value)}" for cell in cells) + "."


def points(table: Table, question: Question) -> list[Term]:
    """Every cell as it stands."""
    return [reading(cell, name_match(cell, table, question)) for cell in table.cells]


def reading(cell: Cell, fit: float) -> Term:
    """A cell as it stands."""
    value = format_number(cell.value)
    return Term(cell.value, (cell,), (f"{cell.name} is {value}.",), (f"{cell.name} = {value}.",), fit)


def in_order(values: Iterable[Fraction], how: str = "In order") -> str:
    return f"{how}: {', '.join(map(format_number, values))}."


def names_at(side: str, limit: Fraction, names: Iterable[str]) -> str:
    """`Above 5: red, blue.`"""
    return f"{side} {format_number(limit)}: {', '.join(names) or 'none'}."


def chain(values: Sequence[Fraction], sign: str, result: Fraction) -> str:
    """`3 + 4 = 7.`; a rounded result has a sign of its own: `19 / 3 ≈ 6.33.`"""
    equals = "=" if is_short(result) else "≈"
    return f"{f' {sign} '.join(map(format_number, values))} {equals} {format_number(result)}."


def order(values: Sequence[Fraction]) -> str:
    """`3 < 5 > 4`"""
    return phrases.order(values, format_number)


def conclude(step: str, result: str) -> str:
    """A sentence with what follows from it: `The largest is 12, so green.`"""
    return f"{step.removesuffix('.')}, so {result}."
