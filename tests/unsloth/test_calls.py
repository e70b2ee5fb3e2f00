"""What our calls of Unsloth once got wrong, each seen to fail before it was mended (2026-11-28)."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import recomputations
import safetensors.torch
import torch

# So small a rate that what an adapter began with is what it ends with, but for lora_B.
STILL = ("learning_rate=1e-12", "image_longest_edge=64", "dtype=float32", "max_steps=2", "eval_limit=2")
SAMPLING = ("num_generations=4", "rewards.length=1.0", "max_completion_length=6")


@pytest.fixture
def by_generate(tiny_model, tmp_path):
    """A model that samples by `generate`: completions in slots know no penalties."""

    def get(family="idefics3"):
        folder = tmp_path / family
        shutil.copytree(tiny_model(family), folder)
        file = folder / "generation_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "repetition_penalty": 1.1}))
        return folder

    return get


@pytest.fixture
def train(unsloth_cli, tiny_model, charts_folder, quick, homes, monkeypatch):
    """Train by Unsloth: (what it printed, its folder, passes of decoder layers by kind)."""

    def run(method, *words, name, model=None, data=None):
        folder, file = homes / name, homes / f"{name}.passes"
        monkeypatch.setenv(recomputations.FILE, str(file))
        start = ("--model", model or tiny_model(), "--data", data or charts_folder, "--out", folder)
        done = unsloth_cli(method, *start, *quick, *STILL, "engine=unsloth", *words)
        assert done.code == 0, done.err[-4000:]
        return done, folder, recomputations.read(file)

    return run


def test_checkpointing_seeds_and_stdout(train, by_generate):
    on, first, passes = train("sft", "eval_steps=1", "--seed", 1, "--json", name="on")
    assert json.loads(on.out)["status"] == "done"  # banners of Unsloth stood before it
    assert passes["again"] == passes["forward"] > 0
    _, second, passes = train("sft", "eval_steps=1", "--seed", 1, "gradient_checkpointing=false", name="off")
    assert passes["again"] == 0 < passes["forward"]
    # Its first samples turned checkpointing off for good.
    words = ("refiner=none", "--seed", 2, "--quiet")
    sampled, third, passes = train("dyme", *SAMPLING, *words, name="sampled", model=by_generate())
    assert sampled.out == ""
    assert passes["again"] == passes["forward"] > 0
    # All runs began with the adapter of seed 3407.
    began = [
        {name: value for name, value in _weights(folder).items() if "lora_A" in name}
        for folder in (first, second, third)
    ]
    assert all(torch.equal(value, began[1][name]) for name, value in began[0].items())
    assert not any(torch.equal(value, began[2][name]) for name, value in began[0].items())


def test_an_adapter_that_goes_on_has_gradients(train):
    """Reentrant checkpointing gives none to a layer whose input needs none."""
    _, folder, _ = train("sft", name="first")
    _, again, passes = train("sft", name="second", model=folder)
    assert passes["again"] == passes["forward"] > 0
    norms = re.findall(r'"grad_norm": ([\d.e-]+)', (again / "metrics.jsonl").read_text())
    assert norms
    assert all(float(norm) > 0 for norm in norms)


def test_rows_of_text_alone_are_sampled(train, by_generate, tmp_path):
    """A static cache was forced beside ours."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "".join(json.dumps({"question": f"{n} + 1?", "answer": str(n + 1)}) + "\n" for n in range(16))
    )
    _, _, passes = train("grpo", *SAMPLING, name="text", model=by_generate("internvl"), data=rows)
    assert passes["other"] > 0


def _weights(folder):
    return safetensors.torch.load_file(folder / "adapter_model.safetensors")
