"""Help that finds things: the list is declared, not imported, so it is held here against the commands themselves."""

from __future__ import annotations

import shlex

import pytest

from toasterft import cli
from toasterft.cli.commands import PANELS, about

LISTED = [name for names in PANELS.values() for name in names]


def leaves(name, command):
    """Every command that can be run, by the words that call it."""
    below = getattr(command, "commands", {})
    if not below:
        return {name: command}
    return {words: each for sub, one in below.items() for words, each in leaves(f"{name} {sub}", one).items()}


COMMANDS = {words: each for name in LISTED for words, each in leaves(name, cli.load(name)).items()}


@pytest.mark.parametrize("name", LISTED)
def test_a_listed_line_is_the_first_of_the_command_s_own_help(name):
    assert cli.load(name).help.partition("\n\n")[0].replace("\n", " ") == about(name)


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_shows_examples_that_can_be_typed(words):
    command = COMMANDS[words]
    paragraphs = (command.epilog or "").split("\n\n")
    examples = [text.removeprefix("Example: ") for text in paragraphs if text.startswith("Example: ")]
    assert examples
    for example in examples:
        assert example.startswith(f"toasterft {words}")
        typed = shlex.split(example.removeprefix(f"toasterft {words}"))
        command.make_context(words, typed).close()  # unknown options and missing arguments raise


def test_the_list_has_a_panel_for_each_purpose(run_cli):
    shown = run_cli("--help").out
    places = [shown.index(f"─ {panel} ─") for panel in PANELS]
    assert places == sorted(places)
    assert all(f"│ {name} " in shown for name in LISTED)


def test_only_grpo_s_help_names_clip_low(run_cli):
    for words in ((), ("estimate",)):
        assert "--clip-low" in run_cli(*words, "grpo", "--help").out
        assert "--clip-low" not in run_cli(*words, "dyme", "--help").out
    refused = run_cli("dyme", "--clip-low", "--dry-run")
    assert refused.code == 2
    assert "a setting of grpo" in refused.err


def test_a_misspelt_command_is_guessed(run_cli):
    done = run_cli("evla")
    assert done.code == 2
    assert "Did you mean 'eval'?" in " ".join(done.err.split())
