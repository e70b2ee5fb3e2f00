"""Finds the tables of a data set that somebody else laid out: rows as they are, and where its pictures may lie."""

from __future__ import annotations

import csv
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from toasterft.data import arrow
from toasterft.data.example import ImageRef
from toasterft.data.parse_rows import file_rows
from toasterft.errors import DataError

Row = dict[str, Any]
SUFFIXES = (".json", ".jsonl", ".csv", ".tsv")
# Published sets keep their annotations at most so deep; deeper lie notes on single pictures (SLAKE, ChartQA).
DEEPEST = 2
# A folder with more files than this holds one per picture, not tables.
MOST_TABLES = 40
PICTURE_FOLDERS = ("", "images", "image", "imgs", "img", "png", "data")
# Beside the usual spellings of a split.
SPLIT_WORDS = {"testmini": "test", "tuning": "train"}
LONGEST_CELL = 10_000_000


@dataclass(frozen=True)
class Table:
    """Rows of one file, or of one split of a hub data set.

    Attributes:
        name: its path below `root`, or the split's name.
        root: the folder that was given; pictures are looked for from here and from `folder`.
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

    @property
    def split(self) -> str:
        """The split its name speaks of: `train_human`, `aokvqa_v1p0_val`, `test/annotations`; '' for none."""
        for part in reversed(Path(self.name).with_suffix("").parts):
            for word in re.split(r"[\W_]+", part.lower()):
                split = SPLIT_WORDS.get(word) or arrow.canonical(word)
                if split in arrow.SPLITS:
                    return split
        return ""

    def picture(self, *names: str, images: Path | None = None) -> ImageRef:
        """The first of these files that exists below the folders where pictures may lie.

        Args:
            images: looked through before all others.
        """
        for name in names:
            if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", name):
                raise DataError(
                    f"images are not fetched from URLs ({name[:60]}); download it and give a path"
                )
        starts = [] if images is None else [images]
        starts += [base / below for base in (self.folder, self.root) for below in PICTURE_FOLDERS]
        for start in starts:
            for name in names:
                if (path := start / name).is_file():
                    return ImageRef(name=name, path=path)
        raise DataError(f"no picture {names[0]}")


def levels(source: str, config: str | None = None) -> Iterator[list[Table]]:
    """The tables of a file, a folder or a hub data set, those nearest to the top first.

    Raises:
        DataError: there is no such thing, or it cannot be read.
    """
    path = Path(source).expanduser().absolute()
    if path.is_file():
        yield [_file(path, path.parent)]
    elif path.is_dir():
        yield from _folder(path)
    elif re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        yield [_arrow(table, split, Path()) for split, table in arrow.from_hub(source, config).items()]
    else:
        raise DataError(
            "nothing to import", where=source, why="it is no file or folder here, and no hub id (owner/name)"
        )


def _folder(root: Path) -> Iterator[list[Table]]:
    if (root / "dataset_dict.json").exists() or (root / "state.json").exists():
        yield [_arrow(table, split, root) for split, table in arrow.from_arrow(root).items()]
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
    if next(root.rglob("*.parquet"), None) is not None:
        yield [_arrow(table, split, root) for split, table in arrow.from_parquet(root).items()]


def _file(path: Path, root: Path) -> Table:
    def read() -> Iterator[tuple[str, Row]]:
        return _cells(path) if path.suffix.lower() in (".csv", ".tsv") else _json(path)

    return Table(str(path.relative_to(root)), path.parent, root, read)


def _arrow(table: Any, split: str, root: Path) -> Table:
    return Table(split, root, root, lambda: arrow.arrow_rows(table, split))


def _json(path: Path) -> Iterator[tuple[str, Row]]:
    """Rows of JSON lines, of an array, or of the only array in an object; an array as a row goes by places."""
    if path.suffix.lower() == ".jsonl":
        yield from file_rows(path)
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"cannot be read ({error})", where=str(path)) from None
    if isinstance(found, dict):
        arrays = [value for value in found.values() if isinstance(value, list)]
        found = arrays[0] if len(arrays) == 1 else []
    for number, row in enumerate(found if isinstance(found, list) else []):
        if isinstance(row, list):
            row = {str(place): value for place, value in enumerate(row)}
        if isinstance(row, dict):
            yield f"{path.name}[{number}]", row


def _cells(path: Path) -> Iterator[tuple[str, Row]]:
    csv.field_size_limit(min(LONGEST_CELL, sys.maxsize))
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
            for row in reader:
                # Cells beyond the header come under None, missing ones as None.
                named = {name: cell or "" for name, cell in row.items() if name is not None}
                yield f"{path.name}:{reader.line_num}", named
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot be read ({error})", where=str(path)) from None
