"""The only door to torch: from a `Job` to what it did."""

from __future__ import annotations

import importlib
import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toasterft.data.selection import TrainingRows, select_rows
from toasterft.jobs.prepare import Job
from toasterft.progress import Reporter, Silent
from toasterft.recipe import MODULES, Trained
from toasterft.runs import distributed
from toasterft.runs.meter import Meter
from toasterft.runs.run_folder import FollowerRun, Run

if TYPE_CHECKING:
    from toasterft.engine import Engine
    from toasterft.jobs.endings import Ending


def launch(job: Job, report: Reporter, **arguments: Any) -> Any:
    """Run a job; a training that several processes share runs the main one's job in all of them."""
    if not isinstance(job.recipe, Trained):
        _prepare_torch()
        engine, method = _open(job)
        return method.run(job, engine, report, **arguments)
    if not distributed.is_main():
        return follow()
    # Commands that only plan need neither.
    from toasterft.jobs.begin import open_training
    from toasterft.jobs.endings import ending

    with ending(job, *open_training(job, report), report) as end:
        _prepare_torch()
        if distributed.world_size() > 1:
            distributed.init_process_group()
            # Each reads its own rows: images may be readable through open files alone.
            shared = replace(job, rows=None, meter=None, resume=None)
            distributed.broadcast((shared, end.run.path, end.run.record, end.run.start))
        return _train(job, end)


def follow() -> Run:
    """In every process but the main one: wait for its job and work on it, silently; end with it where it has none.

    Raises:
        SystemExit: the main process ended without a training, with its code.
    """
    _prepare_torch()
    warnings.simplefilter("ignore")  # the main process shows its own
    distributed.init_process_group()
    found: tuple[Job, Path, dict[str, Any], Path | None] | int = distributed.broadcast()
    if isinstance(found, int):
        raise SystemExit(found)
    from toasterft.jobs.endings import ending

    job, folder, record, start = found
    meter = Meter(job.usd_per_hour, job.budget_usd, job.max_seconds)
    meter.attach(folder, keep=False)
    with ending(job, FollowerRun(folder, record, start), meter, Silent()) as end:
        return _train(job, end)


def _train(job: Job, end: Ending) -> Run:
    with distributed.share_errors():
        distributed.require_a_gpu_each()
        assert isinstance(job.recipe, Trained)
        job = replace(job, rows=_complete(job.rows, job.recipe))
    engine, method = _open(job)
    found: Run = method.run(job, engine, end)
    return found


def _open(job: Job) -> tuple[Engine, Any]:
    """Open the engine, then the method named like the command.

    The order of these two lines is a guarantee: Unsloth patches transformers, trl and peft, and works
    only if it is imported before them. Nothing above this call imports any of them.
    """
    from toasterft.engine import open_engine

    engine = open_engine(job.engine)
    return engine, importlib.import_module(MODULES[job.recipe.method])


def _complete(rows: TrainingRows | None, recipe: Trained) -> TrainingRows:
    """The planned rows; chosen again by the same recipe where some were not here to plan with."""
    if rows is None or rows.train is None or rows.held_out is None:
        return select_rows(recipe, fetch=True)
    return rows


def _prepare_torch() -> None:
    # Threads that wait by spinning make two trainings on one CPU seven times slower (measured on two cores,
    # 2026-11-21). It must be set before torch loads its thread pool.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import torch

    if distributed.world_size() == 1 and torch.cuda.device_count() > 1:
        # transformers would spread one process over all GPUs it sees, and multiply batch sizes by their number.
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
        os.environ["CUDA_VISIBLE_DEVICES"] = seen.split(",")[0]
