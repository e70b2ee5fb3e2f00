"""Reading a trace back and working every statement in it out again.

Only the sentences of `phrases.STEPS` and `phrases.RECHECKS` are understood. Whatever else stands in
a trace counts as a wrong step, for a statement nobody can check is not a checked one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

from toasterft.data.charts.phrases import HEADINGS, NONE
from toasterft.data.charts.spec import fact_name

_NUMBER = r"-?[0-9]{1,15}(?:\.[0-9]{1,15})?"  # longer ones are nobody's reading of a chart
_SENTENCE_END = re.compile(r"\.(?:\s+|$)|\n+")
_HEADING = re.compile(rf"^({'|'.join(HEADINGS)}):[ \t]*", re.MULTILINE)
_UNCHECKED = HEADINGS[:2]  # what is asked and needed states nothing about the chart

_EXTREME = re.compile(rf"The (largest|smallest) is ({_NUMBER}), so (.+)")
_THERE_ARE = re.compile(r"There are ([0-9]{1,15}) (\w+)(?:, so ([0-9]{1,15}))?")
_COUNTED = re.compile(r"Counted: (.+)")
_ABOVE = re.compile(rf"(Above|Not above) ({_NUMBER}): (.+)")
_SO_MANY = re.compile(r"So ([0-9]{1,15})")
_IS = re.compile(rf"(.+) is ({_NUMBER})")
_SUM = re.compile(rf"({_NUMBER}(?: [-+*/] {_NUMBER})+) = ({_NUMBER})")
_ORDER = re.compile(rf"{_NUMBER}(?: [<>] {_NUMBER})+")
_PAIR = re.compile(rf"(.+?) = ({_NUMBER})")
_SO = re.compile(r"so (yes|no|rising|falling|neither)")
_TREND = ("rising", "falling", "neither")


@dataclass(frozen=True)
class TraceCheck:
    """What became of a trace's statements.

    Pairs are readings (`red = 7`, `red is 7`); steps are sums, comparisons, counts and picks.
    `concludes` says whether the trace ends in the answer; `faults` has a line for each wrong thing.
    """

    pairs_right: int
    pairs_wrong: int
    steps_right: int
    steps_wrong: int
    concludes: bool
    faults: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Something was stated, all of it is right, and it ends in the answer."""
        return (
            self.concludes
            and not self.faults
            and self.pairs_wrong + self.steps_wrong == 0
            and self.pairs_right + self.steps_right > 0
        )


def check_trace(trace: str, facts: Sequence[Mapping[str, Any]], answer: str) -> TraceCheck:
    """Work out again every reading, step and conclusion of `trace` against the table `facts`."""
    reader = _Reader(facts)
    sections = _sections(trace)
    if sections is None:  # a short trace
        reader.read(trace)
        concludes = _ends_in(trace, answer)
    else:
        if [heading for heading, _ in sections] != list(HEADINGS):
            reader.faults.append("the headings are not the six, each once and in order")
        for heading, text in sections:
            if heading not in _UNCHECKED and heading != HEADINGS[-1]:
                reader.read(text)
        found = dict(sections)
        concludes = found.get("Final Answer", "").strip() == answer and _ends_in(
            found.get("Conclusion", ""), answer
        )
    if not concludes:
        reader.faults.append(f"the conclusion is not {answer!r}")
    return TraceCheck(
        reader.pairs_right,
        reader.pairs_wrong,
        reader.steps_right,
        reader.steps_wrong,
        concludes,
        tuple(reader.faults),
    )


