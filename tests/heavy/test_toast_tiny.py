"""The embedded model: that it sees, how it was taught, and the demo on it."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from toasterft.data import charts
from toasterft.jobs import demo

TOOL = Path(__file__).parents[2] / "tools" / "toast_tiny" / "pretrain.py"


@pytest.fixture
def pretrain(monkeypatch):
    """The tool's module; it lies beside the package, not in it."""
    monkeypatch.syspath_prepend(TOOL.parent)
    return importlib.import_module("pretrain")


def test_it_reads_charts_it_has_never_seen(run_cli, tmp_path):
    data = charts.write_dataset(
        tmp_path / "fresh", n=60, seed=424242, kinds=("transcribe",), per_chart=1, splits=(0.0, 0.0, 1.0)
    )
    done = run_cli(
        "eval", "toast-tiny", "--data", data, "--json", "--quiet", "per_device_eval_batch_size=60",
        "max_completion_length=64",
    )  # fmt: skip
    assert done.code == 0, done.err
    pairs = done.json()["pairs"]
    assert pairs["n"] >= 150
    assert pairs["value"] >= 0.95


def test_pretraining_resumes_to_the_same_weights(pretrain, tmp_path):
    small = ["per_device_train_batch_size=4", "warmup_steps=1", "save_steps=2", "logging_steps=1"]
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    for folder in (whole, halves):
        pretrain.main([*small, "max_steps=4"], folder, quiet=True)
    # As if it had been killed after two steps: what came later is gone.
    shutil.rmtree(halves / "checkpoints" / "checkpoint-4")
    pretrain.main([*small, "max_steps=4"], halves, resume=True, quiet=True)
    assert (halves / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    words = [*small, "max_steps=5", "--out", halves, "--quiet", "--resume"]
    refused = subprocess.run([sys.executable, TOOL, *map(str, words)], capture_output=True, text=True)
    assert refused.returncode == 2
    assert "differs" in refused.stderr


def test_pretraining_reads_all_its_fields(pretrain, tmp_path, monkeypatch):
    read, plain = set(), pretrain.Pretrain.__getattribute__

    def watching(self, name):
        if sys._getframe(1).f_globals.get("__name__") == "pretrain":
            read.add(name)
        return plain(self, name)

    monkeypatch.setattr(pretrain.Pretrain, "__getattribute__", watching)
    small = ["max_steps=1", "per_device_train_batch_size=2", "warmup_steps=0", "seeing=0"]
    pretrain.main(small, tmp_path / "tiny", quiet=True)
    assert set(pretrain.Pretrain.model_fields) <= read


def test_the_demo_tells_its_story(run_cli, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "QUICK", demo.Size(charts=60, questions_per_chart=2, eval_limit=8, max_steps=2))
    done = run_cli("demo", "--quick", "--out", tmp_path / "demo", "--json", "--methods", "sft,dyme")
    assert done.code == 0, done.err
    found = done.json()
    assert set(found["methods"]) == {"sft", "dyme"}
    assert found["base"]["n"] == 8
    assert found["usd_on_default_gpu"] > 0
    shown = run_cli("demo", "--quick", "--out", tmp_path / "again")
    assert shown.code == 0, shown.err
    assert "right answer" in shown.out
    assert json.loads((tmp_path / "again" / "charts" / "card.json").read_text())
