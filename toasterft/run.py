"""The only door to torch: from a `Job` to what it did."""

from __future__ import annotations

import importlib
import os
from typing import Any

from toasterft.job import Job
from toasterft.progress import Reporter


def launch(job: Job, report: Reporter, **arguments: Any) -> Any:
    """Open the engine, then run the method named like the command.

    The order of these two lines is a guarantee: Unsloth patches transformers, trl and peft, and works
    only if it is imported before them. Nothing above this call imports any of them.
    """
    # Threads that wait by spinning make two trainings on one CPU seven times slower (measured on two cores,
    # 2026-11-21). It must be set before torch loads its thread pool.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from toasterft.engines import open_engine

    engine = open_engine(job.engine)
    method = importlib.import_module(f"toasterft.methods.{job.recipe.method}")
    return method.run(job, engine, report, **arguments)
