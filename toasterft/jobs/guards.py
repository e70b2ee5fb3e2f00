"""Checks before a planned run starts: data on this machine, GPU memory, caps."""

from __future__ import annotations

from dataclasses import replace

from toasterft import units
from toasterft.catalog import hardware
from toasterft.data.selection import catalog_row_elsewhere
from toasterft.errors import BudgetError, DataError
from toasterft.estimation import fit
from toasterft.jobs.prepare import Job
from toasterft.recipe import Trained
from toasterft.runs import meter


def require_ready(job: Job) -> None:
    """Require what a launch needs beyond a plan: data on this machine, a GPU that fits, a price.

    Raises:
        DataError: the data is a catalog row that is neither here nor on the hub.
        FitError: the GPU in this machine, or the one that was named, is too small; with ways to make it fit.
    """
    recipe = job.recipe
    row = catalog_row_elsewhere(recipe.data) if isinstance(recipe, Trained) else None
    if row is not None and row.hub_id is None:
        raise DataError(f"{row.name} is not on this machine; nothing was run", next_step=row.get)
    if job.plan is None:
        return
    here = hardware.choose_gpu(None)
    # Without a GPU here, one that is only planned for may be any.
    held_to = [target for target in (here, job.target) if here.present or target.present]
    for gpu in {target.gpu.name: target.gpu for target in held_to}.values():
        if job.plan.peak_bytes(gpu) > gpu.vram_bytes:
            raise fit.refusal(job.plan, gpu)


def with_caps(job: Job, budget_usd: float | None, max_hours: float | None) -> Job:
    """The job with limits at which it is stopped; None is no limit.

    Raises:
        BudgetError: a limit that is none.
    """
    for name, limit in (("budget", budget_usd), ("max_hours", max_hours)):
        try:
            _ = limit is None or units.amount(limit)
        except ValueError as problem:
            raise BudgetError(f"{problem}; nothing was run", where=name) from None
    return replace(job, budget_usd=budget_usd, max_seconds=None if max_hours is None else 3600 * max_hours)


def require_within_caps(job: Job, *, over: bool) -> None:
    """Refuse a run whose likely dollars or hours exceed its cap.

    Args:
        over: start all the same; the cap still holds.

    Raises:
        BudgetError: more is likely, or there is a budget and nothing to count dollars with.
    """
    if job.budget_usd is not None and job.usd_per_hour is None:
        raise BudgetError(
            "--budget needs the machine's price; nothing was run",
            next_step=f"--price DOLLARS_PER_HOUR, or --max-hours instead of --budget {job.budget_usd:g}",
        )
    # The estimate is for a GPU; on a machine without that GPU it says nothing about this run.
    if over or job.estimate is None or not job.target.present:
        return
    spent = meter.read_spend(job.resume.path) if job.resume else {}
    hours = job.estimate.seconds.likely / 3600
    if job.budget_usd is not None and job.usd_per_hour is not None:
        asked = job.estimate.teachers_usd
        likely = hours * job.usd_per_hour + (asked.likely if asked is not None else 0.0)
        left = job.budget_usd - float(spent.get("usd") or 0)
        if likely > left:
            raise BudgetError(
                f"likely to cost ${likely:.2f}, more than the ${left:.2f} left of the budget; nothing was run",
                next_step="--yes starts all the same; `toasterft estimate … --budget` suggests changes",
            )
    if job.max_seconds is not None and hours * 3600 > job.max_seconds - float(spent.get("seconds") or 0):
        raise BudgetError(
            f"likely to take {hours:.1f} h, more than --max-hours; nothing was run",
            next_step="--yes starts all the same and stops at the cap",
        )
