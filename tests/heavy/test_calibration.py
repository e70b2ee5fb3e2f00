"""Estimates for the machine at hand: what a CPU run takes, and what `--measure` learns of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import tiny
import torch
import transformers

from toasterft.runs import run_folder

EMPTY = (
    "import toasterft.training.sft, toasterft.engine.transformers_engine, toasterft.evaluation.evaluate\n"
    "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM:')).split()[1])"
)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and asks glibc to give memory back")
@pytest.mark.parametrize("load_in_4bit", ["true", pytest.param("false", marks=pytest.mark.soak)])
def test_a_cpu_run_takes_the_memory_it_was_promised(load_in_4bit, charts_folder, tmp_path):
    """Resident memory above a process that only imports, against the same of the plan."""
    # Large enough that tensors weigh more than libraries: 65 M parameters, rows of a few hundred tokens.
    sizes = dict(hidden_size=768, intermediate_size=3072, num_attention_heads=12, num_key_value_heads=4)
    folder = tmp_path / "model"
    folder.mkdir()
    model = tiny.smolvlm_like(folder, "idefics3", layers=6, text_sizes=sizes)
    # As models are published: of a float32 file, run in float32, every page would stay mapped.
    transformers.AutoModelForImageTextToText.from_pretrained(model, dtype=torch.bfloat16).save_pretrained(
        model
    )
    # A heap that keeps what was freed would be measured instead: twice as much, and another figure every time.
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1048576"}
    words = [
        "sft", "--model", str(model), "--data", str(charts_folder), "--gpu", "cpu", "--out", str(tmp_path / "run"),
        "max_steps=1", "per_device_train_batch_size=8", "gradient_accumulation_steps=1", "eval_limit=2",
        "max_completion_length=4", f"load_in_4bit={load_in_4bit}", "--quiet",
    ]  # fmt: skip
    told = subprocess.run(
        [sys.executable, "-m", "toasterft", *words], env=env, capture_output=True, text=True
    )
    assert told.returncode == 0, told.stderr
    empty = subprocess.run([sys.executable, "-c", EMPTY], env=env, capture_output=True, text=True, check=True)
    empty_bytes = int(empty.stdout) * 1024
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    held = run_folder.predicted_and_measured(record)
    assert held["comparable"]
    assert set(held["phases"]) == {"start", "encode", "train", "evaluate"}
    assert all(row["seconds"]["measured"] > 0 for row in held["phases"].values())
    assert sum(row["seconds"]["measured"] for row in held["phases"].values()) == pytest.approx(
        record["measured"]["seconds"], rel=0.05
    )
    promised = record["estimate"]["vram_bytes"]["peak"] - empty_bytes
    measured = record["measured"]["peak_memory_bytes"] - empty_bytes
    # 0.77 to 0.81 of the promise on 2026-11-28, with rows that share their image and without; within 15 % before `sft`
    # had its own loss. Too much is promised, and why is not known yet.
    assert 0.7 * promised <= measured <= 1.15 * promised


def test_measuring_calibrates_later_estimates(charts_folder, run_cli, homes):
    plain = ["estimate", "sft", "--model", "toast-tiny", "--data", charts_folder, "--gpu", "cpu", "--json"]
    settings = ["per_device_train_batch_size=4", "max_completion_length=8"]
    before = run_cli(*plain, *settings).json()["rows"][0]
    assert not any("calibrated" in note for note in before["notes"])
    measured = run_cli(*plain, *settings, "--measure").json()["rows"][0]
    after = run_cli(*plain, *settings).json()["rows"][0]
    assert after == measured
    [file] = (homes / "cache" / "calibrations").glob("cpu.json")
    [kept] = json.loads(file.read_text())
    assert {"start", "encode", "train", "evaluate"} <= set(kept["measured"])
    for phase, row in kept["measured"].items():
        assert row["measured_seconds"] > 0, phase
        assert row["measured_bytes"] > 100e6, phase
    ratio = kept["seconds"]["start"]
    assert after["phase_seconds"]["start"]["likely"] == pytest.approx(
        ratio * before["phase_seconds"]["start"]["likely"]
    )
    assert after["phase_bytes"]["train"]["peak"] == pytest.approx(
        kept["bytes"]["train"] * before["phase_bytes"]["train"]["peak"], rel=1e-3
    )
    [note] = [note for note in after["notes"] if "calibrated" in note]
    assert "sft of toast-tiny on cpu" in note
    # Another machine is none of its business.
    elsewhere = run_cli(*plain[:-3], "--gpu", "A40", "--json", *settings).json()["rows"][0]
    assert not any("calibrated" in note for note in elsewhere["notes"])


def test_only_the_machine_at_hand_can_be_measured(charts_folder, run_cli, homes):
    told = run_cli(
        "estimate", "sft", "--model", "toast-tiny", "--data", charts_folder, "--gpu", "A40", "--measure"
    )
    assert told.code == 2
    assert "--gpu cpu --measure" in told.err
    assert not (homes / "cache" / "calibrations").exists()
