"""The table behind a chart, from whatever a data row carries: facts of charts drawn here, or ChartQA's text.

ChartQA writes a table as `Entity: A | B & Series: 1 | 2 & Other: 3 | 4`: the columns, one after the other.
Its cells were read off pictures, so a gap is `nan` or 0, and a number may be two that stood together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

_CELL = re.compile(r"[$€£]?\s*(-?[0-9][0-9,]*(?:\.[0-9]+)?|-?\.[0-9]+)\s*%?", re.ASCII)
_GAP = "nan"


@dataclass(frozen=True)
class Cell:
    """One value: its label (the mark), its series (the colour; empty where there is one), its number."""

    label: str
    series: str
    value: Fraction

    @property
    def name(self) -> str:
        """What traces call it: as charts drawn here do."""
        return f"{self.series} {self.label}" if self.series else self.label


@dataclass(frozen=True)
class Table:
    """Cells in reading order, label by label; gaps are left out, labels with gaps only are not.

    `zeros_are_gaps`: zeros may stand for marks that the chart does not have: one zero in a line over the
    years, several elsewhere.
    """

    labels: tuple[str, ...]
    series: tuple[str, ...]
    cells: tuple[Cell, ...]
    zeros_are_gaps: bool = False

    def of_series(self, series: str) -> list[Cell]:
        return [cell for cell in self.cells if cell.series == series]

    def at(self, label: str, series: str) -> Cell | None:
        """The cell of a label in a series; None where there is a gap."""
        return next((cell for cell in self.cells if (cell.label, cell.series) == (label, series)), None)

    def of_label(self, label: str) -> list[Cell]:
        return [cell for cell in self.cells if cell.label == label]


def number(text: str) -> Fraction | None:
    """`1,234.50`, `45 %` or `$5` as a number; None for anything else."""
    found = _CELL.fullmatch(text.strip())
    return Fraction(found[1].replace(",", "")) if found else None


def _legible(value: Fraction) -> Fraction:
    """As a chart would write it: two decimals, four below one. Everything is worked out from these."""
    if (value * 10**4).denominator == 1:
        return value
    return Fraction(f"{float(value):.{2 if abs(value) >= 1 else 4}f}")


def shown(value: Fraction, decimals: int = 2) -> str:
    """Exactly where four decimals suffice, else rounded: 45, 6.25, 6.33."""
    exact = value * 10**4
    text = f"{float(value):.4f}" if exact.denominator == 1 else f"{float(value):.{decimals}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def read(facts: Any) -> Table | None:
    """The table of an example's `facts`; None where it carries none that can be used."""
    if isinstance(facts, str):
        return _of_text(facts)
    if isinstance(facts, Sequence) and facts and all(isinstance(fact, Mapping) for fact in facts):
        return _of_facts(facts)
    return None


def _of_facts(facts: Iterable[Mapping[str, Any]]) -> Table | None:
    cells = []
    for fact in facts:
        value = number(str(fact.get("value", "")))
        if "label" not in fact or value is None:
            return None
        cells.append(Cell(str(fact["label"]), str(fact.get("series", "")), _legible(value)))
    return _table(cells, [cell.label for cell in cells])


def _of_text(text: str) -> Table | None:
    kind, _, rest = text.partition(":")
    labels, columns = _columns(rest)
    plain = len(columns) == 1  # its name tells nothing apart
    cells = []
    for place, label in enumerate(labels):
        for name, values in columns:
            value = number(values[place]) if place < len(values) else None
            if label and value is not None:
                cells.append(Cell(label, "" if plain else name, _legible(value)))
    return _table(cells, labels, gaps_from=1 if kind.strip().lower() == "year" else 2)


def _columns(rest: str) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The labels, and (name, cells) of each column.

    A part behind ` & ` is a column if its cells open with a number or a gap; else it belongs to a name.
    """
    parts = rest.split(" & ")
    columns: list[tuple[str, list[str]]] = []
    head: list[str] = []
    waiting: list[str] = []
    for part in parts:
        name, colon, cells = part.rpartition(":")
        values = [_plain(cell) for cell in cells.split("|")]
        if colon and (values[0] == _GAP or number(values[0]) is not None):
            # Before the first column it cannot be told where the labels end; they are taken to.
            joined = name if not columns else " & ".join([*waiting, name])
            head = head if columns else waiting
            columns.append((_plain(joined), values))
            waiting = []
        else:
            waiting.append(part)
    return [_plain(label) for label in " & ".join(head).split("|")], columns


def _plain(name: str) -> str:
    return " ".join(name.split())


def _table(cells: list[Cell], labels: list[str], gaps_from: int | None = None) -> Table | None:
    """
    Args:
        gaps_from: so many zeros are taken for gaps; None where a zero is a zero.
    """
    if not cells:
        return None
    zeros = sum(cell.value == 0 for cell in cells)
    return Table(
        labels=tuple(dict.fromkeys(filter(None, labels))),
        series=tuple(dict.fromkeys(cell.series for cell in cells)),
        cells=tuple(cells),
        zeros_are_gaps=gaps_from is not None and zeros >= gaps_from,
    )
