"""Answers that are a name, a count, or a yes: what holds of a table as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import combinations, pairwise, permutations

from toasterft.data.charts.phrases import NOUNS, trend
from toasterft.scoring import lexicon
from toasterft.scoring.numbers import format_number
from toasterft.scoring.tables import Cell, Table
from toasterft.teachers.rules.question import Question
from toasterft.teachers.rules.terms import (
    MOST_READINGS,
    SIDES,
    Scope,
    Term,
    chain,
    conclude,
    most_frequent,
    name_match,
    names_at,
    order,
    readings,
)

# "How many have the same value", "how many of the lines cross": not all of them are meant.
SOME = r"same|equal|times|more|less|than|occur\w*|cross\w*"
MEET = r"same|equal|merge\w*|cross\w*|meet|met|closest"
STANDS_FOR = r"represent\w*|denot\w*|indicat\w*|stands?|shown?|shows|says?|mean|present|colou?r"
COUNTS = frozenset({"count", "colour"})
TRANSCRIBES = frozenset({"transcribe"})
# What comparing label by label amounts to.
COMPARES = frozenset({"difference", "ratio", "largest", "sum"})

Test = Callable[[Fraction, Fraction], bool]


def terms(table: Table, found: Sequence[Scope], question: Question) -> Iterator[Term]:
    """Every count and name that the question's words may lead to."""
    if "count" in question.operations:
        yield from counts(table, found, question)
    yield from of_value(table, question)
    if len(table.series) >= 2:
        if "difference" in question.operations or question.has(MEET):
            yield from widest(table, question)
        if question.has(r"more\b.*\bor"):  # "Do more people A or B"
            yield from rivals(table, question)
    if question.has(r"rising\b.*\bfalling"):
        yield from trends(found)
    if question.has("every label|whole chart|into a table"):
        yield transcription(table)


def _name(
    answer: str,
    cells: Iterable[Cell],
    steps: Sequence[str],
    back: str,
    fit: float,
    used: frozenset[str] = frozenset(),
    value: Fraction | None = None,
) -> Term:
    """A term whose answer is a name; its number is that of the first cell unless given."""
    cells = tuple(cells)
    value = cells[0].value if value is None else value
    return Term(value, cells, tuple(steps), (back,), fit, used, picks=answer, only_name=True)


# --- counts ----------------------------------------------------------------------------------


def there_are(names: Sequence[str], noun: str) -> str:
    return f"There are {len(names)} {noun}: {', '.join(names)}."


def recount(names: Sequence[str]) -> str:
    return f"Counted: {', '.join(names)}."


def counts(table: Table, found: Sequence[Scope], question: Question) -> Iterator[Term]:
    """How many labels, series or values there are, or lie above, below or at a number."""
    mark = next((word for word in question.words if word in NOUNS.values()), "labels")
    full = table.without_gaps()
    sizes = (("labels", table.labels, full.labels), ("series", table.series, full.series))
    for noun, every, filled in sizes if not question.numbers and not question.has(SOME) else ():
        for names, less in dict.fromkeys(((every, 0.0), (filled, 0.2 * (every != filled)))):
            if 1 < len(names) <= MOST_READINGS:
                seen = mark if noun == "labels" and len(table.series) == 1 else noun
                # What has no reading is listed: nothing else shows that it is there.
                step = conclude(f"There are {len(names)} {seen}", str(len(names)))
                step = step if names == filled else there_are(names, noun)
                coloured = noun == "series" and "colour" in question.operations
                fit = (0.2 if coloured else 0.5 * (seen in question.words)) - less
                yield Term(Fraction(len(names)), full.cells, (step,), (recount(names),), fit, COUNTS)
    for scope in found if question.has("same|equal") and not question.numbers else ():
        if most := most_frequent(scope):
            value, times, step = most
            back = names_at("At", value, scope.names(cell for cell in scope.cells if cell.value == value))
            steps = (f"{step} So {times}.",)
            yield Term(Fraction(times), scope.cells, steps, (back,), scope.fit, COUNTS)
    for limit in question.numbers:
        for scope in found:
            for side, words, test in SIDES:
                if not words or question.has(words):
                    yield _beyond(scope, limit, side, test)


