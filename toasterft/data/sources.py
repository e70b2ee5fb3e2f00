"""Where examples come from: files and folders here, sets built here, catalog names, and the hub.

`load` finds the data and chooses the split; `parse_rows`, `arrow` and `class_folders` read it.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from toasterft import catalog, paths
from toasterft.data import arrow
from toasterft.data.arrow import SPLITS, canonical
from toasterft.data.class_folders import class_folders
from toasterft.data.example import TASKS, Example
from toasterft.data.parse_rows import named_split, parse_rows
from toasterft.data.pictures import PictureFinder, require_files
from toasterft.data.reading import SHOWN_FAULTS, Fault, Reading
from toasterft.data.row_files import read_rows
from toasterft.data.write import CARD, read_card
from toasterft.errors import DataError, did_you_mean

# Which split a purpose reads where none is named, in order of preference.
DEFAULT_SPLITS = {"train": ("train",), "validate": ("validation", "test"), "evaluate": ("test", "validation")}
Purpose = Literal["train", "validate", "evaluate"]
Item = TypeVar("Item")

# Files a folder is searched for when it is not split into train/validation/test files.
MAIN_FILES = ("items", "data", "metadata", "dataset", "all")


Images = str | Path | None
"""One more folder where pictures may lie, as `--images` names it."""


@dataclass(frozen=True)
class Dataset:
    """Examples of one split, with the name and content hash that the ledger keeps."""

    name: str
    split: str | None
    examples: list[Example] = field(repr=False)
    sha256: str = ""
    task: str = "chart"
    reading: Reading = field(default_factory=Reading, repr=False, compare=False)
    images: Images = None
    available: int = 0
    """Rows of the split, of which `examples` may be some."""

    def __len__(self) -> int:
        return len(self.examples)


@dataclass(frozen=True)
class DatasetSplits:
    """All splits of a data set ('' for unsplit) and the rows that cannot be read."""

    name: str
    folder: Path | None
    splits: dict[str, list[Example]]
    faults: list[Fault]
    task: str = "chart"
    reading: Reading = field(default_factory=Reading, repr=False, compare=False)

    def __len__(self) -> int:
        return sum(map(len, self.splits.values()))

    @property
    def card(self) -> dict[str, Any]:
        """The folder's card; name and task alone where it has none."""
        return read_card(self.folder) or {"name": self.name, "task": self.task}


def load(
    name: str,
    *,
    purpose: Purpose = "train",
    split: str | None = None,
    limit: int | None = None,
    seed: int | None = None,
    images: Images = None,
) -> Dataset:
    """The examples of one split of a data set.

    Args:
        name: a path, a set built here, a catalog name, or a hub id, looked up in that order.
        purpose: decides the split where `split` is None.
        limit: at most this many rows: the first ones, or a seeded choice when `seed` is given.
        images: one more folder where pictures may lie (`pictures.PictureFinder`).

    Raises:
        DataError: with file and line, for the first few faults found.
    """
    reading = Reading()
    where, splits = _open(name, reading, images)
    task = _task(where)
    chosen = _choose_split(name, list(splits), purpose, split)
    examples = [replace(one, extra={"task": task, **one.extra}) for one in splits[chosen]]
    if not examples:
        raise DataError("no rows", where=f"{name} ({chosen})" if chosen else name)
    available = len(examples)
    if limit is not None:
        examples = sample(examples, limit, seed)
    reading.require_pictures(name)
    require_files(examples, name)
    return Dataset(
        name=_short(name),
        split=chosen or None,
        examples=examples,
        sha256=_content_hash(examples),
        task=examples[0].extra["task"],
        reading=reading,
        images=images,
        available=available,
    )


def sample(rows: list[Item], n: int, seed: int | None) -> list[Item]:
    """The first `n` rows, or with a seed `n` random ones in their old order; all where there are no more."""
    if seed is None or n >= len(rows):
        return rows[:n]
    return [rows[place] for place in sorted(random.Random(seed).sample(range(len(rows)), n))]


