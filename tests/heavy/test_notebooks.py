"""The notebooks run from top to bottom, and the README's commands are real ones."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_run(path, tmp_path, monkeypatch):
    book = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in book.cells), "committed with outputs"
    for cell in book.cells:
        # The first cell installs toasterft on Colab; here it is installed.
        cell.source = re.sub(r"^%pip .*$", "pass", cell.source, flags=re.MULTILINE)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    NotebookClient(book, timeout=600, resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    text = "".join(output.get("text", "") for output in outputs)
    assert "$" in text
    assert any("image/png" in output.get("data", {}) for output in outputs)


def commands():
    blocks = re.findall(r"```\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    lines = [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def test_the_first_three_lines():
    assert commands()[:3] == [
        "make demo",
        "make test",
        "toasterft sft --model SmolVLM-256M --data smolcot-7k --gpu A40 --dry-run",
    ]


@pytest.mark.parametrize("line", [line for line in commands() if line.startswith("toasterft ")])
def test_readme_commands_are_understood(line, run_cli):
    """Dry runs run; the others must at least parse: nothing but the data or run may be missing."""
    import shlex

    done = run_cli(*shlex.split(line)[1:])
    assert done.code in (0, 2)
    if "--dry-run" in line:
        assert done.code == 0
    assert "No such option" not in done.err
    assert "No such command" not in done.err
    assert "unknown key" not in done.err


def test_make_targets_named_in_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make (\w+)", (ROOT / "README.md").read_text()):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    assert "make test" in (ROOT / ".ci" / "run").read_text()
