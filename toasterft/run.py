"""The only door to torch: from a `Job` to what it did."""

from __future__ import annotations

import importlib
from typing import Any

from toasterft.job import Job
from toasterft.progress import Reporter


def launch(job: Job, report: Reporter, **arguments: Any) -> Any:
    """Open the engine, then run the method named like the command.

    The order of these two lines is a guarantee: Unsloth patches transformers, trl and peft, and works
    only if it is imported before them. Nothing above this call imports any of them.
    """
    from toasterft.engines import open_engine

    engine = open_engine(job.engine)
    method = importlib.import_module(f"toasterft.methods.{job.recipe.method}")
    return method.run(job, engine, report, **arguments)
