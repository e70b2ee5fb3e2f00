"""Generated damage to model, adapter and run folders: one message and exit 2, or no harm; never a traceback."""

from __future__ import annotations

import json
import shutil
from itertools import chain
from pathlib import Path

import damage
import fake_runs
import pytest
import safetensors.torch
import torch

from toasterft.models import weight_files

JSON = ("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json", "tokenizer.json",
        "tokenizer_config.json", "chat_template.json")  # fmt: skip


def lots(quick: int, soak: int):
    """(how many damages, seed): a few in `make test`, most of them in `make soak`."""
    return [(quick, 0), pytest.param(soak, 1, marks=[pytest.mark.soak, pytest.mark.timeout(7200)])]


@pytest.fixture
def held(run_cli):
    """Run a command on a damaged folder: it must end well, or with a message."""

    def call(word: str, *words):
        done = run_cli(*words)
        assert done.code in (0, 2), f"{word}: {done.err}"
        assert "Traceback" not in done.err
        if done.code == 2:
            assert any(line.startswith("✗ ") for line in done.err.split("\n")), f"{word}: {done.err}"
        return done

    return call


@pytest.mark.parametrize(("count", "seed"), lots(10, 1200))
def test_model_folders(count, seed, held, tiny_model, charts_folder, tmp_path):
    damages = chain(*map(damage.of_file, JSON), damage.of_tensors("model.safetensors"))
    for word, folder in damage.copies(tiny_model(), tmp_path / "model", damage.some(damages, count, seed)):
        held(word, "data", "preview", charts_folder, "--model", folder)
        held(word, "eval", folder, "--data", charts_folder, "--limit", 1, "max_completion_length=1")


