"""The table behind a chart, from whatever a data row carries, and its names found in a sentence.

`read` takes, with or without several series:

    "Entity: A | B & Series: 1 | 2 & Other: 3 | 4"          ChartQA's text: the columns, one after the other
    [{"label": "A", "value": 1, "series": "x"}, …]          charts drawn here, `toasterft cot facts`
    {"objects": [{"name", "attributes", "position"}, …]}    DyME's facts, alone or in a list
    [{"Year": 2019, "north": 5.5, "south": 4}, …]           table rows as dicts of their cells

ChartQA's cells were read off pictures, so a gap is `nan` or 0, and a number may be two that stood together.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Any

from toasterft.scoring.lexicon import MARKS
from toasterft.scoring.numbers import NUM, Number, cleaned, decimal, format_number, fraction, number

_GAP = "nan"


@dataclass(frozen=True)
class Cell:
    """One fact.

    Attributes:
        label: what it is of: the mark.
        series: the colour, say; empty where there is one series.
        number: its value; None for an object of which only words are known.
        text: value or words as the data writes them.
    """

    label: str
    series: str
    number: Fraction | None
    text: str

    @cached_property
    def value(self) -> Fraction:
        """`number`, of a cell that has one.

        Raises:
            ValueError: it has none.
        """
        if self.number is None:
            raise ValueError(f"{self.name} has no number")
        return self.number

    @cached_property
    def name(self) -> str:
        """What traces call it: its label, after its series where there is one."""
        return f"{self.series} {self.label}" if self.series else self.label


@dataclass(frozen=True)
class Mention:
    """A name in a sentence: the positions of the cells it can mean, and the value beside it in brackets."""

    text: str
    rows: frozenset[int]
    label: str | None = None
    series: str | None = None
    value: Number | None = None


FIRST_NAME = 0xE000
NAME = "[\ue000-\uf8ff]"


@dataclass(frozen=True)
class Folded:
    """A sentence with each name as one character, so that patterns need not know the names."""

    text: str
    mentions: tuple[Mention, ...]

    def __getitem__(self, character: str) -> Mention:
        return self.mentions[ord(character) - FIRST_NAME]

    @cached_property
    def placed(self) -> list[tuple[int, Mention]]:
        """The mentions with their positions in `text`."""
        return [(found.start(), self[found[0]]) for found in re.finditer(NAME, self.text)]

    def beside(self, mention: Mention) -> list[tuple[int, Mention]]:
        """The series of the sentence for a label, and the labels for a series, with their positions."""
        return [(at, other) for at, other in self.placed if (other.label is None) != (mention.label is None)]

    def plain(self, text: str) -> str:
        """`text` with the names back in."""
        return re.sub(NAME, lambda found: self[found[0]].text, text)


@dataclass(frozen=True)
class Table:
    """Cells in reading order, label by label. A gap has no cell; a label with gaps only is still a label.

    Attributes:
        labels: each once, in order.
        series: each once, in order; `("",)` where there is one without a name.
        zeros_are_gaps: zeros may stand for marks that the chart does not have: one zero in a line over the
            years, several elsewhere.
    """

    labels: tuple[str, ...] = ()
    series: tuple[str, ...] = ()
    cells: tuple[Cell, ...] = ()
    zeros_are_gaps: bool = False

    def at(self, label: str, series: str) -> Cell | None:
        """The cell of a label in a series; None where there is a gap."""
        return next((cell for cell in self.cells if (cell.label, cell.series) == (label, series)), None)

    def without_gaps(self) -> Table:
        """Without zeros where those may be gaps."""
        return _table(cell for cell in self.cells if cell.number or not self.zeros_are_gaps)

    @cached_property
    def by_label(self) -> dict[str, frozenset[int]]:
        """Positions of cells by `name_key` of their label."""
        return _by_name(cell.label for cell in self.cells)

    @cached_property
    def by_series(self) -> dict[str, frozenset[int]]:
        """Positions of cells by `name_key` of their series, where it has a name."""
        return {key: rows for key, rows in _by_name(cell.series for cell in self.cells).items() if key}

    @cached_property
    def numbers(self) -> frozenset[Fraction]:
        return frozenset(cell.number for cell in self.cells if cell.number is not None)

    @cached_property
    def _names(self) -> re.Pattern[str]:
        names = {name for cell in self.cells for name in (cell.label, cell.series) if name_key(name)}
        ordered = sorted(names, key=lambda name: (-len(name), name))
        return re.compile("|".join(map(_name_pattern, ordered)) or r"(?!)", re.IGNORECASE)

    def fold(self, text: str) -> Folded:
        """`text` (cleaned) with names as characters; `shop tennis` and `tennis for shop` as one."""
        mentions: list[Mention] = []

        def put(mention: Mention) -> str:
            mentions.append(mention)
            return chr(FIRST_NAME + len(mentions) - 1)

        def name(found: re.Match[str]) -> str:
            key = name_key(found[0])
            if key not in self.by_label and key not in self.by_series:
                key = key.removesuffix("s").removesuffix("'")
            if key in self.by_label:
                return put(Mention(found[0], self.by_label[key], label=key))
            return (
                put(Mention(found[0], self.by_series[key], series=key)) if key in self.by_series else found[0]
            )

        def joint(found: re.Match[str]) -> str:
            first, second = (mentions[ord(each) - FIRST_NAME] for each in found.groups())
            both = first.rows & second.rows
            if (first.label is None) == (second.label is None) or not both:
                return found[0]
            label, series = first.label or second.label, first.series or second.series
            return put(Mention(f"{first.text} {second.text}", both, label, series))

        text = self._names.sub(name, text)
        for pattern, replacement in ((_VALUE_OF, ""), (_ARTICLE, ""), (_OWN_NOUN, r"\1")):
            text = pattern.sub(replacement, text)
        return Folded(_JOINT.sub(joint, text), tuple(mentions))


def _table(cells: Iterable[Cell], labels: Iterable[str] = (), zeros_are_gaps: bool = False) -> Table:
    cells = tuple(cells)
    every = (*labels, *(cell.label for cell in cells))
    return Table(
        labels=tuple(dict.fromkeys(filter(None, every))),
        series=tuple(dict.fromkeys(cell.series for cell in cells)),
        cells=cells,
        zeros_are_gaps=zeros_are_gaps,
    )


def read(facts: Any) -> Table:
    """The table of an example's `facts`, in any of the forms above; without cells where there is nothing to read."""
    return read_json(json.dumps(facts, default=str))


