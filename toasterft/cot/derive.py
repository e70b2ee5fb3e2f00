"""How an answer follows from a table: every way the question's words allow, the best fitting first.

A `Term` is a number with the readings and steps that lead to it. Points (a cell, an extreme, a median …) are
combined as the question asks; with the answer known, a way is right if it ends there. Only true statements
are ever made; whether the way is the one that was meant is what `fit` estimates, from the names and
operations that question and way have in common.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import combinations, pairwise, permutations

from toasterft.cot.tables import Cell, Table, shown
from toasterft.cot.words import Asked

# A pair or a set that the question does not name must at least be the only one that fits.
NAMED = 0.45
# Without the answer only pairs of the best named points are tried.
BLIND_POINTS = 12
MOST_READINGS = 26  # a longer list is no trace for a small model
RANKS = ("", "second ", "third ", "fourth ", "fifth ")


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


# --- points: one number each -----------------------------------------------------------------


def cells(table: Table, asked: Asked) -> Iterator[Term]:
    """Every cell as it stands."""
    for cell in table.cells:
        fit = named(cell, table, asked)
        reading = f"{cell.name} = {shown(cell.value)}."
        yield Term(cell.value, (cell,), (f"{cell.name} is {shown(cell.value)}.",), (reading,), fit)


def ends(found: Sequence[Scope], asked: Asked) -> Iterator[Term]:
    """The rightmost or leftmost mark of each series."""
    for scope in found:
        if asked.end is not None and scope.by_label and len({cell.series for cell in scope.cells}) == 1:
            cell = scope.cells[asked.end]
            reading = f"{cell.name} = {shown(cell.value)}."
            yield Term(
                cell.value, (cell,), (f"{cell.name} is {shown(cell.value)}.",), (reading,), scope.fit + 0.4
            )


def named(cell: Cell, table: Table, asked: Asked) -> float:
    """How well the question names a cell: by its label, and by its series where there are several."""
    label = asked.mention(cell.label) if len(table.labels) > 1 else 0.5
    return (label + asked.mention(cell.series)) / 2 if len(table.series) > 1 else label


def extremes(found: Sequence[Scope], asked: Asked) -> Iterator[Term]:
    """The largest and smallest (or second …) of each scope, with the name it picks."""
    for word in ("largest", "smallest"):
        if word not in asked.operations:
            continue
        for scope in found:
            ordered = sorted(scope.cells, key=lambda cell: cell.value, reverse=word == "largest")
            for rank in dict.fromkeys((asked.rank, 1)):
                if rank > len(ordered):
                    continue
                term = _extreme(scope, ordered, rank, word)
                yield replace(term, fit=term.fit + (0.3 if rank == asked.rank else -0.3))


def _extreme(scope: Scope, ordered: Sequence[Cell], rank: int, word: str) -> Term:
    cell = ordered[rank - 1]
    value, most = shown(cell.value), word == "largest"
    ties = [other for other in ordered if other.value == cell.value]
    before = () if rank == 1 else (f"In order: {', '.join(shown(other.value) for other in ordered)}.",)
    beyond = "above" if most else "below"
    names = [other for other in ordered if (other.value > cell.value) == most and other.value != cell.value]
    there = ", ".join(scope.tell(other) for other in names)
    return Term(
        cell.value,
        scope.cells,
        (*before, f"The {RANKS[rank - 1]}{word} is {value}."),
        (f"{beyond.capitalize()} {value}: {there or 'none'}.",),
        scope.fit,
        frozenset({word}),
        picks=scope.tell(cell) if len(ties) == 1 else "",
    )


def middles(found: Sequence[Scope], asked: Asked) -> Iterator[Term]:
    """Medians and modes."""
    for scope in found:
        values = sorted(cell.value for cell in scope.cells)
        order = f"In order: {', '.join(map(shown, values))}."
        back = (f"In reverse order: {', '.join(map(shown, reversed(values)))}.",)
        if "median" in asked.operations:
            half, used = len(values) // 2, frozenset({"median"})
            if len(values) % 2:
                steps = (order, f"The middle is {shown(values[half])}.")
                yield Term(values[half], scope.cells, steps, back, scope.fit, used)
            else:
                low, high = values[half - 1], values[half]
                total, steps = _averaged((low, high))
                middle = f"The middle two are {shown(low)} and {shown(high)}."
                yield Term(total / 2, scope.cells, (order, middle, *steps), back, scope.fit, used)
        if "mode" in asked.operations:
            (value, times), *others = Counter(values).most_common(2)
            if times > 1 and (not others or others[0][1] < times):
                steps = (order, f"{shown(value)} occurs {times} times, more often than any other.")
                yield Term(value, scope.cells, steps, back, scope.fit, frozenset({"mode"}))


# --- sets: several numbers made into one -----------------------------------------------------


def groups(table: Table, found: Sequence[Scope], asked: Asked) -> Iterator[Term]:
    """Sets of cells that an operation may run over; their `value` means nothing yet."""
    none = Fraction(0)
    for scope in found:
        yield Term(none, scope.cells, fit=scope.fit)
        for word in ("largest", "smallest"):
            if asked.amount and word in asked.operations and asked.amount <= len(scope.cells):
                yield _some(scope, asked.amount, word)
        if {"largest", "smallest"} <= asked.operations:
            low = min(scope.cells, key=lambda cell: cell.value)
            high = max(scope.cells, key=lambda cell: cell.value)
            steps = (f"The largest is {shown(high.value)}.", f"The smallest is {shown(low.value)}.")
            used = frozenset({"largest", "smallest"})
            yield _Group(
                none, scope.cells, steps, fit=scope.fit + 0.3, used=used, members=(high.value, low.value)
            )
        for words, side, test in _SIDES[:2]:
            if words is not None and words.search(asked.text):
                for limit in asked.numbers:
                    yield from _beyond(scope, limit, side, test)
        mentioned = tuple(cell for cell in scope.cells if asked.mention(scope.tell(cell)) >= 0.6)
        if 1 < len(mentioned) < len(scope.cells):
            yield Term(none, mentioned, fit=scope.fit + 0.5)
    mentioned = tuple(cell for cell in table.cells if named(cell, table, asked) >= 0.6)
    if len(table.series) > 1 and 1 < len(mentioned) <= MOST_READINGS:
        yield Term(none, mentioned, fit=0.7)
    if len(table.series) > 1:
        yield from _each(found, asked)


def _each(found: Sequence[Scope], asked: Asked) -> Iterator[_Group]:
    """One figure per series: "the sum of the medians", "the average of the highest values"."""
    for by_label in (True, False):
        alike = [
            scope
            for scope in found
            if scope.by_label == by_label and len({c.series for c in scope.cells}) == 1
        ]
        figures = [*middles(alike, asked), *extremes(alike, asked)]
        for used in dict.fromkeys(term.used for term in figures):
            members = [term for term in figures if term.used == used]
            readings = tuple(dict.fromkeys(cell for term in members for cell in term.readings))
            if 2 <= len(members) <= len(alike) and len(readings) <= MOST_READINGS:
                steps = tuple(step for term in members for step in term.steps)
                values = tuple(term.value for term in members)
                yield _Group(Fraction(0), readings, steps, fit=0.5, used=used, members=values)


def _beyond(
    scope: Scope, limit: Fraction, side: str, test: Callable[[Fraction, Fraction], bool]
) -> Iterator[_Group]:
    """The values above (below) a number of the question."""
    inside = [cell for cell in scope.cells if test(cell.value, limit)]
    if 2 <= len(inside) < len(scope.cells):
        step = f"{side} {shown(limit)}: {', '.join(scope.tell(cell) for cell in inside)}."
        values = tuple(cell.value for cell in inside)
        yield _Group(Fraction(0), scope.cells, (step,), fit=scope.fit + 0.3, members=values)


@dataclass(frozen=True)
class _Group(Term):
    """A set whose members are not simply its readings: the two largest of them, say."""

    members: tuple[Fraction, ...] = ()


def _some(scope: Scope, amount: int, word: str) -> _Group:
    ordered = sorted((cell.value for cell in scope.cells), reverse=word == "largest")
    order = f"In order: {', '.join(map(shown, ordered))}."
    picked = tuple(ordered[:amount])
    step = f"The {word} {amount} are {_listed(picked)}."
    used = frozenset({word})
    return _Group(Fraction(0), scope.cells, (order, step), fit=scope.fit + 0.4, used=used, members=picked)


def over(group: Term, asked: Asked) -> Iterator[Term]:
    """What the question may ask of a set: its sum, mean, product, difference or ratio."""
    values = group.members if isinstance(group, _Group) else tuple(cell.value for cell in group.readings)
    for name in ("sum", "mean", "product"):
        if name not in asked.operations or len(values) < 2:
            continue
        if name == "mean":
            total, steps = _averaged(values)
            value, checks = total / len(values), (_sum(tuple(reversed(values))),)
        elif name == "sum":
            value, steps, checks = sum(values, Fraction(0)), (_sum(values),), (_sum(tuple(reversed(values))),)
        else:
            value = _multiplied(values)
            steps, checks = (_chain(values, "*", value),), (_chain(tuple(reversed(values)), "*", value),)
        yield _extended(group, value, steps, checks, name)
    if len(values) == 2:
        for name in ("difference", "ratio"):
            if name in asked.operations:
                yield from _paired(name, group, values[0], values[1])


def _extended(group: Term, value: Fraction, steps: Sequence[str], checks: Sequence[str], used: str) -> Term:
    return Term(
        value,
        group.readings,
        (*group.steps, *steps),
        tuple(checks),
        group.fit + 0.2,
        group.used | {used},
        free=group.free,
    )


def _paired(name: str, group: Term, first: Fraction, second: Fraction) -> Iterator[Term]:
    """The difference or ratio of two numbers; both ratios, for it depends on the question which is meant."""
    high, low = max(first, second), min(first, second)
    if not low:
        return  # what is taken from nothing says nothing
    if name == "difference":
        value = high - low
        steps, checks = (_chain((high, low), "-", value),), (_chain((low, value), "+", high),)
        yield _extended(group, value, steps, checks, name)
    else:
        for over_, under in ((high, low), (low, high)):
            value = over_ / under
            # A rounded quotient times its divisor is the dividend only nearly.
            checks = (
                _chain((over_, value), "/", under) if _exact(value) else _chain((over_, under), "/", value),
            )
            yield _extended(group, value, (_chain((over_, under), "/", value),), checks, name)


# --- pairs: two points made into one ---------------------------------------------------------


def pairs(points: Sequence[Term], asked: Asked, wanted: frozenset[Fraction] | None) -> Iterator[Term]:
    """Sums, differences, means, products and ratios of two points.

    Args:
        wanted: values to end at; None takes the best named points in any pair.
    """
    names = [name for name in ("difference", "sum", "mean", "ratio", "product") if name in asked.operations]
    if not names:
        return
    if wanted is None:
        points = sorted(points, key=lambda term: -term.fit)[:BLIND_POINTS]
    by_value: dict[Fraction, list[Term]] = {}
    for term in points:
        by_value.setdefault(term.value, []).append(term)
    for first in points:
        for name in names:
            others = points if wanted is None else _partners(first, name, wanted, by_value)
            for second in others:
                if not (first.value and second.value) or name in first.used | second.used:
                    continue  # what 0 is added to says nothing, and nobody asks for a ratio of ratios
                if first.readings != second.readings or first.steps != second.steps:
                    yield from _pair(name, first, second)


def _partners(
    first: Term, name: str, wanted: frozenset[Fraction], by_value: dict[Fraction, list[Term]]
) -> list[Term]:
    """The points that lead from `first` to a wanted value."""
    others: list[Fraction] = []
    for value in wanted:
        if name == "difference":
            others.append(first.value - value)
        elif name == "sum":
            others.append(value - first.value)
        elif name == "mean":
            others.append(2 * value - first.value)
        elif name == "product" and first.value:
            others.append(value / first.value)
        elif name == "ratio" and value:
            others.append(first.value / value)
    exact = [term for value in others for term in by_value.get(value, ())]
    if exact or name != "ratio":
        return exact
    # A quotient is seldom written out in full.
    return [
        term
        for value, terms in by_value.items()
        if value and any(rounds_to(first.value / value, goal) for goal in wanted)
        for term in terms
    ]


def _pair(name: str, first: Term, second: Term) -> Iterator[Term]:
    readings = tuple(dict.fromkeys((*first.readings, *second.readings)))
    lead = [step for term in (first, second) if term.used for step in term.steps]
    both = Term(
        Fraction(0),
        readings,
        tuple(dict.fromkeys(lead)),
        # Two figures are more often of one series than of two.
        fit=(first.fit + second.fit) / 2 + (0.2 if first.readings == second.readings else 0.0),
        used=first.used | second.used,
        free=not (first.used and second.used),
    )
    values = (first.value, second.value)
    if name in ("difference", "ratio"):
        if first.value >= second.value or name == "ratio":
            yield from _paired(name, both, *values)
        return
    group = _Group(
        both.value, both.readings, both.steps, fit=both.fit, used=both.used, free=both.free, members=values
    )
    yield from (term for term in over(group, Asked(name)) if name in term.used)


# --- counts ----------------------------------------------------------------------------------

_ABOVE = re.compile(r"\b(?:above|over|more|greater|higher|larger|exceeds?|at least)\b", re.IGNORECASE)
_BELOW = re.compile(r"\b(?:below|under|less|fewer|smaller|lower)\b", re.IGNORECASE)


def counts(table: Table, found: Sequence[Scope], asked: Asked) -> Iterator[Term]:
    """How many labels, series or values there are, or lie above, below or at a number."""
    if "count" not in asked.operations:
        return
    used = frozenset({"count", "colour"})
    for noun, names in (("labels", table.labels), ("series", table.series)):
        if 1 < len(names) <= MOST_READINGS and not asked.numbers and not _SAME.search(asked.text):
            step = f"There are {len(names)} {noun}: {', '.join(names)}."
            back = f"Counted: {', '.join(names)}."
            fit = 0.2 if noun == "series" and "colour" in asked.operations else 0.5 * (noun in asked.words)
            yield Term(Fraction(len(names)), table.cells, (step,), (back,), fit, used)
    if re.search(r"\b(?:same|equal)\b", asked.text, re.IGNORECASE) and not asked.numbers:
        for scope in found:
            (value, times), *others = Counter(cell.value for cell in scope.cells).most_common(2)
            if times > 1 and (not others or others[0][1] < times):
                step = f"{shown(value)} occurs {times} times, more often than any other. So {times}."
                at = ", ".join(scope.tell(cell) for cell in scope.cells if cell.value == value)
                yield Term(Fraction(times), scope.cells, (step,), (f"At {shown(value)}: {at}.",), scope.fit, used)
    for limit in asked.numbers:
        for scope in found:
            for words, side, test in _SIDES:
                if words is None or words.search(asked.text):
                    yield _counted(scope, limit, side, test, used)


# "How many have the same value", "how many of the lines cross": not all of them are meant.
_SAME = re.compile(r"\b(?:same|equal|times|more|less|than|occur\w*|cross\w*)\b", re.IGNORECASE)
_MEET = re.compile(r"\b(?:same|equal|merge\w*|cross\w*|meet|met|closest)\b", re.IGNORECASE)
_STANDS_FOR = re.compile(
    r"\b(?:represent\w*|denot\w*|indicat\w*|stands?|shown?|shows|says?|mean|present|colou?r)\b", re.IGNORECASE
)
_SIDES: tuple[tuple[re.Pattern[str] | None, str, Callable[[Fraction, Fraction], bool]], ...] = (
    (_ABOVE, "Above", lambda value, limit: value > limit),
    (_BELOW, "Below", lambda value, limit: value < limit),
    (None, "At", lambda value, limit: value == limit),
)


def _counted(
    scope: Scope, limit: Fraction, side: str, test: Callable[[Fraction, Fraction], bool], used: frozenset[str]
) -> Term:
    inside = [scope.tell(cell) for cell in scope.cells if test(cell.value, limit)]
    outside = [scope.tell(cell) for cell in scope.cells if not test(cell.value, limit)]
    step = f"{side} {shown(limit)}: {', '.join(inside) or 'none'}. So {len(inside)}."
    back = f"Not {side.lower()} {shown(limit)}: {', '.join(outside) or 'none'}."
    fit = scope.fit + (0.3 if side != "At" else 0.0)
    return Term(Fraction(len(inside)), scope.cells, (step,), (back,), fit, used)


# --- names -----------------------------------------------------------------------------------


def lists(table: Table, asked: Asked, wanted: Sequence[Fraction]) -> Iterator[Term]:
    """Several readings at once: "the percentages of good and bad in all voters"."""
    picked: list[Cell] = []
    for value in wanted:
        fitting = [cell for cell in table.cells if cell.value == value and cell not in picked]
        if not fitting:
            return
        picked.append(max(fitting, key=lambda cell: named(cell, table, asked)))
    steps = (", ".join(f"{cell.name} is {shown(cell.value)}" for cell in picked) + ".",)
    back = (", ".join(f"{cell.name} = {shown(cell.value)}" for cell in reversed(picked)) + ".",)
    fit = min(named(cell, table, asked) for cell in picked)
    said = f"[{', '.join(map(shown, wanted))}]"
    yield Term(picked[0].value, tuple(picked), steps, back, fit, asked.operations, picks=said, only_name=True)


def names(table: Table, found: Sequence[Scope], asked: Asked) -> Iterator[Term]:
    """Names that a number in the question, or a largest difference, leads to."""
    for cell in table.cells:
        if cell.value in asked.numbers:
            value = shown(cell.value)
            for name, other in ((cell.label, cell.series), (cell.series, cell.label)):
                if name:
                    reading = f"{cell.name} = {value}."
                    step = f"{cell.name} is {value}, so {name}."
                    yield Term(
                        cell.value,
                        (cell,),
                        (step,),
                        (reading,),
                        0.5 + asked.mention(other),
                        picks=name,
                        only_name=True,
                    )
    if len(table.series) >= 2 and ("difference" in asked.operations or _MEET.search(asked.text)):
        yield from _widest(table, asked)


def _widest(table: Table, asked: Asked) -> Iterator[Term]:
    """The label at which two series lie furthest apart, or nearest."""
    first, second = sorted(table.series, key=lambda series: -asked.mention(series))[:2]
    across = [(label, table.at(label, first), table.at(label, second)) for label in table.labels]
    yield from _gaps(table, asked, across)
    if len(table.labels) == 2:
        # "Which opinion has the smallest change": the same between two points in time.
        first, second = table.labels
        along = [(series, table.at(first, series), table.at(second, series)) for series in table.series]
        yield from _gaps(table, asked, along)


def _gaps(table: Table, asked: Asked, rows: Sequence[tuple[str, Cell | None, Cell | None]]) -> Iterator[Term]:
    full = [
        (label, a, b)
        for label, a, b in rows
        if a is not None and b is not None and not (table.zeros_are_gaps and not a.value * b.value)
    ]
    if not 2 <= len(full) <= MOST_READINGS // 2:
        return
    gaps = {label: abs(a.value - b.value) for label, a, b in full}
    sums = [
        f"{label}: {_chain((max(a.value, b.value), min(a.value, b.value)), '-', gaps[label])}"
        for label, a, b in full
    ]
    for word, best in (("largest", max(gaps.values())), ("smallest", min(gaps.values()))):
        winners = [label for label, gap in gaps.items() if gap == best]
        meet = word == "smallest" and best == 0 and _MEET.search(asked.text) is not None
        if (word in asked.operations or meet) and len(winners) == 1:
            beyond = "above" if word == "largest" else "below"
            yield Term(
                best,
                tuple(cell for _, a, b in full for cell in (a, b)),
                (*sums, f"The {word} is {shown(best)}."),
                (f"{beyond.capitalize()} {shown(best)}: none.",),
                0.6,
                frozenset({word, "difference"}),
                picks=winners[0],
                only_name=True,
            )


def always(table: Table, asked: Asked) -> Iterator[Term]:
    """"Is A always above B": two series compared label by label; both ways where neither is named first."""
    if not re.search(r"\balways\b", asked.text, re.IGNORECASE):
        return
    text = asked.text.lower()
    ranked = sorted(table.series, key=lambda series: -asked.mention(series))[:2]
    named_first = sorted(ranked, key=lambda series: text.find(series.lower()))
    orders = [named_first] if all(series.lower() in text for series in ranked) else [ranked, ranked[::-1]]
    for order in orders:
        if len(order) == 2:
            yield from _throughout(table, order[0], order[1], below=_BELOW.search(text) is not None)


def _throughout(table: Table, first: str, second: str, *, below: bool) -> Iterator[Term]:
    full = _both(table, first, second)
    if not 2 <= len(full) <= MOST_READINGS // 2:
        return
    said = "yes" if all((a.value < b.value) == below for a, b in full) else "no"
    yield _label_by_label(full, said)


def rivals(table: Table, asked: Asked) -> Iterator[Term]:
    """"Do more people A or B": the series that is larger at every label."""
    if not re.search(r"\bmore\b.*\bor\b", asked.text, re.IGNORECASE):
        return
    for first, second in permutations(sorted(table.series, key=lambda series: -asked.mention(series))[:2]):
        full = _both(table, first, second)
        if 2 <= len(full) <= MOST_READINGS // 2 and all(a.value > b.value for a, b in full):
            yield _label_by_label(full, first)


def _both(table: Table, first: str, second: str) -> list[tuple[Cell, Cell]]:
    """Both cells of each label; none where they are equal somewhere, which settles nothing."""
    rows = [(table.at(label, first), table.at(label, second)) for label in table.labels]
    full = [(a, b) for a, b in rows if a is not None and b is not None]
    return [] if any(a.value == b.value for a, b in full) else full


def _label_by_label(full: Sequence[tuple[Cell, Cell]], said: str) -> Term:
    told = ", ".join(_order((a.value, b.value)) for a, b in full)
    back = ", ".join(_order((b.value, a.value)) for a, b in full)
    readings = tuple(cell for pair in full for cell in pair)
    used = frozenset({"difference", "ratio", "largest", "sum"})
    step = f"{told}, so {said}."
    return Term(full[0][0].value, readings, (step,), (f"{back}.",), 0.5, used, picks=said, only_name=True)


def existing(table: Table, asked: Asked) -> Iterator[Term]:
    """"Are there two bars of the same value", "is there any bar with 40"."""
    if not re.search(r"\bthere (?:any|an?|two)\b", asked.text, re.IGNORECASE):
        return
    if re.search(r"\b(?:same|similar|equal)\b", asked.text, re.IGNORECASE):
        for first, second in combinations(table.cells, 2):
            if first.value == second.value:
                value = shown(first.value)
                step, back = f"{value} = {value}, so yes.", f"{second.name} = {value}, {first.name} = {value}."
                yield Term(first.value, (first, second), (step,), (back,), 0.5, picks="yes", only_name=True)
                return
    elif asked.numbers and len(table.cells) <= MOST_READINGS:
        limit = shown(asked.numbers[0])
        at = [cell.name for cell in table.cells if cell.value == asked.numbers[0]]
        others = [cell.name for cell in table.cells if cell.value != asked.numbers[0]]
        said = "yes" if at else "no"
        step, back = f"At {limit}: {', '.join(at) or 'none'}, so {said}.", f"Not at {limit}: {', '.join(others) or 'none'}."
        yield Term(asked.numbers[0], table.cells, (step,), (back,), 0.5, picks=said, only_name=True)


def transcriptions(table: Table, asked: Asked) -> Iterator[Term]:
    """The whole chart read out, as charts drawn here are asked for."""
    if re.search(r"\bevery label\b|\bwhole chart\b|\binto a table\b", asked.text, re.IGNORECASE):
        text = ", ".join(f"{cell.name} = {shown(cell.value)}" for cell in table.cells)
        back = (f"There are {len(table.labels)} labels: {', '.join(table.labels)}.",)
        yield Term(table.cells[0].value, (), (f"{text}.",), back, 1.0, picks=text, only_name=True)


def trends(table: Table, asked: Asked) -> Iterator[Term]:
    """Rising, falling or neither, for labels in time."""
    if not re.search(r"\brising\b.*\bfalling\b", asked.text):
        return
    for scope in scopes(table, asked):
        values = [cell.value for cell in scope.cells]
        steps = list(pairwise(values))
        if not scope.by_label or any(a == b for a, b in steps):
            continue
        rises = [b > a for a, b in steps]
        verdict = "rising" if all(rises) else "neither" if any(rises) else "falling"
        step, back = f"{_order(values)}, so {verdict}.", f"{_order(values[::-1])}."
        yield Term(values[-1], scope.cells, (step,), (back,), scope.fit, picks=verdict, only_name=True)


def legends(table: Table, asked: Asked, answer: str) -> Iterator[Term]:
    """The name that a colour or place stands for, where the answer is one of the table's names, or all."""
    listed = sorted(part.strip() for part in answer.strip("[]").split(","))
    for noun, names in (("series", table.series), ("labels", table.labels)):
        if len(names) > 1 and listed == sorted(names):
            step = f"There are {len(names)} {noun}: {', '.join(names)}."
            back = f"Counted: {', '.join(names)}."
            yield Term(Fraction(len(names)), (), (step,), (back,), 0.0, asked.operations, picks=answer, only_name=True)
        if _STANDS_FOR.search(asked.text) and answer in names and 1 < len(names) <= MOST_READINGS:
            step = f"There are {len(names)} {noun}: {', '.join(names)}."
            own = [cell for cell in table.cells if answer in (cell.label, cell.series)][:MOST_READINGS]
            steps = (step, f"The one asked for is {answer}.")
            used = asked.operations - {"largest", "smallest"}
            back = ", ".join(f"{cell.name} = {shown(cell.value)}" for cell in own)
            yield Term(own[0].value, (), steps, (f"{back}.",), 0.0, used, picks=answer, only_name=True)


