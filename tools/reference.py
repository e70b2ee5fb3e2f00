"""Write docs/reference.md: every command, option and recipe field, from the code itself.

python tools/reference.py            # writes the page
python tools/reference.py --check    # exit 1 where the page and the code differ: part of `make lint`
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from toasterft import cli, recipe

PAGE = Path(__file__).parents[1] / "docs" / "reference.md"
HEAD = """\
# Reference

Written by `python tools/reference.py` from the code; `make lint` fails where the two differ.

Every field of a recipe can be given as `key=value` behind the command, nested ones with dots (`lora.r=16`), or as a
line of a YAML file (`toasterft sft recipe.yaml`).
"""


def cell(text: object) -> str:
    """Text for a table's cell: one line, no markup, bars escaped."""
    plain = re.sub(r"\[/?[a-z ]+\]", "", str(text))
    return " ".join(plain.split()).replace("|", "\\|").replace("<", "&lt;")


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    yield ""
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    yield from ("| " + " | ".join(row) + " |" for row in rows)


def metavar(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    name = name if argument.required else f"[{name}]"
    return name if argument.nargs == 1 or name.endswith(("...]", "…]", "...")) else f"{name}..."


def option_row(option: Any) -> tuple[str, ...]:
    """Names, and what the option does; defaults are in the help text or in the recipe."""
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    return names, cell(getattr(option, "help", None) or "")


def command_lines(path: str, command: Any, seen: dict[tuple[Any, ...], str]) -> Iterator[str]:
    """A command's section; a group's commands follow it. `seen` names the first command with a set of options."""
    context = command.make_context(path.split()[-1], [], resilient_parsing=True)
    yield ""
    yield f"### {path}"
    yield ""
    yield from ("\n".join(line.rstrip() for line in (command.help or "").splitlines()).strip(),)
    if hasattr(command, "list_commands"):
        for name in command.list_commands(context):
            yield from command_lines(f"{path} {name}", command.get_command(context, name), seen)
        return
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    if arguments:
        yield ""
        yield f"    toasterft {path} {' '.join(metavar(each) for each in arguments)}"
    options = [
        option_row(each) for each in command.params if each.param_type_name == "option" and not each.hidden
    ]
    if options and (first := seen.setdefault(tuple(options), path)) != path:
        yield f"\nOptions as for `{first}`."
    elif options:
        yield from table(("option", "what it does"), options)


def lines() -> Iterator[str]:
    yield HEAD
    yield "## Commands"
    root = typer.main.get_command(cli.app)
    context = root.make_context("toasterft", [], resilient_parsing=True)
    seen: dict[tuple[Any, ...], str] = {}
    for name in root.list_commands(context):
        yield from command_lines(name, cli.load(name), seen)
    yield ""
    yield "## Recipe fields"
    for method, schema in recipe.RECIPES.items():
        yield ""
        yield f"### {method}: fields"
        rows = [
            (f"`{key}`", f"`{cell(default)}`", cell(text))
            for key, (default, text) in recipe.fields(schema).items()
        ]
        yield from table(("field", "default", "what it does"), rows)
    yield ""


def main() -> None:
    text = "\n".join(lines())
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
        sys.exit("docs/reference.md is not what the code says: python tools/reference.py")


if __name__ == "__main__":
    main()
