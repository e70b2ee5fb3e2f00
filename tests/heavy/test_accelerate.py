"""`accelerate launch -m toasterft …`: several processes do what one would, in one folder and with one voice."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter

import pytest
import safetensors.torch
import torch

STEPS = 12  # three epochs of 32 rows, eight a step
SETTINGS = (
    "gradient_accumulation_steps=2", "num_train_epochs=3", "save_steps=5", "max_completion_length=6", "eval_limit=6",
    "per_device_eval_batch_size=4", "lora.r=4", "learning_rate=1e-3", "max_length=4000",
)  # fmt: skip


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def record(folder):
    return json.loads((folder / "run.json").read_text())


def test_two_processes_are_stopped_go_on_and_end_as_one_would(
    tiny_model, charts_folder, run_cli, tmp_path, accelerate, in_two
):
    words = ("sft", "--model", tiny_model(), "--data", charts_folder, *SETTINGS)
    alone, both, flag = tmp_path / "alone", tmp_path / "both", tmp_path / "after"
    done = run_cli(*words, "per_device_train_batch_size=4", "--out", alone, "--quiet")
    assert done.code == 0, done.err
    encoded = record(alone)["images_encoded"]
    assert run_cli("cache", "clear").code == 0

    process = accelerate(*words, "per_device_train_batch_size=2", "--out", both, "--after", f"touch {flag}")
    while process.poll() is None and not ((both / "metrics.jsonl").exists() and len(metrics(both)) > 1):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=100)
    assert err.count("stopped by SIGTERM") == 1, err[-3000:]
    assert err.count("sample: ") == err.count("encoding (") == out.count("optimizer steps") == 1
    assert f"{STEPS} optimizer steps" in out
    assert "2 processes: a step takes 2 × 2 × 2 = 8 rows" in " ".join(out.split())
    assert flag.exists()
    stopped = record(both)
    assert (stopped["status"], stopped["processes"]) == ("interrupted", 2)
    # Each proves on the first picture that features equal pixels.
    assert encoded <= stopped["images_encoded"] <= encoded + 1
    [checkpoint] = (both / "checkpoints").iterdir()
    assert [row["step"] for row in metrics(both)] == list(range(1, int(checkpoint.name.split("-")[1]) + 1))
    assert len(metrics(both)) < STEPS
    of_one_process = {path.name for path in both.rglob("*") if "1" in path.name} - {checkpoint.name}
    assert of_one_process == {"rng_state_1.pth"}

    refused = run_cli("sft", "--resume", both)
    assert refused.code == 2
    assert "began with 2 processes" in refused.err
    assert "--num_processes 2 -m toasterft sft --resume" in refused.err

    (code, _, told), (other_code, other_out, other_told) = in_two("-m", "toasterft", "sft", "--resume", both)
    assert (code, other_code) == (0, 0), told + other_told
    assert (other_out, other_told) == ("", "")
    expected, found = metrics(alone), metrics(both)
    assert len(expected) == len(found) == STEPS
    for ours, theirs in zip(found, expected):
        assert ours.keys() == theirs.keys()
        assert ours["total"] == theirs["total"] == STEPS
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-2)
    ours, theirs = (safetensors.torch.load_file(each / "adapter_model.safetensors") for each in (both, alone))
    for name, value in theirs.items():
        assert torch.allclose(ours[name], value, atol=1e-4), name
    answers = [
        Counter((row["item"], row["text"]) for row in map(json.loads, (each / "samples.jsonl").open()))
        for each in (both, alone)
    ]
    assert answers[0] == answers[1]
    assert record(both)["eval"] == record(alone)["eval"]


def test_a_mistake_ends_all_with_one_message(tiny_model, charts_folder, tmp_path, in_two):
    words = ("--model", tiny_model(), "--data", charts_folder, "--out", tmp_path / "run")
    (code, _, err), other = in_two("-m", "toasterft", "sft", *words, "learning_rat=1")
    assert code == 2
    assert "learning_rate" in err
    assert other == (2, "", "")
    assert not (tmp_path / "run").exists()


AGREEING = """
from toasterft import errors
from toasterft.runs import distributed as processes

with processes.lead_ranks():
    processes.init_process_group()
    first = processes.rank() == 0
    assert processes.broadcast("ours" if first else None) == "ours"
    assert processes.all_gather(processes.rank()) == [0, 1]
    assert processes.all_reduce_max([processes.rank(), 1 - processes.rank(), 0]) == [1, 1, 0]
    assert processes.prints_ending()
    try:
        with processes.share_errors():
            if not first:
                raise errors.Interrupted("why", exit_code=143, next_step="this")
    except errors.Interrupted as problem:
        print(problem.what, problem.exit_code, problem.next_step, processes.prints_ending())
    else:
        raise AssertionError("the other one's problem was not heard of")
"""


def test_what_one_process_meets_all_raise(in_two):
    main, other = in_two("-c", AGREEING)
    assert (main[0], main[1]) == (0, "why 143 this True\n"), main[2]
    assert (other[0], other[1]) == (0, "why 143 this False\n"), other[2]


def test_processes_that_were_not_started_are_missed(run_cli, monkeypatch):
    for name in ("ACCELERATE_MIXED_PRECISION", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "no")
    found = run_cli("sft", "--model", "SmolVLM-256M", "--data", "smolcot-7k", "--dry-run")
    assert found.code == 2
    assert "--multi_gpu" in found.err


@pytest.mark.soak
@pytest.mark.parametrize("method", ["grpo", "dyme"])
def test_policy_methods_resume_bit_for_bit(method, tiny_model, charts_folder, tmp_path, accelerate, in_two):
    more = ("num_generations=4", "beta=0.04", "rewards.length=1.0", "lora.lora_dropout=0.1", "max_steps=9")
    more += ("num_iterations=2",) if method == "grpo" else ()
    words = (
        method,
        "--model",
        tiny_model(),
        "--data",
        charts_folder,
        *SETTINGS,
        "per_device_train_batch_size=4",
        *more,
    )
    whole, folder = tmp_path / "whole", tmp_path / "stopped"
    process = accelerate(*words, "--out", whole)
    process.communicate(timeout=300)
    assert process.returncode == 0
    process = accelerate(*words, "--out", folder)
    while process.poll() is None and not ((folder / "metrics.jsonl").exists() and len(metrics(folder)) > 2):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=100)
    assert record(folder)["status"] == "interrupted"
    assert [each[0] for each in in_two("-m", "toasterft", method, "--resume", folder)] == [0, 0]
    assert [row["loss"] for row in metrics(folder)] == [row["loss"] for row in metrics(whole)]
    name = "adapter_model.safetensors"
    assert (folder / name).read_bytes() == (whole / name).read_bytes()
