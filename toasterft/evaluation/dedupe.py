"""Deduplicate evaluations: the same questions, weights and settings are never generated twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from toasterft.data.sources import Dataset
from toasterft.jobs.prepare import Job
from toasterft.models import lookup
from toasterft.models.lookup import ModelRef
from toasterft.recipe import Eval
from toasterft.runs import run_folder
from toasterft.runs.run_folder import Run

# Keys of a recipe that decide how fast or where it runs, or are identified by their content instead.
IRRELEVANT_KEYS = {
    "model", "reasoner", "data", "images", "split", "limit", "load_in_4bit", "seed", "engine", "cache_limit_gb",
    "encode_batch_size", "per_device_eval_batch_size", "gpu", "price",
}  # fmt: skip


def identity(job: Job, data: Dataset) -> str:
    """Digest of an evaluation: every question with its pixels, the weights, and the settings that shape an answer.

    Raises:
        ModelError: the reasoner cannot be found.
        DataError: an image cannot be read.
    """
    recipe = job.recipe
    assert isinstance(recipe, Eval)
    writer = None if recipe.reasoner is None else lookup.resolve(recipe.reasoner, job.runs_dir)
    identity = [
        # Greedy answers do not depend on the seed.
        recipe.model_dump(
            mode="json", exclude=IRRELEVANT_KEYS - {"seed"} if recipe.temperature else IRRELEVANT_KEYS
        ),
        _weights(job.model, recipe.load_in_4bit),
        None if writer is None else _weights(writer, recipe.load_in_4bit),
        [(example.key, example.extra.get("task")) for example in data.examples],
    ]
    return hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:24]


def _weights(model: ModelRef, load_in_4bit: bool | None) -> list[Any]:
    """What tells one model from another: a hub id, or its files; its precision; what was saved with the adapter."""
    notes = model.notes or {}
    return [
        *model.fingerprints().values(),
        bool(notes.get("load_in_4bit")) if load_in_4bit is None else load_in_4bit,
        notes,
    ]


def reuse_or_evaluate(job: Job, data: Dataset, evaluate: Callable[[Job], Run]) -> Run:
    """An earlier evaluation of the same; else continue an interrupted one, else run a new one.

    Raises:
        ToasterError: as `evaluate`.
    """
    wanted = identity(job, data)
    same = [run for run in reversed(run_folder.runs(job.runs_dir)) if run.record.get("identity") == wanted]
    done = [run for run in same if run.record["status"] == "done"]
    if done:
        return done[0]
    return evaluate(replace(job, resume=same[0] if same else None))
