"""How an answer follows from a table: every way the question's words allow.

A `Term` is a number with the readings and steps that lead to it. Points (a cell, an extreme, a median …) are
combined as the question asks; with the answer known, a way is right if it ends there (`choose`). Only true
statements are ever made; whether the way is the one that was meant is what `fit` estimates, from the names and
operations that question and way have in common.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import reduce
from operator import add, mul, sub, truediv

from toasterft.scoring import lexicon
from toasterft.scoring.numbers import format_number
from toasterft.scoring.tables import Cell, Table
from toasterft.teachers.rules import claims
from toasterft.teachers.rules.question import Question
from toasterft.teachers.rules.terms import (
    MOST_READINGS,
    SIDES,
    Scope,
    Term,
    chain,
    in_order,
    is_short,
    most_frequent,
    name_match,
    names_at,
    order,
    points,
    reading,
    rounding_to,
    scopes,
)

# Without the answer only pairs of the best named points are tried.
BLIND_POINTS = 12
FULLY_NAMED = 0.95
WHOLE_NAMED = 1.5  # label and series of each cell side by side: nothing else is meant
COUNT_WORDS = {value: word for word, value in lexicon.AMOUNTS.items() if word.isalpha()}
RANKS = ("", "second ", "third ", "fourth ", "fifth ")
SIGNS = {"sum": "+", "difference": "-", "product": "*", "ratio": "/"}
APPLY = {"sum": add, "difference": sub, "product": mul, "ratio": truediv}
NONE = Fraction(0)  # the value of a set, which means nothing before an operation runs over it


def terms(table: Table, question: Question, wanted: frozenset[Fraction] | None = None) -> Iterator[Term]:
    """Every number and name that the question's words may lead to.

    Args:
        wanted: values that pairs of numbers should end in; None takes the best named pairs.
    """
    found = scopes(table, question)
    single = [*points(table, question), *ends(found, question), *extremes(found, question)]
    single += middles(found, question)
    sets = [term for group in groups(table, found, question) for term in over(group, question.operations)]
    yield from single
    yield from sets
    # "The ratio of the sum of the two smallest to the largest": sets are points of pairs as well.
    yield from pairs([*single, *sets], question, wanted)
    yield from claims.terms(table, found, question)


# --- points: one number each -----------------------------------------------------------------


def ends(found: Sequence[Scope], question: Question) -> Iterator[Term]:
    """The rightmost or leftmost mark of each series."""
    for scope in found:
        if question.end is not None and scope.by_label and len({cell.series for cell in scope.cells}) == 1:
            yield reading(scope.cells[question.end], scope.fit + 0.4)


def extremes(found: Sequence[Scope], question: Question) -> Iterator[Term]:
    """The largest and smallest (or second …) of each scope, with the name it picks."""
    for word in ("largest", "smallest"):
        for scope in found if word in question.operations else ():
            ordered = sorted(scope.cells, key=lambda cell: cell.value, reverse=word == "largest")
            for rank in dict.fromkeys((question.rank, 1)):
                if rank <= len(ordered):
                    yield _extreme(scope, ordered, rank, word, 0.3 if rank == question.rank else -0.3)


def _extreme(scope: Scope, ordered: Sequence[Cell], rank: int, word: str, bonus: float) -> Term:
    cell = ordered[rank - 1]
    ties = [other for other in ordered if other.value == cell.value]
    if rank == 1:
        lead: tuple[str, ...] = ()
        others = [other for other in scope.cells if other not in ties]
        back = ", ".join(order((cell.value, other.value)) for other in others or ties[:1]) + "."
    else:
        lead = (in_order(other.value for other in ordered),)
        side = "Above" if word == "largest" else "Below"
        beyond = [other for other in ordered[: rank - 1] if other not in ties]
        back = names_at(side, cell.value, scope.names(beyond))
    return Term(
        cell.value,
        scope.cells,
        (*lead, f"The {RANKS[rank - 1]}{word} is {format_number(cell.value)}."),
        (back,),
        scope.fit + bonus,
        frozenset({word}),
        picks=scope.names(ties)[0] if len(ties) == 1 else "",
    )


def middles(found: Sequence[Scope], question: Question) -> Iterator[Term]:
    """Medians and modes."""
    for scope in found if {"median", "mode"} & question.operations else ():
        values = sorted(cell.value for cell in scope.cells)
        lead, back = in_order(values), (in_order(values[::-1], "In reverse order"),)
        if "median" in question.operations:
            half, used = len(values) // 2, frozenset({"median"})
            low, high = values[half - 1], values[half]
            if len(values) % 2:
                value, steps = high, [f"The middle is {format_number(high)}."]
            else:
                value, mean = _worked_out("mean", (low, high))
                steps = [f"The middle two are {format_number(low)} and {format_number(high)}.", *mean]
            yield Term(value, scope.cells, (lead, *steps), back, scope.fit, used)
        if "mode" in question.operations and (most := most_frequent(scope)):
            yield Term(most[0], scope.cells, (lead, most[2]), back, scope.fit, frozenset({"mode"}))


# --- sets: several numbers made into one -----------------------------------------------------


def groups(table: Table, found: Sequence[Scope], question: Question) -> Iterator[Term]:
    """Sets of cells that an operation may run over."""
    for scope in found:
        # Of two sets that fit alike, the one whose members are named as well.
        shares = [*map(question.mention, scope.names(scope.cells))]
        yield Term(NONE, scope.cells, fit=scope.fit + 0.2 * sum(shares) / len(shares))
        yield from _ends_of(scope, question)
        for side, words, test in SIDES[:2]:
            for limit in question.numbers if question.has(words) else ():
                inside = [cell for cell in scope.cells if test(cell.value, limit)]
                if 2 <= len(inside) < len(scope.cells):
                    step = names_at(side, limit, scope.names(inside))
                    values = tuple(cell.value for cell in inside)
                    yield Term(NONE, scope.cells, (step,), fit=scope.fit + 0.3, members=values)
        mentioned = tuple(cell for cell, share in zip(scope.cells, shares) if share >= 0.6)
        if 1 < len(mentioned) < len(scope.cells):
            yield Term(NONE, mentioned, fit=scope.fit + 0.5)
    if len(table.series) > 1:
        mentioned = tuple(cell for cell in table.cells if name_match(cell, table, question) >= 0.6)
        if 1 < len(mentioned) <= MOST_READINGS:
            yield Term(NONE, mentioned, fit=0.7)
        # "South 2013 beside north 2012" means two cells of the four that these words span.
        whole = tuple(cell for cell in table.cells if question.has(re.escape(cell.name)))
        if 1 < len(whole) <= MOST_READINGS:
            yield Term(NONE, whole, fit=WHOLE_NAMED)
        yield from _each(found, question)


def _ends_of(scope: Scope, question: Question) -> Iterator[Term]:
    """ "The two largest", "the highest and the lowest"."""
    values = sorted(cell.value for cell in scope.cells)
    amount = question.amount
    both = question.operations & {"largest", "smallest"}
    for word in ("largest", "smallest"):
        if amount and word in both and amount <= len(values):
            ordered = values[::-1] if word == "largest" else values
            *most, last = map(format_number, ordered[:amount])
            listed = f"{', '.join(most)} and {last}" if most else last
            steps = (in_order(ordered), f"The {COUNT_WORDS[amount]} {word} are {listed}.")
            used, members = frozenset({word}), tuple(ordered[:amount])
            yield Term(NONE, scope.cells, steps, fit=scope.fit + 0.4, used=used, members=members)
    if len(both) == 2:
        steps = (
            f"The largest is {format_number(values[-1])}.",
            f"The smallest is {format_number(values[0])}.",
        )
        members = (values[-1], values[0])
        yield Term(NONE, scope.cells, steps, fit=scope.fit + 0.3, used=both, members=members)


def _each(found: Sequence[Scope], question: Question) -> Iterator[Term]:
    """One figure per series: "the sum of the medians", "the average of the highest values"."""
    for by_label in (True, False):
        alike = [
            scope
            for scope in found
            if scope.by_label == by_label and len({cell.series for cell in scope.cells}) == 1
        ]
        figures = [*middles(alike, question), *extremes(alike, question)]
        for used in dict.fromkeys(term.used for term in figures):
            members = [term for term in figures if term.used == used]
            cells = tuple(dict.fromkeys(cell for term in members for cell in term.readings))
            if 2 <= len(members) <= len(alike) and len(cells) <= MOST_READINGS:
                steps = tuple(step for term in members for step in term.steps)
                values = tuple(term.value for term in members)
                yield Term(NONE, cells, steps, fit=0.5, used=used, members=values)


def _worked_out(name: str, values: Sequence[Fraction]) -> tuple[Fraction, list[str]]:
    """The sum, mean, product, difference or ratio of numbers in their order, and the sentences to it."""
    if name == "mean":
        total, steps = _worked_out("sum", values)
        value = total / len(values)
        return value, [*steps, chain((total, Fraction(len(values))), "/", value)]
    value = reduce(APPLY[name], values)
    return value, [chain(values, SIGNS[name], value)]


def over(group: Term, operations: frozenset[str]) -> Iterator[Term]:
    """Operations on a set: its sum, mean, product, difference or ratio."""
    values = tuple(cell.value for cell in group.readings) if group.members is None else group.members
    if len(values) < 2:
        return
    high, low = max(values), min(values)
    for name in ("sum", "mean", "product", "difference", "ratio"):
        if name not in operations:
            continue
        if name in ("sum", "mean", "product"):
            _, back = _worked_out("sum" if name == "mean" else name, values[::-1])
            yield _extended(group, name, values, back)
        elif len(values) == 2 and low:  # what is taken from nothing says nothing
            if name == "difference":
                yield _extended(group, name, (high, low), [chain((low, high - low), "+", high)])
                continue
            # It depends on the question which of the two is divided.
            for a, b in ((high, low), (low, high)):
                value = a / b
                # A rounded quotient times its divisor is the dividend only nearly.
                back = [chain((b, value), "*", a) if is_short(value) else chain((a, b), "/", value)]
                yield _extended(group, name, (a, b), back)


def _extended(group: Term, name: str, values: Sequence[Fraction], back: Sequence[str]) -> Term:
    value, steps = _worked_out(name, values)
    return replace(
        group,
        value=value,
        steps=(*group.steps, *steps),
        rechecks=tuple(back),
        fit=group.fit + 0.2,
        used=group.used | {name},
        members=None,
    )


# --- pairs: two points made into one ---------------------------------------------------------


def pairs(points: Sequence[Term], question: Question, wanted: frozenset[Fraction] | None) -> Iterator[Term]:
    """Sums, differences, means, products and ratios of two points, that end in `wanted` where it is given."""
    names = [
        name for name in ("difference", "sum", "mean", "ratio", "product") if name in question.operations
    ]
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
                if name == "difference" and first.value < second.value:
                    continue
                if first.readings != second.readings or first.steps != second.steps:
                    yield from over(_pair(first, second), frozenset({name}))


def _partners(
    first: Term, name: str, wanted: frozenset[Fraction], by_value: dict[Fraction, list[Term]]
) -> list[Term]:
    """The points that lead from `first` to a wanted value."""
    a = first.value
    others: Callable[[Fraction], Fraction] = {
        "difference": lambda value: a - value,
        "sum": lambda value: value - a,
        "mean": lambda value: 2 * value - a,
        "product": lambda value: value / a if a else NONE,
        "ratio": lambda value: a / value if value else NONE,
    }[name]
    exact = [term for value in wanted for term in by_value.get(others(value), ())]
    if exact or name != "ratio":
        return exact
    # A quotient is seldom written out in full.
    quotients = {value: a / value for value in by_value if value}
    near = rounding_to(quotients.values(), wanted)
    return [term for value, quotient in quotients.items() if quotient in near for term in by_value[value]]


def _pair(first: Term, second: Term) -> Term:
    lead = [step for term in (first, second) if term.used for step in term.steps]
    return Term(
        NONE,
        tuple(dict.fromkeys((*first.readings, *second.readings))),
        tuple(dict.fromkeys(lead)),
        # Two figures are more often of one series than of two.
        fit=(first.fit + second.fit) / 2 + (0.2 if first.readings == second.readings else 0.0),
        used=first.used | second.used,
        free=not (first.used and second.used),
        members=(first.value, second.value),
    )
