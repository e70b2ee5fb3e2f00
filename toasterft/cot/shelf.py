"""Writes a built data set: rows, pictures, and the card that is written last."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toasterft import places
from toasterft.data.example import Example, ImageRef
from toasterft.data.sources import Dataset

if TYPE_CHECKING:
    from toasterft.cot.build import Outcome

CARD, TRAIN, REJECTS, HARD = "card.json", "train.jsonl", "rejects.jsonl", "hard.jsonl"
IMAGES = "images"
SUFFIXES = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"RIFF": ".webp", b"GIF8": ".gif", b"BM": ".bmp"}


def write(
    folder: Path,
    card: dict[str, Any],
    kept: Sequence[Outcome],
    others: Sequence[Outcome],
    held_out: Mapping[str, Dataset],
) -> None:
    """Everything but the ledger; readers see whole files only, and the card with their hashes last.

    Args:
        card: completed with the hashes of the files.
    """
    (folder / IMAGES).mkdir(exist_ok=True)
    files = {TRAIN: [_row(folder, one.example, reasoning=one.reasoning, teacher=one.teacher) for one in kept]}
    for split, data in held_out.items():
        files[f"{split}.jsonl"] = [_row(folder, example) for example in data.examples]
    files[REJECTS] = [_reject(one) for one in others if one.reason != "hard"]
    hard = [one for one in others if one.reason == "hard"]
    if hard or any(one.candidates for one in kept):
        files[HARD] = [_hard(folder, one) for one in hard]
        # Votes on what was kept: beside the rows, which hold only what is learned from.
        files["votes.jsonl"] = [{"id": one.example.id, **_candidates(one)} for one in kept]
    card["sha256"] = {}
    for name, rows in files.items():
        if rows or name == REJECTS:
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            places.write_atomic(folder / name, text)
            card["sha256"][name] = hashlib.sha256(text.encode()).hexdigest()
    places.write_json(folder / CARD, card)


def _row(folder: Path, example: Example, **more: Any) -> dict[str, Any]:
    """One example as `data.sources` reads it back."""
    images = [_placed(folder, image) for image in example.images]
    shown = {"image": images[0]} if len(images) == 1 else {"images": images} if images else {}
    optional = {"kind": example.kind, "facts": example.facts, "reasoning": example.reasoning} | more
    return {
        "id": example.id,
        **shown,
        "question": example.question,
        "answer": example.answer,
        **{name: value for name, value in optional.items() if value is not None},
    }


def _reject(one: Outcome) -> dict[str, Any]:
    return {
        "id": one.example.id,
        "question": one.example.question,
        "answer": one.example.answer,
        "reason": one.reason,
        "detail": one.detail,
        "teacher": one.teacher,
        "tries": one.tries,
        "said": one.said or one.reasoning,
        **_candidates(one),
    }


def _hard(folder: Path, one: Outcome) -> dict[str, Any]:
    return {**_row(folder, one.example), "why": one.detail, **_candidates(one)}


def _candidates(one: Outcome) -> dict[str, Any]:
    """Every rationale with its votes, where there was a jury."""
    return {"candidates": [candidate.as_json() for candidate in one.candidates]} if one.candidates else {}


def _placed(folder: Path, image: ImageRef) -> str:
    """The picture inside the folder, named after its content: a hard link where the disk allows, else a copy."""
    head = image.bytes()[:8]
    suffix = next((suffix for magic, suffix in SUFFIXES.items() if head.startswith(magic)), ".png")
    name = f"{IMAGES}/{image.sha256[:24]}{suffix}"
    target = folder / name
    if target.exists():
        return name
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        if image.path is None or not _linked(image.path, temporary):
            temporary.write_bytes(image.bytes())
        os.replace(temporary, target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise places.disk_error(error, target) from error
    return name


def _linked(source: Path, target: Path) -> bool:
    try:
        # Through a symbolic link, so that the set does not depend on it.
        os.link(source.resolve(), target)
    except OSError:
        return False
    return True