def load_splits(name: str, *, keep_faults: bool = False, images: Images = None) -> DatasetSplits:
    """Every split of a data set, under its usual name; no image is opened.

    Args:
        keep_faults: a row that cannot be read is noted instead of refused.

    Raises:
        DataError: nothing can be read there at all; without `keep_faults`, for any fault.
    """
    reading = Reading(faults=[] if keep_faults else None)
    faults = reading.faults
    where, by_split = _open(name, reading, images)
    task = _task(where)
    splits: dict[str, list[Example]] = {}
    found = list(faults or ())
    for split, rows in by_split.items():
        before = len(faults or ())
        usual = canonical(split) if split else ""
        splits.setdefault(usual, []).extend(replace(one, extra={"task": task, **one.extra}) for one in rows)
        found += [replace(fault, split=usual) for fault in (faults or [])[before:]]
    if not any(splits.values()) and not found:
        raise DataError("no rows", where=name)
    usual_order = ["", *SPLITS, *splits]
    splits = {split: splits[split] for split in sorted(splits, key=usual_order.index)}
    first = next((rows[0] for rows in splits.values() if rows), None)
    if not keep_faults:
        reading.require_pictures(name)
    task = first.extra["task"] if first else task
    return DatasetSplits(_short(name), where, splits, found, task, reading)


def has_split(name: str, purpose: Purpose) -> bool:
    """Whether the data names a split that suits the purpose."""
    _, splits = _open(name, Reading())
    return any(canonical(key) in DEFAULT_SPLITS[purpose] for key in splits)


def on_this_machine(name: str) -> bool:
    """Whether `name` is a path or a set built here, so that its rows can be counted without a hub."""
    return path_here(name) is not None


# --- finding ---------------------------------------------------------------------------------

Splits = dict[str, Iterator[Example]]
"""By split ('' for unsplit); read lazily, and once."""


def path_here(name: str) -> Path | None:
    """The file or folder that `name` means on this machine: a path, else a set built here."""
    path = Path(name).expanduser()
    if path.exists():
        return path
    built = paths.data_dir() / name
    return built if built.exists() and name == Path(name).name else None


def _open(name: str, reading: Reading, images: Images = None) -> tuple[Path | None, Splits]:
    """The folder the data lies in (None for the hub), and its rows by split.

    All rows of a split are refused for the faults of some, unless `reading` has a list to put the faults in.
    """
    path = path_here(name)
    if path is not None:
        folder = path if path.is_dir() else path.parent
        try:
            return folder, _open_path(path, PictureFinder(folder, images), reading)
        except OSError as error:  # folders that may not be read, files that vanish
            raise DataError(f"cannot be read ({error})", where=str(path)) from None
    row = catalog.datasets().get(name)
    if row is not None and row.hub_id is None:
        raise DataError(f"{name} is not on this machine", next_step=row.get)
    hub_id = row.hub_id if row is not None and row.hub_id else name
    if not arrow.is_hub_id(hub_id):
        raise DataError(
            f"no such data{did_you_mean(name, list(catalog.datasets()))}",
            where=name,
            why="it is no file or folder here, no data set built here, no catalog name, and no hub id (owner/name)",
        )
    return None, _tables(arrow.from_hub(hub_id), None, PictureFinder(None, images), reading)


TABLE_SUFFIXES = (".csv", ".tsv", *arrow.SUFFIXES)


