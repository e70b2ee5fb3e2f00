"""The command that makes one page of runs: report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toasterft import paths, terminal
from toasterft.cli.options import Json, RunsDir

app = typer.Typer()


@app.command()
def report(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN…", help="Trainings, evaluations or pipelines: names or folders."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The page's file.")] = Path("report.html"),
    gallery: Annotated[
        int, typer.Option("--gallery", min=0, help="Show so many questions with picture and answers.")
    ] = 12,
    force: Annotated[
        bool, typer.Option("--force", help="Put it in the place of a file that is there.")
    ] = False,
    runs_dir: RunsDir = None,
    json: Json = False,
) -> None:
    """One page of one run or several, to send or to print: what was run, what it took, how right it is."""
    from toasterft.publish.report.page import write

    made = write(runs, paths.runs_dir(runs_dir), out, limit=gallery, force=force)
    if json:
        terminal.as_json({
            "page": str(made.path), "size_bytes": made.size_bytes, "runs": made.runs, "questions": made.shown,
        })  # fmt: skip
    else:
        about = (
            f"{terminal.size(made.size_bytes)}, {len(made.runs)} runs"
            if len(made.runs) > 1
            else terminal.size(made.size_bytes)
        )
        terminal.line(f"wrote {made.path} ({about}, {made.shown} questions with their answers)")
