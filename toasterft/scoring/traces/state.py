"""What the reading of a trace has found so far: what was right, what was wrong, and what is known."""

from __future__ import annotations

import re
from fractions import Fraction

from toasterft.scoring import lexicon
from toasterft.scoring.numbers import NUM, Number, cleaned, fraction, number, same_reading
from toasterft.scoring.tables import NAME, Folded, Mention, Table
from toasterft.scoring.traces.names import needed_rows

_ASKS_TREND = re.compile(rf"\b(?:{lexicon.TREND})\b", re.IGNORECASE)


class TraceState:
    """Kept while the sentences of one trace are read.

    Attributes:
        needed: the rows that the answer rests on.
        credit: by row, 1 where it was read right, less where only a part of that was seen.
        known: numbers that a step may start from.
        results: of right steps; None where the result is no number.
        listed: how many names the last list had.
        last: the result or reading that was stated last.
    """

    def __init__(self, table: Table, question: str) -> None:
        self.table = table
        self.has_facts = bool(self.table.numbers)
        self.asked = self.table.fold(cleaned(question))
        self.asks_trend = bool(_ASKS_TREND.search(question))
        self.needed = needed_rows(table, question)
        self.seen: set[str] = set()
        self.credit: dict[int, float] = {}
        self.pairs_wrong = self.steps_right = self.steps_wrong = 0
        self.results: list[Fraction | None] = []
        self.listed: int | None = None
        self.last: str = ""
        self.faults: list[str] = []
        rows = self.table.cells
        sizes = {len(rows), len(self.table.by_label), len(self.table.by_series)} if rows else set()
        self.constants = {Fraction(each) for each in {1, 2, 10, 100, 1000, 10**6} | sizes}
        self.known: set[Fraction] = set(self.table.numbers)
        self.known |= {number(found).value for found in re.findall(NUM, cleaned(question))}
        self.known |= {value for row in rows if (value := fraction(row.label)) is not None}

    def step(self, right: bool | None, said: str, result: Fraction | None = None) -> None:
        """Book one step, once; None is a step that could not be worked out."""
        key = "".join(said.lower().split())
        if right is None or key in self.seen:
            return
        self.seen.add(key)
        if right:
            self.steps_right += 1
            self.results.append(result)
            self._worked_with(said)
        else:
            self.steps_wrong += 1
            self.faults.append(f"wrong step: {said.strip()}")
        if result is not None:
            self.known.add(result)

    def _worked_with(self, said: str) -> None:
        """Half the credit for a needed row whose value, without its name, stands in a right step."""
        for value in map(number, re.findall(NUM, said)):
            for row in self.needed:
                if self.reads(row, value):
                    self.credit[row] = max(self.credit.get(row, 0.0), 0.5)

    def wrong_reading(self, said: str) -> None:
        """Book one wrong reading, once."""
        said = said.strip(" ,:")
        if said.lower() not in self.seen:
            self.seen.add(said.lower())
            self.pairs_wrong += 1
            self.faults.append(f"wrong reading: {said}")

    def context(self, mention: Mention, at: int, folded: Folded) -> frozenset[int]:
        """The rows a name means here: narrowed by the nearest series (or label) of the same sentence."""
        if len(mention.rows) < 2:
            return mention.rows
        nearby = sorted(
            (found.start() > at, abs(found.start() - at), folded[found[0]].rows)
            for found in re.finditer(NAME, folded.text)
            if (folded[found[0]].label is None) != (mention.label is None)
        )
        return next((mention.rows & rows for _, _, rows in nearby if mention.rows & rows), mention.rows)

    def reads(self, row: int, said: Number) -> bool:
        """Whether a row has this value."""
        value = self.table.cells[row].number
        return value is not None and same_reading(said, value)

    def value(self, row: int) -> Fraction | None:
        return self.table.cells[row].number

    def options(self, operand: str, folded: Folded, at: int = 0) -> list[Number]:
        """What an operand can stand for."""
        if not re.fullmatch(NAME, operand):
            return [number(operand)]
        mention = folded[operand]
        if mention.said is not None:
            return [mention.said]
        values = (self.table.cells[row].number for row in sorted(self.context(mention, at, folded)))
        own = re.fullmatch(NUM, mention.text)  # a year may be counted with
        found = [Number(value) for value in values if value is not None]
        return [*found[:4], *([number(mention.text)] if own else [])]

    def is_known(self, said: Number) -> bool:
        """Whether a number comes from a fact, the question or a step."""
        return not self.has_facts or any(same_reading(said, value) for value in self.known)

    def scopes(self, folded: Folded) -> list[frozenset[int]]:
        """The groups of rows that "the largest" or "above 5" can be about."""
        every = frozenset(range(len(self.table.cells)))
        for mentions in (folded.mentions, self.asked.mentions):
            series = {mention.rows for mention in mentions if mention.series and not mention.label}
            if series and len(self.table.by_series) > 1:
                return [*series, frozenset().union(*series)]
        whole = {mention.series for mention in self.asked.mentions if mention.series and mention.label}
        named = [mention.rows for mention in self.asked.mentions if mention.label]
        scopes = [every]
        if len(self.table.by_series) > 1 and not whole:
            scopes += [*self.table.by_label.values(), *self.table.by_series.values()]
        return scopes + ([frozenset().union(*named)] if len(named) > 1 else [])
