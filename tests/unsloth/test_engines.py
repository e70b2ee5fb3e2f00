"""Both engines from one adapter, with one seed: the same losses, gradients and tokens.

`python tests/unsloth/test_engines.py` runs every method on every family, and prints the figures of both.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from fake_runs import samples

from toasterft.models.architectures import supported

WORDS = ("image_longest_edge=64", "dtype=float32")
METHODS = {
    "sft": (),
    "grpo": ("--clip-low", "num_generations=4", "rewards.length=1.0"),
    "dyme": ("num_generations=4", "refiner=none"),
    "dpo": (),
}
# What every test run does: each method and each family once. The others are left to `make soak`.
ALWAYS = {
    ("sft", "idefics3"), ("grpo", "smolvlm"), ("dyme", "internvl"), ("dpo", "llava_onevision"), ("sft", "qwen2_5_vl"),
}  # fmt: skip
CASES = [
    pytest.param(method, family, marks=() if (method, family) in ALWAYS else pytest.mark.soak)
    for family in sorted(supported())
    for method in METHODS
]
# Relative: the engines sum in another order. A policy loss whose advantages cancel is nothing but rounding.
LOSS, NORM, NOTHING = 1e-3, 3e-3, 1e-6


def figures(folder: Path) -> dict[int, tuple[float, float]]:
    """Loss and gradient norm of each step; DyME's supervised loss where it memorises, since there its loss is -1."""
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    loss = "switch/sft_loss"
    return {row["step"]: (row.get(loss, row["loss"]), row["grad_norm"]) for row in rows if "grad_norm" in row}


@pytest.fixture(scope="module")
def adapters() -> dict[Any, Path]:
    return {}


@pytest.fixture
def adapter(adapters, tiny_model, charts_folder, run_cli, quick, tmp_path_factory):
    """Folder of an adapter that has learned a little, by the plain engine."""

    def get(family: str, *words: str) -> Path:
        if (family, words) not in adapters:
            out = tmp_path_factory.mktemp("adapter") / "adapter"
            shared = ("--model", tiny_model(family), "--data", charts_folder, "--out", out, *quick, *WORDS)
            done = run_cli("sft", *shared, *words)
            assert done.code == 0, done.err
            adapters[family, words] = out
        return adapters[family, words]

    return get


@pytest.fixture
def both(start_unsloth, run_cli, quick, homes, record_property):
    """Train on both engines at once: (Unsloth's folder, plain's folder), their figures held against each other."""

    def train(method: str, *words: Any) -> tuple[Path, Path]:
        folders = homes / "unsloth", homes / "plain"
        words = (*quick, *WORDS, *words)
        running = start_unsloth(method, *words, "engine=unsloth", "--out", folders[0])
        plain = run_cli(method, *words, "engine=plain", "--out", folders[1])
        done = running.wait()
        assert (done.code, plain.code) == (0, 0), done.err[-6000:] + plain.err
        assert json.loads((folders[0] / "run.json").read_text())["engine"] == "unsloth"
        compare(*map(figures, folders))
        return folders

    def compare(found: Any, expected: Any) -> None:
        record_property("figures", [expected, found])
        assert found.keys() == expected.keys()
        for step, (a, b) in expected.items():
            assert found[step][0] == pytest.approx(a, rel=LOSS, abs=NOTHING), (found, expected)
            assert found[step][1] == pytest.approx(b, rel=NORM), (found, expected)

    train.compare = compare
    return train


def texts(folder: Path) -> list[str]:
    return [row["text"] for row in samples(folder)]


@pytest.mark.parametrize(("method", "family"), CASES)
def test_every_method_and_family(method, family, both, adapter, charts_folder, pairs_folder):
    data = pairs_folder if method == "dpo" else charts_folder
    found, expected = both(method, "--model", adapter(family), "--data", data, *METHODS[method])
    assert len(texts(found)) >= 4
    # Greedy answers at the end, and what grpo and dyme sampled on the way.
    assert texts(found) == texts(expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sixteen_bits(dtype, both, adapter, charts_folder):
    both("sft", "--model", adapter("smolvlm"), "--data", charts_folder, f"dtype={dtype}")


def test_the_connector_trains(both, adapter, charts_folder):
    start = adapter("idefics3", "train_connector=true")
    after = both("sft", "--model", start, "--data", charts_folder, "train_connector=true")
    before, *factors = (
        safetensors.torch.load_file(folder / "connector_factor.safetensors")["A"]
        for folder in (start, *after)
    )
    assert not any(torch.allclose(before, factor, atol=1e-4) for factor in factors)


def test_full_tuning(both, tiny_model, charts_folder):
    both(
        "sft",
        "--model",
        tiny_model(),
        "--data",
        charts_folder,
        "lora=null",
        "load_in_4bit=false",
        "learning_rate=1e-4",
    )


def test_a_killed_run_resumes(adapter, start_unsloth, run_cli, charts_folder, quick, homes, both):
    words = ("--model", adapter("idefics3"), "--data", charts_folder, *quick, *WORDS, "save_steps=1")
    folder, whole = homes / "killed", homes / "whole"
    running = start_unsloth("sft", *words, "max_steps=6", "--out", folder, "engine=unsloth")
    while not (folder / "metrics.jsonl").exists() or len(figures(folder)) < 3:
        assert running.alive(), running.wait().err
        time.sleep(0.02)
    os.kill(running.pid, signal.SIGKILL)
    assert running.wait().code == -signal.SIGKILL
    done = start_unsloth("sft", "--resume", folder).wait()
    assert done.code == 0, done.err
    done = run_cli("sft", *words, "max_steps=6", "--out", whole, "engine=plain")
    assert done.code == 0, done.err
    both.compare(figures(folder), figures(whole))


def test_eval_and_ask(adapter, unsloth_cli, run_cli, charts_folder, homes):
    start, picture = adapter("idefics3"), next((charts_folder / "images").glob("*.png"))
    short = ("max_completion_length=8", "dtype=float32", "--json")
    found, expected = (
        cli("ask", start, picture, "Which bar is high?", *short, f"engine={engine}").json()["text"]
        for cli, engine in ((unsloth_cli, "unsloth"), (run_cli, "plain"))
    )
    assert found == expected
    for cli, engine in ((unsloth_cli, "unsloth"), (run_cli, "plain")):
        sampled = ("--limit", 4, "temperature=1", f"engine={engine}", "--out", homes / engine)
        done = cli("eval", start, "--data", charts_folder, *short, *sampled)
        assert done.code == 0, done.err
    assert texts(homes / "unsloth") == texts(homes / "plain")


def test_a_merged_export(adapter, unsloth_cli, run_cli, homes):
    folder = adapter("smolvlm")
    for name, cli in (("found", unsloth_cli), ("expected", run_cli)):
        done = cli("export", folder, "--out", homes / name, "--dtype", "float32", "--json")
        assert done.code == 0, done.err
        assert done.json()["export"]["check"]["largest_difference"] < 1e-5
    found, expected = (
        safetensors.torch.load_file(homes / name / "model.safetensors") for name in ("found", "expected")
    )
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-m", "soak or not soak", *sys.argv[1:]]))
