"""The commands: parse, one call, show. Nothing here imports torch.

`PANELS` is what `toasterft --help` prints. A command's module is imported when the command runs or its own help is
asked for, so the list costs none of what the commands need.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import toasterft
from toasterft.errors import ToasterError, UserError
from toasterft.runs import distributed

if TYPE_CHECKING:
    from toasterft.recipe import Section

FITS = (["off"], ["exact"], ["lossy"])
# Panels of the help, and under a command's name the module it is in and the first line of its own help.
PANELS = {
    "start here": {
        "demo": ("demo", "The main job on charts drawn here, with the embedded model: no GPU, hub or data needed."),
        "doctor": ("inspect", "What is installed here, what is missing, and what to do about it."),
        "estimate": ("estimate", "Memory, hours and dollars of a run before it starts, on any GPU."),
    },
    "train": {
        "sft": ("train", "Supervised fine-tuning (4-bit QLoRA) on questions with reasoning and answers."),
        "grpo": ("train", "GRPO: sample answers, reward them, learn from what beat its group."),
        "dyme": ("train", "DyME: per group, memorise the reference where all samples are wrong, else explore."),
        "dpo": ("train", "DPO: prefer the teacher's answer to a wrong one of the model's own (data: cot pairs)."),
        "train": ("train", "Stages from a recipe, each starting from the one before (recipes/clgrpo-4stage.yaml)."),
        "launch": ("launch", "Train on a rented machine through SkyPilot, within a cap; the run folder comes back."),
    },
    "judge": {
        "eval": ("evaluate", "Accuracy with 95 % intervals by the data's scorers, and quality of the reasoning."),
        "ask": ("evaluate", "One question about one image."),
        "compare": ("evaluate", "Is B better than A? Paired tests on the same questions, from stored answers."),
        "arena": ("arena", "People choose between answers, blind; Elo and Bradley–Terry ratings with intervals."),
    },
    "data": {
        "data": ("data", "Data, before it costs money: import it, check it, look at it, divide it, share it."),
        "cot": ("cot", "Reasoning traces for data that has none, with the bill known before the start."),
        "charts": ("demo", "Charts drawn on demand, with questions whose answers can be checked."),
    },
    "share": {
        "export": ("publish", "Merge a run into its 16-bit base: a folder for transformers, GGUF files, or the hub."),
        "report": ("publish", "One page of one run or several, to send or print: settings, cost, accuracy."),
    },
    "look": {
        "runs": ("inspect", "All runs, oldest first."),
        "show": ("inspect", "One run: its settings, what it took, what came out."),
        "models": ("inspect", "The models that have a catalog name."),
        "gpus": ("inspect", "The GPUs a plan can be made for, with dated prices."),
        "cache": ("inspect", "The image-feature cache: what it holds, and a way to empty it."),
        "recipes": ("inspect", "The recipes that come with toasterft."),
    },
}  # fmt: skip


class LazyGroup(TyperGroup):
    """The commands by name and help alone, until one is called."""

    def __init__(self, **attributes: Any) -> None:
        listed = {
            name: TyperCommand(name, help=about, rich_help_panel=panel)
            for panel, entries in PANELS.items()
            for name, (_, about) in entries.items()
        }
        super().__init__(**{**attributes, "commands": listed})

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, _, rest = super().resolve_command(ctx, args)
        return name, name and load(name), rest


def load(name: str) -> Any:
    """The command itself, or the group of commands, out of its module."""
    module = next(entries[name][0] for entries in PANELS.values() if name in entries)
    group = typer.main.get_group(importlib.import_module(f"toasterft.cli.{module}").app)
    return group.commands[name]


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
    if distributed.count() > 1 and name and not _trains(name):
        raise UserError(
            f"{name} works in one process; nothing was run",
            next_step=f"toasterft {name} …, without `accelerate launch`",
        )


def _trains(name: str) -> bool:
    from toasterft.recipe import RECIPES, Trained

    schema: type[Section] | None = RECIPES.get(name)
    return schema is not None and issubclass(schema, Trained)


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
            from toasterft.jobs import execute

            execute.follow()
    except ToasterError as problem:
        if distributed.speaks():
            from toasterft import terminal

            terminal.error(problem, json_output=json_output)
        sys.exit(problem.exit_code)
    except KeyboardInterrupt:
        if distributed.is_main():
            print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of a pipe (head, less) went away: nothing is wrong, and nobody is listening.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
