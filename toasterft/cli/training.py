"""Commands that train: each is a method's name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from toasterft import job, places, recipe, show
from toasterft.cli.options import (
    Data,
    DryRun,
    GpuName,
    Json,
    Limit,
    Model,
    Out,
    Price,
    Quiet,
    RunsDir,
    Seed,
    Words,
    split_words,
)
from toasterft.recipe import Trained

app = typer.Typer()

# The paper's values are not public (CLGRPO, arXiv 2506.18048). Ours: the usual range below, half of it
# above, so that rare tokens grow slowly; and two updates per sample, because with one the ratio is 1.
CLIP_LOW = {"epsilon": 0.2, "epsilon_high": 0.1, "num_iterations": 2}


@app.command()
def sft(
    words: Words = None,
    model: Model = None,
    data: Data = None,
    gpu: GpuName = None,
    price: Price = None,
    limit: Limit = None,
    seed: Seed = None,
    out: Out = None,
    runs_dir: RunsDir = None,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Supervised fine-tuning (4-bit QLoRA) on questions with reasoning and answers."""
    flags = {"model": model, "data": data, "gpu": gpu, "price": price, "limit": limit, "seed": seed}
    train("sft", words, flags, out=out, runs_dir=runs_dir, dry_run=dry_run, json=json, quiet=quiet)


@app.command()
def grpo(
    words: Words = None,
    model: Model = None,
    data: Data = None,
    clip_low: Annotated[
        bool,
        typer.Option(
            "--clip-low", help="ClipLow: epsilon=0.2 epsilon_high=0.1 num_iterations=2 (our values)."
        ),
    ] = False,
    gpu: GpuName = None,
    price: Price = None,
    limit: Limit = None,
    seed: Seed = None,
    out: Out = None,
    runs_dir: RunsDir = None,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """GRPO: sample answers, reward them, learn from what beat its group."""
    flags = {"model": model, "data": data, "gpu": gpu, "price": price, "limit": limit, "seed": seed}
    # Before the words, so that a stated value wins over the preset's.
    words = [*(f"{key}={value}" for key, value in CLIP_LOW.items()), *(words or [])] if clip_low else words
    train("grpo", words, flags, out=out, runs_dir=runs_dir, dry_run=dry_run, json=json, quiet=quiet)


def train(
    method: str,
    words: list[str] | None,
    flags: dict[str, Any],
    *,
    out: Path | None,
    runs_dir: Path | None,
    dry_run: bool,
    json: bool,
    quiet: bool,
) -> None:
    """What every training command does: plan, show, and unless it is a dry run, launch."""
    source, settings = split_words(words)
    wanted = recipe.load(method, source, settings, flags)
    assert isinstance(wanted, Trained)
    prepared = job.prepare_training(wanted, places.runs_dir(runs_dir), out=out)
    edges = job.edges(prepared) if dry_run else []
    if not json and not quiet:
        show.plan(prepared, edges)
    if dry_run:
        if json:
            show.as_json(plan_json(prepared, edges))
        return
    job.require_ready(prepared)
    from toasterft import run

    record = run.launch(prepared, show.reporter(quiet=quiet))
    if json:
        show.as_json(record.record)
    elif not quiet:
        show.summary(record.record, str(record.path))


def plan_json(prepared: job.Job, edges: list[dict[str, Any]]) -> dict[str, Any]:
    """The plan as `--dry-run --json` prints it."""
    assert prepared.estimate is not None
    return {
        "method": prepared.recipe.method,
        "model": prepared.model.name,
        "data": prepared.data_name,
        "engine": prepared.engine,
        "survey": vars(prepared.survey),
        "rows": [prepared.estimate.as_json()],
        "image_longest_edges": edges,
        "recipe": prepared.recipe.model_dump(mode="json"),
    }
