"""The notebooks run from top to bottom on drawn charts and toast-tiny, and the README's commands are real ones."""

from __future__ import annotations

import os
import re
import shlex
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

from toasterft.cli import doctor
from toasterft.models import lookup

ROOT = Path(__file__).parents[2]
NOTEBOOKS = {path.stem: path for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
TRAININGS = ("sft_smolvlm_chartqa", "dyme_smolvlm")
RATE = r"\d+\.\d % \(\d+\.\d–\d+\.\d\)"

# What a person would change in the parameters' cell to try a notebook out where there is no GPU and no network.
SMALL = {
    "model": "toast-tiny", "charts": "drawn", "traces": 24, "questions": 6, "longest_answer": 16,
}  # fmt: skip
QUICK = {"gpu": "cpu", "gradient_accumulation_steps": 2, "eval_limit": 2, "lora": {"r": 4}}
PARAMETERS = {
    "sft_smolvlm_chartqa": {**SMALL, "settings": {**QUICK, "max_steps": 3}},
    "dyme_smolvlm": {**SMALL, "steps": 3, "settings": {**QUICK, "num_generations": 4}},
    "estimate_before_launch": {},
}
# IPython goes on after a command that failed.
STRICT = """
def strict(command, _system=get_ipython().system):
    _system(command)
    assert not get_ipython().user_ns["_exit_code"], command
get_ipython().system = strict
"""


def tagged(book):
    """The place of the parameters' cell."""
    (place,) = (at for at, cell in enumerate(book.cells) if "parameters" in cell.metadata.get("tags", ()))
    return place


def codes(book):
    return [cell.source for cell in book.cells if cell.cell_type == "code"]


def run(book, folder):
    return NotebookClient(book, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()


def printed(book):
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    return "".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs)


def pictures(book):
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    return sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """A notebook with its outputs, and the folder it ran in; each is run once."""
    done = {}

    def get(name):
        if name not in done:
            folder = tmp_path_factory.mktemp(name)
            book = nbformat.read(NOTEBOOKS[name], as_version=4)
            lines = [STRICT, *(f"{key} = {value!r}" for key, value in PARAMETERS[name].items())]
            book.cells.insert(tagged(book) + 1, new_code_cell("\n".join(lines)))
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
                for key in ("RUNS", "CACHE", "DATA"):
                    patch.setenv(f"TOASTERFT_{key}", str(folder / key.lower()))
                run(book, folder)
            done[name] = book, folder
        return done[name]

    return get


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_are_kept_clean(name):
    book = nbformat.read(NOTEBOOKS[name], as_version=4)
    nbformat.validate(book)
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells), "committed with outputs"
    assert "pip install" in cells[0].source
    assert tagged(book) < 5
    parameters = book.cells[tagged(book)].source
    assert all(re.search(rf"^{key} = ", parameters, re.MULTILINE) for key in PARAMETERS[name])
    assert name in PARAMETERS


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_notebook_tells_the_whole_story(name, played):
    book, _ = played(name)
    source, text = "\n".join(codes(book)), printed(book)
    assert source.index("estimate(recipe") < source.index("evaluate(model") < source.index("train(recipe")
    # The estimate, for the card that is free on Colab.
    assert re.search(r"memory +[\d.]+ [GM]B at most: fits Colab-T4\n", text)
    assert re.search(r"time +.*\d.*for 3 steps\n", text)
    assert re.search(r"units +\d+\.\d compute units", text)
    # Accuracy before and after, of the same questions, and the paired test.
    assert len(set(re.findall(rf"right before: ({RATE})", text))) == 1
    assert re.search(rf"right after:  {RATE}", text)
    assert "6 questions that all runs answered" in text
    assert "McNemar" in text
    # The plan beside what came, and an answer under its picture.
    assert "predicted for" in text
    assert re.search(r"^\S.* → \S+\n+.*\w", text, re.MULTILINE), "a question, and an answer to it"
    assert pictures(book) == (2 if name.startswith("sft") else 4)
    assert "✗" not in text


@pytest.mark.parametrize("name", TRAININGS)
def test_the_adapter_is_the_users(name, played, tmp_path):
    _, folder = played(name)
    zipfile.ZipFile(folder / "adapter.zip").extractall(tmp_path / "home")
    files = {file.name for file in (tmp_path / "home").iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "toasterft.json", "run.json"} <= files
    assert "checkpoints" not in files
    found = lookup.resolve(str(tmp_path / "home"), tmp_path)
    assert found.adapter is not None
    if name.startswith("sft"):
        assert (folder / "tuned" / "model.safetensors").exists()


