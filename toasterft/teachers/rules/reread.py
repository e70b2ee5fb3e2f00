"""A table's numbers by label and series: read a second time, apart from `derive`, for `recompute` alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

_COLUMN = re.compile(r" & (?=[^|&]*: ?(?:-?[$]?\.?[0-9]|nan))")

Key = tuple[str, str]


def table(facts: Any) -> dict[Key, list[Fraction]]:
    """Values by (label, series), of a table's text or of a list of facts; a label that occurs twice has several."""
    return _of_text(facts) if isinstance(facts, str) else _of_facts(facts)


def labels(facts: Any) -> list[str]:
    """Every label once, in order; of a text also those that have no number."""
    if not isinstance(facts, str):
        return list(dict.fromkeys(label for label, _ in _of_facts(facts)))
    head = _COLUMN.split(facts)[0].partition(":")[2]
    return list(dict.fromkeys(filter(None, (" ".join(label.split()) for label in head.split("|")))))


def _of_facts(facts: Sequence[Mapping[str, Any]]) -> dict[Key, list[Fraction]]:
    found: dict[Key, list[Fraction]] = {}
    for fact in facts:
        key = (str(fact["label"]), str(fact.get("series", "")))
        found.setdefault(key, []).append(Fraction(str(fact["value"])))
    return found


def _of_text(text: str) -> dict[Key, list[Fraction]]:
    head, *columns = _COLUMN.split(text)
    rows = [" ".join(label.split()) for label in head.partition(":")[2].split("|")]
    named: list[tuple[str, list[str]]] = []
    waiting = ""
    for column in columns:
        name, _, cells = (waiting + column).rpartition(":")
        # An `&` inside a name leaves the name's first half behind the last cell.
        cells, part, half = cells.partition(" & ")
        waiting = f"{half} & " if part else ""
        named.append((" ".join(name.split()), cells.split("|")))
    found: dict[Key, list[Fraction]] = {}
    for place, label in enumerate(rows):
        for name, values in named:
            value = number(values[place]) if place < len(values) else None
            if value is not None and label:
                found.setdefault((label, "" if len(columns) == 1 else name), []).append(value)
    return found


def number(text: str) -> Fraction | None:
    """A number as a cell or an answer writes it; None where it is none."""
    try:
        return Fraction(text.strip().strip("$%").replace(",", ""))
    except (ValueError, ZeroDivisionError):
        return None