# The checker asks for every completion, the rules for every reference.
@lru_cache(maxsize=1024)
def read_json(text: str) -> Table:
    """The same of facts as JSON; made once per image."""
    facts = json.loads(text)
    return _of_text(facts) if isinstance(facts, str) else _table(_cells(facts))


def numeric(facts: Any) -> Table | None:
    """The table to write a trace from: its cells with numbers, as a chart would write them; None without any."""
    table = read(facts)
    cells = (replace(cell, number=_legible(cell.value)) for cell in table.cells if cell.number is not None)
    return replace(table, cells=found) if (found := tuple(cells)) else None


def as_text(facts: Any) -> str:
    """Facts as a model is prompted with them: one row per line; "" where there are none."""
    if not facts:
        return ""
    if isinstance(facts, str):
        return facts
    rows = [facts] if isinstance(facts, Mapping) else facts
    return "\n".join(json.dumps(row, ensure_ascii=False, default=str) for row in rows)


def _legible(value: Fraction) -> Fraction:
    """As a chart would write it: two decimals, four below one."""
    if (value * 10**4).denominator == 1:
        return value
    return Fraction(f"{float(value):.{2 if abs(value) >= 1 else 4}f}")


# --- facts as JSON ---------------------------------------------------------------------------


def _cells(facts: Any) -> Iterator[Cell]:
    if isinstance(facts, Mapping):
        facts = [facts]
    for fact in facts if isinstance(facts, Iterable) else ():
        if not isinstance(fact, Mapping):
            continue
        label = next((str(fact[key]) for key in ("label", "name", "object") if key in fact), None)
        if "objects" in fact:
            yield from _cells(fact["objects"])
        elif label is not None and "value" in fact:
            yield Cell(label, str(fact.get("series") or ""), fraction(fact["value"]), str(fact["value"]))
        elif label is not None and ("attributes" in fact or "position" in fact):
            yield _object(label, fact)
        else:
            yield from _table_row(fact)


def _object(name: str, fact: Mapping[str, Any]) -> Cell:
    attributes = fact.get("attributes") or ()
    words = [attributes] if isinstance(attributes, str) else [str(each) for each in attributes]
    values = [re.fullmatch(rf"(?:value\s*[:=]?\s*)?({NUM})", cleaned(each).strip(), re.I) for each in words]
    value = next((number(found[1]).value for found in values if found), None)
    text = " ".join([*words, str(fact.get("position") or "")]) if value is None else decimal(value)
    return Cell(name, "", value, text)


