"""Parquet, arrow and the hub: tables by split, and their rows with pictures that stay in the table till opened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from toasterft.errors import DataError

SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "validate", "val", "valid", "dev", "eval"),
    "test": ("test", "testing"),
}


def canonical(split: str) -> str:
    """The usual name of a split that goes by several; any other as it is."""
    return next((name for name, spellings in SPLITS.items() if split.lower() in spellings), split)


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


def from_parquet(folder: Path) -> dict[str, Any]:
    """Tables of all .parquet files below a folder; what stands before the first dash names the split."""
    import datasets

    datasets.disable_progress_bars()  # nothing is fetched
    groups: dict[str, list[str]] = {}
    for file in sorted(folder.rglob("*.parquet")):
        groups.setdefault(canonical(file.stem.split("-")[0]), []).append(str(file))
    return _by_split(datasets.load_dataset("parquet", data_files=groups))


def from_arrow(folder: Path) -> dict[str, Any]:
    """Tables of a folder that `save_to_disk` wrote."""
    import datasets

    return _by_split(datasets.load_from_disk(str(folder)))


def _by_split(found: Any) -> dict[str, Any]:
    return dict(found) if isinstance(found, dict) else {"": found}


def arrow_rows(table: Any, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(split[number], row) of a table; `images` holds one reader per picture, which stays in the table till then."""
    import datasets

    pictures = []
    for column, feature in list(table.features.items()):
        inner = getattr(feature, "feature", feature)
        if isinstance(inner, datasets.Image):
            # Encoded bytes instead of decoded pictures: they are hashed, and decoded only when needed.
            undecoded = datasets.Image(decode=False)
            table = table.cast_column(column, undecoded if inner is feature else datasets.List(undecoded))
            pictures.append(column)
    for number, row in enumerate(table.remove_columns(pictures)):
        images = [one for column in pictures for one in _arrow_images(table, column, number)]
        yield f"{split or 'row'}[{number}]", {**row, **({"images": images} if pictures else {})}


def _arrow_images(table: Any, column: str, number: int) -> list[Callable[[], bytes]]:
    """One reader per picture of a row and column."""
    if not hasattr(table.features[column], "feature"):
        # Looked up only where some row has none: it reads the picture.
        if table.data.column(column).null_count and table[number][column] is None:
            return []
        return [lambda: _arrow_bytes(table[number][column])]
    count = len(table[number][column] or [])

    def reader(place: int) -> Callable[[], bytes]:
        return lambda: _arrow_bytes(table[number][column][place])

    return [reader(place) for place in range(count)]


def _arrow_bytes(value: dict[str, Any]) -> bytes:
    data: bytes | None = value.get("bytes")
    return data if data else Path(value["path"]).read_bytes()
