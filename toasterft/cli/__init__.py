"""The commands: parse, one call, show. Nothing here imports torch."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

import toasterft
from toasterft import recipe, terminal
from toasterft.cli import (
    arena,
    compare,
    cot,
    data,
    demo,
    estimate,
    evaluate,
    inspect,
    launch,
    publish,
    report,
    train,
)
from toasterft.errors import ToasterError, UserError
from toasterft.jobs import execute
from toasterft.recipe import Trained
from toasterft.runs import distributed

FITS = (["off"], ["exact"], ["lossy"])

app = typer.Typer(
    help="Fine-tune small vision-language models on one cheap GPU, with the bill known before the start.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# Without a name, a group's commands become this program's own, in this order.
for group in (
    estimate,
    train,
    evaluate,
    publish,
    launch,
    compare,
    report,
    arena,
    cot,
    data,
    inspect,
    demo,
):
    app.add_typer(group.app)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        terminal.line(f"toasterft {toasterft.__version__}")
        raise typer.Exit
    distributed.require_those_asked_for()
    name = context.invoked_subcommand
    if distributed.count() > 1 and name and not issubclass(recipe.RECIPES.get(name, object), Trained):
        raise UserError(
            f"{name} works in one process; nothing was run",
            next_step=f"toasterft {name} …, without `accelerate launch`",
        )


def _fit_is_exact(words: list[str]) -> list[str]:
    """`--fit` alone means `--fit exact`; an option of click's always takes a value."""
    return [
        word
        for place, each in enumerate(words)
        for word in (
            [each, "exact"] if each == "--fit" and words[place + 1 : place + 2] not in FITS else [each]
        )
    ]


def main() -> None:
    """Run the command line; every explained ending prints one message and has its own exit code.

    Of several processes the main one runs it, and the others follow.
    """
    with distributed.led():
        _main()


def _main() -> None:
    json_output = "--json" in sys.argv[1:]
    sys.argv[1:] = _fit_is_exact(sys.argv[1:])
    try:
        if distributed.is_main():
            app()
        else:
            execute.follow()
    except ToasterError as problem:
        if distributed.speaks():
            terminal.error(problem, json_output=json_output)
        sys.exit(problem.exit_code)
    except KeyboardInterrupt:
        if distributed.is_main():
            terminal.err.print("interrupted")
        sys.exit(130)
    except BrokenPipeError:
        # The reader of a pipe (head, less) went away: nothing is wrong, and nobody is listening.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