def _beyond(scope: Scope, limit: Fraction, side: str, test: Test) -> Term:
    def name(cell: Cell) -> str:
        return cell.name if scope.by_label else cell.series

    inside = [cell for cell in scope.cells if test(cell.value, limit)]
    others = [cell for cell in scope.cells if cell not in inside]
    step = f"{names_at(side, limit, map(name, inside))} So {len(inside)}."
    back = names_at(f"Not {side.lower()}", limit, map(name, others))
    fit = scope.fit + (0.3 if side != "At" else 0.0)
    return Term(Fraction(len(inside)), scope.cells, (step,), (back,), fit, COUNTS)


# --- names -----------------------------------------------------------------------------------


def lists(table: Table, question: Question, wanted: Sequence[Fraction]) -> Iterator[Term]:
    """Several readings at once: "the percentages of good and bad in all voters"."""
    picked: list[Cell] = []
    for value in wanted:
        fitting = [cell for cell in table.cells if cell.value == value and cell not in picked]
        if not fitting:
            return
        picked.append(max(fitting, key=lambda cell: name_match(cell, table, question)))
    fit = min(name_match(cell, table, question) for cell in picked)
    answer = f"[{', '.join(map(format_number, wanted))}]"
    yield _name(answer, picked, [readings(picked, "is")], readings(picked[::-1]), fit, question.operations)


def of_value(table: Table, question: Question) -> Iterator[Term]:
    """The label, or the series, of a value that the question gives."""
    for cell in table.cells if question.numbers else ():
        for name, other in ((cell.label, cell.series), (cell.series, cell.label)):
            if name and cell.value in question.numbers:
                step = conclude(readings([cell], "is"), name)
                yield _name(name, [cell], [step], readings([cell]), 0.5 + question.mention(other))


def widest(table: Table, question: Question) -> Iterator[Term]:
    """The label at which two series lie furthest apart, or nearest; and the series that changed so."""
    first, second = _best_two(table, question)
    across = [(label, table.at(label, first), table.at(label, second)) for label in table.labels]
    yield from _gaps(table, question, across)
    if len(table.labels) == 2:
        # "Which opinion has the smallest change": the same between two points in time.
        first, second = table.labels
        along = [(series, table.at(first, series), table.at(second, series)) for series in table.series]
        yield from _gaps(table, question, along)


def _best_two(table: Table, question: Question) -> list[str]:
    return sorted(table.series, key=lambda series: -question.mention(series))[:2]


def _gaps(
    table: Table, question: Question, rows: Sequence[tuple[str, Cell | None, Cell | None]]
) -> Iterator[Term]:
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
    for word, side, best in (
        ("largest", "Above", max(gaps.values())),
        ("smallest", "Below", min(gaps.values())),
    ):
        winners = [label for label, gap in gaps.items() if gap == best]
        meet = word == "smallest" and best == 0 and question.has(MEET)
        if (word in question.operations or meet) and len(winners) == 1:
            cells = [cell for _, a, b in full for cell in (a, b)]
            steps = [*sums, f"The {word} is {format_number(best)}."]
            used = frozenset({word, "difference"})
            yield _name(winners[0], cells, steps, names_at(side, best, ()), 0.6, used, best)


def always(table: Table, question: Question) -> Iterator[Term]:
    """ "Is A always above B": two series compared label by label; both ways where neither is named first."""
    text, best = question.text.lower(), _best_two(table, question)
    named_first = sorted(best, key=lambda series: text.find(series.lower()))
    both_named = all(series.lower() in text for series in best)
    below = question.has(lexicon.FEWER)
    for first, second in [named_first] if both_named else permutations(best):
        full = _both(table, first, second)
        if full:
            holds = all((a.value < b.value) == below for a, b in full)
            yield _label_by_label(full, "yes" if holds else "no")


