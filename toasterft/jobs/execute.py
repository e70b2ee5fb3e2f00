"""The only door to torch: from a `Job` to what it did."""

from __future__ import annotations

import importlib
import os
import warnings
from dataclasses import replace
from typing import Any

from toasterft.data.selection import TrainingRows, select_rows
from toasterft.jobs.prepare import Job
from toasterft.progress import Reporter, Silent
from toasterft.recipe import MODULES, Trained
from toasterft.runs import distributed


def launch(job: Job, report: Reporter, **arguments: Any) -> Any:
    """Run a job; a training that several processes share runs the main one's job in all of them."""
    _prepare_torch()
    if distributed.world_size() > 1 and isinstance(job.recipe, Trained):
        distributed.init_process_group()
        # Each reads its own rows: images may be readable through open files alone.
        shared = distributed.broadcast(replace(job, rows=None))
        if not distributed.is_main():
            job, report = shared, Silent()
        _require_gpus()
    return _work(job, report, **arguments)


def follow() -> None:
    """In every process but the main one: wait for its job and work on it, silently; end with it where it has none.

    Raises:
        SystemExit: the main process ended without a training, with its code.
    """
    _prepare_torch()
    warnings.simplefilter("ignore")  # the main process shows its own
    distributed.init_process_group()
    job: Job | int = distributed.broadcast()
    if isinstance(job, int):
        raise SystemExit(job)
    _require_gpus()
    _work(job, Silent())


def _work(job: Job, report: Reporter, **arguments: Any) -> Any:
    """Open the engine, then run the method named like the command.

    The order of these two lines is a guarantee: Unsloth patches transformers, trl and peft, and works
    only if it is imported before them. Nothing above this call imports any of them.
    """
    from toasterft.engine import open_engine

    if isinstance(job.recipe, Trained):
        with distributed.share_errors():
            job = replace(job, rows=_complete(job.rows, job.recipe))
    engine = open_engine(job.engine)
    method = importlib.import_module(MODULES[job.recipe.method])
    return method.run(job, engine, report, **arguments)


def _complete(rows: TrainingRows | None, recipe: Trained) -> TrainingRows:
    """The planned rows; chosen again by the same recipe where some were not here to plan with."""
    if rows is None or rows.train is None or rows.held_out is None:
        return select_rows(recipe, fetch=True)
    return rows


def _require_gpus() -> None:
    with distributed.share_errors():
        distributed.require_a_gpu_each()


def _prepare_torch() -> None:
    # Threads that wait by spinning make two trainings on one CPU seven times slower (measured on two cores,
    # 2026-11-21). It must be set before torch loads its thread pool.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import torch

    if distributed.world_size() == 1 and torch.cuda.device_count() > 1:
        # transformers would spread one process over all GPUs it sees, and multiply batch sizes by their number.
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
        os.environ["CUDA_VISIBLE_DEVICES"] = seen.split(",")[0]
