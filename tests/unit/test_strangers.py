"""Files from strangers: what a model, an adapter or a run folder of somebody else's can make this program do."""

from __future__ import annotations

import ast
import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from toasterft.errors import UserError
from toasterft.models import lookup, model_files, weight_files
from toasterft.recipe import Prompt

ROOT = Path(__file__).parents[2]
OURS = [
    file for folder in ("toasterft", "tools", "benchmarks") for file in sorted((ROOT / folder).rglob("*.py"))
]
# What loads files that can hold code, and the one place that may.
LOADERS = {"from_pretrained": "toasterft/engine/pretrained.py"}
PICKLES = {"torch.load", "pickle.load", "pickle.loads", "yaml.load", "joblib.load", "numpy.load", "np.load"}


def calls(file: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def place(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def test_there_is_one_door_to_from_pretrained_and_none_to_pickles():
    for file in OURS:
        for name, node in calls(file):
            last = name.split(".")[-1]
            assert LOADERS.get(last, place(file)) == place(file), f"{place(file)}:{node.lineno} calls {name}"
            safe = name == "yaml.load" and "SafeLoader" in file.read_text()
            assert name not in PICKLES or safe, f"{place(file)}:{node.lineno} calls {name}"
        assert "trust_remote_code=True" not in file.read_text().replace(" ", "")


# Lines of the system's or of a package's files, not of ours.
OTHER_LINES = {
    "toasterft/cli/doctor.py", "toasterft/engine/phases.py", "benchmarks/common.py", "benchmarks/gpu_checks/worker.py",
}  # fmt: skip


def test_our_files_are_read_by_newline_alone():
    """`str.splitlines` also cuts at U+2028, U+2029 and U+0085, which JSON leaves inside an answer."""
    for file in OURS:
        for name, node in calls(file):
            cut = name.endswith(".splitlines") and "read_text(" in name
            assert not cut or place(file) in OTHER_LINES, f"{place(file)}:{node.lineno}"


BOMBS = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "doubling": "{% set n = namespace(t='xxxxxxxx') %}{% for i in range(60) %}{% set n.t = n.t ~ n.t %}{% endfor %}",
    "power": "{{ 'x' * 10 ** 11 }}",
    "long": "{{ 'x' * 10 ** 7 }}",
    "large": "{{ 1 }}" * 10**5,
    "nested": "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "unknown filter": "{{ messages | nothing }}",
    "not closed": "{% for m in messages %}",
    "raises": "{{ raise_exception('no') }}",
    "division": "{{ 1 / 0 }}",
}


@pytest.mark.parametrize("word", BOMBS)
def test_a_template_is_bounded(word, monkeypatch):
    from toasterft.audit import preview
    from toasterft.data import template

    monkeypatch.setattr(template, "MOST_SECONDS", 0.5)
    model = lookup.resolve("toast-tiny", Path())
    with pytest.raises(UserError, match="template") as caught:
        preview._chat(model, Prompt(chat_template=BOMBS[word]))
    assert "next" in str(caught.value)


@pytest.fixture
def folder(tiny_model, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_model(), tmp_path / "model"))


def change(file: Path, **values) -> None:
    whole = json.loads(file.read_text()) if file.exists() else {}
    for key, value in values.items():
        holder = whole
        *outer, last = key.split("__")
        for each in outer:
            holder = holder[each]
        holder[last] = value
    file.write_text(json.dumps(whole))


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        lookup.resolve(str(folder), folder.parent)
    return str(caught.value)


HUGE = {
    "text_config__num_hidden_layers": 10**6,
    "text_config__vocab_size": 10**9,
    "text_config__hidden_size": 48.5,
    "vision_config__num_hidden_layers": True,
    "vision_config__image_size": 10**9,
    "vision_config__patch_size": 0,
}


@pytest.mark.parametrize("key", HUGE)
def test_sizes_that_no_model_has(key, folder):
    change(folder / "config.json", **{key: HUGE[key]})
    assert "config.json" in refused(folder)


def test_a_configuration_larger_than_its_weights(folder):
    change(folder / "config.json", text_config__num_hidden_layers=900)
    text = refused(folder)
    assert "describes" in text
    assert "the weights hold" in text


