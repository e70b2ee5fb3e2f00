"""`--measure`: a few worst-case steps of every phase on this machine, beside the estimates of the formulas.

The rehearsal is an ordinary run of the same recipe in a process of its own, on the longest sample repeated and the
pictures with the most tiles, with an empty feature cache. What it measured over what was predicted *for it* is a
`Calibration`, which later estimates on this machine use and name.
"""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from toasterft import paths
from toasterft.catalog import hardware
from toasterft.data import write
from toasterft.data.example import Example
from toasterft.data.selection import select_rows
from toasterft.errors import RunFailed, UserError
from toasterft.estimation import memory
from toasterft.estimation.calibration import Calibration
from toasterft.jobs import guards, prepare
from toasterft.jobs.prepare import Job
from toasterft.recipe import Dpo, Policy, Trained, dump
from toasterft.runs import run_folder

# The first step builds kernels and asks for memory; the median of three leaves it out.
STEPS = 3
# Different pictures to encode, and questions to answer.
IMAGES = 8
# A phase that took less says more about its first call than about its pace.
SHORTEST_SECONDS = 1.0


def measure(job: Job) -> Calibration:
    """Rehearse a planned run on the machine at hand, and save its calibration.

    Raises:
        UserError: the plan is for another machine, or for data that is not here.
        RunFailed: the rehearsal itself failed; its last lines say why.
    """
    recipe = job.recipe
    if not isinstance(recipe, Trained) or job.plan is None:
        raise UserError(
            "--measure rehearses training: sft, grpo, dyme, dpo", next_step="leave it out for eval"
        )
    if not job.target.present:
        here = "no GPU is here" if hardware.gpu() is None else "another GPU is here"
        raise UserError(
            f"--measure measures the machine at hand, not {job.target.gpu.name}",
            why=here,
            next_step="--gpu cpu --measure" if hardware.gpu() is None else "leave --gpu out",
        )
    guards.require_ready(job)
    with tempfile.TemporaryDirectory(prefix="toasterft-") as scratch:
        folder = Path(scratch)
        smaller = _smaller(job, recipe, folder / "data")
        # Its plan is the formulas' alone: an older calibration must not calibrate itself.
        again = prepare.prepare_training(smaller, folder).plan
        assert again is not None
        predicted = replace(again, calibration=None).on(
            job.target.gpu, price=None, today=datetime.date.today()
        )
        measured = _run(smaller, folder)
    # A GPU's allocator does not see the CUDA context; a process's resident memory has all.
    outside_bytes = 0 if job.target.gpu.is_cpu else memory.CUDA_CONTEXT_BYTES
    iterations = recipe.num_iterations if isinstance(recipe, Policy) else 1
    phases: dict[str, dict[str, float]] = {}
    for name, taken in predicted.phase_seconds.items():
        found = measured.get(name)
        if found is None:
            continue
        # Encoding and answering are short and all of it counts; steps are repeated and their median does. The
        # reference of pairs is scored before the first step, and is part of what was predicted.
        steps = name in ("train", "rollout") and found["turns"] >= STEPS and not isinstance(recipe, Dpo)
        turns = STEPS if name == "train" else -(-STEPS // iterations)
        seconds = found["median_seconds"] * turns if steps else found["seconds"]
        phases[name] = {
            "predicted_seconds": round(taken.likely, 3),
            "measured_seconds": round(seconds, 3),
            "predicted_bytes": predicted.phase_bytes.get(name, {}).get("peak", 0),
            "measured_bytes": found["peak_bytes"] + outside_bytes,
        }
    calibration = Calibration.of_phases(
        job.target.gpu.name, recipe.method, job.model.name, datetime.date.today().isoformat(), phases,
        run_folder.versions(), shortest_seconds=SHORTEST_SECONDS,
    )  # fmt: skip
    calibration.save()
    return calibration


def _smaller(job: Job, recipe: Trained, folder: Path) -> Trained:
    """The recipe for a few steps on the worst rows of its data, written to `folder`."""
    chosen = job.rows if job.rows and job.rows.train else select_rows(recipe, fetch=True)
    assert chosen.train is not None
    geometry = job.plan.geometry if job.plan is not None else job.model.shape.geometry
    count = prepare.counter(job.model) or len

    def length(example: Example) -> int:
        written = count(example.reasoning or "") + count(example.answer)
        if isinstance(recipe, Dpo) and example.rejected:
            written = max(written, count(example.rejected))
        seen = sum(geometry.image_tokens(*image.size_px) for image in example.images)
        return count(example.question) + written + seen

    rows = [row for row in chosen.train.examples if row.reasoning is not None] or chosen.train.examples
    within = [row for row in rows if length(row) <= recipe.max_length] or rows
    longest = max(within, key=length)
    batch = recipe.per_device_train_batch_size
    pictured = {image.sha256: row for row in within for image in row.images[:1]}
    tiles = sorted(pictured.values(), key=lambda row: -geometry.tiles(*row.images[0].size_px))[:IMAGES]
    train = [replace(longest, id=f"train-{place}") for place in range(batch * STEPS)]
    held_out = [replace(row, id=f"held-out-{place}") for place, row in enumerate(tiles or [longest])]
    write.write_dataset(folder, {"name": "rehearsal"}, {"train": train, "validation": held_out})
    changes: dict[str, Any] = {
        "data": str(folder), "split": None, "eval_data": None, "eval_split": None, "eval_limit": IMAGES, "limit": None,
        "gradient_accumulation_steps": 1, "max_steps": STEPS, "eval_steps": None, "load_best_model_at_end": False,
        "save_steps": 10**6, "report_to": (),
    }  # fmt: skip
    return recipe.model_copy(update=changes)


def _run(smaller: Trained, folder: Path) -> dict[str, dict[str, float]]:
    """Seconds and peak bytes by phase of a run in a process of its own."""
    words, out = folder / "recipe.yaml", folder / "run"
    words.write_text(dump(smaller), encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, "-m", "toasterft", smaller.method, words, "--out", out, "--quiet", "--yes"],
        env={**os.environ, "TOASTERFT_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
    )
    record = paths.read_json(out / run_folder.RUN_FILE)
    if ended.returncode != 0 or not record:
        raise RunFailed("the rehearsal failed", why=ended.stderr.strip()[-600:] or "no message")
    return dict(record["measured"]["phases"])
