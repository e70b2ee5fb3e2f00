"""Commands that train: each is a method's name."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from typer import Exit, Option, Typer

from toasterft import paths, recipe, terminal
from toasterft.cli import options as opt
from toasterft.cli.after import afterwards
from toasterft.cli.commands import about
from toasterft.errors import FitError, OutOfMemory, UserError
from toasterft.estimation.fit import Fit, smaller
from toasterft.jobs import execute, guards, prepare
from toasterft.jobs import pipeline as pipeline_job
from toasterft.recipe import Trained
from toasterft.runs import distributed, meter, run_folder
from toasterft.terminal.estimates import print_caps, print_plan
from toasterft.terminal.runs import print_run, print_stages

app = Typer()

# Set in the process that goes on after running out of memory: there is no third one.
RETRIED = "TOASTERFT_RETRIED"
# The paper's values are not public (CLGRPO, arXiv 2506.18048). Ours: the usual range below, half of it
# above, so that rare tokens grow slowly; and two updates per sample, because with one the ratio is 1.
CLIP_LOW_HELP = "grpo only: ClipLow, epsilon=0.2 epsilon_high=0.1 num_iterations=2 (our values)."
# What may differ when a run is resumed: pictures are held against those it began with.
CHANGEABLE = ("price", "images")
CLIP_LOW = {"epsilon": 0.2, "epsilon_high": 0.1, "num_iterations": 2}


def preset(method: str, *, clip_low: bool) -> list[str]:
    """Settings that stand before the words, so that a value in the words wins over the preset's.

    Raises:
        UserError: the preset is another method's.
    """
    if clip_low and method != "grpo":
        raise UserError(f"--clip-low is a setting of grpo, not of {method}")
    return [f"{key}={value}" for key, value in CLIP_LOW.items()] if clip_low else []


def command(method: str, *examples: str) -> None:
    """Add one training command; they share every flag."""

    @app.command(method, help=about(method), epilog=opt.example(*examples))
    def _(
        words: opt.Words = None,
        model: opt.Model = None,
        data: opt.Data = None,
        images: opt.Images = None,
        clip_low: Annotated[bool, Option("--clip-low", help=CLIP_LOW_HELP, hidden=method != "grpo")] = False,
        gpu: opt.GpuName = None,
        price: opt.Price = None,
        budget: opt.Budget = None,
        max_hours: opt.MaxHours = None,
        limit: opt.Limit = None,
        seed: opt.Seed = None,
        out: opt.Out = None,
        runs_dir: opt.RunsDir = None,
        resume: opt.Resume = None,
        fit: opt.Fit = "off",
        dry_run: opt.DryRun = False,
        yes: opt.Yes = False,
        after: opt.After = None,
        json: opt.Json = False,
        quiet: opt.Quiet = False,
    ) -> None:
        flags = {
            "model": model, "data": data, "images": images, "gpu": gpu, "price": price, "limit": limit, "seed": seed,
        }  # fmt: skip
        given = [*preset(method, clip_low=clip_low), *(words or [])]
        show = {"dry_run": dry_run, "yes": yes, "json": json, "quiet": quiet}
        runs = paths.runs_dir(runs_dir)
        with afterwards(None if dry_run else after):
            try:
                if resume is None:
                    prepared = _prepare(method, given, flags, out, runs, fit)
                    train(guards.with_caps(prepared, budget, max_hours), **show)
                else:
                    _go_on(method, given, flags, runs, resume, fit, budget, max_hours, **show)
            except OutOfMemory as problem:
                caps = {"--budget": budget, "--max-hours": max_hours, "--price": price, "--images": images}
                _try_again_smaller(method, problem, caps, json=json, quiet=quiet)


command(
    "sft", "sft --model SmolVLM-256M --data my_folder", "sft toaster-256m-7k --gpu A40 --budget 2 --dry-run"
)
command("grpo", "grpo --model runs/RUN --data my_folder --clip-low")
command("dyme", "dyme --model SmolVLM-500M --data my_folder soft_power=1")
command("dpo", "dpo --model runs/RUN --data my-pairs")


@app.command("train", epilog=opt.example("train clgrpo-4stage --data my_folder --price 0.44 --budget 5"))
def pipeline(
    words: opt.Words = None,
    model: opt.Model = None,
    data: opt.Data = None,
    images: opt.Images = None,
    price: opt.Price = None,
    budget: opt.Budget = None,
    seed: opt.Seed = None,
    out: opt.Out = None,
    runs_dir: opt.RunsDir = None,
    resume: opt.Resume = None,
    dry_run: opt.DryRun = False,
    after: opt.After = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Stages from a recipe, each starting from the one before (recipes/clgrpo-4stage.yaml)."""
    source, settings = opt.split_words(words)
    if resume is not None:
        if settings or source or model or data or images or seed is not None:
            raise UserError(
                "a resumed pipeline keeps its settings", next_step=f"toasterft train --resume {resume}"
            )
        folder = Path(resume)
        if not (folder / pipeline_job.PIPELINE_FILE).exists():
            raise UserError(
                "this is no pipeline", where=resume, next_step="name the folder that holds 1-sft, 2-grpo …"
            )
        wanted = recipe.load("train", str(folder / run_folder.RECIPE_FILE))
    else:
        flags = {"model": model, "data": data, "images": images, "seed": seed}
        wanted = recipe.load("train", source, settings, flags)
    if dry_run:
        plans = [prepare.prepare_training(each, paths.runs_dir(runs_dir)) for each in wanted.recipes()]
        if json:
            terminal.as_json({"stages": [plan_json(plan, []) for plan in plans]})
        else:
            for plan in plans:
                print_plan(plan, [])
        try:
            guards.require_likely_within(plans, budget, None, spent={})
        except UserError as problem:
            _refuse(problem)
        return
    if resume is None:
        folder = pipeline_job.begin(wanted, paths.runs_dir(runs_dir), out)
    meter.opened.append(folder)
    with afterwards(after):
        records = pipeline_job.run(wanted, folder, budget_usd=budget, price=price, quiet=quiet or json)
    runs = [run_folder.Run(folder / record["id"], record) for record in records]
    result = {"folder": str(folder), "stages": records}
    opt.show(json, result, lambda: print_stages(runs, str(folder)))