def rivals(table: Table, question: Question) -> Iterator[Term]:
    """The series that is larger at every label."""
    for first, second in permutations(_best_two(table, question)):
        full = _both(table, first, second)
        if full and all(a.value > b.value for a, b in full):
            yield _label_by_label(full, first)


def _both(table: Table, first: str, second: str) -> list[tuple[Cell, Cell]]:
    """Both cells of each label; none where they are equal somewhere, which settles nothing, or are too many."""
    rows = [(table.at(label, first), table.at(label, second)) for label in table.labels]
    full = [(a, b) for a, b in rows if a is not None and b is not None]
    usable = 2 <= len(full) <= MOST_READINGS // 2 and all(a.value != b.value for a, b in full)
    return full if usable else []


def _label_by_label(full: Sequence[tuple[Cell, Cell]], answer: str) -> Term:
    step = conclude(", ".join(order((a.value, b.value)) for a, b in full), answer)
    back = ", ".join(order((b.value, a.value)) for a, b in full) + "."
    return _name(answer, (cell for pair in full for cell in pair), [step], back, 0.5, COMPARES)


def existing(table: Table, question: Question) -> Iterator[Term]:
    """ "Are there two bars of the same value", "is there any bar with 40"."""
    if question.has("same|similar|equal"):
        twins = ((a, b) for a, b in combinations(table.cells, 2) if a.value == b.value)
        for first, second in twins:
            step = conclude(order((first.value, second.value)), "yes")
            yield _name("yes", (first, second), [step], readings([second, first]), 0.5)
            return
    elif question.numbers and len(table.cells) <= MOST_READINGS:
        limit = question.numbers[0]
        at = [cell.name for cell in table.cells if cell.value == limit]
        others = [cell.name for cell in table.cells if cell.value != limit]
        answer = "yes" if at else "no"
        back = names_at("Not at", limit, others)
        yield _name(
            answer, table.cells, [conclude(names_at("At", limit, at), answer)], back, 0.5, value=limit
        )


def transcription(table: Table) -> Term:
    """The whole chart read out, as charts drawn here are asked for."""
    text = ", ".join(f"{cell.name} = {cell.text}" for cell in table.cells)
    return _name(text, table.cells, [f"{text}."], f"There are {len(table.cells)} values.", 1.0, TRANSCRIBES)


def trends(found: Sequence[Scope]) -> Iterator[Term]:
    """Rising, falling or neither, for labels in time."""
    for scope in found:
        values = [cell.value for cell in scope.cells]
        if scope.by_label and all(a != b for a, b in pairwise(values)):
            step, back = conclude(order(values), trend(values)), f"{order(values[::-1])}."
            yield _name(trend(values), scope.cells, [step], back, scope.fit, value=values[-1])


def legends(table: Table, question: Question, answer: str) -> Iterator[Term]:
    """The name that a colour or place stands for, where the answer is one of the table's names, or all."""
    listed = sorted(part.strip() for part in answer.strip("[]").split(","))
    none = Fraction(0)
    for noun, names in (("series", table.series), ("labels", table.labels)):
        step = there_are(names, noun)
        if len(names) > 1 and listed == sorted(names):
            yield _name(answer, (), [step], recount(names), 0.0, question.operations, none)
        if question.has(STANDS_FOR) and answer in names and 1 < len(names) <= MOST_READINGS:
            own = [cell for cell in table.cells if answer in (cell.label, cell.series)][:MOST_READINGS]
            used = question.operations - {"largest", "smallest"}
            back = readings(own) if own else recount(names)
            yield _name(answer, (), [step, f"The one asked for is {answer}."], back, 0.0, used, none)
