"""Find the tables of a foreign data set: rows as they are, and where its pictures may lie."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from toasterft.data import arrow
from toasterft.data.parse_rows import read_rows, read_text, rows_of_json
from toasterft.data.pictures import PictureFinder
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
        read: (file:line, row) of every row.
    """

    name: str
    folder: Path
    root: Path
    read: Callable[[], Iterator[tuple[str, Row]]]

    @cached_property
    def first(self) -> Row:
        """Its first row; empty for a file that holds no rows."""
        try:
            return next(self.read(), ("", {}))[1]
        except DataError:
            return {}

    @cached_property
    def fault(self) -> str:
        """Why its first row cannot be read; empty where it can."""
        try:
            next(self.read(), None)
        except DataError as error:
            return error.what
        return ""

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
    if path.is_file():
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
        found = [file for file in root.glob("*/" * depth + "*") if file.suffix.lower() in SUFFIXES]
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
    def read() -> Iterator[tuple[str, Row]]:
        return _cells(path) if path.suffix.lower() in (".csv", ".tsv") else _json(path)

    return Table(str(path.relative_to(root)), path.parent, root, read)


def _tables(by_split: dict[str, Any], root: Path, finder: PictureFinder) -> list[Table]:
    return [
        Table(split, root, root, partial(arrow.arrow_rows, table, split, finder))
        for split, table in by_split.items()
    ]


def _json(path: Path) -> Iterator[tuple[str, Row]]:
    """Rows of JSON lines, of an array, or of the only array in an object; an array as a row is keyed by position."""
    try:
        found = None if path.suffix.lower() == ".jsonl" else rows_of_json(json.loads(read_text(path))) or []
    except (json.JSONDecodeError, RecursionError):
        found = None
    if found is None:
        yield from read_rows(path)
        return
    for number, row in enumerate(found):
        if isinstance(row, list):
            row = {str(place): value for place, value in enumerate(row)}
        if isinstance(row, dict):
            yield f"{path.name}[{number}]", row


def _cells(path: Path) -> Iterator[tuple[str, Row]]:
    csv.field_size_limit(min(LONGEST_CELL, sys.maxsize))
    try:
        with io.StringIO(read_text(path), newline="") as file:
            reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
            for row in reader:
                # Cells beyond the header come under None, missing ones as None.
                named = {name: cell or "" for name, cell in row.items() if name is not None}
                yield f"{path.name}:{reader.line_num}", named
    except csv.Error as error:
        raise DataError(f"cannot be read ({error})", where=str(path)) from None
