"""A question, and what of the table it speaks about."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

from toasterft.scoring import traces
from toasterft.scoring.traces import Cell, Folded, Number, Table, number

LARGEST = r"(?:largest|highest|greatest|biggest|maximum|max|tallest|longest|peak|most|topmost)"
SMALLEST = r"(?:smallest|lowest|least|minimum|min|shortest|fewest)"
_COLOUR = re.compile(r"\b(?:red|orange|yellow|green|blue|navy|purple|pink|brown|gr[ae]y|black|white)\b")
_MANY = "two|three|four|five|2|3|4|5"
SUPERLATIVE = re.compile(
    rf"(?<!second )(?<!third )(?<!at )\b(?:(?P<many>{_MANY})\s+)?(?:{LARGEST}|(?P<small>{SMALLEST}))\b"
    rf"(?:\s+(?P<after>{_MANY})\b)?"
)
LARGER = (r"higher|larger|greater|bigger|more|taller|above|exceeds?|over|longer",)
SMALLER = (r"lower|smaller|less|fewer|below|under|shorter",)
BOUND = re.compile(
    rf"\b(?:(?P<above>above|over|greater\s+than|more\s+than|higher\s+than|larger\s+than|exceed\w*)|"
    rf"(?P<below>below|under|less\s+than|lower\s+than|smaller\s+than|fewer\s+than))\s+(?P<bound>{traces.NUM})"
)


class Asked:
    """A question and what of the table it speaks about."""

    def __init__(self, question: str, table: Table) -> None:
        self.table = table
        self.folded: Folded = table.fold(traces.cleaned(question))
        self.text = self.folded.text.lower()
        mentions = self.folded.mentions
        self.whole = unique(
            row for each in mentions if each.label and each.series for row in sorted(each.rows)[:1]
        )
        self.labels = unique(each.label for each in mentions if each.label)
        self.series = unique(each.series for each in mentions if each.series)
        self.numbers = [
            number(found).value for found in re.findall(traces.NUM, re.sub(traces.NAME, "", self.folded.text))
        ]

    def row(self, at: int) -> Cell:
        return self.table.cells[at]

    def value(self, at: int) -> Fraction:
        return self.table.cells[at].value

    def says(self, *words: str) -> bool:
        """Whether the question has one of these words (a pattern each)."""
        return re.search(rf"\b(?:{'|'.join(words)})\b", self.text) is not None

    def _valued(self, rows: Iterable[int]) -> list[int]:
        return [row for row in rows if self.table.cells[row].number is not None]

    def scopes(self) -> list[list[int]]:
        """The groups of rows that a question about many can mean.

        "The green line" names no series: then each series is a guess, and the answer must tell.
        """
        every = self._valued(range(len(self.table.cells)))
        by_series = [self._valued(sorted(rows)) for rows in self.table.by_series.values()]
        if self.series:
            named = [self._valued(sorted(self.table.by_series[name])) for name in self.series]
            return [unique(row for rows in named for row in rows)] if len(named) > 1 else named
        if len(by_series) > 1:
            if len(set(_COLOUR.findall(self.text))) > 1:
                return []  # "the red and the blue line": two series, and nothing says which
            if len(self.labels) == 1:
                return [self._valued(sorted(self.table.by_label[self.labels[0]]))]
            return [every, *by_series]
        return [every]

    def named(self) -> list[list[int]]:
        """The rows that the question names, in its order; several readings where it leaves the series open."""
        if len(self.table.by_series) < 2:
            return [
                self._valued(row for label in self.labels for row in sorted(self.table.by_label[label])[:1])
            ]
        if self.labels and self.series:
            crossed = [
                row
                for label in self.labels
                for name in self.series
                for row in sorted(self.table.by_label[label] & self.table.by_series[name])[:1]
            ]
            # "shop tennis and phone golf" are two rows, not the four that two labels and two series span.
            pairs = len(self.whole) >= 2 and len(self.labels) > 1 and len(self.series) > 1
            return [self._valued(self.whole if pairs else crossed)]
        if self.labels:
            return [
                self._valued(
                    row for label in self.labels for row in sorted(self.table.by_label[label] & rows)[:1]
                )
                for rows in self.table.by_series.values()
            ]
        return []

    def operands(self) -> Iterator[list[int]]:
        """The rows that a calculation is about: named ones, or "the two smallest", "the highest and lowest"."""
        found = list(SUPERLATIVE.finditer(self.text))
        if not found:
            yield from self.named()
            return
        for scope in self.scopes():
            upwards = sorted(scope, key=self.value)
            rows = []
            for each in found:
                many = traces.number(each["many"] or each["after"] or "one").value
                ends = upwards[: int(many)] if each["small"] else upwards[::-1][: int(many)]
                rows += [row for row in ends if row not in rows]
            yield rows


def unique(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def gold_number(gold: str) -> Number | None:
    text = traces.cleaned(gold).strip()
    return number(text) if re.fullmatch(traces.NUM, text) else None
