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
from toasterft.cli.commands import about
from toasterft.errors import FitError, OutOfMemory, UserError
from toasterft.estimation.fit import Fit, smaller
from toasterft.jobs import execute, guards, prepare
from toasterft.jobs import pipeline as pipeline_job
from toasterft.recipe import Trained
from toasterft.runs import distributed, run_folder
from toasterft.terminal.estimates import print_plan
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
        try:
            prepared = _prepare(method, given, flags, out, paths.runs_dir(runs_dir), resume, fit)
            capped = guards.with_caps(prepared, budget, max_hours)
            train(capped, dry_run=dry_run, yes=yes, json=json, quiet=quiet)
        except OutOfMemory as problem:
            _try_again_smaller(
                method,
                problem,
                {"--budget": budget, "--max-hours": max_hours, "--price": price, "--images": images},
            )
        finally:
            if after and not dry_run:
                subprocess.run(after, shell=True, check=False, env=distributed.env_without_ranks())


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
        return
    if resume is None:
        folder = pipeline_job.begin(wanted, paths.runs_dir(runs_dir), out)
    try:
        records = pipeline_job.run(wanted, folder, budget_usd=budget, price=price, quiet=quiet or json)
    finally:
        if after:
            subprocess.run(after, shell=True, check=False)
    runs = [run_folder.Run(folder / record["id"], record) for record in records]
    result = {"folder": str(folder), "stages": records}
    opt.show(json, result, lambda: print_stages(runs, str(folder)))


def _try_again_smaller(method: str, problem: OutOfMemory, flags: dict[str, Any]) -> None:
    """Resume once, from the last checkpoint and in a new process: memory of a failed step is not given back.

    Raises:
        OutOfMemory: this was the second time, or one of several processes, which only their launcher starts.
    """
    if os.environ.get(RETRIED) or distributed.world_size() > 1:
        raise problem
    terminal.line(f"{problem.what}: retrying in a new process with smaller micro-batches")
    words = [sys.executable, "-m", "toasterft", method, "--resume", str(problem.where), "--fit", "exact"]
    words += [word for flag, value in flags.items() if value is not None for word in (flag, str(value))]
    raise Exit(subprocess.run(words, env={**os.environ, RETRIED: "1"}, check=False).returncode)


def _prepare(
    method: str,
    words: list[str],
    flags: dict[str, Any],
    out: Path | None,
    runs_dir: Path,
    resume: str | None,
    fit: Fit,
) -> prepare.Job:
    source, settings = opt.split_words(words)
    if resume is None:
        wanted = recipe.load(method, source, settings, flags)
        assert isinstance(wanted, Trained)
        return prepare.fit_to_gpu(prepare.prepare_training(wanted, runs_dir, out=out), fit)
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
    given = {key: flags[key] for key in CHANGEABLE if flags[key] is not None}
    wanted = recipe.load(method, str(found.path / run_folder.RECIPE_FILE), [], given)
    if fit != "off" and found.record.get("stop_reason") == "out of memory":
        changes = smaller(wanted)
        if not changes:
            raise FitError(
                "every exact setting is at its smallest", where=resume, next_step="--fit lossy on a new run"
            )
        wanted = wanted.model_copy(update=changes)
        found.update(fitted=changes)
        paths.write_atomic(found.path / run_folder.RECIPE_FILE, recipe.dump(wanted))
    prepared = prepare.prepare_training(wanted, runs_dir)
    return replace(
        prepared, resume=found, usd_per_hour=prepared.usd_per_hour or found.record.get("usd_per_hour")
    )


def _processes(number: int) -> str:
    return "one process" if number == 1 else f"{number} processes"


def train(prepared: prepare.Job, *, dry_run: bool, yes: bool, json: bool, quiet: bool) -> None:
    """What every training command does: show the plan, and unless it is a dry run, launch."""
    edges = prepare.edges(prepared) if dry_run else []
    if not json and not quiet:
        print_plan(prepared, edges)
    if dry_run:
        if json:
            terminal.as_json(plan_json(prepared, edges))
        return
    guards.require_ready(prepared)
    guards.require_within_caps(prepared, over=yes)
    record = execute.launch(prepared, terminal.reporter(quiet=quiet))
    if json:
        terminal.as_json(record.record)
    elif not quiet:
        print_run(record)


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
