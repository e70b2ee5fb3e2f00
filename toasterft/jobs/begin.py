"""Open a run: its folder with the facts of its job, and for a training its bill, before anything heavy is imported."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Any

from toasterft import paths
from toasterft.catalog import hardware
from toasterft.data.sources import Dataset
from toasterft.errors import DataError
from toasterft.jobs.prepare import Job
from toasterft.progress import Reporter
from toasterft.recipe import Trained, dump
from toasterft.runs import checkpoints, distributed, run_folder
from toasterft.runs.meter import Meter, known_saving
from toasterft.runs.run_folder import Run


def begin(job: Job, **more: Any) -> Run:
    """A new folder with run.json and the resolved recipe, locked.

    Args:
        more: further fields of run.json.

    Raises:
        UserError: the folder holds something already, or cannot be made.
    """
    record = run_folder.create(
        job.runs_dir,
        method=job.recipe.method,
        model=job.model.name,
        data=job.data_name,
        out=job.out,
        model_base=job.model.base_name,
        model_adapter=str(job.model.adapter) if job.model.adapter else None,
        model_run=job.model.run,
        engine=job.engine,
        gpu=job.target.gpu.name if job.target.present else None,
        usd_per_hour=job.usd_per_hour,
        **more,
    )
    record.lock()
    paths.write_atomic(record.path / run_folder.RECIPE_FILE, dump(job.recipe))
    return record


def data_facts(data: Dataset) -> dict[str, Any]:
    """What run.json says about its data."""
    return {"data_sha256": data.sha256, "data_count": len(data), "data_split": data.split}


def open_training(job: Job, report: Reporter) -> tuple[Run, Meter]:
    """Create the folder of a training, or go on in that of `job.resume`; locked, and billed from here on.

    Raises:
        DataError: the data of a resumed run is not what it began with.
        UserError: the folder cannot be made, another process works on this run, or none of its checkpoints is whole.
    """
    caps = {"budget_usd": job.budget_usd, "max_seconds": job.max_seconds}
    meter = job.meter or Meter(job.usd_per_hour, **caps)
    meter.usd_per_hour = job.usd_per_hour
    train = job.rows.train if job.rows is not None else None
    if job.resume is None:
        estimate = job.estimate.as_json() if job.estimate else None
        facts = {} if train is None else data_facts(train)
        facts |= {"processes": distributed.world_size(), "estimate": estimate, "fitted": job.fitted}
        record = begin(job, **facts, **caps, sealed_checkpoints=True)
    else:
        record = job.resume
        if job.meter is None:
            record.lock()
        if train is not None:
            require_same_data(job, record, train)
        record.start = _checkpoint_to_start_from(record, report)
        times = [*record.record.get("resumed_at", []), run_folder.now()]
        record.update(
            status="running",
            stop_reason=None,
            measured=None,
            process_id=os.getpid(),
            resumed_at=times,
            **caps,
        )
    if job.meter is None:
        meter.attach(record.path)
    meter.pace.setdefault("step_seconds", _likely_step_seconds(job))
    meter.pace.setdefault("save_seconds", known_saving(saved_thing(job)))
    return record, meter


def _checkpoint_to_start_from(record: Run, report: Reporter) -> Path | None:
    """The newest whole checkpoint; None also where the very first one was cut short by a kill: nothing else is lost.

    Raises:
        UserError: there was one, and none is whole.
    """
    sealed, home = record.record.get("sealed_checkpoints") is True, record.checkpoints
    if sealed and not record.record.get("checkpointed") and checkpoints.newest(home) is None:
        if any(home.glob("checkpoint-*")):
            report.say("the first checkpoint was cut short: from step 0")
        return None
    return checkpoints.newest_whole(home, report.say, sealed=sealed)


def require_same_data(job: Job, record: Run, train: Dataset) -> None:
    """
    Raises:
        DataError: the rows are not those that the run began with.
    """
    if record.record.get("data_sha256", train.sha256) != train.sha256:
        assert isinstance(job.recipe, Trained)
        raise DataError(
            "the data changed since this run began",
            where=job.recipe.data,
            next_step=f"start anew from its adapter: --model {record.path}",
        )


def saved_thing(job: Job) -> str:
    """What a training saves, as far as it decides how long that takes: a name for the times kept by the machine."""
    lora = job.recipe.lora if isinstance(job.recipe, Trained) else None
    return f"{job.recipe.method} of {job.model.name}, {'all weights' if lora is None else f'rank {lora.r}'}"


def _likely_step_seconds(job: Job) -> float:
    """The estimate of an optimizer step on this machine, its samples included: what the first one is taken at."""
    if job.plan is None:
        return 0.0
    here = job.target if job.target.present else hardware.choose_gpu(None)
    gpu = here.gpu if here.present else hardware.cpu()
    estimate = job.plan.on(gpu, price=None, today=datetime.date.today())
    phases = [taken.likely for name, taken in estimate.phase_seconds.items() if name in ("train", "rollout")]
    return sum(phases) / max(1, estimate.optimizer_steps)
