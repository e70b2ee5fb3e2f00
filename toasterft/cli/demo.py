"""Commands that need nothing but this package: charts drawn on demand, and the demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option, Typer

from toasterft import paths, recipe, terminal
from toasterft.cli import options as opt
from toasterft.cli.commands import about
from toasterft.data import charts
from toasterft.jobs import demo as demo_job
from toasterft.terminal import data as printing
from toasterft.terminal.estimates import print_plan
from toasterft.terminal.evaluations import print_demo

app = Typer()
charts_app = Typer(help=about("charts"), no_args_is_help=True)
app.add_typer(charts_app, name="charts")


@charts_app.command("make", epilog=opt.example("charts make drawn --n 500 --difficulty full"))
def charts_make(
    folder: Annotated[Path, Argument(help="New folder to write.")],
    n: Annotated[int, Option("--n", min=1, help="Charts.")] = 2000,
    seed: Annotated[int, Option()] = 0,
    difficulty: Annotated[Literal["core", "full", "hard"], Option()] = "core",
    style: Annotated[
        Literal["simplified", "structured", "none"], Option(help="Trace to write.")
    ] = "simplified",
    kinds: Annotated[str | None, Option(help="Comma-separated question kinds; all by default.")] = None,
    per_chart: Annotated[int, Option(min=1, help="Questions per chart.")] = 3,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Draw a data set of charts with questions, answers, reasoning and the tables behind them."""
    report = terminal.reporter(quiet=quiet)
    report.phase("drawing", n)
    try:
        charts.write_dataset(
            folder, n=n, seed=seed, difficulty=difficulty, style=style, per_chart=per_chart, progress=report.advance,
            kinds=kinds.split(",") if kinds else None,
        )  # fmt: skip
    finally:
        report.done()
    opt.show(json, paths.read_json(folder / "card.json"), lambda: printing.print_drawn(folder, n))


@app.command(epilog=opt.example("demo --quick"))
def demo(
    out: Annotated[Path | None, Option(help="Folder to write; must be new or empty.")] = None,
    methods: Annotated[str, Option(help="Comma-separated training methods.")] = "sft",
    quick: Annotated[bool, Option("--quick", help="A minute instead of five.")] = False,
    seed: opt.Seed = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """The main job on charts drawn here, with the embedded model: no GPU, hub or data needed."""
    wanted = methods.split(",")
    for method in wanted:
        opt.require_known("training method", method, list(recipe.TRAININGS))
    folder = out or demo_job.fresh_folder()
    size = demo_job.QUICK if quick else demo_job.FULL
    plan = (lambda _: None) if json or quiet else (lambda prepared: print_plan(prepared, []))
    found = demo_job.play(folder, wanted, size, terminal.reporter(quiet=quiet), plan, seed=seed or 0)
    result = demo_job.as_json(found)
    opt.show(json, result, lambda: print_demo(result, demo_job.sample(found)))
