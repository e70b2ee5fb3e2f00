"""Facts of any of their forms as rows of label and value."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from toasterft.scoring import tables
from toasterft.scoring.numbers import NUM, decimal, fraction, number
from toasterft.scoring.traces.lemmas import lemmas
from toasterft.scoring.traces.sentences import cleaned


@dataclass(frozen=True)
class Row:
    """One fact: a label's value (of a series), or an object with `words` said of it and no value."""

    label: str
    value: Fraction | None
    series: str = ""
    shown: str = ""
    words: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """What the row is called: its label, after its series where there is one."""
        return f"{self.series} {self.label}" if self.series else self.label


def rows_of(facts: Any) -> list[Row]:
    """Facts of any of their forms as rows.

    Forms: `{"label", "value"}` with or without "series"; `{"objects": [{"name", "attributes",
    "position"}]}` (DyME's fact JSON), alone or in a list; a table row as a dict of its cells; a table's text
    as ChartQA has it (`charts.tables`).
    """
    if isinstance(facts, str):
        return _rows_of_text(facts)
    if isinstance(facts, Mapping):
        return _rows_of_one(facts)
    if not isinstance(facts, Iterable):
        return []
    return [row for fact in facts if isinstance(fact, Mapping) for row in _rows_of_one(fact)]


def _rows_of_text(text: str) -> list[Row]:
    table = tables.read(text)
    if table is None:
        return []
    cells = [cell for cell in table.cells if cell.value or not table.zeros_are_gaps]
    return [Row(cell.label, cell.value, cell.series, tables.shown(cell.value)) for cell in cells]


def as_text(facts: Any) -> str:
    """Facts as a model is told them: one row per line; "" where there are none."""
    if not facts:
        return ""
    if isinstance(facts, str):
        return facts
    rows = [facts] if isinstance(facts, Mapping) else facts
    return "\n".join(json.dumps(row, ensure_ascii=False, default=str) for row in rows)


def _rows_of_one(fact: Mapping[str, Any]) -> list[Row]:
    if "objects" in fact:
        return rows_of(fact["objects"])
    label = next((fact[key] for key in ("label", "name", "object") if key in fact), None)
    if label is not None and "value" in fact:
        value = fraction(fact["value"])
        words = frozenset() if value is not None else frozenset(lemmas(str(fact["value"])))
        return [Row(str(label), value, str(fact.get("series") or ""), str(fact["value"]), words)]
    if label is not None and ("attributes" in fact or "position" in fact):
        return [_object(str(label), fact)]
    return _table_row(fact)


def _object(name: str, fact: Mapping[str, Any]) -> Row:
    attributes = fact.get("attributes") or ()
    said = [attributes] if isinstance(attributes, str) else [str(each) for each in attributes]
    values = [re.fullmatch(rf"(?:value\s*[:=]?\s*)?({NUM})", cleaned(each).strip(), re.I) for each in said]
    value = next((number(found[1]).value for found in values if found), None)
    words = lemmas(" ".join([*said, str(fact.get("position") or "")]))
    return Row(name, value, "", "" if value is None else decimal(value), frozenset(words))


def _table_row(fact: Mapping[str, Any]) -> list[Row]:
    """One row of a table: its first cell names it, every other cell with a number is a fact."""
    cells = list(fact.items())
    if len(cells) < 2:
        return []
    label, numbers = str(cells[0][1]), [(key, cell, fraction(cell)) for key, cell in cells[1:]]
    several = len(cells) > 2
    return [
        Row(label, value, str(key) if several else "", str(cell))
        for key, cell, value in numbers
        if value is not None
    ]