@pytest.mark.parametrize("where", ["", "text_config__", "vision_config__"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("_attn_implementation", "kernels-community/x"),
        ("attn_implementation", {"": "somebody/kernel"}),
        ("_attn_implementation_internal", "kernels-community/x:y"),
        ("experts_implementation", "a/b"),
        ("quantization_config", {"quant_method": "gptq", "bits": 4}),
        ("quantization_config", {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_compute_dtype": "save"}),
        ("dtype", "load"),
        ("torch_dtype", "hub"),
        ("custom_generate", "somebody/generate"),
    ],
)  # fmt: skip
def test_a_configuration_decides_nothing_about_code(where, key, value, folder):
    change(folder / "config.json", **{where + key: value})
    text = refused(folder)
    assert f"{key}:" in text
    assert "is refused" in text


def test_code_of_its_own_has_no_effect_and_is_noted(folder):
    change(folder / "config.json", auto_map={"AutoConfig": "evil.C", "AutoModelForImageTextToText": "evil.M"})
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", None]})
    (folder / "evil.py").write_text("raise SystemExit('code of a stranger')")
    notes = model_files.check(folder)
    assert len(notes) == 2
    assert all("not run" in note for note in notes)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("custom_generate", "a/b"),
        ("num_beams", 10**6),
        ("cache_implementation", "offloaded"),
        ("compile_config", {}),
    ],
)
def test_a_generation_is_ours_to_set(key, value, folder):
    change(folder / "generation_config.json", **{key: value})
    assert key in refused(folder)


def test_only_safetensors(folder):
    weights = folder / "model.safetensors"
    decoy = weights.rename(folder / "decoy.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    assert "pytorch_model.bin" in refused(folder)
    decoy.unlink()
    text = refused(folder)
    assert "only safetensors are read" in text
    assert "next" in text


def shards(folder: Path) -> dict[str, str]:
    """Split the weights in two, and return the index."""
    import safetensors.torch

    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    names = sorted(tensors)
    (folder / "model.safetensors").unlink()
    index = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        name = f"model-{number:05d}-of-00002.safetensors"
        safetensors.torch.save_file(
            {each: tensors[each] for each in part}, folder / name, metadata={"format": "pt"}
        )
        index |= dict.fromkeys(part, name)
    (folder / weight_files.INDEX_FILE).write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return index


def test_an_index_names_shards_beside_it(folder):
    whole = weight_files.tensors(folder)
    index = shards(folder)
    assert weight_files.tensors(folder) == whole
    before = lookup.fingerprint(folder)
    shutil.copy(folder / "model-00001-of-00002.safetensors", folder / "other.safetensors")
    assert lookup.fingerprint(folder) == before, "what is not loaded does not count"
    first = next(iter(index))
    for name, says in (
        ("../model/model-00001-of-00002.safetensors", "names"), ("/etc/passwd", "names"), ("gone.safetensors", "missing"),
        ("model-00001-of-00002.bin", "names"), (index[first].replace("1", "2", 1), "disagree"), (3, "no table"),
    ):  # fmt: skip
        moved = name if name != index[first] else "model-00002-of-00002.safetensors"
        (folder / weight_files.INDEX_FILE).write_text(json.dumps({"weight_map": {**index, first: moved}}))
        assert says in refused(folder)
    del index[first]
    (folder / weight_files.INDEX_FILE).write_text(json.dumps({"weight_map": index}))
    assert "disagree" in refused(folder)


def test_a_header_is_believed_only_as_far_as_the_file_goes(folder):
    file = folder / "model.safetensors"
    data = file.read_bytes()
    for bad in (
        data[:-1],
        data + b"x",
        data[:4],
        struct.pack("<Q", 10**15) + data[8:],
        struct.pack("<Q", 2) + b"[]",
    ):
        file.write_bytes(bad)
        assert "whole safetensors" in refused(folder)


def test_weights_that_lack_a_tensor(folder):
    import safetensors.torch
    import transformers

    from toasterft.engine import pretrained

    file = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    del tensors["model.text_model.norm.weight"]
    safetensors.torch.save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match="lack 1 tensors"):
        pretrained.model(transformers.AutoModelForImageTextToText, folder)


@pytest.mark.parametrize("text", ["7", '{"a": 1}', '[{"machine": 3}]', "[[]]", '["x"]', "{"])
def test_a_damaged_calibration_is_named(text, homes):
    from toasterft.estimation import calibration

    calibration.Calibration("cpu", "sft", "m", "2026-01-01", {"train": 1.5}, {"train": 1.0}).save()
    assert calibration.find("cpu", "sft", "m") is not None
    file = calibration._path("cpu")
    file.write_text(text)
    with pytest.raises(UserError, match=file.name):
        calibration.find("cpu", "sft", "m")
