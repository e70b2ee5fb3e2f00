"""Unsloth cannot be imported without CUDA: its source is read instead, and our keyword arguments held against it."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

from toasterft.engine import pretrained

ENGINE = Path(__file__).parents[2] / "toasterft" / "engine" / "unsloth_engine.py"


def unsloth_source() -> Path:
    found = importlib.util.find_spec("unsloth")
    if found is None or not found.submodule_search_locations:
        pytest.skip("unsloth's source is not installed (make installs it with --no-deps)")
    return Path(found.submodule_search_locations[0]) / "models"


def functions(file: Path, class_name: str) -> dict[str, ast.FunctionDef]:
    tree = ast.parse(file.read_text())
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            found |= {item.name: item for item in node.body if isinstance(item, ast.FunctionDef)}
    return found


def calls() -> dict[str, set[str]]:
    """Keyword arguments we pass to each FastVisionModel function."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(ast.parse(ENGINE.read_text())):
        if not isinstance(node, ast.Call):
            continue
        if "FastVisionModel." in ast.unparse(node.func):
            found.setdefault(node.func.attr, set()).update(word.arg for word in node.keywords)
        elif ast.unparse(node.func) == "pretrained.model":
            found["from_pretrained"] = {word.arg for word in node.keywords} | set(pretrained.PINNED)
    return found


def test_the_vision_class_is_the_general_one():
    tree = ast.parse((unsloth_source() / "loader.py").read_text())
    (vision,) = [n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == "FastVisionModel"]
    assert [ast.unparse(base) for base in vision.bases] == ["FastModel"]


def test_our_keyword_arguments_exist():
    source = unsloth_source()
    known = functions(source / "vision.py", "FastBaseModel") | functions(source / "loader.py", "FastModel")
    # FastModel.get_peft_model hands everything to FastBaseModel's.
    known["get_peft_model"] = functions(source / "vision.py", "FastBaseModel")["get_peft_model"]
    passed = calls()
    assert {"from_pretrained", "get_peft_model", "post_patch_model"} <= passed.keys()
    through = {
        "quantization_config",
        "attn_implementation",
        "use_safetensors",
    }  # taken out of **kwargs by name
    for name, words in passed.items():
        arguments = known[name].args
        names = {argument.arg for argument in [*arguments.args, *arguments.kwonlyargs]}
        unknown = words - names - (through if name == "from_pretrained" else set())
        assert not unknown, f"{name}: {unknown}"
    text = (source / "vision.py").read_text()
    for word in through:
        assert f'kwargs.get("{word}"' in text


def test_the_toggles_exist():
    known = functions(unsloth_source() / "vision.py", "FastBaseModel")
    assert {"for_training", "for_inference"} <= known.keys()
    used = ENGINE.read_text()
    assert "FastVisionModel.for_training" in used
    assert "FastVisionModel.for_inference" in used
