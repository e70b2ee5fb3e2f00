"""`toasterft launch`: the same training on a rented machine, through SkyPilot."""

from __future__ import annotations

import datetime
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option, Typer

from toasterft import catalog, paths, recipe, terminal
from toasterft.cli import options as opt
from toasterft.cli.train import plan_json
from toasterft.data.selection import catalog_row_elsewhere
from toasterft.errors import (
    BudgetError,
    CapReached,
    DataError,
    Interrupted,
    MissingExtra,
    RunFailed,
    UserError,
)
from toasterft.estimation import fit
from toasterft.jobs import guards, prepare, skypilot
from toasterft.jobs.prepare import Job
from toasterft.jobs.skypilot import Order
from toasterft.recipe import Train, Trained
from toasterft.runs import run_folder
from toasterft.runs.run_folder import Run
from toasterft.terminal.estimates import print_plan
from toasterft.terminal.launches import print_order
from toasterft.terminal.runs import print_run

app = Typer()

# What other programs print is progress to us: stdout is for our own result.
STDERR = 2


@app.command(epilog=opt.example("launch recipe.yaml --cloud aws --gpu A10G --budget 5 --dry-run"))
def launch(
    source: Annotated[str, Argument(metavar="RECIPE", help="Recipe file or shipped name.")],
    words: Annotated[list[str] | None, Argument(help="key=value settings.", show_default=False)] = None,
    model: opt.Model = None,
    data: opt.Data = None,
    images: opt.Images = None,
    infra: Annotated[
        str | None, Option("--cloud", help="SkyPilot's cloud or cloud/region; the cheapest by default.")
    ] = None,
    gpu: Annotated[str, Option(help="GPU to rent.")] = catalog.DEFAULT_GPU,
    price: opt.Price = None,
    budget: opt.Budget = None,
    max_hours: opt.MaxHours = None,
    bucket: Annotated[
        str | None, Option(help="Keeps the runs: s3://NAME or gs://NAME; one of its own by default.")
    ] = None,
    on_demand: Annotated[bool, Option("--on-demand", help="No spot machine.")] = False,
    seed: opt.Seed = None,
    runs_dir: opt.RunsDir = None,
    dry_run: opt.DryRun = False,
    yes: opt.Yes = False,
    json: opt.Json = False,
) -> None:
    """Train on a rented machine through SkyPilot, within a cap; the run folder comes back."""
    runs = paths.runs_dir(runs_dir)
    target = catalog.gpu(gpu)
    chosen = skypilot.place(infra, bucket, on_demand=on_demand)
    flags = {"model": model, "data": data, "images": images, "seed": seed}
    wanted = recipe.load(skypilot.method_of(source), source, words, flags)
    here = skypilot.price_of_hour(target, chosen) if price is None else None
    paid = here["usd_per_hour"] if here is not None else price
    changes = {"gpu": target.name} | ({} if paid is None else {"price": paid})
    trainings = wanted.recipes() if isinstance(wanted, Train) else [wanted]
    plans = [prepare.prepare_training(each.model_copy(update=changes), runs) for each in trainings]
    if here is not None:
        plans = [_priced(plan, here) for plan in plans]
    _require_ready(plans)
    _require_capped(plans, budget, max_hours, over=yes, pipeline=isinstance(wanted, Train))
    order = skypilot.order(
        wanted if isinstance(wanted, Train) else plans[0].recipe,
        plans,
        chosen,
        usd_per_hour=_usd_per_hour(plans[0]),
        budget_usd=budget,
        max_hours=max_hours,
        over=yes,
        now=datetime.datetime.now(),
    )
    folder = runs / order.run_id
    result: dict[str, Any] = {
        "run": str(folder),
        "plans": [plan_json(plan, []) for plan in plans],
        "task": order.task,
        "kept_in": order.kept_in,
        "commands": [order.launch("sky", "task.yaml", yes=yes), order.fetch(folder)],
    }
    if not json:
        for plan in plans:
            print_plan(plan, [])
        print_order(order)
    if dry_run:
        opt.show(json, result, lambda: print(order.yaml(), file=terminal.out.file))
        return
    if not _run(order, folder, yes=yes):
        opt.show(json, result, lambda: terminal.line(f"the run lies in {order.kept_in}"))
        return
    run = _last_run(folder)
    opt.show(
        json,
        {**result, "record": run.record},
        lambda: print_run(run) if run.path == folder else terminal.line(f"every stage is in {folder}"),
    )


def _usd_per_hour(plan: Job) -> float | None:
    price = plan.estimate.price if plan.estimate is not None else None
    return None if price is None else float(price["usd_per_hour"])


def _priced(plan: Job, price: dict[str, Any]) -> Job:
    """The plan with its price's own source in place of `--price`."""
    assert plan.estimate is not None
    return replace(plan, estimate=replace(plan.estimate, price=price))


