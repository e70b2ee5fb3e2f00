"""The embedded model: that it sees, how it was taught, and the demo on it."""

from __future__ import annotations

import json
import shutil

from toasterft.data import charts
from toasterft.jobs import demo


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


def test_pretraining_resumes_to_the_same_weights(run_cli, tmp_path):
    small = ("per_device_train_batch_size=4", "warmup_steps=1", "save_steps=2", "logging_steps=1")
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert run_cli("charts", "pretrain", *small, "max_steps=4", "--out", whole, "--quiet").code == 0
    assert run_cli("charts", "pretrain", *small, "max_steps=4", "--out", halves, "--quiet").code == 0
    # As if it had been killed after two steps: what came later is gone.
    shutil.rmtree(halves / "checkpoints" / "checkpoint-4")
    assert (
        run_cli("charts", "pretrain", *small, "max_steps=4", "--out", halves, "--quiet", "--resume").code == 0
    )
    assert (halves / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    refused = run_cli("charts", "pretrain", *small, "max_steps=5", "--out", halves, "--quiet", "--resume")
    assert refused.code == 2
    assert "differs" in refused.err


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
