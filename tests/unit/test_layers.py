"""Imports point down only, nothing goes in a circle, and the light commands stay light."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "toasterft"
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
# Modules that may import a heavy library at their top; a folder's `__init__` stays light.
HEAVY_PLACES = (
    "engine/", "training/", "estimation/simulate/", "evaluation/evaluate.py", "evaluation/answer.py",
    "evaluation/ask.py", "publish/export.py", "publish/merge.py",
)  # fmt: skip
# Of those, the ones that light modules use.
LIGHT = {"engine/feature_cache.py", "training/dyme_switch.py"}
# May be imported inside a function of a light module, where only that path needs it.
LAZY = {"datasets", "torch", "transformers"}
# The floors, from the ground up: each may import those before it in this list, and nothing after it.
ORDER = [
    "errors", "paths", "progress", "units", "recipe", "catalog", "runs", "models", "data", "scoring", "engine",
    "estimation", "audit", "teachers", "jobs", "evaluation", "training", "publish", "terminal", "api", "cli",
]  # fmt: skip
# At most so many things lie at the top of the package.
MOST_AT_THE_TOP = 22


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def floor(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def place(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def module_name(path: Path, root: Path = ROOT) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path, *, top_only: bool):
    """Names that a file imports, those under `if TYPE_CHECKING` left out.

    With `top_only=False` also modules named in a string, as `importlib.import_module` takes them: a table of such
    names, or an `f"toasterft.engine.{name}"`, is an import that merely waits.
    """
    tree = parsed(path)
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
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            name = node.value
            if name.startswith("toasterft.") and name.replace(".", "").isidentifier():
                yield name


# Tables of names that are imported by whoever runs them, far above: the registry names the methods' modules.
TABLES = {"recipe/registry.py"}


@pytest.mark.parametrize("path", modules(), ids=place)
def test_imports_point_down(path):
    here = floor(path)
    for name in imports(path, top_only=False):
        top = name.split(".")[0]
        if top == "toasterft" and "." in name and here in ORDER and place(path) not in TABLES:
            other = name.split(".")[1]
            if other in ORDER and other != here:
                assert ORDER.index(other) < ORDER.index(here), f"{place(path)} imports {name}"
        if top == "unsloth":
            assert place(path) == "engine/unsloth_engine.py"
        assert top != "trl"  # the referee of tests and benchmarks: no dependency of the package
        if top == "rich":
            assert here == "terminal"


def circles(files: dict[str, Path]) -> list[list[str]]:
    """Groups of modules that import each other, through any of their functions too (Tarjan's components)."""
    known = set(files)
    arrows = {}
    for name, path in files.items():
        found = set()
        for other in imports(path, top_only=False):
            # An imported package's `__init__` counts only where a name of its own is meant.
            target = other if other in known else other.rpartition(".")[0]
            if target in known and target != name:
                found.add(target)
        # `from package import module` means the module.
        deeper = {other for other in found if any(each.startswith(other + ".") for each in found)}
        arrows[name] = found - {each for each in deeper if files[each].name == "__init__.py"}
    index, low, stack, groups = {}, {}, [], []

    def visit(name):
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(arrows[name]):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            group = []
            while not group or group[-1] != name:
                group.append(stack.pop())
            if len(group) > 1:
                groups.append(sorted(group))

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    try:
        for name in sorted(arrows):
            if name not in index:
                visit(name)
    finally:
        sys.setrecursionlimit(limit)
    return groups


@pytest.mark.parametrize("folder", ["toasterft", "benchmarks"])
def test_nothing_goes_in_a_circle(folder):
    root = ROOT if folder == "toasterft" else ROOT / folder
    files = {module_name(path, root): path for path in sorted((ROOT / folder).rglob("*.py"))}
    files = {name: path for name, path in files.items() if place_of(path) not in TABLES}
    assert circles(files) == []


def place_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix() if path.is_relative_to(PACKAGE) else path.name


def test_a_circle_and_a_waiting_import_are_seen(tmp_path):
    (tmp_path / "one.py").write_text("def f():\n    import two\n")
    (tmp_path / "two.py").write_text("from one import f\n")
    assert circles({"one": tmp_path / "one.py", "two": tmp_path / "two.py"}) == [["one", "two"]]
    (tmp_path / "three.py").write_text('NAMES = {"a": "toasterft.training.sft"}\n')
    assert "toasterft.training.sft" in set(imports(tmp_path / "three.py", top_only=False))


def test_no_module_changes_its_own_class():
    for path in modules():
        assert "].__class__ =" not in path.read_text(), place(path)


@pytest.mark.parametrize("path", modules(), ids=place)
def test_light_modules_import_nothing_heavy(path):
    where = place(path)
    if (
        where.startswith(HEAVY_PLACES)
        and where not in LIGHT
        and where.count("/") + (path.name != "__init__.py") > 1
    ):
        return
    heavy = {name.split(".")[0] for name in imports(path, top_only=True)} & HEAVY
    assert not heavy
    inside = {name.split(".")[0] for name in imports(path, top_only=False)} & HEAVY
    assert inside <= LAZY


def test_every_floor_is_in_the_order():
    assert {floor(path) for path in modules()} - {"__init__", "__main__"} <= set(ORDER)
    assert len(ORDER) <= MOST_AT_THE_TOP


def test_unsloth_is_the_first_import_of_its_engine():
    first = next(name for name in imports(PACKAGE / "engine" / "unsloth_engine.py", top_only=True))
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


def test_the_architecture_page_shows_these_floors_and_files():
    text = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| (`[^|]+`) \|", text, re.MULTILINE)
    assert [name for row in rows for name in re.findall(r"`(\w+)`", row)] == ORDER
    for name in re.findall(r"`((?:\w+/)+\w+\.py)`", text):
        assert (PACKAGE / name).is_file() or (ROOT / name).is_file(), name
