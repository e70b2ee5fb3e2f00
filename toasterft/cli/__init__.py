"""The commands: parse, one call, show. Nothing here imports torch.

A command's module is imported when the command runs or its own help is shown: `toasterft --help` costs none of what
the commands need.
"""

from __future__ import annotations

import errno
import importlib
import io
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

import toasterft
from toasterft.cli.commands import PANELS, about, module_of
from toasterft.errors import ToasterError, UserError
from toasterft.runs import distributed

FITS = (["off"], ["exact"], ["lossy"])


class LazyGroup(TyperGroup):
    """The commands by name and help alone, until one is called."""

    def __init__(self, **attributes: Any) -> None:
        listed = {
            name: TyperCommand(name, help=about(name), rich_help_panel=panel)
            for panel, names in PANELS.items()
            for name in names
        }
        super().__init__(**{**attributes, "commands": listed})

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, _, rest = super().resolve_command(ctx, args)
        return name, name and load(name), rest


def load(name: str) -> Any:
    """The command itself, or the group of commands, out of its module."""
    module = importlib.import_module(f"toasterft.cli.{module_of(name)}")
    return typer.main.get_group(module.app).commands[name]


app = typer.Typer(
    cls=LazyGroup,
    help="Fine-tune small vision-language models on one cheap GPU, with the bill known before the start.",
    epilog="Every command's own help shows an example: toasterft sft --help",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        print(f"toasterft {toasterft.__version__}")
        raise typer.Exit
    distributed.require_those_asked_for()
    name = context.invoked_subcommand
    if distributed.world_size() > 1 and name:
        from toasterft.recipe import TRAININGS

        if name not in TRAININGS:
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
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                errors="replace"
            )  # an ASCII-only terminal, or half a character pair in somebody's data
    with distributed.lead_ranks(), stdout_for_results():
        _main()


def stdout_for_results() -> AbstractContextManager[None]:
    """What `--json` and `--quiet` promise of stdout, whatever a library prints there."""
    if sys.stdout is None or not {"--json", "--quiet"}.intersection(sys.argv[1:]):
        return nullcontext()
    from toasterft import terminal

    return terminal.results_alone(quiet="--quiet" in sys.argv[1:])


def _main() -> None:
    json_output = "--json" in sys.argv[1:]
    sys.argv[1:] = _fit_is_exact(sys.argv[1:])
    try:
        if distributed.is_main():
            app()
        else:
            from toasterft.jobs import execute

            execute.follow()
    except ToasterError as problem:
        _explain(problem, json_output=json_output)
    except KeyboardInterrupt:
        if distributed.is_main():
            print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of a pipe (head, less) went away: nothing is wrong, and nobody is listening.
        from toasterft import terminal

        os.dup2(os.open(os.devnull, os.O_WRONLY), terminal.out.file.fileno())
        sys.exit(0)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        # Whichever command asked for it: a path that no disk can have.
        long = f"{str(error.filename)[:60]}…"
        _explain(UserError("this name is too long for a file or folder", where=long), json_output=json_output)


def _explain(problem: ToasterError, *, json_output: bool) -> NoReturn:
    if distributed.prints_ending():
        from toasterft import terminal

        terminal.error(problem, json_output=json_output)
    sys.exit(problem.exit_code)