def _open_path(path: Path, finder: PictureFinder, reading: Reading) -> Splits:
    if path.is_file():
        if path.suffix.lower() in TABLE_SUFFIXES:
            first = "save it as CSV, and: " if path.suffix.lower() in arrow.SPREADSHEETS else ""
            raise DataError(
                f"a {path.suffix} file is imported first",
                where=str(path),
                next_step=f"{first}toasterft data import {path} NEW_FOLDER, then --data NEW_FOLDER",
            )
        return _by_row_split(path, finder, reading)
    if not path.is_dir():
        raise DataError("this is neither a file nor a folder", where=str(path))
    if arrow.saved_to_disk(path):
        return _tables(arrow.from_folder(path), path, finder, reading)
    files = {
        canonical(file.stem): file for file in sorted(path.iterdir()) if file.suffix in (".jsonl", ".json")
    }
    own = read_card(path).get("splits")  # a folder of ours may have splits of other names
    known = {*SPLITS, *(own if isinstance(own, dict) else ())}
    named = {split: file for split, file in files.items() if split in known}
    if not named and not files:  # Hugging Face's imagefolder: `train/metadata.jsonl` beside its pictures
        tables = [
            file for file in sorted(path.glob("*/metadata.jsonl")) if canonical(file.parent.name) in SPLITS
        ]
        if tables:
            return {
                canonical(file.parent.name): parse_rows(
                    read_rows(file, reading.faults), file.parent, finder, reading
                )
                for file in tables
            }
    if named:
        # A split with nothing in it (a few charts have no tenth) is no split.
        filled = {split: file for split, file in named.items() if file.stat().st_size} or named
        return {
            split: parse_rows(read_rows(file, reading.faults), path, finder, reading)
            for split, file in filled.items()
        }
    for stem in (*MAIN_FILES, path.name):
        if stem in files:
            return _by_row_split(files[stem], finder, reading)
    jsonl = [file for file in files.values() if file.suffix == ".jsonl"]
    if len(jsonl) == 1:
        return _by_row_split(jsonl[0], finder, reading)
    if found := arrow.from_folder(path):
        return _tables(found, path, finder, reading)
    if classes := class_folders(path, finder, reading.faults):
        return classes
    raise DataError(
        "no data file found in this folder",
        where=str(path),
        why=f"looked for train/validation/test.jsonl, {', '.join(MAIN_FILES)}.jsonl, one single .jsonl, or *.parquet",
        next_step=f"name the file: {sorted(file.name for file in files.values())[:SHOWN_FAULTS]}"
        if files
        else f"another layout is imported first: toasterft data import {path} NEW_FOLDER, then --data NEW_FOLDER",
    )


def _tables(tables: dict[str, Any], folder: Path | None, finder: PictureFinder, reading: Reading) -> Splits:
    return {
        split: parse_rows(arrow.arrow_rows(table, split, finder), folder, finder, reading)
        for split, table in tables.items()
    }


def _by_row_split(path: Path, finder: PictureFinder, reading: Reading) -> Splits:
    """One file whose rows may each name their split."""
    by_split: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for where, row in read_rows(path, reading.faults):
        by_split.setdefault(canonical(named_split(row)), []).append((where, row))
    # Others name theirs: what is left is for training, as in `data import`.
    if len(by_split) > 1 and "" in by_split:
        by_split["train"] = [*by_split.get("train", []), *by_split.pop("")]
    return {
        name: parse_rows(rows, path.parent, finder, reading) for name, rows in (by_split or {"": []}).items()
    }


def _choose_split(name: str, available: list[str], purpose: Purpose, wanted: str | None) -> str:
    if wanted is not None:
        return arrow.find_split(wanted, available, name)
    for default in DEFAULT_SPLITS[purpose]:
        for split in available:
            if canonical(split) == default:
                return split
    if len(available) == 1:
        return available[0]
    raise DataError(
        f"no split to {purpose} on",
        where=name,
        why=f"it has: {', '.join(available)}",
        next_step="name one: split=…",
    )


# --- checks ----------------------------------------------------------------------------------


def _content_hash(examples: list[Example]) -> str:
    digest = hashlib.sha256()
    for example in examples:
        parts = [
            example.id,
            example.question,
            example.answer,
            example.reasoning or "",
            *(i.name for i in example.images),
            *([example.rejected] if example.rejected else []),
            *([turn.role, turn.text, turn.pictures] for turn in example.history),
        ]
        digest.update(json.dumps(parts, ensure_ascii=False).encode())
    return digest.hexdigest()


def _task(where: Path | None) -> str:
    task = str(read_card(where).get("task", "chart"))
    if task not in TASKS:
        raise DataError(
            f"no task is called {task!r}{did_you_mean(task, list(TASKS))}",
            where=f"{where}/{CARD}",
            why=f"`task` is one of {', '.join(TASKS)}; it names the scorer",
        )
    return task


def _short(name: str) -> str:
    return Path(name).stem if Path(name).suffix in (".jsonl", ".json") else Path(name).name