def _try_again_smaller(
    method: str, problem: OutOfMemory, flags: dict[str, Any], *, json: bool, quiet: bool
) -> None:
    """Resume once, from the last checkpoint and in a new process: memory of a failed step is not given back.

    Raises:
        OutOfMemory: this was the second time, or one of several processes, which only their launcher starts.
    """
    if os.environ.get(RETRIED) or distributed.world_size() > 1:
        raise problem
    terminal.err.print(
        f"{problem.what}: retrying in a new process with smaller micro-batches", markup=False, soft_wrap=True
    )
    words = [sys.executable, "-m", "toasterft", method, "--resume", str(problem.where), "--fit", "exact"]
    words += [word for flag, value in flags.items() if value is not None for word in (flag, str(value))]
    words += [flag for flag, on in (("--json", json), ("--quiet", quiet)) if on]
    read = subprocess.PIPE if json else None
    done = subprocess.run(words, env={**os.environ, RETRIED: "1"}, check=False, stdout=read, text=True)
    if json:  # this process's stdout is for its own result: the new one's
        print(done.stdout, end="", file=terminal.out.file, flush=True)
    raise Exit(done.returncode)


def _prepare(
    method: str,
    words: list[str],
    flags: dict[str, Any],
    out: Path | None,
    runs_dir: Path,
    fit: Fit,
) -> prepare.Job:
    source, settings = opt.split_words(words)
    wanted = recipe.load(method, source, settings, flags)
    assert isinstance(wanted, Trained)
    return prepare.fit_to_gpu(prepare.prepare_training(wanted, runs_dir, out=out), fit)