def test_the_estimate_needs_nothing(played):
    book, folder = played("estimate_before_launch")
    text = printed(book)
    assert "compute units" in text
    assert "over the budget of $0.10 on A40" in text
    assert re.search(r"▸ cheapest that fits", text)
    assert "gemini" in text
    assert pictures(book) == 1
    assert not list(folder.iterdir()), "nothing was written"


FAKE_COLAB = """
import sys, types
from pathlib import Path
from types import SimpleNamespace
colab = types.ModuleType("google.colab")
colab.files = SimpleNamespace(download=lambda name: print("downloaded", name))
colab.userdata = SimpleNamespace(get={"HF_TOKEN": "hf_secret"}.__getitem__)
google = types.ModuleType("google")
google.colab = colab
sys.modules |= {"google": google, "google.colab": colab}
"""


def test_what_only_colab_does(tmp_path, monkeypatch):
    """The installation, the download and the hub, with commands noted instead of run; Unsloth cannot be had."""
    for command in ("pip", "toasterft"):
        stub = tmp_path / "bin" / command
        stub.parent.mkdir(exist_ok=True)
        stub.write_text(
            f'#!/bin/sh\necho "{command} $* ${{HF_TOKEN:+with a token}}" >> {tmp_path}/commands\n'
            'case "$*" in *cuda*) exit 1;; esac\n'
        )
        stub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "adapter_config.json").write_text("{}")

    book = nbformat.read(NOTEBOOKS["sft_smolvlm_chartqa"], as_version=4)
    install, *others = codes(book)
    (parcel,) = (cell for cell in others if "adapter.zip" in cell)
    (hub,) = (cell for cell in others if "--to hub" in cell)
    trained = "run, hub_repo = SimpleNamespace(path=Path('run')), 'me/charts'"
    book.cells = [new_code_cell(cell) for cell in (FAKE_COLAB, install, trained, parcel, hub)]
    text = printed(run(book, tmp_path))

    assert (tmp_path / "commands").read_text().splitlines() == [
        "pip install --quiet --no-deps toasterft ",
        "pip install --quiet --constraint known-good.txt toasterft[cuda] ",
        "pip install --quiet --constraint known-good.txt toasterft ",
        "toasterft export run --to hub --repo me/charts --out tuned --quiet with a token",
    ]
    pins = dict(line.split("==") for line in (tmp_path / "known-good.txt").read_text().splitlines())
    assert pins["torch"] == metadata.version("torch"), "the torch that is there"
    known = doctor.tested_set("constraints.txt")
    assert all(
        pins[name] == known[name] for name in ("transformers", "trl", "peft", "unsloth", "bitsandbytes")
    )
    assert "numpy" not in pins, "what is there is left alone, unless it is too old"
    assert "downloaded adapter.zip" in text
    assert "hf_secret" not in text
    assert zipfile.ZipFile(tmp_path / "adapter.zip").namelist() == ["adapter_config.json"]


def commands(page="README.md"):
    """Command lines of a page's code blocks, fenced or indented."""
    text = (ROOT / page).read_text()
    blocks = [
        *re.findall(r"```\n(.*?)```", text, flags=re.DOTALL),
        *re.findall(r"(?:^    .*\n)+", text, re.MULTILINE),
    ]
    lines = [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))]
WRITTEN = [line for page in PAGES if page != "docs/reference.md" for line in commands(page)]


def test_the_first_three_lines():
    assert commands()[:3] == [
        "make demo",
        "make test",
        "toasterft sft --model SmolVLM-256M --data smolcot-7k --gpu A40 --dry-run",
    ]


@pytest.mark.parametrize("line", sorted({line for line in WRITTEN if line.startswith("toasterft ")}))
def test_commands_of_readme_and_docs_are_understood(line, run_cli, charts_folder, tmp_path, monkeypatch):
    """Dry runs run, with a recipe of the user's; the others must at least parse: only data or runs may be missing."""
    (tmp_path / "recipe.yaml").write_text(f"method: sft\nmodel: toast-tiny\ndata: {charts_folder}\n")
    monkeypatch.chdir(tmp_path)
    if "--dry-run" in line:
        (tmp_path / "my_folder").symlink_to(charts_folder)
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