class _Reader:
    """Goes through the sentences, keeping what earlier ones stated."""

    def __init__(self, facts: Sequence[Mapping[str, Any]]) -> None:
        self.names = [fact_name(fact) for fact in facts]
        self.labels = [str(fact["label"]) for fact in facts]
        self.series = [str(fact.get("series", "")) for fact in facts]
        self.values = [Fraction(str(fact["value"])) for fact in facts]
        self.stated: list[int] = []  # rows read off so far
        self.results: set[Fraction] = set()  # numbers worked out so far
        self.listed: int | None = None  # how many names the last list had
        self.pairs_right = self.pairs_wrong = self.steps_right = self.steps_wrong = 0
        self.faults: list[str] = []

    def read(self, text: str) -> None:
        for sentence in _SENTENCE_END.split(text):
            if sentence.strip():
                self._sentence(sentence.strip())

    def _sentence(self, sentence: str) -> None:
        for pattern, check in self._whole():
            found = pattern.fullmatch(sentence)
            if found:
                self._step(check(found), sentence)
                return
        chain: list[Fraction] = []
        for part in sentence.split(", "):
            if _SUM.fullmatch(part):
                self._step(self._calculates(part), part)
            elif _ORDER.fullmatch(part):
                chain = [Fraction(number) for number in re.findall(_NUMBER, part)]
                self._step(self._in_order(part, chain), part)
            elif found := _SO.fullmatch(part):
                self._step(bool(chain) and self._follows(found[1], chain), part)
            elif found := _PAIR.fullmatch(part) or _IS.fullmatch(part):
                self._pair(found[1], Fraction(found[2]), part)
            else:
                self._step(False, part)

    def _whole(self) -> tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], bool]], ...]:
        """Sentences that are one statement."""
        return (
            (_EXTREME, self._is_extreme),
            (_THERE_ARE, self._are_there),
            (_COUNTED, self._are_counted),
            (_ABOVE, self._are_above),
            (_SO_MANY, lambda found: self.listed == int(found[1])),
        )

    def _step(self, right: bool, said: str) -> None:
        if right:
            self.steps_right += 1
        else:
            self.steps_wrong += 1
            self.faults.append(f"wrong step: {said}")

    def _pair(self, name: str, value: Fraction, said: str) -> None:
        if name in self.names and self.values[self.names.index(name)] == value:
            self.pairs_right += 1
            self.stated.append(self.names.index(name))
        else:
            self.pairs_wrong += 1
            self.faults.append(f"wrong reading: {said}")

    def _scope(self) -> list[int]:
        """The rows that the trace is about: those of the series read off so far, or all."""
        series = {self.series[row] for row in self.stated}
        return [row for row in range(len(self.names)) if self.series[row] in series]

    def _known(self, numbers: Sequence[Fraction]) -> bool:
        """Whether the numbers come from the table or from earlier steps."""
        return all(number in self.values or number in self.results for number in numbers)

    def _calculates(self, part: str) -> bool:
        left, _, right = part.rpartition(" = ")
        first, *rest = left.split(" ")
        total, numbers = Fraction(first), [Fraction(first)]
        for sign, text in zip(rest[::2], rest[1::2], strict=True):
            number = Fraction(text)
            numbers.append(number)
            if sign in "*/" and len(rest) > 2:
                return False  # our traces never mix signs, so no rule for what binds first is needed
            if sign == "/" and number == 0:
                return False
            total = {
                "+": lambda a, b: a + b,
                "-": lambda a, b: a - b,
                "*": lambda a, b: a * b,
                "/": lambda a, b: a / b,
            }[sign](total, number)
        right_number = Fraction(right)
        known = self._known(numbers)
        self.results.add(right_number)
        return known and total == right_number

    def _in_order(self, part: str, chain: list[Fraction]) -> bool:
        signs = re.findall(r" ([<>]) ", part)
        pairs = pairwise(chain)
        holds = all(a < b if sign == "<" else a > b for sign, (a, b) in zip(signs, pairs, strict=True))
        return holds and self._known(chain)

    def _follows(self, verdict: str, chain: list[Fraction]) -> bool:
        """A trend follows from all values in order; yes and no depend on the question."""
        if verdict not in _TREND:
            return len(chain) == 2
        rises = [b > a for a, b in pairwise(chain)]
        truth = "rising" if all(rises) else "neither" if any(rises) else "falling"
        return verdict == truth and chain == [self.values[row] for row in self._scope()]

    def _is_extreme(self, found: re.Match[str]) -> bool:
        """The pick is the largest (smallest) of its scope, and all of that scope was read."""
        rows = self._scope()
        if not rows or set(rows) - set(self.stated):
            return False
        best = (max if found[1] == "largest" else min)(self.values[row] for row in rows)
        picked = [row for row in rows if self.labels[row] == found[3]]
        return Fraction(found[2]) == best and [self.values[row] for row in picked] == [best]

    def _are_there(self, found: re.Match[str]) -> bool:
        groups = {"series": set(self.series), "labels": set(self.labels)}.get(found[2], self.names)
        return int(found[1]) == len(groups) and found[3] in (None, found[1])

    def _are_counted(self, found: re.Match[str]) -> bool:
        names = found[1].split(", ")
        self.listed = len(names)
        every = (self.names, self.labels, self.series)
        return any(names == list(dict.fromkeys(group)) for group in every)

    def _are_above(self, found: re.Match[str]) -> bool:
        names = [] if found[3] == NONE else found[3].split(", ")
        self.listed = len(names)
        bound = Fraction(found[2])
        rows = [row for row in self._scope() if (self.values[row] > bound) == (found[1] == "Above")]
        return sorted(names) == sorted(self.names[row] for row in rows)


def _sections(trace: str) -> list[tuple[str, str]] | None:
    """A structured trace's (heading, text) pairs, or None for a short trace."""
    starts = list(_HEADING.finditer(trace))
    if not starts:
        return None
    ends = [start.start() for start in starts[1:]] + [len(trace)]
    parts = [(start[1], trace[start.end() : end].strip()) for start, end in zip(starts, ends, strict=True)]
    before = trace[: starts[0].start()].strip()
    return [("", before), *parts] if before else parts


def _ends_in(text: str, answer: str) -> bool:
    """Whether the text's end, without its full stop, is the answer as a whole."""
    end = re.sub(r"\.?\s*$", "", text)
    return bool(answer) and bool(re.search(rf"(?<![\w.-]){re.escape(answer)}$", end))
