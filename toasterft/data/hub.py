"""To the hub and back: parquet with the pictures in it, a README for the hub, and our card."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toasterft import paths
from toasterft.data import write
from toasterft.data.arrow import is_hub_id
from toasterft.data.example import Example
from toasterft.data.importers import convert
from toasterft.data.sources import DatasetSplits
from toasterft.errors import DataError
from toasterft.progress import Reporter

# The hub's viewer reads files of this size at once.
SHARD_BYTES = 500_000_000
# Licence names the hub knows (its YAML takes no others), as our cards write them.
HUB_LICENCES = ("apache-2.0", "cc-by-4.0", "cc-by-sa-4.0", "cc0-1.0", "gpl-3.0", "mit")
_README = """---
{licence}task_categories:
- visual-question-answering
tags:
- toasterft
---

# {name}

{rows} rows ({splits}), written by toasterft. Columns: {columns}; `image` holds the picture itself.

```
toasterft data pull {hub_id} {name}
```
"""


@dataclass(frozen=True)
class Packed:
    """What was written for the hub."""

    rows: dict[str, int]
    columns: tuple[str, ...]
    size_bytes: int


def require_hub_id(hub_id: str) -> None:
    """
    Raises:
        DataError: it is not `owner/name`.
    """
    if not is_hub_id(hub_id):
        raise DataError("a hub data set is called owner/name", where=hub_id)


def pack(data: DatasetSplits, folder: Path, hub_id: str, report: Reporter) -> Packed:
    """Write the data set as the hub wants it: data/<split>-*.parquet, README.md and card.json.

    Raises:
        DataError: `folder` exists and is not empty, a row or picture cannot be read, or there are no rows.
    """
    splits = {name or "train": rows for name, rows in data.splits.items() if rows}
    if not splits:
        raise DataError("no rows", where=data.name)
    columns = _columns([example for rows in splits.values() for example in rows])
    with paths.new_folder(folder) as part:
        (part / "data").mkdir()
        for split, rows in splits.items():
            report.phase(split, len(rows))
            _write_parquet(part / "data", split, rows, columns, report)
        report.done()
        card = {"name": data.name, "task": data.task} | data.card
        paths.write_json(part / write.CARD, card)
        counts = {split: len(rows) for split, rows in splits.items()}
        paths.write_atomic(part / "README.md", _readme(data.name, hub_id, card, counts, tuple(columns)))
        size_bytes = sum(file.stat().st_size for file in part.rglob("*") if file.is_file())
    return Packed(counts, tuple(columns), size_bytes)


def push(folder: Path, hub_id: str, *, private: bool) -> str:
    """Upload what `pack` wrote in one commit, in the place of what was there; returns its address.

    Raises:
        DataError: the hub cannot be reached, or does not let this user write there.
    """
    from huggingface_hub import HfApi

    require_hub_id(hub_id)
    api = HfApi()
    try:
        api.create_repo(hub_id, repo_type="dataset", private=private, exist_ok=True)
        done = api.upload_folder(
            folder_path=folder,
            repo_id=hub_id,
            repo_type="dataset",
            commit_message="toasterft data push",
            delete_patterns=["data/*"],
        )
    except Exception as error:  # the client raises a dozen types for "it did not work"
        raise _refused(error, hub_id, "pushed") from None
    return str(done.repo_url)


def pull(hub_id: str, folder: Path, card: dict[str, Any], report: Reporter) -> dict[str, Any]:
    """Fetch a data set that `push` wrote, or any other of a known layout, as a folder of ours.

    Returns:
        The card: the pushed one's entries, with where it came from.

    Raises:
        DataError: it cannot be fetched or read, or `folder` is in use.
    """
    from huggingface_hub import snapshot_download

    require_hub_id(hub_id)
    paths.require_new(folder)
    report.phase("fetching")
    try:
        fetched = Path(snapshot_download(hub_id, repo_type="dataset"))
    except Exception as error:
        raise _refused(error, hub_id, "pulled") from None
    report.done()
    found = convert.read(str(fetched))
    # Counts and hashes are of the folder that was pushed; the others are of the data.
    kept = {key: value for key, value in write.read_card(fetched).items() if key not in ("splits", "sha256")}
    return convert.write(found, folder, {**kept, **card, "commit": fetched.name}, report)


def _refused(error: Exception, hub_id: str, done: str) -> DataError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return DataError(
        f"this data set cannot be {done}",
        where=hub_id,
        why=str(error).strip().split("\n")[0][:300],
        next_step="log in with a token that may write there: hf auth login"
        if status in (401, 403)
        else "check the name and the network, and `hf auth login` for private ones",
    )


# --- parquet ---------------------------------------------------------------------------------


def _columns(examples: list[Example]) -> dict[str, Any]:
    """The columns some row has something for, with their types."""
    from datasets import Image, List, Value

    used = {name for example in examples for name, value in _texts(example).items() if value}
    most_images = max(len(example.images) for example in examples)
    images = {} if not most_images else {"image": Image()} if most_images == 1 else {"images": List(Image())}
    names = (
        "question",
        "answer",
        "reasoning",
        "rejected",
        "history",
        "kind",
        "choices",
        "answers",
        "facts",
        "task",
    )
    kinds = {
        name: List(Value("string")) if name in ("choices", "answers") else Value("string") for name in names
    }
    return {
        "id": Value("string"),
        **images,
        **{name: kind for name, kind in kinds.items() if name in used},
    }


def _texts(example: Example) -> dict[str, Any]:
    """A row's columns beside its images, as parquet holds them."""
    texts = {"id": example.id, **write.columns(example), "task": example.extra.get("task", "chart")}
    for name in ("facts", "history"):
        if not isinstance(texts[name], str | None):
            texts[name] = json.dumps(texts[name], ensure_ascii=False)
    return texts


