"""Questions about a chart, their answers and their traces, all computed from the table.

What is never asked: the highest or lowest of a tie, the difference or comparison of equal values, a
ratio that is not exact (to a whole number on core charts, to one decimal elsewhere), how many are
above a number that one of them equals, the trend of labels that are not in time or of values of
which two neighbours are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from random import Random

from toasterft.data.charts.phrases import (
    COMPARISONS,
    CORE_WORDINGS,
    HEADINGS,
    NEEDS,
    NONE,
    NOUNS,
    QUESTIONS,
    RECHECKS,
    STEPS,
    order,
    trend,
)
from toasterft.data.charts.sample import make_chart
from toasterft.data.charts.spec import Chart, Fact, checked_difficulty, fact_name, facts_table, format_value
from toasterft.errors import DataError, did_you_mean

KINDS = tuple(STEPS)
_ROUNDS = 4  # how often each kind is tried again where a chart is to give several questions of a kind


@dataclass(frozen=True)
class ChartItem:
    """A question about a chart; the image is `draw(chart)`.

    `simplified` is the short trace, `structured` the one under six headings; both end in `answer`.
    """

    question: str
    answer: str
    kind: str
    facts: list[Fact]
    simplified: str
    structured: str


@dataclass(frozen=True)
class _Draft:
    """What a question's maker decides; the sentences are filled in from `words`."""

    question: str
    answer: str
    rows: Sequence[int]  # positions in the table of the readings that the answer rests on
    words: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Table:
    """A chart's rows, by position in display order."""

    chart: Chart
    facts: list[Fact]
    names: list[str]
    values: list[int]  # scaled, as in the chart

    @classmethod
    def of(cls, chart: Chart) -> _Table:
        facts = chart.facts
        values = [row[column] for column in range(len(chart.labels)) for row in chart.values]
        return cls(chart, facts, [fact_name(fact) for fact in facts], values)

    def text(self, value: int) -> str:
        return format_value(value, self.chart.axis.decimals)

    def number(self, row: int) -> str:
        return self.text(self.values[row])

    def term(self, row: int) -> str:
        """A row's name inside a question: a bare 2009 next to "sum" would read as a number."""
        return f"year {self.names[row]}" if self.names[row].isdigit() else self.names[row]

    def operands(self, first: int, second: int) -> dict[str, str]:
        """The values of two rows, for a step and its recheck."""
        return {"x": self.number(first), "y": self.number(second)}

    def scope(self, rng: Random) -> tuple[str, list[int]]:
        """All rows, or one series' where there are several, and how a question says so."""
        series = self.chart.series
        if not series:
            return "", list(range(len(self.names)))
        chosen = rng.choice(series)
        return f" for {chosen}", [row for row, fact in enumerate(self.facts) if fact["series"] == chosen]

    def unequal_pairs(self) -> list[tuple[int, int]]:
        """All (row of the larger value, row of the smaller value)."""
        rows = range(len(self.values))
        return [(more, less) for more in rows for less in rows if self.values[more] > self.values[less]]


def kinds_for(difficulty: str) -> tuple[str, ...]:
    """The question kinds of a difficulty."""
    return tuple(kind for kind in KINDS if not (checked_difficulty(difficulty) == "core" and kind == "trend"))


def checked_kinds(difficulty: str, kinds: Iterable[str] | None) -> tuple[str, ...]:
    """The question kinds chosen, each once; all that `difficulty` has where `kinds` is None."""
    known = kinds_for(difficulty)
    if kinds is None:
        return known
    chosen = tuple(dict.fromkeys(kinds))
    for kind in chosen:
        if kind not in known:
            raise DataError(
                f"{difficulty} charts have no question kind {kind!r}{did_you_mean(kind, list(known))}",
                next_step=f"use some of {', '.join(known)}",
            )
    if not chosen:
        raise DataError("no question kind was chosen", next_step=f"use some of {', '.join(known)}")
    return chosen


