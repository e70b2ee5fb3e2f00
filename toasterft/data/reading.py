"""What reading a whole data set left aside and changed: columns that nothing reads, tags taken off, turns joined."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toasterft.data.layout.cells import is_empty
from toasterft.data.layout.pictures import is_picture_cell
from toasterft.data.layout.row import RowContent
from toasterft.errors import DataError
from toasterft.units import shorten

# Read beside what a row's layout holds; `teacher` is who wrote the reasoning, for people.
OUR_COLUMNS = frozenset({
    "id", "question_id", "kind", "facts", "table", "task", "split", "choices", "rejected", "chosen", "human_or_machine",
    "teacher", "reasoning_structured",
})  # fmt: skip
_LONGEST_CELL = 60
SHOWN_FAULTS = 5


@dataclass(frozen=True)
class Fault:
    """A row that makes no example: where it stands, its id where it has one, and what is wrong with it."""

    where: str
    what: str
    id: str = ""
    split: str = ""


@dataclass
class Reading:
    """Counts over the rows of a data set.

    Attributes:
        faults: rows that make no example; None where a data set with such rows is refused.
        unread: columns that nothing reads, and how many rows have something in them.
        pictures_unread: those of them whose cells look like pictures, with the first such cell.
        changes: kinds of things that were taken off, joined or left out, and in how many rows.
    """

    faults: list[Fault] | None = None
    with_pictures: int = 0
    unread: Counter[str] = field(default_factory=Counter)
    pictures_unread: dict[str, str] = field(default_factory=dict)
    changes: Counter[str] = field(default_factory=Counter)

    def add(self, row: Mapping[str, Any], content: RowContent) -> None:
        """Count one row."""
        self.with_pictures += bool(content.pictures)
        self.changes.update(content.changes)
        for column in row.keys() - content.used - OUR_COLUMNS:
            cell = row[column]
            if is_empty(cell):
                continue
            self.unread[column] += 1
            if column not in self.pictures_unread and is_picture_cell(cell):
                self.pictures_unread[column] = shorten(repr(cell), _LONGEST_CELL)

    @property
    def unread_text(self) -> str:
        """One line about the columns that nothing reads; empty where there are none."""
        return f"columns that nothing reads: {', '.join(sorted(self.unread))}" if self.unread else ""

    @property
    def changes_text(self) -> str:
        """One line about what was changed; empty where nothing was."""
        return "; ".join(f"{change} ({count:,})" for change, count in sorted(self.changes.items()))

    @property
    def notes(self) -> list[str]:
        return list(filter(None, [self.unread_text, self.changes_text]))

    @property
    def fault(self) -> str:
        """What is wrong where no row has a picture while a column looks like pictures; else empty."""
        if self.with_pictures or not self.pictures_unread:
            return ""
        columns = ", ".join(f"{name!r} ({cell})" for name, cell in sorted(self.pictures_unread.items()))
        return f"no row has a picture, while a column that nothing reads looks like pictures: {columns}"

    def require_pictures(self, where: str) -> None:
        """
        Raises:
            DataError: no row has a picture while a column looks like pictures.
        """
        if self.fault:
            column = sorted(self.pictures_unread)[0]
            raise DataError(
                self.fault,
                where=where,
                why="it would be learned without its pictures",
                next_step=f"call the column `image`, or: toasterft data import {where} NEW --question-column … "
                f"--answer-column … --image-column {column}",
            )


def settle(
    found: list[Fault],
    faults: list[Fault] | None,
    where: str,
    noun: str,
    folder: Path,
    remedy: str | None = None,
) -> None:
    """Collect the faults in `faults`, or raise them where there is no such list."""
    if faults is not None:
        faults.extend(found)
    elif found:
        raise faults_error([f"{folder / fault.where}: {fault.what}" for fault in found], where, noun, remedy)


def faults_error(faults: list[str], where: str, noun: str, remedy: str | None = None) -> DataError:
    count = f"1 {noun}" if len(faults) == 1 else f"{len(faults)} {noun}s"
    return DataError(
        f"{count}; nothing was run",
        where=where or None,
        details=first_few(faults),
        next_step=remedy or "mend or remove them",
    )


def first_few(lines: list[str]) -> list[str]:
    """The first lines, and how many there are beside them."""
    more = len(lines) - SHOWN_FAULTS
    return lines[:SHOWN_FAULTS] + ([f"… and {more:,} more"] if more > 0 else [])