@pytest.fixture
def adapter(tiny_model, tmp_path) -> Path:
    """A LoRA of rank 2 on the query projections of the tiny model, as PEFT would save it."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    tensors = {}
    for name, tensor in weight_files.tensors(tiny_model()).items():
        if name.endswith("self_attn.q_proj.weight") and "text_model" in name:
            outputs, inputs = tensor.shape
            place = f"base_model.model.{name.removesuffix('.weight')}"
            tensors[f"{place}.lora_A.weight"] = torch.ones(2, inputs) / 100
            tensors[f"{place}.lora_B.weight"] = torch.ones(outputs, 2) / 100
    assert tensors
    safetensors.torch.save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    settings = {
        "peft_type": "LORA", "r": 2, "lora_alpha": 4, "lora_dropout": 0.0, "bias": "none", "task_type": "CAUSAL_LM",
        "target_modules": ["q_proj"], "base_model_name_or_path": str(tiny_model()), "auto_mapping": None,
        "modules_to_save": None, "use_rslora": False, "rank_pattern": {}, "alpha_pattern": {},
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    notes = {"prompt": {"think_tag": "think"}, "image_longest_edge": 64, "load_in_4bit": False, "base": "x"}
    (folder / "toasterft.json").write_text(json.dumps(notes))
    return folder


@pytest.mark.parametrize(("count", "seed"), lots(8, 700))
def test_adapters(count, seed, held, adapter, charts_folder, tmp_path):
    assert (
        held("whole", "eval", adapter, "--data", charts_folder, "--limit", 1, "max_completion_length=1").code
        == 0
    )
    damages = chain(
        damage.of_file("adapter_config.json"),
        damage.of_file("toasterft.json"),
        damage.of_tensors("adapter_model.safetensors"),
    )
    for word, folder in damage.copies(adapter, tmp_path / "copy", damage.some(damages, count, seed)):
        held(word, "eval", folder, "--data", charts_folder, "--limit", 1, "max_completion_length=1")


@pytest.mark.parametrize(
    "settings",
    [
        {"r": 10**6}, {"r": -1}, {"r": 2.5}, {"r": 3}, {"lora_alpha": "x"}, {"lora_alpha": 1e30}, {"lora_dropout": 2},
        {"peft_type": "IA3"}, {"bias": "all"}, {"modules_to_save": ["lm_head"]}, {"use_dora": True},
        {"rank_pattern": {"(a+)+$": 3}}, {"alpha_pattern": {".*": 7}}, {"layer_replication": [[0, 2]]},
        {"base_model_name_or_path": ""}, {"base_model_name_or_path": "/nowhere"}, {"base_model_name_or_path": 7},
        {"base_model_name_or_path": "toast-tiny"}, {"target_modules": 3},
    ],
    ids=str,
)  # fmt: skip
def test_adapter_settings_that_are_refused(settings, held, adapter, charts_folder):
    whole = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(whole | settings))
    assert held(str(settings), "eval", adapter, "--data", charts_folder, "--limit", 1).code == 2


def test_patterns_are_not_matched_and_code_is_not_imported(held, adapter, charts_folder):
    """A pattern that takes years and a library that is not there: neither is used."""
    whole = json.loads((adapter / "adapter_config.json").read_text())
    more = {
        "target_modules": "(((a+)+)+)+$",
        "auto_mapping": {"base_model_class": "X", "parent_library": "evil"},
    }
    (adapter / "adapter_config.json").write_text(json.dumps(whole | more))
    words = ("eval", adapter, "--data", charts_folder, "--limit", 1, "max_completion_length=1")
    assert held("pattern", *words).code == 0
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    done = held("pickle", *words)
    assert done.code == 2
    assert "only safetensors are read" in done.err


def evaluation(runs: Path, name: str, data: Path) -> str:
    """A finished evaluation of six questions, half of them right, with its summary."""
    half = {"value": 0.5, "low": 0.2, "high": 0.8}
    return fake_runs.evaluation(
        runs,
        name,
        data,
        lambda k: {"answer": str(k % 2), "correct": {"robust": k < 2}, "kind": "human", "item": f"i{k}"},
        range(6),
        record={
            "model_base": name, "data_split": "test", "measured": {"seconds": 9.0, "usd": None, "phases": {}},
            "eval": {"n": 6, "task": "chart", "scores": {"robust": half}, "by_kind": {"human": {"n": 6, "robust": half}}},
        },
    )  # fmt: skip


@pytest.mark.parametrize(("count", "seed"), lots(12, 1500))
def test_run_folders(count, seed, held, tmp_path):
    """A damaged run is one damaged run: the others are listed, shown and compared as before."""
    data, runs = fake_runs.data_folder(tmp_path / "data", 6), tmp_path / "home"
    right, wrong = (evaluation(runs, name, data) for name in ("right", "wrong"))
    fake_runs.training(runs / "mine", data, [{"step": n, "loss": 1 / n} for n in range(1, 9)])
    (runs / "mine" / "spend.json").write_text('{"seconds": 200.0, "usd": 0.5}')
    damages = chain(
        damage.of_file("mine/run.json"),
        damage.of_file("mine/spend.json"),
        damage.of_file(f"{wrong}/run.json"),
        *(damage.of_file(f"mine/{name}", keys=False) for name in ("recipe.yaml", "metrics.jsonl")),
        *(damage.of_file(f"{wrong}/{name}", keys=False) for name in ("recipe.yaml", "samples.jsonl")),
    )
    page = tmp_path / "page.html"
    for word, folder in damage.copies(runs, tmp_path / "copy", damage.some(damages, count, seed)):
        where = ("--runs-dir", folder)
        assert held(word, "runs", *where).code == 0
        assert held(word, "runs", "--accuracy", *where).code == 0
        assert held(word, "report", right, "-o", page, "--force", *where).code == 0
        held(word, "report", "mine", "-o", page, "--force", *where)
        held(word, "show", "mine", *where)
        held(word, "compare", right, wrong, *where)


def test_a_damaged_run_is_listed_as_damaged(run_cli, tmp_path):
    runs = tmp_path / "runs"
    ids = [evaluation(runs, "one", fake_runs.data_folder(tmp_path / "data", 6))]
    shutil.copytree(runs / ids[0], runs / "zzz")
    (runs / "zzz" / "run.json").write_text('{"id": "zzz", "method": ["sft"]}')
    done = run_cli("runs", "--json", "--runs-dir", runs)
    listed = done.json()["runs"]
    assert [run["status"] for run in listed] == ["done", "damaged"]
    assert "method" in listed[-1]["stop_reason"]


def test_answers_that_are_missing_are_said(run_cli, tmp_path):
    data, runs = fake_runs.data_folder(tmp_path / "data", 6), tmp_path / "runs"
    whole, cut = (evaluation(runs, name, data) for name in ("whole", "cut"))
    rows = (runs / cut / "samples.jsonl").read_text().split("\n")
    (runs / cut / "samples.jsonl").write_text("\n".join([rows[0][:-9], *rows[1:]]))
    done = run_cli("compare", whole, cut, "--runs-dir", runs, "--json")
    assert done.code == 0, done.err
    assert [note for note in done.json()["notes"] if "counts 6 answers, 5 can be read" in note]
    assert (
        "counts 6 answers, 5 can be read"
        in run_cli("report", cut, "-o", tmp_path / "p.html", "--runs-dir", runs).err
        + (tmp_path / "p.html").read_text()
    )