def _require_ready(plans: Sequence[Job]) -> None:
    """
    Raises:
        UserError: a card that nobody rents out.
        DataError: data that is neither here nor on the hub.
        FitError: the GPU to rent is too small.
    """
    for plan in plans:
        gpu, planned = plan.target.gpu, plan.plan
        assert isinstance(plan.recipe, Trained)
        assert planned is not None
        if gpu.name.startswith("Colab"):
            raise UserError(f"{gpu.name} is part of another service", next_step="--gpu T4")
        row = catalog_row_elsewhere(plan.recipe.data)
        if row is not None and row.hub_id is None:
            raise DataError(f"{row.name} is not on this machine; nothing was run", next_step=row.get)
        if planned.peak_bytes(gpu) > gpu.vram_bytes:
            raise fit.refusal(planned, gpu)


def _require_capped(
    plans: Sequence[Job], budget: float | None, max_hours: float | None, *, over: bool, pipeline: bool
) -> None:
    """
    Raises:
        UserError: no cap, or one that nothing would count.
        BudgetError: more is likely.
    """
    if budget is None and max_hours is None:
        raise UserError("a rented machine needs a cap", next_step="--budget DOLLARS or --max-hours HOURS")
    if pipeline and budget is None:
        raise UserError("a pipeline is capped by dollars", next_step="--budget DOLLARS")
    estimates = [plan.estimate for plan in plans if plan.estimate is not None]
    if budget is not None and any(each.usd is None for each in estimates):
        raise BudgetError(
            f"no price known for {plans[0].target.gpu.name}: nothing to hold a budget against",
            next_step="--price DOLLARS_PER_HOUR",
        )
    if not over:
        max_seconds = None if max_hours is None else 3600 * max_hours
        guards.require_likely_within(plans, budget, max_seconds, spent={}, nothing="nothing was rented")


def _run(order: Order, folder: Path, *, yes: bool) -> bool:
    """Launch, follow, and fetch the run's folder.

    Returns:
        Whether it is here; it is not where only its store's own tools could bring it.

    Raises:
        MissingExtra: SkyPilot, or what fetches the folder, is not installed; nothing was rented.
        Interrupted: it goes on without us.
        RunFailed: SkyPilot failed, or the folder did not come.
    """
    sky = shutil.which("sky") or shutil.which("sky", path=str(Path(sys.executable).parent))
    if sky is None:
        raise MissingExtra(
            "launching needs SkyPilot, which is not installed; nothing was rented",
            next_step="pip install 'toasterft[launch]' (or uv tool install skypilot), then: sky check",
        )
    fetch = order.fetch(folder)
    if fetch is not None and shutil.which(fetch[0]) is None:
        raise MissingExtra(
            f"{fetch[0]} is not installed: the run could not be brought back; nothing was rented",
            next_step=f"install {fetch[0]}" + (", or name another --bucket" if order.place.managed else ""),
        )
    back = shlex.join(fetch) if fetch else f"the run lies in {order.kept_in}"
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "task.yaml"
        file.write_text(order.yaml(), encoding="utf-8")
        # SkyPilot's questions need a terminal; `--yes` where there is none: the plan was shown.
        words = order.launch(sky, str(file), yes=yes or not sys.stdin.isatty())
        try:
            code = subprocess.run(words, stdout=STDERR, check=False).returncode
        except KeyboardInterrupt:
            raise Interrupted(
                "no longer followed; what was launched goes on", exit_code=130, next_step=f"later: {back}"
            ) from None
    if fetch is None and code == 0:
        return False
    came = _fetch(order, fetch, folder)
    if came and not order.place.managed:
        subprocess.run([sky, "down", "--yes", order.name], stdout=STDERR, check=False)
    if not came:
        raise RunFailed(
            f"SkyPilot ended with exit code {code}; no run came back",
            where=order.name,
            next_step=("sky jobs queue; sky jobs logs" if order.place.managed else f"sky logs {order.name}")
            + f"; to fetch it later: {back}",
        )
    return True


def _fetch(order: Order, fetch: list[str] | None, folder: Path) -> bool:
    """Whether a run lies in `folder` now."""
    if fetch is None:
        return False
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(fetch, stdout=STDERR, check=False).returncode == 0
    if not any(folder.iterdir()):
        folder.rmdir()
        return False
    config = folder / "adapter_config.json"
    if order.base is not None and config.exists():
        # There the base had another path.
        paths.write_json(config, {**paths.read_json(config), "base_model_name_or_path": str(order.base)})
    return done


def _last_run(folder: Path) -> Run:
    """The run that came back, or a pipeline's last stage.

    Raises:
        CapReached: it stopped at the cap; the work is here.
        RunFailed: it ended otherwise, before it was done.
    """
    records = sorted(folder.glob(f"**/{run_folder.RUN_FILE}"))
    if not records:
        raise RunFailed("a folder came back without a run in it", where=str(folder))
    run = Run(records[-1].parent, run_folder.read_record(records[-1].parent) or {})
    status, reason = run.record["status"], run.record.get("stop_reason")
    if status == "capped":
        raise CapReached(
            f"stopped at the cap ({reason}); the work is here",
            where=str(folder),
            next_step=f'toasterft ask {folder} IMAGE "QUESTION"',
        )
    if status != "done":
        raise RunFailed(f"the run ended as {status!r} ({reason})", where=str(folder))
    return run
