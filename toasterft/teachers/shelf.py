"""Writes a built data set: rows, pictures, and the card that is written last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toasterft import paths
from toasterft.data.sources import Dataset
from toasterft.data.write import CARD, IMAGES, row, write_rows

if TYPE_CHECKING:
    from toasterft.teachers.traces import Outcome

TRAIN, REJECTS, HARD = "train.jsonl", "rejects.jsonl", "hard.jsonl"


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
    written = partial(row, folder, task=card.get("task", "chart"), link=True)
    files = {TRAIN: [written(one.example, reasoning=one.reasoning, teacher=one.teacher) for one in kept]}
    for split, data in held_out.items():
        files[f"{split}.jsonl"] = [written(example) for example in data.examples]
    files[REJECTS] = [_reject(one) for one in others if one.reason != "hard"]
    hard = [one for one in others if one.reason == "hard"]
    if hard or any(one.candidates for one in kept):
        files[HARD] = [{**written(one.example), **_hard(one)} for one in hard]
        # Votes on what was kept: beside the rows, which hold only what is learned from.
        files["votes.jsonl"] = [{"id": one.example.id, **_candidates(one)} for one in kept]
    card["sha256"] = {}
    for name, rows in files.items():
        if rows or name == REJECTS:
            card["sha256"][name] = write_rows(folder / name, rows)
    paths.write_json(folder / CARD, card)


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


def _hard(one: Outcome) -> dict[str, Any]:
    return {"why": one.detail, **_candidates(one)}


def _candidates(one: Outcome) -> dict[str, Any]:
    """Every rationale with its votes, where there was a jury."""
    return {"candidates": [candidate.as_json() for candidate in one.candidates]} if one.candidates else {}
