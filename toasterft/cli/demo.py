"""Commands that need nothing but this package: charts drawn on demand, and the demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from toasterft import paths, recipe, terminal
from toasterft.cli import options as opt
from toasterft.errors import UserError
from toasterft.recipe import Trained

app = typer.Typer()
charts_app = typer.Typer(
    help="Charts drawn on demand, with questions whose answers can be checked.", no_args_is_help=True
)
app.add_typer(charts_app, name="charts")


@charts_app.command("make", epilog=opt.example("charts make drawn --n 500 --difficulty full"))
def charts_make(
    folder: Annotated[Path, typer.Argument(help="New folder to write.")],
    n: Annotated[int, typer.Option("--n", min=1, help="Charts.")] = 2000,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    difficulty: Annotated[Literal["core", "full", "hard"], typer.Option("--difficulty")] = "core",
    style: Annotated[
        Literal["simplified", "structured", "none"], typer.Option("--style", help="Trace to write.")
    ] = "simplified",
    kinds: Annotated[
        str | None, typer.Option("--kinds", help="Comma-separated question kinds; all by default.")
    ] = None,
    per_chart: Annotated[int, typer.Option("--per-chart", min=1, help="Questions per chart.")] = 3,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Draw a data set of charts with questions, answers, reasoning and the tables behind them."""
    from toasterft.data import charts

    report = terminal.reporter(quiet=quiet)
    report.phase("drawing", n)
    try:
        charts.write_dataset(
            folder, n=n, seed=seed, difficulty=difficulty, style=style, per_chart=per_chart, progress=report.advance,
            kinds=kinds.split(",") if kinds else None,
        )  # fmt: skip
    finally:
        report.done()
    card = paths.read_json(folder / "card.json")
    if json:
        terminal.as_json(card)
    else:
        terminal.line(f"wrote {folder}: {n:,} charts, train/validation/test")
        terminal.line(f"next  toasterft sft --model toast-tiny --data {folder}", "dim")


@app.command(epilog=opt.example("demo --quick"))
def demo(
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write; must be new or empty.")] = None,
    methods: Annotated[str, typer.Option("--methods", help="Comma-separated training methods.")] = "sft",
    quick: Annotated[bool, typer.Option("--quick", help="A minute instead of five.")] = False,
    seed: opt.Seed = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """The main job on charts drawn here, with the embedded model: no GPU, hub or data needed."""
    from toasterft.jobs import demo as story

    known = [name for name, schema in recipe.RECIPES.items() if issubclass(schema, Trained)]
    wanted = methods.split(",")
    for method in wanted:
        if method not in known:
            raise UserError(f"unknown method {method!r}", why=f"there are: {', '.join(known)}")
    folder = out or story.fresh_folder()
    size = story.QUICK if quick else story.FULL
    plan = (lambda _: None) if json or quiet else (lambda prepared: terminal.print_plan(prepared, []))
    found = story.play(folder, wanted, size, terminal.reporter(quiet=quiet), plan, seed=seed or 0)
    if json:
        terminal.as_json(story.as_json(found))
    else:
        terminal.print_demo(story.as_json(found), story.told(found))
