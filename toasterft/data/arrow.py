"""Tables of parquet, arrow and the hub by split; pictures stay in the table until they are opened."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from toasterft.data.layout.row import has_question
from toasterft.data.pictures import PictureFinder
from toasterft.data.row_files import require_content
from toasterft.errors import DataError

SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "validate", "val", "valid", "dev", "eval"),
    "test": ("test", "testing"),
}


def canonical(split: str) -> str:
    """The usual name of a split that has several spellings; any other name as it is."""
    return next((name for name, spellings in SPLITS.items() if split.lower() in spellings), split)


def is_hub_id(name: str) -> bool:
    """Whether a name has the form of a hub id, owner/name: `HuggingFaceM4/ChartQA`."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None


def find_split(split: str, available: Iterable[str], where: str | None = None) -> str:
    """The name under which `split` is available, whichever of its spellings is used.

    Raises:
        DataError: there is no such split.
    """
    names = list(available)
    for name in names:
        if split == name or (name and canonical(split) == canonical(name)):
            return name
    have = ", ".join(filter(None, names)) or "none"
    raise DataError(f"no split {split!r}", where=where, why=f"it has: {have}")


# Tables that are columns: a file of rows has another reader.
SPREADSHEETS = (".xlsx", ".xls", ".ods")
SUFFIXES = (".parquet", ".arrow", *SPREADSHEETS)


def from_hub(hub_id: str, config: str | None = None) -> dict[str, Any]:
    """Tables of a hub data set, by split.

    Raises:
        DataError: it cannot be fetched.
    """
    import datasets

    try:
        return _by_split(datasets.load_dataset(hub_id, config))
    except Exception as error:  # the library raises a dozen types for "cannot get it"
        raise DataError(
            "this data set cannot be fetched from the hub",
            where=hub_id,
            why=str(error).strip().split("\n")[0],
            next_step="check the name, the network and `hf auth login`, or give a local folder",
        ) from None


def saved_to_disk(folder: Path) -> bool:
    """Whether `datasets` wrote this folder: its .json files hold no rows."""
    return (folder / "dataset_dict.json").exists() or (folder / "state.json").exists()


def from_folder(folder: Path) -> dict[str, Any]:
    """Tables of a folder: one that `save_to_disk` wrote, else its .parquet files; empty for neither.

    What stands before the first dash of a parquet file's name is its split: `train-00000-of-00003.parquet`.
    """
    if saved_to_disk(folder):
        return _read_tables(lambda datasets: datasets.load_from_disk(str(folder)), folder)
    files = sorted(file for file in folder.rglob("*.parquet") if file.is_file())
    return from_files(files, folder) if files else {}


def from_files(files: list[Path], folder: Path) -> dict[str, Any]:
    """Tables of parquet or arrow files, all of one kind, by split.

    Raises:
        DataError: one cannot be read, or is a spreadsheet.
    """
    kind = files[0].suffix.lower().lstrip(".")
    if f".{kind}" in SPREADSHEETS:
        raise DataError("spreadsheets are not read", where=str(files[0]), next_step="save it as CSV (UTF-8)")
    groups: dict[str, list[str]] = {}
    for file in files:
        with file.open("rb") as opened:
            require_content(opened.read(64), file)
        groups.setdefault(canonical(file.stem.split("-")[0]), []).append(str(file))
    return _read_tables(lambda datasets: datasets.load_dataset(kind, data_files=groups), folder)


def _read_tables(load: Callable[[Any], Any], where: Path) -> dict[str, Any]:
    import datasets

    datasets.disable_progress_bars()  # nothing is fetched
    try:
        return _by_split(load(datasets))
    except Exception as error:  # pyarrow's and the library's own, a dozen types
        cause = error.__cause__ or error  # the library says "an error occurred", pyarrow which
        raise DataError(
            "these tables cannot be read",
            where=str(where),
            why=f"{type(cause).__name__}: {cause}".split("\n")[0],
        ) from None


def class_columns(labels: list[str]) -> dict[str, Any]:
    """Columns of a picture that has nothing but a label: a question that names all labels."""
    return {"question": f"Which of these is it: {', '.join(labels)}?", "task": "class", "choices": labels}


def _by_split(found: Any) -> dict[str, Any]:
    return dict(found) if isinstance(found, dict) else {"": found}


def arrow_rows(table: Any, split: str, finder: PictureFinder) -> Iterator[tuple[str, dict[str, Any]]]:
    """(split[number], row) of a table; `images` holds one reader per picture, which stays in the table till then."""
    import datasets

    pictures = []
    classes: dict[str, list[str]] = {}
    for column, feature in list(table.features.items()):
        inner = getattr(feature, "feature", feature)
        if isinstance(feature, datasets.ClassLabel):
            classes[column] = feature.names
        if isinstance(inner, datasets.Image):
            # Encoded bytes instead of decoded pictures: they are hashed, and decoded only when needed.
            undecoded = datasets.Image(decode=False)
            table = table.cast_column(column, undecoded if inner is feature else datasets.List(undecoded))
            pictures.append(column)
    for number, row in enumerate(_whole_rows(table.remove_columns(pictures), split)):
        for column, names in classes.items():
            place = row[column]
            row[column] = names[place] if place is not None and 0 <= place < len(names) else None
        if len(classes) == 1 and pictures and not has_question(row):
            row |= class_columns(*classes.values())
        images = [one for column in pictures for one in _image_readers(table, column, number, finder)]
        yield f"{split or 'row'}[{number}]", {**row, **({"images": images} if pictures else {})}


def _whole_rows(table: Any, split: str) -> Iterator[dict[str, Any]]:
    try:
        yield from table
    except Exception as error:  # a column whose bytes the file lacks raises anything
        why = f"{type(error).__name__}: {error}".split("\n")[0]
        raise DataError("this table cannot be read", where=split or None, why=why) from None


def _image_readers(table: Any, column: str, number: int, finder: PictureFinder) -> list[Callable[[], bytes]]:
    """One reader per picture of a row and column."""
    if hasattr(table.features[column], "feature"):
        count = len(table[number][column] or [])
        return [partial(_encoded, table, column, number, finder, place) for place in range(count)]
    # Looked up only where some row has none: it reads the picture.
    if table.data.column(column).null_count and table[number][column] is None:
        return []
    return [partial(_encoded, table, column, number, finder)]


def _encoded(table: Any, column: str, number: int, finder: PictureFinder, place: int | None = None) -> bytes:
    """The bytes in a cell, or of the file that it names: only here, since looking at a cell reads its picture."""
    cell = table[number][column]
    value = cell if place is None else cell[place]
    data: bytes | None = value.get("bytes")
    if data:
        return data
    if (found := finder.find(str(value.get("path") or ""))) is None:
        raise DataError(f"the picture {value.get('path')} is not here", where=f"row {number}")
    return found.bytes()
