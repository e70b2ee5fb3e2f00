"""Find the tables of a foreign data set: rows as they are, and where its pictures may lie."""

from __future__ import annotations

import csv
import io
import itertools
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from toasterft.data import arrow
from toasterft.data.pictures import PictureFinder
from toasterft.data.reading import Fault
from toasterft.data.row_files import read_rows, read_text
from toasterft.errors import DataError

Row = dict[str, Any]
SUFFIXES = (".json", ".jsonl", ".csv", ".tsv")
# Published sets keep their annotations at most so deep; deeper lie notes on single pictures (SLAKE, ChartQA).
DEEPEST = 2
# A folder with more files than this holds one per picture, not tables.
MOST_TABLES = 40
# Beside the usual spellings of a split.
SPLIT_WORDS = {"testmini": "test", "tuning": "train"}
LONGEST_CELL = 10_000_000


@dataclass(frozen=True)
class Table:
    """Rows of one file, or of one split of a hub data set.

    Attributes:
        name: its path below `root`, or the split's name.
        root: the folder that was given.
        read: (file:line, row) of every row; what is no row goes into the list that it is given.
    """

    name: str
    folder: Path
    root: Path
    read: Callable[[list[Fault]], Iterator[tuple[str, Row]]]

    @cached_property
    def first(self) -> Row:
        """Its first row; empty for a file that holds no rows."""
        try:
            return next(self.read([]), ("", {}))[1]
        except DataError:
            return {}

    @cached_property
    def fault(self) -> str:
        """Why it has no row that can be read; empty where it has one, or is empty."""
        faults: list[Fault] = []
        try:
            readable = next(self.read(faults), None) is not None
        except DataError as error:
            return error.what
        return "" if readable or not faults else f"{faults[0].where}: {faults[0].what}"

    @property
    def split(self) -> str:
        """The split in its name: `train_human`, `aokvqa_v1p0_val`, `test/annotations`; '' for none."""
        for part in reversed(Path(self.name).with_suffix("").parts if self.name else ()):
            # Words between marks: `aokvqa_v1p0_val` is aokvqa, v1p0 and val.
            for word in re.split(r"[\W_]+", part.lower()):
                split = SPLIT_WORDS.get(word) or arrow.canonical(word)
                if split in arrow.SPLITS:
                    return split
        return ""


def tables_by_depth(source: str, finder: PictureFinder, config: str | None = None) -> Iterator[list[Table]]:
    """The tables of a file, a folder or a hub data set, those nearest to the top first.

    Raises:
        DataError: there is no such thing, or it cannot be read.
    """
    path = Path(source).expanduser().absolute()
    if path.is_file() and path.suffix.lower() in arrow.SUFFIXES:
        yield _tables(arrow.from_files([path], path.parent), path.parent, finder)
    elif path.is_file():
        yield [_file(path, path.parent)]
    elif path.is_dir():
        yield from _folder(path, finder)
    elif arrow.is_hub_id(source):
        yield _tables(arrow.from_hub(source, config), Path(), finder)
    else:
        raise DataError(
            "nothing to import", where=source, why="it is no file or folder here, and no hub id (owner/name)"
        )


def _folder(root: Path, finder: PictureFinder) -> Iterator[list[Table]]:
    if arrow.saved_to_disk(root):
        yield _tables(arrow.from_folder(root), root, finder)
        return
    for depth in range(DEEPEST + 1):
        # Numbered parts of one set lie in one folder, and are read together.
        found = [
            file
            for file in root.glob("*/" * depth + "*")
            if file.suffix.lower() in SUFFIXES and file.is_file()
        ]
        folders = {
            folder: list(files)
            for folder, files in itertools.groupby(sorted(found), key=lambda file: file.parent)
        }
        files = [file for some in folders.values() if len(some) <= MOST_TABLES for file in some]
        if files:
            yield [_file(file, root) for file in files if file.name != "card.json"]
    if tables := arrow.from_folder(root):
        yield _tables(tables, root, finder)


def _file(path: Path, root: Path) -> Table:
    def read(faults: list[Fault]) -> Iterator[tuple[str, Row]]:
        cells = path.suffix.lower() in (".csv", ".tsv")
        return _cells(path, faults) if cells else read_rows(path, faults, keyed=True)

    return Table(str(path.relative_to(root)), path.parent, root, read)


def _tables(by_split: dict[str, Any], root: Path, finder: PictureFinder) -> list[Table]:
    return [
        Table(split, root, root, partial(_of_table, table, split, finder))
        for split, table in by_split.items()
    ]


def _of_table(
    table: Any, split: str, finder: PictureFinder, faults: list[Fault]
) -> Iterator[tuple[str, Row]]:
    return arrow.arrow_rows(table, split, finder)


def _cells(path: Path, faults: list[Fault]) -> Iterator[tuple[str, Row]]:
    csv.field_size_limit(min(LONGEST_CELL, sys.maxsize))
    try:
        with io.StringIO(read_text(path), newline="") as file:
            reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
            for row in reader:
                where = f"{path.name}:{reader.line_num}"
                if any(row.pop(None, ())):  # a comma without quotes moved the others
                    faults.append(Fault(where, "more cells than the header has names"))
                else:
                    yield where, {name: cell or "" for name, cell in row.items()}
    except csv.Error as error:
        raise DataError(f"cannot be read ({error})", where=str(path)) from None
