"""A pipeline: stages one after the other, each a run of its own that starts from the one before.

    runs/<time>-train-<model>-<data>/
        recipe.yaml, pipeline.json      its settings, and how far it came
        1-sft/ 2-grpo/ …                ordinary run folders

Every stage is a process of its own: memory is given back in between, and a stage that is killed, capped or
interrupted resumes like any run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toasterft import paths
from toasterft.errors import CapReached, Interrupted, RunFailed, UserError
from toasterft.recipe import Train, dump
from toasterft.runs import meter, run_folder

PIPELINE_FILE = "pipeline.json"


@dataclass(frozen=True)
class Stage:
    """One stage's place on disk and in the order."""

    number: int
    method: str
    folder: Path

    @property
    def status(self) -> str | None:
        record = run_folder.read_record(self.folder)
        return None if record is None else str(record["status"])


def begin(recipe: Train, runs_dir: Path, out: Path | None) -> Path:
    """A new pipeline folder."""
    record = run_folder.create(
        runs_dir, method="train", model=Path(recipe.model).name, data=Path(recipe.data).stem, out=out
    )
    # A pipeline is no run: its stages are.
    (record.path / run_folder.RUN_FILE).rename(record.path / PIPELINE_FILE)
    paths.write_atomic(record.path / run_folder.RECIPE_FILE, dump(recipe))
    return record.path


def stages(recipe: Train, folder: Path) -> Iterator[Stage]:
    """All stages in order."""
    for number, stage in enumerate(recipe.recipes()):
        yield Stage(number, stage.method, folder / f"{number + 1}-{stage.method}")


def run(
    recipe: Train, folder: Path, *, budget_usd: float | None, price: float | None, quiet: bool
) -> list[dict[str, Any]]:
    """Run what is left of a pipeline.

    Args:
        budget_usd: dollars for all stages; each may spend its share, and what earlier ones left over.

    Returns:
        The record of every stage.

    Raises:
        CapReached, Interrupted, RunFailed, UserError: as the stage ended; `--resume` goes on there.
    """
    if budget_usd is not None and price is None:
        raise UserError("--budget needs the machine's price", next_step="--price DOLLARS_PER_HOUR")
    model, saved = recipe.model, 0.0
    for stage in stages(recipe, folder):
        allowance = None if budget_usd is None else budget_usd * recipe.share(stage.number) + saved
        if stage.status != "done":
            _run_stage(recipe, stage, model, allowance, price, quiet=quiet)
        if allowance is not None:
            saved = max(0.0, allowance - (meter.read_spend(stage.folder).get("usd") or 0.0))
        model = str(stage.folder)
    return [run_folder.read_record(stage.folder) or {} for stage in stages(recipe, folder)]


def _run_stage(
    recipe: Train, stage: Stage, model: str, allowance: float | None, price: float | None, *, quiet: bool
) -> None:
    words = [sys.executable, "-m", "toasterft", stage.method]
    if stage.status is None:
        file = stage.folder.with_suffix(".yaml")
        wanted = recipe.stage(stage.number).model_copy(update={"model": model})
        paths.write_atomic(file, dump(wanted))
        words += [str(file), "--out", str(stage.folder)]
    else:
        words += ["--resume", str(stage.folder)]
    words += [] if allowance is None else ["--budget", f"{allowance:.6f}"]
    words += [] if price is None else ["--price", str(price)]
    words += ["--quiet"] if quiet else []
    # The first stage's bill begins with this process, the others' where the one before ended.
    env = {**os.environ, meter.STARTED: str(meter.process_start())}
    code = subprocess.run(words, check=False, env=env).returncode
    if code == 0:
        return
    where, after = str(stage.folder), f"toasterft train --resume {stage.folder.parent}"
    what = f"stage {stage.number + 1} ({stage.method}) ended with exit code {code}"
    if code == 3:
        raise CapReached(what, where=where, next_step=f"{after} --budget …")
    if code in (130, 143):
        raise Interrupted(what, exit_code=code, next_step=after)
    raise (UserError if code == 2 else RunFailed)(what, where=where, next_step=after)
