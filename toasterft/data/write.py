"""Write examples as a data set folder: a .jsonl per split, the pictures, and the card that is written last."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from toasterft import paths
from toasterft.data.arrow import SPLITS
from toasterft.data.example import Example, ImageRef
from toasterft.errors import UserError

CARD, IMAGES = "card.json", "images"
SUFFIXES = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"RIFF": ".webp", b"GIF8": ".gif", b"BM": ".bmp"}


def read_card(folder: Path | None) -> dict[str, Any]:
    """The card of a data folder; empty where there is none (a hub set, a file alone, a folder of another maker)."""
    card = paths.read_json(folder / CARD) if folder is not None and folder.is_dir() else None
    return card if isinstance(card, dict) else {}


def dataset_folder(name: str, out: Path | None) -> Path:
    """Where a data set of this name is built, so that `--data NAME` finds it; or `out`.

    Raises:
        UserError: the name is a path, which `--data NAME` could not find.
    """
    if out is not None:
        return out
    if not name or Path(name).name != name or name.startswith("."):
        raise UserError(
            f"{name!r} is no name",
            why="it names a folder under the data folder",
            next_step="use --out for a path",
        )
    return paths.data_dir() / name


def write_dataset(
    folder: Path,
    card: dict[str, Any],
    splits: Mapping[str, Iterable[Example]],
    beside: Mapping[str, list[dict[str, Any]]] | None = None,
) -> dict[str, Any]:
    """A whole new data set; the folder appears under its name only when complete.

    Pictures are copied, not linked: nothing done to the new set can reach the one it came from.

    Args:
        card: what the set is; `splits` (rows of each) and `sha256` (of each file) are added.
        splits: rows by split; '' becomes train. Splits without rows are left out.
        beside: further .jsonl files, by name.

    Returns:
        The card as written.

    Raises:
        DataError: `folder` exists and is not an empty folder, or a picture cannot be read.
    """
    card = {**card, "splits": {}, "sha256": {}}
    usual_order = [*SPLITS, *splits]
    with paths.new_folder(folder) as part:
        for split, examples in sorted(splits.items(), key=lambda item: usual_order.index(item[0])):
            rows = [row(part, example, task=card.get("task", "chart")) for example in examples]
            if rows:
                name = split or "train"
                card["splits"][name] = len(rows)
                card["sha256"][f"{name}.jsonl"] = write_rows(part / f"{name}.jsonl", rows)
        for name, rows in (beside or {}).items():
            card["sha256"][name] = write_rows(part / name, rows)
        paths.write_json(part / CARD, card)
    return card


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> str:
    """One JSON object a line; returns the file's sha256."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    paths.write_atomic(path, text)
    return hashlib.sha256(text.encode()).hexdigest()


def row(
    folder: Path, example: Example, *, task: str = "chart", link: bool = False, **more: Any
) -> dict[str, Any]:
    """One example as `data.sources` reads it back, its pictures inside `folder`.

    Args:
        task: the card's; a row names its task only where it differs.
        link: hard links instead of copies, where the disk allows.
        more: further columns.
    """
    images = [place_image(folder, image, link=link) for image in example.images]
    shown = {"image": images[0]} if len(images) == 1 else {"images": images} if images else {}
    texts = columns(example) | more
    if texts["task"] == task:
        del texts["task"]
    return {"id": example.id, **shown, **{name: value for name, value in texts.items() if value is not None}}


def columns(example: Example) -> dict[str, Any]:
    """A row's columns beside id and images; None where it has nothing for one."""
    return {
        "question": example.question,
        "answer": example.answer,
        "kind": example.kind,
        "facts": example.facts,
        "reasoning": example.reasoning,
        "rejected": example.rejected,
        "history": [asdict(turn) for turn in example.history] or None,
        "choices": example.extra.get("choices"),
        "answers": example.extra.get("answers"),
        "task": example.extra.get("task"),
    }


def place_image(folder: Path, image: ImageRef, *, link: bool = False) -> str:
    """Put a picture into the folder, named after its content; returns its path relative to the folder."""
    data = image.bytes()
    suffix = next((suffix for magic, suffix in SUFFIXES.items() if data.startswith(magic)), ".png")
    name = f"{IMAGES}/{hashlib.sha256(data).hexdigest()[:24]}{suffix}"
    target = folder / name
    if target.exists():
        return name
    target.parent.mkdir(exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        if link and image.path is not None:
            with contextlib.suppress(OSError):
                # Through a symbolic link, so that the set does not depend on it.
                os.link(image.path.resolve(), target)
                return name
        temporary.write_bytes(data)
        os.replace(temporary, target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise paths.disk_error(error, target) from error
    return name
