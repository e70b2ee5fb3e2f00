"""Answers that are a name, a count, or a yes: what holds of a table as a whole."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import combinations, pairwise, permutations

from toasterft.scoring.numbers import shown
from toasterft.scoring.tables import Cell, Table
from toasterft.teachers.rules.question import Asked
from toasterft.teachers.rules.terms import (
    BELOW,
    MOST_READINGS,
    SIDES,
    Scope,
    Term,
    chain,
    named,
    order,
    scopes,
)

# "How many have the same value", "how many of the lines cross": not all of them are meant.
_SAME = re.compile(r"\b(?:same|equal|times|more|less|than|occur\w*|cross\w*)\b", re.IGNORECASE)
_MEET = re.compile(r"\b(?:same|equal|merge\w*|cross\w*|meet|met|closest)\b", re.IGNORECASE)
_STANDS_FOR = re.compile(
    r"\b(?:represent\w*|denot\w*|indicat\w*|stands?|shown?|shows|says?|mean|present|colou?r)\b", re.IGNORECASE
)


# --- counts ----------------------------------------------------------------------------------


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
                yield Term(
                    Fraction(times), scope.cells, (step,), (f"At {shown(value)}: {at}.",), scope.fit, used
                )
    for limit in asked.numbers:
        for scope in found:
            for words, side, test in SIDES:
                if words is None or words.search(asked.text):
                    yield _counted(scope, limit, side, test, used)


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
        f"{label}: {chain((max(a.value, b.value), min(a.value, b.value)), '-', gaps[label])}"
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
    """ "Is A always above B": two series compared label by label; both ways where neither is named first."""
    if len(table.series) < 2 or not re.search(r"\balways\b", asked.text, re.IGNORECASE):
        return
    text = asked.text.lower()
    ranked = sorted(table.series, key=lambda series: -asked.mention(series))[:2]
    named_first = sorted(ranked, key=lambda series: text.find(series.lower()))
    both_named = all(series.lower() in text for series in ranked)
    for first, second in [named_first] if both_named else permutations(ranked):
        yield from _throughout(table, first, second, below=BELOW.search(text) is not None)


def _throughout(table: Table, first: str, second: str, *, below: bool) -> Iterator[Term]:
    full = _both(table, first, second)
    if not 2 <= len(full) <= MOST_READINGS // 2:
        return
    said = "yes" if all((a.value < b.value) == below for a, b in full) else "no"
    yield _label_by_label(full, said)


def rivals(table: Table, asked: Asked) -> Iterator[Term]:
    """ "Do more people A or B": the series that is larger at every label."""
    if not re.search(r"\bmore\b.*\bor\b", asked.text, re.IGNORECASE):
        return
    if len(table.series) < 2:
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
    told = ", ".join(order((a.value, b.value)) for a, b in full)
    back = ", ".join(order((b.value, a.value)) for a, b in full)
    readings = tuple(cell for pair in full for cell in pair)
    used = frozenset({"difference", "ratio", "largest", "sum"})
    step = f"{told}, so {said}."
    return Term(full[0][0].value, readings, (step,), (f"{back}.",), 0.5, used, picks=said, only_name=True)


def existing(table: Table, asked: Asked) -> Iterator[Term]:
    """ "Are there two bars of the same value", "is there any bar with 40"."""
    if not re.search(r"\bthere (?:any|an?|two)\b", asked.text, re.IGNORECASE):
        return
    if re.search(r"\b(?:same|similar|equal)\b", asked.text, re.IGNORECASE):
        for first, second in combinations(table.cells, 2):
            if first.value == second.value:
                value = shown(first.value)
                step, back = (
                    f"{value} = {value}, so yes.",
                    f"{second.name} = {value}, {first.name} = {value}.",
                )
                yield Term(first.value, (first, second), (step,), (back,), 0.5, picks="yes", only_name=True)
                return
    elif asked.numbers and len(table.cells) <= MOST_READINGS:
        limit = shown(asked.numbers[0])
        at = [cell.name for cell in table.cells if cell.value == asked.numbers[0]]
        others = [cell.name for cell in table.cells if cell.value != asked.numbers[0]]
        said = "yes" if at else "no"
        step, back = (
            f"At {limit}: {', '.join(at) or 'none'}, so {said}.",
            f"Not at {limit}: {', '.join(others) or 'none'}.",
        )
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
        step, back = f"{order(values)}, so {verdict}.", f"{order(values[::-1])}."
        yield Term(values[-1], scope.cells, (step,), (back,), scope.fit, picks=verdict, only_name=True)


def legends(table: Table, asked: Asked, answer: str) -> Iterator[Term]:
    """The name that a colour or place stands for, where the answer is one of the table's names, or all."""
    listed = sorted(part.strip() for part in answer.strip("[]").split(","))
    for noun, names in (("series", table.series), ("labels", table.labels)):
        if len(names) > 1 and listed == sorted(names):
            step = f"There are {len(names)} {noun}: {', '.join(names)}."
            back = f"Counted: {', '.join(names)}."
            yield Term(
                Fraction(len(names)),
                (),
                (step,),
                (back,),
                0.0,
                asked.operations,
                picks=answer,
                only_name=True,
            )
        if _STANDS_FOR.search(asked.text) and answer in names and 1 < len(names) <= MOST_READINGS:
            step = f"There are {len(names)} {noun}: {', '.join(names)}."
            own = [cell for cell in table.cells if answer in (cell.label, cell.series)][:MOST_READINGS]
            steps = (step, f"The one asked for is {answer}.")
            used = asked.operations - {"largest", "smallest"}
            back = ", ".join(f"{cell.name} = {shown(cell.value)}" for cell in own)
            yield Term(own[0].value, (), steps, (f"{back}.",), 0.0, used, picks=answer, only_name=True)