def make_items(
    chart: Chart, rng: Random, kinds: Iterable[str] | None = None, per_chart: int = 1
) -> list[ChartItem]:
    """Up to `per_chart` questions, no two alike and of different kinds as far as kinds last.

    Fewer come back, perhaps none, where the chart does not allow the kinds asked for.
    """
    order = list(checked_kinds(chart.difficulty, kinds))
    table = _Table.of(chart)
    items: list[ChartItem] = []
    seen: set[str] = set()
    for _ in range(_ROUNDS):
        rng.shuffle(order)
        for kind in order:
            if len(items) == per_chart:
                return items
            draft = _MAKERS[kind](table, rng)
            if draft is not None and draft.question not in seen:
                seen.add(draft.question)
                items.append(_item(table, kind, draft))
    return items


def stream(
    seed: int, difficulty: str, kinds: Iterable[str] | None = None, size_px: tuple[int, int] | None = None
) -> Iterator[tuple[Chart, ChartItem]]:
    """Charts without end, one question each, for training in memory.

    Skip charts whose `key` is in an evaluation set (`write.dataset_keys`): with few bars the same
    table comes up again sooner or later.
    """
    chosen = checked_kinds(difficulty, kinds)
    index = 0
    while True:
        rng = Random(f"toasterft charts, stream, {difficulty}, {seed}, {index}")
        chart = make_chart(rng, difficulty, size_px)
        for item in make_items(chart, rng, chosen):
            yield chart, item
        index += 1


def _item(table: _Table, kind: str, draft: _Draft) -> ChartItem:
    read = facts_table([table.facts[row] for row in draft.rows])
    words = {"table": read, "answer": draft.answer, **draft.words}
    step = STEPS[kind].format(**words)
    recheck = RECHECKS[kind].format(**words)
    # A tiny model transcribes everything before it picks: one habit for all kinds.
    first = facts_table(table.facts) if table.chart.difficulty == "core" else read
    parts = (draft.question, NEEDS[kind], f"{first}.", step, recheck, draft.answer)
    return ChartItem(
        question=draft.question,
        answer=draft.answer,
        kind=kind,
        facts=table.facts,
        simplified=step if kind == "transcribe" else f"{first}. {step}",
        structured="\n".join(f"{heading}: {part}" for heading, part in zip(HEADINGS, parts, strict=True)),
    )


def _question(table: _Table, rng: Random, kind: str, **words: str) -> str:
    wordings = QUESTIONS[kind][:CORE_WORDINGS] if table.chart.difficulty == "core" else QUESTIONS[kind]
    return rng.choice(wordings).format(**words)


def _transcribe(table: _Table, rng: Random) -> _Draft:
    rows = range(len(table.names))
    return _Draft(_question(table, rng, "transcribe"), facts_table(table.facts), rows, {"n": str(len(rows))})


def _count(table: _Table, rng: Random) -> _Draft:
    chart = table.chart
    noun = rng.choice(("series", "labels")) if chart.series else NOUNS[chart.kind]
    names = chart.series if noun == "series" else chart.labels
    count = str(len(names))
    return _Draft(
        _question(table, rng, "count", noun=noun),
        count,
        range(len(table.names)),
        {"n": count, "noun": noun, "names": ", ".join(names)},
    )


def _lookup(table: _Table, rng: Random) -> _Draft:
    row = rng.randrange(len(table.names))
    name, number = table.names[row], table.number(row)
    return _Draft(_question(table, rng, "lookup", a=table.term(row)), number, [row], {"a": name, "x": number})


def _extreme(table: _Table, rng: Random, *, kind: str, sign: str) -> _Draft | None:
    scope, rows = table.scope(rng)
    values = [table.values[row] for row in rows]
    best = max(values) if kind == "highest" else min(values)
    if values.count(best) > 1:
        return None
    winner = rows[values.index(best)]
    against = ", ".join(f"{table.text(best)} {sign} {table.number(row)}" for row in rows if row != winner)
    return _Draft(
        _question(table, rng, kind, scope=scope),
        str(table.facts[winner]["label"]),
        rows,
        {"x": table.text(best), "against": against},
    )


def _difference(table: _Table, rng: Random) -> _Draft | None:
    pairs = table.unequal_pairs()
    if not pairs:
        return None
    more, less = rng.choice(pairs)
    a, b = rng.choice(((more, less), (less, more)))
    words = {name: table.term(row) for name, row in (("a", a), ("b", b), ("more", more), ("less", less))}
    return _Draft(
        _question(table, rng, "difference", **words),
        table.text(table.values[more] - table.values[less]),
        sorted((more, less)),
        table.operands(more, less),
    )


