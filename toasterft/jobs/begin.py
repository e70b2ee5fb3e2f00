"""Create a new run's folder, with the facts of its job and data."""

from __future__ import annotations

from typing import Any

from toasterft import paths
from toasterft.data.sources import Dataset
from toasterft.jobs.prepare import Job
from toasterft.recipe import dump
from toasterft.runs import run_folder
from toasterft.runs.run_folder import Run


def begin(job: Job, data: Dataset, **more: Any) -> Run:
    """The folder with run.json and the resolved recipe, locked.

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
        data_sha256=data.sha256,
        data_count=len(data),
        data_split=data.split,
        engine=job.engine,
        gpu=job.target.gpu.name if job.target.present else None,
        usd_per_hour=job.usd_per_hour,
        **more,
    )
    record.lock()
    paths.write_atomic(record.path / run_folder.RECIPE_FILE, dump(job.recipe))
    return record
