"""Reference traces rewritten from the facts, for groups in which every sample was wrong.

It takes the place of DyME's refiner (arXiv 2506.23061v2), a 14B model that rewrites the hint of each
sample from facts, question, answer and the current template. Here the question's wording says what is to
be worked out, the facts say with which numbers, the template says in which shape, and `checker` has the
last word: a trace that has a fault or misses the gold answer is never returned.

    question   "How much higher is red than blue?"       difference of red and blue
    facts      red = 7, blue = 3, green = 12             7 - 3
    template   facts, step                               red = 7, blue = 3. 7 - 3 = 4.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from toasterft import checker
from toasterft.charts.phrases import HEADINGS, NEEDS, NONE, RECHECKS, STEPS
from toasterft.checker import Folded, Number, Row, Table, number, same_result
from toasterft.errors import DataError

if TYPE_CHECKING:
    from toasterft.data.example import Example

# A trace that lists more rows than this is no short one: about 150 tokens of names and values.
MOST_ROWS = 16
# The template changes its shape only for one that this many good traces have, and more than its own.
ENOUGH_VOTES = 8
# Beyond this many votes all are halved, so that what a model did long ago weighs less.
MOST_VOTES = 512

# ------------------------------------------------------------------------------------------- template

# What a trace can be made of, with the heading of each part in the structured form.
PARTS = dict(zip(("goal", "needs", "facts", "step", "recheck", "conclusion"), HEADINGS, strict=True))


@dataclass(frozen=True)
class Template:
    """The shape of a refined trace.

    Attributes:
        parts: what it says, in this order, of `PARTS`; always with a step.
        whole_table: read every row first (of the series that matter), not only those that the question needs.
        headings: one line per part, under its heading.
        votes: how many good traces had a shape, by `shape`; what `learn` has heard so far.
    """

    parts: tuple[str, ...] = ("facts", "step")
    whole_table: bool = False
    headings: bool = False
    votes: dict[str, int] = field(default_factory=dict, hash=False, compare=False)

    @property
    def shape(self) -> str:
        """Everything that decides what a refined trace looks like, as text."""
        return _shape(self.parts, self.headings) + (" whole" if self.whole_table else "")

    @property
    def hash(self) -> str:
        """The shape's address: with the sample's id the key under which a refined trace can be kept."""
        return hashlib.sha256(self.shape.encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "parts": list(self.parts),
            "whole_table": self.whole_table,
            "headings": self.headings,
            "votes": dict(sorted(self.votes.items())),
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Template:
        """The template of `to_json`.

        Raises:
            DataError: it is damaged.
        """
        try:
            parts = tuple(str(part) for part in stored["parts"])
            votes = {str(shape): int(count) for shape, count in stored.get("votes", {}).items()}
            template = cls(parts, bool(stored["whole_table"]), bool(stored["headings"]), votes)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError("this is no template of refined traces", why=repr(error)) from None
        if not set(parts) <= set(PARTS) or "step" not in parts:
            raise DataError("this is no template of refined traces", why=f"its parts are {', '.join(parts)}")
        return template


def _shape(parts: Sequence[str], headings: bool) -> str:
    return " ".join([*parts, *(["headings"] if headings else [])])


_WHOLE, _NEEDED = (
    "rows: all",
    "rows: needed",
)  # votes of their own: a shape is seen in every trace, this is not


def learn(template: Template, good_traces: Iterable[str]) -> Template:
    """The template after hearing traces that scored high: the shape that most of them have.

    The first shape stays until another has `ENOUGH_VOTES` and more than its own; the same holds for
    reading the whole table. The order of the traces does not matter.
    """
    heard = Counter(template.votes)
    for trace in good_traces:
        parts, headings, whole = shape_of(trace)
        if "step" in parts:
            heard[_shape(parts, headings)] += 1
        if whole is not None:
            heard[_WHOLE if whole else _NEEDED] += 1
    while sum(heard.values()) > MOST_VOTES:
        heard = Counter({shape: count // 2 for shape, count in heard.items() if count > 1})
    new = replace(template, votes=dict(heard))
    shapes = [shape for shape in heard if not shape.startswith("rows: ")]
    best = min(shapes, key=lambda shape: (-heard[shape], len(shape), shape), default="")
    if heard[best] >= ENOUGH_VOTES and heard[best] > heard[_shape(template.parts, template.headings)]:
        words = best.split()
        new = replace(new, parts=tuple(word for word in words if word in PARTS), headings="headings" in words)
    rows = _NEEDED if template.whole_table else _WHOLE
    if heard[rows] >= ENOUGH_VOTES and heard[rows] > heard[_WHOLE if template.whole_table else _NEEDED]:
        new = replace(new, whole_table=not template.whole_table)
    return new


_PART_OF_HEADING = {heading.lower(): part for part, heading in PARTS.items()}
_READINGS = re.compile(rf"(?:[^=<>,]+?\s*=\s*{checker.NUM}\s*(?:,\s*|$))+")
_CONCLUDES = re.compile(r"(?:so|therefore|thus|hence)\b,?\s|.*\banswer\b\s*(?:is|:)", re.IGNORECASE)
_CALCULATES = re.compile(r"\d\s*[-+*/<>]\s*[\d(]")
_STATES_STEP = re.compile(
    rf"{_CALCULATES.pattern}|\b(?:largest|smallest|highest|lowest|there are|above|below|counted)\b|\bis\s+{checker.NUM}$",
    re.IGNORECASE,
)


def shape_of(trace: str) -> tuple[tuple[str, ...], bool, bool | None]:
    """(parts, whether under headings, whether the whole table was read first; None where it cannot be told).

    A table is whole for certain where values were read that the calculation does not use.
    """
    spoken = [(_part(sentence), sentence) for sentence in checker.sentences(trace)]
    headings = sum(sentence.heading in _PART_OF_HEADING for _, sentence in spoken) >= len(PARTS) // 2
    if headings:
        spoken = [(_PART_OF_HEADING.get(sentence.heading, ""), sentence) for _, sentence in spoken]
    seen: list[str] = []
    for part, _ in spoken:
        again = "recheck" if part == "step" and "conclusion" in seen else part
        if again and again not in seen:
            seen.append(again)
    read = [
        value
        for part, each in spoken
        if part == "facts"
        for value in re.findall(rf"= *({checker.NUM})", each.text)
    ]
    step = next((each.text for part, each in spoken if part == "step"), "")
    used = re.findall(checker.NUM, step)
    decisive = bool(_CALCULATES.search(step)) or re.fullmatch(rf"[^,]+ is {checker.NUM}", step) is not None
    whole = any(value not in used for value in read) if decisive and read else None
    return tuple(seen), headings, whole


def _part(sentence: checker.Sentence) -> str:
    """What a sentence does, or "" where that is not understood."""
    if _READINGS.fullmatch(sentence.text) and not _CALCULATES.search(sentence.text):
        return "facts"
    if _CONCLUDES.match(sentence.text):
        return "conclusion"
    return "step" if _STATES_STEP.search(sentence.text) else ""


# ----------------------------------------------------------------------------------- what is asked for

# Steps that the chart generator has no sentence for. {a}, {x}: a row and its value.
_STEPS = STEPS | {
    "find": "{a} is {x}, so {answer}.",
    "average": "({terms}) / {n} = {answer}.",
    "count_below": "Below {t}: {names}. So {answer}.",
}
_RECHECKS = RECHECKS | {
    "find": "{a} = {x}.",
    "average": "({reversed_terms}) / {n} = {answer}.",
    "count_below": "Not below {t}: {others}.",
}
_NEEDS = NEEDS | {
    "find": "Find the value and read its label.",
    "average": "Read the values, add them and divide by their number.",
    "count_below": "Read every value and count the smaller ones.",
}


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
            return checker.name_key(gold) in map(checker.name_key, self.found)
        wanted = _gold_number(gold)
        return wanted is not None and same_result(wanted, self.found)


def _gold_number(gold: str) -> Number | None:
    text = checker.cleaned(gold).strip()
    return number(text) if re.fullmatch(checker.NUM, text) else None


class _Asked:
    """A question and what of the table it speaks about."""

    def __init__(self, question: str, table: Table) -> None:
        self.table = table
        self.folded: Folded = table.fold(checker.cleaned(question))
        self.text = self.folded.text.lower()
        mentions = self.folded.mentions
        self.whole = _unique(
            row for each in mentions if each.label and each.series for row in sorted(each.rows)[:1]
        )
        self.labels = _unique(each.label for each in mentions if each.label)
        self.series = _unique(each.series for each in mentions if each.series)
        self.numbers = [
            number(found).value
            for found in re.findall(checker.NUM, re.sub(checker.NAME, "", self.folded.text))
        ]

    def row(self, at: int) -> Row:
        return self.table.rows[at]

    def value(self, at: int) -> Fraction:
        value = self.table.rows[at].value
        assert value is not None
        return value

    def says(self, *words: str) -> bool:
        """Whether the question has one of these words (a pattern each)."""
        return re.search(rf"\b(?:{'|'.join(words)})\b", self.text) is not None

    def _valued(self, rows: Iterable[int]) -> list[int]:
        return [row for row in rows if self.table.rows[row].value is not None]

    def scopes(self) -> list[list[int]]:
        """The groups of rows that a question about many can mean.

        "The green line" names no series: then each series is a guess, and the answer must tell.
        """
        every = self._valued(range(len(self.table.rows)))
        by_series = [self._valued(sorted(rows)) for rows in self.table.series.values()]
        if self.series:
            named = [self._valued(sorted(self.table.series[name])) for name in self.series]
            return [_unique(row for rows in named for row in rows)] if len(named) > 1 else named
        if len(by_series) > 1:
            if len(set(_COLOUR.findall(self.text))) > 1:
                return []  # "the red and the blue line": two series, and nothing says which
            if len(self.labels) == 1:
                return [self._valued(sorted(self.table.labels[self.labels[0]]))]
            return [every, *by_series]
        return [every]

    def named(self) -> list[list[int]]:
        """The rows that the question names, in its order; several readings where it leaves the series open."""
        if len(self.table.series) < 2:
            return [
                self._valued(row for label in self.labels for row in sorted(self.table.labels[label])[:1])
            ]
        if self.labels and self.series:
            crossed = [
                row
                for label in self.labels
                for name in self.series
                for row in sorted(self.table.labels[label] & self.table.series[name])[:1]
            ]
            # "shop tennis and phone golf" are two rows, not the four that two labels and two series span.
            pairs = len(self.whole) >= 2 and len(self.labels) > 1 and len(self.series) > 1
            return [self._valued(self.whole if pairs else crossed)]
        if self.labels:
            return [
                self._valued(
                    row for label in self.labels for row in sorted(self.table.labels[label] & rows)[:1]
                )
                for rows in self.table.series.values()
            ]
        return []

    def operands(self) -> Iterator[list[int]]:
        """The rows that a calculation is about: named ones, or "the two smallest", "the highest and lowest"."""
        found = list(_SUPERLATIVE.finditer(self.text))
        if not found:
            yield from self.named()
            return
        for scope in self.scopes():
            upwards = sorted(scope, key=self.value)
            rows = []
            for each in found:
                many = checker.number(each["many"] or each["after"] or "one").value
                ends = upwards[: int(many)] if each["small"] else upwards[::-1][: int(many)]
                rows += [row for row in ends if row not in rows]
            yield rows


def _unique(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


_LARGEST = r"(?:largest|highest|greatest|biggest|maximum|max|tallest|longest|peak|most|topmost)"
_SMALLEST = r"(?:smallest|lowest|least|minimum|min|shortest|fewest)"
_COLOUR = re.compile(r"\b(?:red|orange|yellow|green|blue|navy|purple|pink|brown|gr[ae]y|black|white)\b")
_MANY = "two|three|four|five|2|3|4|5"
_SUPERLATIVE = re.compile(
    rf"(?<!second )(?<!third )(?<!at )\b(?:(?P<many>{_MANY})\s+)?(?:{_LARGEST}|(?P<small>{_SMALLEST}))\b"
    rf"(?:\s+(?P<after>{_MANY})\b)?"
)
_LARGER = (r"higher|larger|greater|bigger|more|taller|above|exceeds?|over|longer",)
_SMALLER = (r"lower|smaller|less|fewer|below|under|shorter",)
_BOUND = re.compile(
    rf"\b(?:(?P<above>above|over|greater\s+than|more\s+than|higher\s+than|larger\s+than|exceed\w*)|"
    rf"(?P<below>below|under|less\s+than|lower\s+than|smaller\s+than|fewer\s+than))\s+(?P<bound>{checker.NUM})"
)

# -- one function per kind; each gives the plans that the wording allows


def _difference(asked: _Asked) -> Iterator[Plan]:
    for rows in asked.operands():
        if len(rows) == 2:
            more, less = sorted(rows, key=asked.value, reverse=True)
            gap = asked.value(more) - asked.value(less)
            words = {"x": asked.row(more).shown, "y": asked.row(less).shown}
            yield Plan("difference", tuple(sorted(rows)), gap, words)


def _ratio(asked: _Asked) -> Iterator[Plan]:
    for rows in asked.operands():
        if len(rows) != 2:
            continue
        # In the question's order first; "how many times" puts the smaller first.
        for a, b in (rows, rows[::-1]):
            if asked.value(b):
                words = {"x": asked.row(a).shown, "y": asked.row(b).shown}
                yield Plan("ratio", tuple(sorted(rows)), asked.value(a) / asked.value(b), words)


def _several(asked: _Asked) -> Iterator[list[int]]:
    """Operands of a sum or average: named rows, else all of a scope."""
    found = [rows for rows in asked.operands() if len(rows) > 1]
    yield from found
    everything = asked.says("all", "every", "each", "entire", "whole") or not asked.says("and")
    if not found and everything and not _SUPERLATIVE.search(asked.text):
        yield from (rows for rows in asked.scopes() if len(rows) > 1)


def _terms(asked: _Asked, rows: Sequence[int]) -> dict[str, str]:
    shown = [asked.row(row).shown for row in rows]
    return {"terms": " + ".join(shown), "reversed_terms": " + ".join(shown[::-1]), "n": str(len(rows))}


def _sum(asked: _Asked) -> Iterator[Plan]:
    for rows in _several(asked):
        yield Plan(
            "sum", tuple(sorted(rows)), sum(map(asked.value, rows), Fraction()), _terms(asked, sorted(rows))
        )


def _average(asked: _Asked) -> Iterator[Plan]:
    for rows in _several(asked):
        mean = sum(map(asked.value, rows), Fraction()) / len(rows)
        yield Plan("average", tuple(sorted(rows)), mean, _terms(asked, sorted(rows)))


def _count_beyond(asked: _Asked) -> Iterator[Plan]:
    bound = _BOUND.search(asked.text)
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


def _count(asked: _Asked) -> Iterator[Plan]:
    rows = tuple(range(len(asked.table.rows)))
    labels, series = (
        _unique(row.label for row in asked.table.rows),
        _unique(row.series for row in asked.table.rows),
    )
    if asked.numbers or asked.says("same", "equal", *_LARGER, *_SMALLER, r"at (?:least|most)", "only"):
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


def _compare(asked: _Asked) -> Iterator[Plan]:
    wants_more = asked.says(*_LARGER)
    for rows in asked.named():
        if (
            len(rows) != 2
            or wants_more == asked.says(*_SMALLER)
            or asked.says("sum", "total", "average", "both")
        ):
            continue
        a, b = rows
        larger = asked.value(a) > asked.value(b)
        sign, other = (">", "<") if larger else ("<", ">")
        if asked.value(a) != asked.value(b):
            words = {"x": asked.row(a).shown, "y": asked.row(b).shown, "sign": sign, "other_sign": other}
            yield Plan("compare", tuple(sorted(rows)), ("yes" if larger == wants_more else "no",), words)


def _trend(asked: _Asked) -> Iterator[Plan]:
    for rows in asked.scopes():
        values = [asked.value(row) for row in rows]
        if len(rows) < 2 or any(a == b for a, b in pairwise(values)):
            continue
        words = {
            "chain": _chain([asked.row(row) for row in rows]),
            "reversed_chain": _chain([asked.row(row) for row in rows[::-1]]),
        }
        yield Plan("trend", tuple(rows), (checker.trend(values),), words)


def _chain(rows: Sequence[Row]) -> str:
    """`3 < 5 > 4`: neighbours compared."""
    parts = [rows[0].shown]
    for old, new in pairwise(rows):
        assert old.value is not None
        assert new.value is not None
        parts += ["<" if new.value > old.value else ">", new.shown]
    return " ".join(parts)


def _extreme(asked: _Asked) -> Iterator[Plan]:
    found = _SUPERLATIVE.search(asked.text)
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


def _find(asked: _Asked) -> Iterator[Plan]:
    """Which label has a given value; is a label's value as given."""
    for rows in asked.scopes():
        for row in rows:
            if asked.value(row) in asked.numbers:
                names = (asked.row(row).label, *([asked.row(row).series] if asked.row(row).series else []))
                yield Plan("find", (row,), names, _reading(asked.row(row)))
    for rows in asked.named():
        if len(rows) == 1 and asked.numbers:
            verdict = "yes" if asked.value(rows[0]) in asked.numbers else "no"
            yield Plan("find", (rows[0],), (verdict,), _reading(asked.row(rows[0])))


