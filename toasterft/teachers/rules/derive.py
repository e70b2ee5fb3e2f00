"""How an answer follows from a table: every way the question's words allow, the best fitting first.

A `Term` is a number with the readings and steps that lead to it. Points (a cell, an extreme, a median …) are
combined as the question asks; with the answer known, a way is right if it ends there. Only true statements
are ever made; whether the way is the one that was meant is what `fit` estimates, from the names and
operations that question and way have in common.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction

from toasterft.scoring.numbers import shown
from toasterft.scoring.tables import Cell, Table
from toasterft.teachers.rules import claims
from toasterft.teachers.rules.question import Asked
from toasterft.teachers.rules.terms import (
    MOST_READINGS,
    SIDES,
    Group,
    Scope,
    Term,
    averaged,
    chain,
    is_short,
    listed,
    multiplied,
    named,
    rounds_to,
    scopes,
    summed,
)

# Without the answer only pairs of the best named points are tried.
BLIND_POINTS = 12
FULLY_NAMED = 0.95
RANKS = ("", "second ", "third ", "fourth ", "fifth ")

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
                middle = f"The middle is {shown(values[half])}."
                yield Term(values[half], scope.cells, (order, middle), back, scope.fit, used)
            else:
                low, high = values[half - 1], values[half]
                total, steps = averaged((low, high))
                middle = f"The middle two are {shown(low)} and {shown(high)}."
                yield Term(total / 2, scope.cells, (order, middle, *steps), back, scope.fit, used)
        if "mode" in asked.operations:
            (value, times), *others = Counter(values).most_common(2)
            if times > 1 and (not others or others[0][1] < times):
                most = f"{shown(value)} occurs {times} times, more often than any other."
                yield Term(value, scope.cells, (order, most), back, scope.fit, frozenset({"mode"}))


# --- sets: several numbers made into one -----------------------------------------------------


def groups(table: Table, found: Sequence[Scope], asked: Asked) -> Iterator[Term]:
    """Sets of cells that an operation may run over; their `value` means nothing yet."""
    none = Fraction(0)
    for scope in found:
        # Of two sets that fit alike, the one whose members are named as well.
        said = sum(asked.mention(scope.tell(cell)) for cell in scope.cells) / len(scope.cells)
        yield Term(none, scope.cells, fit=scope.fit + 0.2 * said)
        for word in ("largest", "smallest"):
            if asked.amount and word in asked.operations and asked.amount <= len(scope.cells):
                yield _some(scope, asked.amount, word)
        if {"largest", "smallest"} <= asked.operations:
            low = min(scope.cells, key=lambda cell: cell.value)
            high = max(scope.cells, key=lambda cell: cell.value)
            steps = (f"The largest is {shown(high.value)}.", f"The smallest is {shown(low.value)}.")
            used = frozenset({"largest", "smallest"})
            yield Group(
                none, scope.cells, steps, fit=scope.fit + 0.3, used=used, members=(high.value, low.value)
            )
        for words, side, test in SIDES[:2]:
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


def _each(found: Sequence[Scope], asked: Asked) -> Iterator[Group]:
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
                yield Group(Fraction(0), readings, steps, fit=0.5, used=used, members=values)


def _beyond(
    scope: Scope, limit: Fraction, side: str, test: Callable[[Fraction, Fraction], bool]
) -> Iterator[Group]:
    """The values above (below) a number of the question."""
    inside = [cell for cell in scope.cells if test(cell.value, limit)]
    if 2 <= len(inside) < len(scope.cells):
        step = f"{side} {shown(limit)}: {', '.join(scope.tell(cell) for cell in inside)}."
        values = tuple(cell.value for cell in inside)
        yield Group(Fraction(0), scope.cells, (step,), fit=scope.fit + 0.3, members=values)


def _some(scope: Scope, amount: int, word: str) -> Group:
    ordered = sorted((cell.value for cell in scope.cells), reverse=word == "largest")
    order = f"In order: {', '.join(map(shown, ordered))}."
    picked = tuple(ordered[:amount])
    step = f"The {word} {amount} are {listed(picked)}."
    used = frozenset({word})
    return Group(Fraction(0), scope.cells, (order, step), fit=scope.fit + 0.4, used=used, members=picked)


def over(group: Term, asked: Asked) -> Iterator[Term]:
    """What the question may ask of a set: its sum, mean, product, difference or ratio."""
    values = group.members if isinstance(group, Group) else tuple(cell.value for cell in group.readings)
    for name in ("sum", "mean", "product"):
        if name not in asked.operations or len(values) < 2:
            continue
        if name == "mean":
            total, steps = averaged(values)
            value, checks = total / len(values), (summed(tuple(reversed(values))),)
        elif name == "sum":
            value, steps, checks = (
                sum(values, Fraction(0)),
                (summed(values),),
                (summed(tuple(reversed(values))),),
            )
        else:
            value = multiplied(values)
            steps, checks = (chain(values, "*", value),), (chain(tuple(reversed(values)), "*", value),)
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
        steps, checks = (chain((high, low), "-", value),), (chain((low, value), "+", high),)
        yield _extended(group, value, steps, checks, name)
    else:
        for over_, under in ((high, low), (low, high)):
            value = over_ / under
            # A rounded quotient times its divisor is the dividend only nearly.
            checks = (
                chain((over_, value), "/", under) if is_short(value) else chain((over_, under), "/", value),
            )
            yield _extended(group, value, (chain((over_, under), "/", value),), checks, name)


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
    exactly = [term for term in points if not term.used and term.fit >= FULLY_NAMED]
    if len(exactly) == 2:
        # Two cells that the question names in full are the two it means.
        points = [term for term in points if term.used or term in exactly]
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
    group = Group(
        both.value, both.readings, both.steps, fit=both.fit, used=both.used, free=both.free, members=values
    )
    yield from (term for term in over(group, Asked(name)) if name in term.used)


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
    yield from claims.counts(table, found, asked)
    yield from claims.names(table, found, asked)
    yield from claims.rivals(table, asked)
    yield from claims.trends(table, asked)
    yield from claims.transcriptions(table, asked)
