"""The command that holds runs against each other: compare."""

from __future__ import annotations

from typing import Annotated

import typer

from toasterft import paths, terminal
from toasterft.cli.options import Json, RunsDir

app = typer.Typer()


@app.command()
def compare(
    runs: Annotated[
        list[str], typer.Argument(help="Two or more runs with stored answers, as `eval` leaves them.")
    ],
    scorer: Annotated[str, typer.Option("--scorer", help="Whose verdicts to compare.")] = "robust",
    differ: Annotated[
        int, typer.Option("--differ", min=0, help="List so many of the items on which the runs disagree.")
    ] = 5,
    seed: Annotated[int, typer.Option("--seed", help="Of the bootstrap.")] = 0,
    runs_dir: RunsDir = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="The tables in Markdown.")] = False,
    json: Json = False,
) -> None:
    """Is B better than A? Paired tests on the same questions, from the answers that are stored."""
    from toasterft.evaluation.compare import compare as paired

    found = paired(runs, paths.runs_dir(runs_dir), scorer=scorer, seed=seed, differ=differ)
    if json:
        terminal.as_json(found)
    else:
        terminal.print_comparison(found, markdown=markdown)