def _lookup(asked: _Asked) -> Iterator[Plan]:
    for rows in asked.named():
        if len(rows) == 1:
            yield Plan("lookup", (rows[0],), asked.value(rows[0]), _reading(asked.row(rows[0])))


def _reading(row: Row) -> dict[str, str]:
    return {"a": row.name, "x": row.shown}


_COUNTS = r"\b(?:how many|count|number of)\b"
# In this order. A question with a firm wording is of that kind or of none that is understood here.
_KINDS: tuple[tuple[str, bool, Callable[[_Asked], Iterator[Plan]]], ...] = (
    (r"\b(?:trend|rising|falling|increasing|decreasing)\b", True, _trend),
    (rf"{_COUNTS}.*{_BOUND.pattern}", True, _count_beyond),
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
    (rf"\b(?:{_LARGEST}|{_SMALLEST})\b", True, _extreme),
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
    asked = _Asked(question, table)
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


# ------------------------------------------------------------------------------------------- rewriting


def refine(facts: Any, question: str, answer: str, reference: str | None, template: Template) -> str | None:
    """The reference trace rewritten in the template's shape from the facts.

    The reference's own calculation is kept where it checks out and gives the answer; else the step is
    worked out from the facts.

    Returns:
        The trace, or None where the facts do not lead to the answer in a way that is understood: the
        caller then keeps the reference as it is.
    """
    table = checker.table_of(facts)
    if not table.values:
        return None
    gold = answer.strip()
    if transcribed := _transcription(table, gold):
        return _checked(_write(transcribed, "", template, table, question, gold), facts, question, answer)
    own_step = _own_step(reference or "", facts, question, gold)
    for plan in plans(question, table, gold):
        written = _checked(_write(plan, own_step, template, table, question, gold), facts, question, answer)
        if written is not None:
            return written
    if own_step and (own := _plan_of(own_step, table, gold)):
        return _checked(_write(own, own_step, template, table, question, gold), facts, question, answer)
    return None


def _transcription(table: Table, gold: str) -> Plan | None:
    """The plan for an answer that is the table itself."""
    rows = tuple(range(len(table.rows)))
    if len(rows) > 1 and checker.name_key(_listed(table, rows)) == checker.name_key(gold):
        return Plan("transcribe", rows, (gold,), {"table": gold, "n": str(len(rows))})
    return None


def _own_step(reference: str, facts: Any, question: str, gold: str) -> str:
    """The reference's last calculation that holds and gives the answer, without its conclusion; or ""."""
    for sentence in reversed(checker.sentences(reference)):
        for found in _EQUATION.finditer(sentence.text):
            result, wanted = number(found["result"]), _gold_number(gold)
            if wanted is None or not same_result(wanted, result.value):
                continue
            said = found[0].strip()
            checked = checker.check(f"{said}.", facts, question, gold)
            if not checked.faults and checked.arithmetic == 1.0:
                return said
    return ""


_EQUATION = re.compile(
    rf"\(*{checker.NUM}\)*(?:\s*[-+*/]\s*\(*{checker.NUM}\)*)+\s*=\s*(?P<result>{checker.NUM})", re.IGNORECASE
)


def _plan_of(step: str, table: Table, gold: str) -> Plan | None:
    """A plan around the reference's own calculation: each of its numbers is read off one row of its own."""
    rows: list[int] = []
    for found in re.findall(checker.NUM, step.rpartition("=")[0]):
        holders = [at for at, row in enumerate(table.rows) if row.value == number(found).value]
        if len(holders) == 1:
            rows += holders
        elif holders or number(found).value not in (100, len(rows)):
            return None  # two rows could be meant, or the number comes from nowhere
    wanted = _gold_number(gold)
    if not rows or wanted is None:
        return None
    return Plan("own", tuple(sorted(set(rows))), wanted.value)


def _listed(table: Table, rows: Iterable[int]) -> str:
    return ", ".join(f"{table.rows[row].name} = {table.rows[row].shown}" for row in rows)


def _write(plan: Plan, own_step: str, template: Template, table: Table, question: str, gold: str) -> str:
    """The trace in the template's shape, or "" where it would be too long."""
    series = {table.rows[row].series for row in plan.rows}
    every = [at for at, row in enumerate(table.rows) if row.value is not None and row.series in series]
    rows = every if template.whole_table and len(every) <= MOST_ROWS else list(plan.rows)
    if len(rows) > MOST_ROWS:
        return ""
    calculated = plan.kind in ("difference", "sum", "ratio", "average", "own")
    step = f"{own_step}." if own_step and calculated else _STEPS.get(plan.kind, "")
    words = {"table": _listed(table, plan.rows), **plan.words, "answer": gold}
    if plan.kind in ("lookup", "count", "transcribe"):
        # The sentence ends in what was read: there the gold's own writing of the number.
        words |= {"lookup": {"x": gold}, "count": {"n": gold}, "transcribe": {}}[plan.kind]
    said = {
        "goal": question,
        "needs": _NEEDS.get(plan.kind, "Read the values and calculate."),
        "facts": f"{_listed(table, rows)}.",
        "step": step.format(**words),
        "recheck": _RECHECKS.get(plan.kind, "").format(**words),
        "conclusion": gold if template.headings else f"So {gold}.",
    }
    parts = [part for part in template.parts if said[part]]
    if plan.kind == "transcribe" and not template.headings:
        parts = ["step"]  # the table is the answer: once is enough
    if template.headings:
        return "\n".join(f"{PARTS[part]}: {said[part]}" for part in parts)
    return " ".join(said[part] for part in parts)


def _checked(trace: str, facts: Any, question: str, answer: str) -> str | None:
    """The trace, if it holds and ends in the gold answer."""
    if not trace:
        return None
    checked = checker.check(trace, facts, question, answer)
    return trace if checked.conclusion == 1.0 and not checked.faults else None


# --------------------------------------------------------------------------------------------- a run's


@dataclass
class Refiner:
    """Refines examples for a run: the template that it has learned, what it has written, and how it went.

    Attributes:
        cache: by (example id, template hash): what came out.
        refined: calls that gave a rewritten trace.
        kept: calls without one where the reference holds as it is (or there are no facts to judge by).
        dropped: calls without one where the reference is missing, faulty or misses the answer.
    """

    template: Template = field(default_factory=Template)
    cache: dict[tuple[str, str], tuple[Literal["refined", "kept", "dropped"], str | None]] = field(
        default_factory=dict
    )
    refined: int = 0
    kept: int = 0
    dropped: int = 0

    def __call__(self, example: Example) -> str | None:
        """The refined trace of `example`, or None where its reference is to be used as it is."""
        key = (example.id, self.template.hash)
        if key not in self.cache:
            self.cache[key] = self._refine(example)
        outcome, trace = self.cache[key]
        setattr(self, outcome, getattr(self, outcome) + 1)
        return trace

    def _refine(self, example: Example) -> tuple[Literal["refined", "kept", "dropped"], str | None]:
        if not example.facts:
            return "kept" if example.reasoning else "dropped", None
        trace = refine(example.facts, example.question, example.answer, example.reasoning, self.template)
        if trace is not None:
            return "refined", trace
        holds = _checked(example.reasoning or "", example.facts, example.question, example.answer)
        return "kept" if holds else "dropped", None

    def learn(self, good_traces: Iterable[str]) -> None:
        """Let traces that scored high shape those that will be refined from now on."""
        self.template = learn(self.template, good_traces)
