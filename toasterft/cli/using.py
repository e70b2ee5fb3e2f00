"""Commands that use a model: eval, ask."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toasterft import job, ledger, places, recipe, show
from toasterft.cli.options import (
    Data,
    GpuName,
    Json,
    Limit,
    Out,
    Price,
    Quiet,
    RunsDir,
    Seed,
    Step,
    Suffix,
    Words,
    split_words,
)

app = typer.Typer()


@app.command("eval")
def evaluate(
    model: Annotated[str, typer.Argument(help="Run or model to evaluate.")],
    words: Words = None,
    data: Data = None,
    step: Step = False,
    suffix: Suffix = None,
    gpu: GpuName = None,
    price: Price = None,
    limit: Limit = None,
    seed: Seed = None,
    out: Out = None,
    runs_dir: RunsDir = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Accuracy with 95 % intervals, by three scorers."""
    source, settings = split_words(words)
    flags = {
        "model": model,
        "data": data,
        "step": step or None,
        "suffix": suffix,
        "gpu": gpu,
        "price": price,
        "limit": limit,
        "seed": seed,
    }
    wanted = recipe.load("eval", source, settings, flags)
    assert isinstance(wanted, recipe.Eval)
    prepared = job.prepare_use(wanted, places.runs_dir(runs_dir), data_name=Path(wanted.data).stem, out=out)
    from toasterft import run

    record = run.launch(prepared, show.reporter(quiet=quiet))
    if json:
        show.as_json({**record.record["eval"], "run": str(record.path)})
    else:
        show.scores(record.record["eval"])
        show.line(f"answers in {record.path / ledger.SAMPLES_FILE}", "dim")


@app.command()
def ask(
    model: Annotated[str, typer.Argument(help="Run or model to ask.")],
    image: Annotated[Path, typer.Argument(help="Image file.")],
    question: Annotated[str, typer.Argument(help="Question about it.")],
    words: Words = None,
    step: Step = False,
    suffix: Suffix = None,
    runs_dir: RunsDir = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """One question about one image."""
    _, settings = split_words(words)
    wanted = recipe.load("ask", None, settings, {"model": model, "step": step or None, "suffix": suffix})
    prepared = job.prepare_use(wanted, places.runs_dir(runs_dir))
    from toasterft import run

    answer = run.launch(prepared, show.reporter(quiet=quiet), image=image, question=question)
    if json:
        show.as_json(answer)
        return
    if answer["reasoning"]:
        show.line(answer["reasoning"].strip(), "dim")
    show.line(answer["answer"], "bold")
