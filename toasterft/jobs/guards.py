"""Checks before a planned run starts: data on this machine, GPU memory, caps."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from toasterft import units
from toasterft.catalog import hardware
from toasterft.data.selection import catalog_row_elsewhere
from toasterft.errors import BudgetError, CapReached, DataError, UserError
from toasterft.estimation import fit, suggest
from toasterft.estimation.suggest import Suggestion
from toasterft.jobs.prepare import Job
from toasterft.recipe import Trained
from toasterft.runs.meter import Meter, read_spend
from toasterft.runs.run_folder import Run


def require_ready(job: Job) -> None:
    """Require what a launch needs beyond a plan: data on this machine, a GPU that fits.

    Raises:
        DataError: the data is a catalog row that is neither here nor on the hub.
        FitError: the GPU in this machine, or the one that was named, is too small; with ways to make it fit.
    """
    recipe = job.recipe
    row = catalog_row_elsewhere(recipe.data) if isinstance(recipe, Trained) else None
    if row is not None and row.hub_id is None:
        raise DataError(f"{row.name} is not on this machine; nothing was run", next_step=row.get)
    _require_fit(job)


def _require_fit(job: Job) -> None:
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


def require_time_for_a_step(running: Meter, run: Run) -> None:
    """
    Raises:
        CapReached: what is left of a run's cap would not last for a start and a step; nothing was spent.
    """
    running.attach(run.path, keep=False)
    needed = sum(running.pace.values())
    if running.reached(needed):
        left = max(0.0, running.seconds_left or 0.0)
        raise CapReached(
            f"at the cap ({running.cap}): {left:,.0f} s are left, and a start, a step and saving it take {needed:,.0f} s",
            where=str(run.path),
            why=f"spent so far: {running.spent}; nothing more was",
            next_step=f"toasterft {run.record['method']} --resume {run.path} with a larger --budget or --max-hours",
        )


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
    if not over and job.target.present:
        require_likely_within([job], job.budget_usd, job.max_seconds, spent=spent(job))


def require_likely_within(
    plans: Sequence[Job],
    budget_usd: float | None,
    max_seconds: float | None,
    *,
    spent: Mapping[str, Any],
    nothing: str = "nothing was run",
) -> None:
    """Refuse a run, or all stages of one, whose likely dollars or hours exceed what a cap leaves.

    Raises:
        BudgetError: with the smallest changes that bring one run within it.
    """
    estimates = [plan.estimate for plan in plans if plan.estimate is not None]
    seconds = sum(each.seconds.likely for each in estimates)
    priced = [each.usd.likely for each in estimates if each.usd is not None]
    usd_left = None if budget_usd is None else budget_usd - (spent.get("usd") or 0.0)
    seconds_left = None if max_seconds is None else max_seconds - spent.get("seconds", 0.0)
    if budget_usd is not None and usd_left is not None and sum(priced) > usd_left:
        what = f"likely to cost ${sum(priced):.2f}, more than the budget of ${budget_usd:g}"
        left = f"${usd_left:.2f}"
    elif max_seconds is not None and seconds_left is not None and seconds > seconds_left:
        what = f"likely to take {seconds / 3600:.1f} h, more than --max-hours {max_seconds / 3600:g}"
        left = f"{seconds_left / 3600:.2g} h"
    else:
        return
    changes: list[Suggestion] = []
    if len(plans) == 1 and plans[0].plan is not None:
        one, today = plans[0], datetime.date.today()
        changes = suggest.within(
            plans[0].plan, one.target.gpu, usd_left if priced else None, price=one.recipe.price, today=today,
            seconds=seconds_left,
        )  # fmt: skip
    raise BudgetError(
        what + (f", of which {left} are left" if spent else "") + f"; {nothing}",
        details=[f"{change.words()}  {change.cost()}" for change in changes],
        why="each of these alone is within it" if changes else None,
        next_step="--yes starts all the same and stops at the cap",
    )


def spent(job: Job) -> dict[str, Any]:
    """What a resumed run has cost before."""
    return read_spend(job.resume.path) if job.resume else {}


def verdict(job: Job, *, over: bool) -> UserError | None:
    """Why a launch of this plan on the GPU it is made for would be refused; None where it would start."""
    try:
        _require_fit(job)
        if not over:
            require_likely_within([job], job.budget_usd, job.max_seconds, spent=spent(job))
        if job.budget_usd is not None and (job.estimate is None or job.estimate.usd is None):
            require_within_caps(job, over=over)
    except UserError as problem:
        return problem
    return None