def _sum(table: _Table, rng: Random) -> _Draft:
    scope, rows = table.scope(rng)
    if len(rows) >= 3 and rng.randrange(3) == 0:
        question = _question(table, rng, "total", scope=scope)
    else:
        rows = rng.sample(range(len(table.names)), 2)
        question = _question(table, rng, "sum", a=table.term(rows[0]), b=table.term(rows[1]))
    numbers = [table.number(row) for row in rows]
    return _Draft(
        question,
        table.text(sum(table.values[row] for row in rows)),
        sorted(rows),
        {"terms": " + ".join(numbers), "reversed_terms": " + ".join(reversed(numbers))},
    )


def _ratio(table: _Table, rng: Random) -> _Draft | None:
    parts = 1 if table.chart.difficulty == "core" else 10  # exact to whole numbers, or to tenths
    pairs = [
        (more, less)
        for more, less in table.unequal_pairs()
        if parts * table.values[more] % table.values[less] == 0
    ]
    if not pairs:
        return None
    more, less = rng.choice(pairs)
    tenths = 10 * table.values[more] // table.values[less]
    return _Draft(
        _question(table, rng, "ratio", more=table.term(more), less=table.term(less)),
        str(tenths // 10) if tenths % 10 == 0 else format_value(tenths, 1),
        sorted((more, less)),
        table.operands(more, less),
    )


def _count_above(table: _Table, rng: Random) -> _Draft | None:
    chart = table.chart
    scope, rows = table.scope(rng)
    values = [table.values[row] for row in rows]
    step = chart.axis.step
    # From just under the smallest value to just over the largest: further out all is plain to see.
    low, high = max(step, min(values) - 2 * step), min(chart.axis.top - step, max(values) + 2 * step)
    bounds = [bound for bound in range(low, high + 1, step) if bound not in values]
    if not bounds:
        return None
    bound = rng.choice(bounds)
    above = [table.names[row] for row in rows if table.values[row] > bound]
    others = [table.names[row] for row in rows if table.values[row] < bound]
    return _Draft(
        _question(table, rng, "count_above", noun=NOUNS[chart.kind], t=table.text(bound), scope=scope),
        str(len(above)),
        rows,
        {"t": table.text(bound), "above": ", ".join(above) or NONE, "not_above": ", ".join(others) or NONE},
    )


def _compare(table: _Table, rng: Random) -> _Draft | None:
    pairs = table.unequal_pairs()
    if not pairs:
        return None
    core = table.chart.difficulty == "core"
    wording, wants_more = rng.choice(COMPARISONS[:CORE_WORDINGS] if core else COMPARISONS)
    more, less = rng.choice(pairs)
    a, b = rng.choice(((more, less), (less, more)))
    return _Draft(
        wording.format(a=table.term(a), b=table.term(b)),
        "yes" if (a == more) == wants_more else "no",
        sorted((a, b)),
        {**table.operands(a, b), "sign": "><"[a == less], "other_sign": "><"[a == more]},
    )


def _trend(table: _Table, rng: Random) -> _Draft | None:
    chart = table.chart
    scope, rows = table.scope(rng)
    values = [table.values[row] for row in rows]
    if not chart.ordered or len(rows) < 3 or any(old == new for old, new in pairwise(values)):
        return None
    return _Draft(
        _question(table, rng, "trend", scope=scope, a=chart.labels[0], b=chart.labels[-1]),
        trend(values),
        rows,
        {"chain": order(values, table.text), "reversed_chain": order(values[::-1], table.text)},
    )


_MAKERS: dict[str, Callable[[_Table, Random], _Draft | None]] = {
    "transcribe": _transcribe,
    "count": _count,
    "lookup": _lookup,
    "highest": partial(_extreme, kind="highest", sign=">"),
    "lowest": partial(_extreme, kind="lowest", sign="<"),
    "difference": _difference,
    "sum": _sum,
    "ratio": _ratio,
    "count_above": _count_above,
    "compare": _compare,
    "trend": _trend,
}