def _go_on(
    method: str,
    words: list[str],
    flags: dict[str, Any],
    runs_dir: Path,
    resume: str,
    fit: Fit,
    budget: float | None,
    max_hours: float | None,
    **show: bool,
) -> None:
    """Resume a run. Its bill goes on before its data is read, and where nothing is left of its cap nothing else happens.

    Raises:
        CapReached: what is left would not last for a start and a step.
    """
    source, settings = opt.split_words(words)
    changed = [*settings, *filter(None, [source]), *(name for name in flags if flags[name] is not None)]
    if set(changed) - set(CHANGEABLE):
        raise UserError(
            f"a resumed run keeps its settings: {', '.join(changed)} cannot change",
            next_step=f"toasterft {method} --resume {resume}",
        )
    found = run_folder.open_run(resume, runs_dir)
    if found.record["status"] == "done":
        raise UserError("this run is done: there is nothing to resume", where=str(found.path))
    began_with = found.record.get("processes", 1)
    if began_with != distributed.world_size():
        count = distributed.world_size()
        raise UserError(
            f"this run began with {_processes(began_with)}, and now there {'is' if count == 1 else 'are'} {count}",
            where=str(found.path),
            why="batches, random numbers and unfinished samples belong to as many",
            next_step=f"{distributed.command(began_with)} {method} --resume {resume}",
        )
    budget = found.record.get("budget_usd") if budget is None else budget
    max_seconds = found.record.get("max_seconds") if max_hours is None else 3600 * max_hours
    running = meter.Meter(flags["price"] or found.record.get("usd_per_hour"), budget, max_seconds)
    guards.require_time_for_a_step(running, found)
    if show["dry_run"]:
        train(_resumed(method, flags, runs_dir, fit, found, running), **show)
        return
    found.lock()
    running.attach(found.path)
    try:
        train(_resumed(method, flags, runs_dir, fit, found, running), **show)
    finally:
        running.close()
        found.unlock()


def _resumed(
    method: str, flags: dict[str, Any], runs_dir: Path, fit: Fit, found: run_folder.Run, running: meter.Meter
) -> prepare.Job:
    given = {key: flags[key] for key in CHANGEABLE if flags[key] is not None}
    wanted = recipe.load(method, str(found.path / run_folder.RECIPE_FILE), [], given)
    if fit != "off" and found.record.get("stop_reason") == "out of memory":
        changes = smaller(wanted)
        if not changes:
            raise FitError(
                "every exact setting is at its smallest",
                where=str(found.path),
                next_step="--fit lossy on a new run",
            )
        wanted = wanted.model_copy(update=changes)
        found.update(fitted=changes)
        paths.write_atomic(found.path / run_folder.RECIPE_FILE, recipe.dump(wanted))
    prepared = prepare.prepare_training(wanted, runs_dir)
    return replace(
        prepared,
        resume=found,
        meter=running,
        usd_per_hour=prepared.usd_per_hour or found.record.get("usd_per_hour"),
        budget_usd=running.budget_usd,
        max_seconds=running.max_seconds,
    )


def _processes(number: int) -> str:
    return "one process" if number == 1 else f"{number} processes"


def train(prepared: prepare.Job, *, dry_run: bool, yes: bool, json: bool, quiet: bool) -> None:
    """What every training command does: show the plan, and unless it is a dry run, launch."""
    edges = prepare.edges(prepared) if dry_run else []
    if not json and not quiet:
        print_plan(prepared, edges)
    if dry_run:
        refusal = guards.verdict(prepared, over=yes)
        if json:
            terminal.as_json({**plan_json(prepared, edges), **_verdict_json(prepared, refusal)})
        elif refusal is None:
            print_caps(prepared, guards.spent(prepared))
        if refusal is not None:
            _refuse(refusal)
        return
    guards.require_ready(prepared)
    guards.require_within_caps(prepared, over=yes)
    record = execute.launch(prepared, terminal.reporter(quiet=quiet))
    if json:
        terminal.as_json(record.record)
    elif not quiet:
        print_run(record)


def _refuse(problem: UserError) -> None:
    """End as the launch would; stdout holds the plan alone."""
    terminal.error(problem, json_output=False)
    raise Exit(problem.exit_code)


def _verdict_json(prepared: prepare.Job, refusal: UserError | None) -> dict[str, Any]:
    """What `--dry-run` adds to a plan: the caps, and whether a launch would start."""
    spent = guards.spent(prepared)
    caps = {"budget_usd": prepared.budget_usd, "max_seconds": prepared.max_seconds}
    why = {} if refusal is None else {"why": refusal.what, "changes": list(refusal.details)}
    return {
        "caps": {**caps, "spent_usd": spent.get("usd"), "spent_seconds": spent.get("seconds")},
        "verdict": {"starts": refusal is None, **why},
    }


def plan_json(prepared: prepare.Job, edges: list[dict[str, Any]]) -> dict[str, Any]:
    """The plan as `--dry-run --json` prints it."""
    assert prepared.estimate is not None
    return {
        "method": prepared.recipe.method,
        "model": prepared.model.name,
        "data": prepared.data_name,
        "engine": prepared.engine,
        "survey": vars(prepared.stats),
        "rows": [prepared.estimate.as_json()],
        "image_longest_edges": edges,
        "recipe": prepared.recipe.model_dump(mode="json"),
    }