def _table_row(fact: Mapping[str, Any]) -> Iterator[Cell]:
    """One row of a table: its first cell names it, every other cell with a number is a fact."""
    (_, label), *others = fact.items() or [("", "")]
    for key, cell in others:
        value = fraction(cell)
        if value is not None:
            yield Cell(str(label), str(key) if len(others) > 1 else "", value, str(cell))


# --- ChartQA's text --------------------------------------------------------------------------


def _of_text(text: str) -> Table:
    kind, _, rest = text.partition(":")
    labels, columns = _columns(rest)
    plain = len(columns) == 1  # its name tells nothing apart
    cells = []
    for place, label in enumerate(labels):
        for name, values in columns:
            value = fraction(values[place]) if place < len(values) else None
            if label and value is not None:
                value = _legible(value)
                cells.append(Cell(label, "" if plain else name, value, format_number(value)))
    zeros = sum(cell.number == 0 for cell in cells)
    gaps_from = 1 if kind.strip().lower() == "year" else 2
    return _table(cells, labels if cells else (), zeros >= gaps_from)


def _columns(rest: str) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The labels, and (name, cells) of each column.

    A part behind ` & ` is a column if its cells open with a number or a gap; else it belongs to a name.
    """
    columns: list[tuple[str, list[str]]] = []
    head: list[str] = []
    waiting: list[str] = []
    for part in rest.split(" & "):
        name, colon, cells = part.rpartition(":")
        values = [" ".join(cell.split()) for cell in cells.split("|")]
        if colon and (values[0] == _GAP or fraction(values[0]) is not None):
            # Before the first column it cannot be told where the labels end; they are taken to.
            joined = name if not columns else " & ".join([*waiting, name])
            head = head if columns else waiting
            columns.append((" ".join(joined.split()), values))
            waiting = []
        else:
            waiting.append(part)
    return [" ".join(label.split()) for label in " & ".join(head).split("|")], columns


# --- names in a sentence ---------------------------------------------------------------------

MARK_NOUN = rf"(?:{MARKS})"
# "the value of red", "the bar labelled red"
_VALUE_OF = re.compile(
    rf"(?:\b(?:the|a|an)\s+)?\b(?:values?|numbers?|percentages?|shares?|figures?|amounts?|{MARK_NOUN})\s+"
    rf"(?:of|for|in|labell?ed|called)\s+(?:the\s+)?(?={NAME})",
    re.IGNORECASE,
)
_ARTICLE = re.compile(rf"\b(?:the|a|an)\s+(?={NAME})", re.IGNORECASE)
_OWN_NOUN = re.compile(rf"({NAME})(?:'s)?\s+{MARK_NOUN}\b", re.IGNORECASE)  # "red's bar"
# "north in the year 2019"
_JOINT = re.compile(
    rf"({NAME})(?:'s)?(?:\s+(?:in|for|of|at|on|during|from|among|with)(?:\s+the)?(?:\s+year)?)?\s+({NAME})",
    re.IGNORECASE,
)
# Names that are everyday words in a trace: they only count where a value is given to them.
_SHY = frozenset(
    re.findall(r"\w+", "yes no none other others total value values all a i the more less average sum so is")
)


def name_key(name: str) -> str:
    """A name made comparable."""
    return " ".join(cleaned(name).lower().split()).strip(" .,:*").removesuffix("'s")


def _by_name(names: Iterable[str]) -> dict[str, frozenset[int]]:
    found: dict[str, set[int]] = {}
    for position, name in enumerate(names):
        found.setdefault(name_key(name), set()).add(position)
    return {name: frozenset(rows) for name, rows in found.items()}


def _name_pattern(name: str) -> str:
    key = name_key(name)
    written = " ".join(cleaned(name).split()).strip(" .,:*")
    body = re.sub(r"(?:\\ )+", r"\\s+", re.escape(written))
    if len(key) <= 3 and not written.islower():
        body = f"(?-i:{body})"  # the label May is no "may"
    year = re.fullmatch(r"(?:19|20)\d\d", key)
    shy = key in _SHY or (re.fullmatch(r"-?[\d.,]+%?", key) and not year)
    after = r"(?=\s*[=:(])" if shy else r"(?![.,]\d|%)" if year else ""
    plural = "" if key[-1:].isdigit() else "s?"
    return rf"(?<![\w.])(?:{body}){plural}(?!\w)(?:\*+(?=\s*[=:(,]))?{after}"