def _row(example: Example, columns: dict[str, Any]) -> dict[str, Any]:
    images = [{"bytes": image.bytes(), "path": Path(image.name).name} for image in example.images]
    everything = {**_texts(example), "images": images, "image": images[0] if images else None}
    return {name: everything[name] for name in columns}


def _write_parquet(
    folder: Path, split: str, examples: list[Example], columns: dict[str, Any], report: Reporter
) -> None:
    from datasets import Dataset, Features, disable_progress_bars
    from datasets.exceptions import DatasetGenerationError

    disable_progress_bars()  # ours is there already
    size_bytes = 0

    # A closure: what is passed as an argument, `datasets` divides among processes.
    def rows() -> Iterator[dict[str, Any]]:
        nonlocal size_bytes
        for done, example in enumerate(examples, start=1):
            row = _row(example, columns)
            pictures = row.get("images") or [row.get("image")]
            size_bytes += sum(len(picture["bytes"]) for picture in pictures if picture)
            yield row
            report.advance(done, len(examples))

    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        try:
            # A name of its own, or `datasets` would hash everything the closure holds.
            table = Dataset.from_generator(
                rows, features=Features(columns), cache_dir=scratch, fingerprint=f"{split}{len(examples)}"
            )
        except DatasetGenerationError as error:
            raise error.__cause__ or error from None
        shards = max(1, math.ceil(size_bytes / SHARD_BYTES))
        for place in range(shards):
            part = table.shard(shards, place, contiguous=True)
            part.to_parquet(str(folder / f"{split}-{place:05}-of-{shards:05}.parquet"))


def _readme(
    name: str, hub_id: str, card: dict[str, Any], counts: dict[str, int], columns: tuple[str, ...]
) -> str:
    licence = str(card.get("licence", "")).lower()
    return _README.format(
        name=name,
        hub_id=hub_id,
        licence=f"license: {licence}\n" if licence in HUB_LICENCES else "",
        rows=f"{sum(counts.values()):,}",
        splits=", ".join(f"{split} {count:,}" for split, count in counts.items()),
        columns=", ".join(f"`{column}`" for column in columns),
    )
