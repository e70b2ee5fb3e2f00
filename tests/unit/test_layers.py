"""Imports point down only, and the light commands stay light."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "toasterft"
HEAVY = {
    "torch",
    "transformers",
    "trl",
    "peft",
    "bitsandbytes",
    "accelerate",
    "unsloth",
    "datasets",
    "safetensors",
}
HEAVY_FOLDERS = ("engines", "methods")
# May be imported inside a function of a light module, where only that path needs it.
LAZY = {"datasets", "torch", "transformers"}
# Each module may import those before it in this list, and nothing after it.
ORDER = [
    "errors", "places", "progress", "processes", "recipe", "geometry", "shapes", "catalog", "charts", "data", "estimate",
    "cache", "hardware", "ledger", "meter", "models", "card", "llamacpp", "publish", "scoring", "compare", "switch",
    "endpoint", "checker", "refine", "rewards", "cot", "traces", "audit", "plots", "arena", "toast", "job",
    "rehearsal", "stages", "cloud", "evaluations", "matrix", "health", "engines",
    "methods", "run", "demo", "show", "report", "api", "cli",
]  # fmt: skip
EXCEPTIONS = {("engines", "models")}


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def layer(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path, *, top_only: bool):
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_only else ast.walk(tree)
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in nodes:
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    here = layer(path)
    for name in imports(path, top_only=False):
        top = name.split(".")[0]
        if top == "toasterft" and "." in name and here in ORDER:
            other = name.split(".")[1]
            if other in ORDER and other != here:
                assert ORDER.index(other) < ORDER.index(here) or (here, other) in EXCEPTIONS, (
                    f"{here} imports {other}"
                )
        if top == "unsloth":
            assert path.name == "unsloth.py"
        if top == "trl":
            assert here == "methods"
        if top == "rich":
            assert here == "show"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_light_modules_import_nothing_heavy(path):
    if layer(path) in HEAVY_FOLDERS and path.name not in ("__init__.py", "families.py"):
        return
    heavy = {name.split(".")[0] for name in imports(path, top_only=True)} & HEAVY
    assert not heavy
    inside = {name.split(".")[0] for name in imports(path, top_only=False)} & HEAVY
    assert inside <= LAZY


def test_every_layer_is_in_the_order():
    assert {layer(path) for path in modules()} - {"__init__", "__main__"} <= set(ORDER)


def test_unsloth_is_the_first_import_of_its_engine():
    first = next(name for name in imports(PACKAGE / "engines" / "unsloth.py", top_only=True))
    assert first == "unsloth"


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["sft", "--help"],
        ["sft", "--model", "SmolVLM-256M", "--data", "smolcot-7k", "--gpu", "A40", "--dry-run"],
        ["gpus"],
        ["models"],
        ["runs"],
        ["recipes", "list"],
        ["cache"],
    ],
    ids=" ".join,
)
def test_light_commands_never_import_torch(words, tmp_path):
    code = (
        "import sys, toasterft.cli as cli\n"
        f"sys.argv = ['toasterft', *{words!r}]\n"
        "try:\n    cli.main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        f"loaded = {sorted(HEAVY)!r}\n"
        "found = [name for name in loaded if name in sys.modules]\n"
        "assert not found, found\n"
    )
    env = {**os.environ, "TOASTERFT_RUNS": str(tmp_path / "runs"), "TOASTERFT_CACHE": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
