"""Arguments and options that several commands share, and what their results have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, BadParameter, Option

from toasterft import units
from toasterft.errors import UserError, did_you_mean


def amount(help: str, *flags: str, free: bool = False) -> Any:
    """An option of dollars or hours.

    Args:
        free: 0 will do: a server of one's own costs nothing.
    """

    def read(text: str) -> float:
        try:
            return units.amount(text, free=free)
        except ValueError as problem:
            raise BadParameter(str(problem)) from None

    return Option(*flags, parser=read, metavar="FLOAT", help=help)


Words = Annotated[
    list[str] | None,
    Argument(help="A recipe (file or shipped name) and key=value settings.", show_default=False),
]
Model = Annotated[str | None, Option(help="Folder, earlier run, catalog name, or hub id.")]
Data = Annotated[str | None, Option(help="Folder, .jsonl/.json, catalog name, or hub id.")]
NewName = Annotated[str, Argument(help="Name of the new data set; `--data NAME` finds it.")]
NewFolder = Annotated[Path | None, Option(help="Folder to write, instead of NAME's own.")]
Images = Annotated[
    Path | None,
    Option(
        "--images",
        help="One more folder where rows' pictures may lie; paths of another machine are found in it by name.",
        file_okay=False,
    ),
]
Split = Annotated[str | None, Option(help="Rows to use; train by default.")]
GpuName = Annotated[str | None, Option("--gpu", help="GPU to plan for.")]
Price = Annotated[float | None, amount("Dollars per hour, instead of the catalog's.")]
Limit = Annotated[
    int | None, Option(help="Use only N examples: eval draws them by its seed, the others take the first.")
]
Seed = Annotated[int | None, Option()]
Out = Annotated[Path | None, Option(help="Run folder to use; must be new or empty.")]
RunsDir = Annotated[Path | None, Option(help="Where runs are kept (TOASTERFT_RUNS).")]
DryRun = Annotated[bool, Option("--dry-run", help="Show the plan and stop; needs no torch, data or weights.")]
Budget = Annotated[float | None, amount("Dollars: refused if more is likely, stopped before more is spent.")]
MaxHours = Annotated[float | None, amount("Hours: as --budget.")]
Yes = Annotated[bool, Option("--yes", help="Start although the estimate exceeds the cap; the cap holds.")]
Resume = Annotated[str | None, Option(help="A run to go on with, from its last checkpoint.")]
Fit = Annotated[
    Literal["off", "exact", "lossy"],
    Option(help="Change what must be smaller to fit: `exact` keeps the mathematics, `lossy` may not."),
]
After = Annotated[
    str | None,
    Option(help="Shell command for the end of a run that was opened, however it ends (stop the machine)."),
]
Json = Annotated[bool, Option("--json", help="One JSON object on stdout.")]
Quiet = Annotated[bool, Option("--quiet", help="No progress, and nothing that libraries print.")]
Step = Annotated[bool, Option("--step", help='Append "Let\'s think step by step." to the question.')]
Suffix = Annotated[str | None, Option(help="Append this text to the question.")]


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


def require_known(kind: str, name: str, known: list[str]) -> None:
    """
    Raises:
        UserError: `name` is none of them; with the nearest one.
    """
    if name not in known:
        raise UserError(f"no {kind} {name!r}{did_you_mean(name, known)}", next_step=" | ".join(known))


def show(json: bool, result: Any, printed: Callable[[], object]) -> None:
    """Print a result as one JSON object, or the way people read it."""
    from toasterft import terminal

    if json:
        terminal.as_json(result)
    else:
        printed()