# --- everything ------------------------------------------------------------------------------


def points(table: Table, found: Sequence[Scope], asked: Asked) -> list[Term]:
    """All single numbers that a question may rest on."""
    return [*cells(table, asked), *ends(found, asked), *extremes(found, asked), *middles(found, asked)]


def terms(table: Table, asked: Asked, wanted: frozenset[Fraction] | None = None) -> Iterator[Term]:
    """Every number and name that the question's words may lead to."""
    found = scopes(table, asked)
    single = points(table, found, asked)
    sets = [term for group in groups(table, found, asked) for term in over(group, asked)]
    yield from single
    yield from sets
    # "The ratio of the sum of the two smallest to the largest": sets are points of pairs as well.
    yield from pairs([*single, *sets], asked, wanted)
    yield from counts(table, found, asked)
    yield from names(table, found, asked)
    yield from rivals(table, asked)
    yield from trends(table, asked)
    yield from transcriptions(table, asked)


def rounds_to(value: Fraction, goal: Fraction) -> bool:
    """Whether `goal` is `value`, written with fewer decimals: rounded, or cut off as many people do."""
    if value == goal:
        return True
    decimals = next((places for places in range(10) if (goal * 10**places).denominator == 1), 10)
    off = (abs(value) - abs(goal)) * 10**decimals
    return decimals > 0 and value * goal >= 0 and -1 <= 2 * off < 2


def _exact(value: Fraction) -> bool:
    return (value * 10**4).denominator == 1


def _averaged(values: Sequence[Fraction]) -> tuple[Fraction, tuple[str, ...]]:
    total = sum(values, Fraction(0))
    return total, (_sum(values), _chain((total, Fraction(len(values))), "/", total / len(values)))


def _multiplied(values: Sequence[Fraction]) -> Fraction:
    product = Fraction(1)
    for value in values:
        product *= value
    return product


def _sum(values: Sequence[Fraction]) -> str:
    return _chain(values, "+", sum(values, Fraction(0)))


def _chain(values: Sequence[Fraction], sign: str, result: Fraction) -> str:
    """`3 + 4 = 7.`; a rounded result is said to be one."""
    equals = "=" if _exact(result) else "≈"
    return f"{f' {sign} '.join(map(shown, values))} {equals} {shown(result)}."


def _order(values: Sequence[Fraction]) -> str:
    parts = [shown(values[0])]
    for old, new in pairwise(values):
        parts += ["<" if new > old else ">", shown(new)]
    return " ".join(parts)


def _listed(values: Sequence[Fraction]) -> str:
    *most, last = map(shown, values)
    return f"{', '.join(most)} and {last}" if most else last
