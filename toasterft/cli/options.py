"""Arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from toasterft.errors import UserError

Words = Annotated[
    list[str] | None,
    typer.Argument(help="A recipe (file or shipped name) and key=value settings.", show_default=False),
]
Model = Annotated[str | None, typer.Option("--model", help="Folder, earlier run, catalog name, or hub id.")]
Data = Annotated[str | None, typer.Option("--data", help="Folder, .jsonl/.json, catalog name, or hub id.")]
GpuName = Annotated[str | None, typer.Option("--gpu", help="GPU to plan for.")]
Price = Annotated[float | None, typer.Option("--price", help="Dollars per hour, instead of the catalog's.")]
Limit = Annotated[int | None, typer.Option("--limit", help="Use only the first N examples.")]
Seed = Annotated[int | None, typer.Option("--seed")]
Out = Annotated[Path | None, typer.Option("--out", help="Run folder to use; must be new or empty.")]
RunsDir = Annotated[Path | None, typer.Option("--runs-dir", help="Where runs are kept (TOASTERFT_RUNS).")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show the plan and stop; needs no torch, data or weights.")
]
Budget = Annotated[
    float | None,
    typer.Option("--budget", help="Dollars: refused if more is likely, stopped before more is spent."),
]
MaxHours = Annotated[float | None, typer.Option("--max-hours", help="Hours: as --budget.")]
Yes = Annotated[
    bool, typer.Option("--yes", help="Start although the estimate exceeds the cap; the cap holds.")
]
Resume = Annotated[
    str | None, typer.Option("--resume", help="A run to go on with, from its last checkpoint.")
]
Fit = Annotated[
    Literal["off", "exact", "lossy"],
    typer.Option(
        "--fit", help="Change what must be smaller to fit: `exact` keeps the mathematics, `lossy` may not."
    ),
]
After = Annotated[
    str | None,
    typer.Option("--after", help="Shell command for the end, however it ends (stop the rented machine)."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]
Step = Annotated[bool, typer.Option("--step", help='Append "Let\'s think step by step." to the question.')]
Suffix = Annotated[str | None, typer.Option("--suffix", help="Append this text to the question.")]


def example(*lines: str) -> str:
    """What a command's help ends with: lines that can be typed."""
    return "\n\n".join(f"Example: toasterft {line}" for line in lines)


def split_words(words: list[str] | None) -> tuple[str | None, list[str]]:
    """The recipe among the words, and the key=value settings."""
    sources = [word for word in words or [] if "=" not in word]
    if len(sources) > 1:
        raise UserError(
            f"more than one recipe: {', '.join(sources)}",
            next_step="one recipe file, then key=value settings",
        )
    return (sources[0] if sources else None), [word for word in words or [] if "=" in word]
