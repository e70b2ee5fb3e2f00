"""Plans for several processes, and what they share without torch."""

from __future__ import annotations

import contextlib
import datetime
import os

import pytest

from toasterft import catalog, paths, recipe
from toasterft.engine import feature_cache
from toasterft.jobs import prepare
from toasterft.runs import distributed

TODAY = datetime.date(2026, 11, 21)


def planned(monkeypatch, number, method="sft", **settings):
    monkeypatch.setenv("WORLD_SIZE", str(number))
    wanted = recipe.load(
        method, None, [f"{key}={value}" for key, value in settings.items()],
        {"model": "SmolVLM-256M", "data": "smolcot-7k", "gpu": "A40"},
    )  # fmt: skip
    return prepare.prepare_training(wanted, paths.runs_dir())


@pytest.mark.parametrize("method", ["sft", "dpo", "grpo"])
def test_more_processes_take_as_many_fewer_steps_and_less_time(method, monkeypatch):
    batch = {"per_device_train_batch_size": 8, "num_train_epochs": 2}
    one = planned(monkeypatch, 1, method, gradient_accumulation_steps=8, **batch).estimate
    same_step = planned(monkeypatch, 4, method, gradient_accumulation_steps=2, **batch).estimate
    larger_step = planned(monkeypatch, 4, method, gradient_accumulation_steps=8, **batch).estimate
    assert one.optimizer_steps == same_step.optimizer_steps
    assert larger_step.optimizer_steps == pytest.approx(one.optimizer_steps / 4, abs=2)

    def share(of, name):
        return of.phase_seconds[name].likely / one.phase_seconds[name].likely

    for name in {"encode", "train"} & set(one.phase_seconds):
        assert share(same_step, name) == pytest.approx(1 / 4, rel=0.05), name
    # Writing reads the weights once for all rows side by side: fewer rows in a process are hardly faster.
    assert 1 / 4 <= share(same_step, "evaluate") < 0.3
    if method == "grpo":
        assert 1 / 4 <= share(same_step, "rollout") <= 1
        assert share(larger_step, "rollout") == pytest.approx(1 / 4, rel=0.05)
    assert same_step.disk_bytes == one.disk_bytes
    assert larger_step.phase_bytes == one.phase_bytes
    assert any("4 processes" in note for note in same_step.notes)
    assert not any("processes" in note for note in one.notes)
    # The catalog's price is that of one GPU; `--price` is that of the machine.
    assert same_step.price["usd_per_hour"] == pytest.approx(4 * one.price["usd_per_hour"])
    plan = planned(monkeypatch, 4, method).plan
    assert plan.on(catalog.gpu("A40"), price=1.0, today=TODAY).price["usd_per_hour"] == 1.0


def test_processes_fill_one_cache_within_its_limit():
    old = feature_cache.Store("old", {}, 10_000)
    for number in range(10):
        old.put(f"aa{number}", b"x" * 100)
        os.utime(old.path(f"aa{number}"), (1, 1))
    sharers = [feature_cache.Store("new", {}, 2000) for _ in range(2)]
    for place, store in enumerate(sharers):
        store.share(place, 2)
    for number in range(50):
        sharers[number % 2].put(f"bb{number}", b"y" * 90)
    assert sum(space.size_bytes for space in feature_cache.spaces()) <= 2000
    kept = next(space for space in feature_cache.spaces() if space.path == sharers[0].folder)
    assert kept.entries >= 20  # old ones made room
    assert all(store.full for store in sharers)


def test_a_command_started_from_here_is_on_its_own(monkeypatch):
    for name in (
        "WORLD_SIZE",
        "RANK",
        "LOCAL_RANK",
        "MASTER_ADDR",
        "MASTER_PORT",
        "ACCELERATE_MIXED_PRECISION",
    ):
        monkeypatch.setenv(name, "2")
    assert distributed.world_size() == 2
    assert distributed.command() == "accelerate launch --multi_gpu --num_processes 2 -m toasterft"
    left = distributed.env_without_ranks()
    assert not {"WORLD_SIZE", "RANK", "MASTER_ADDR", "ACCELERATE_MIXED_PRECISION"} & left.keys()
    assert "PATH" in left


def test_other_commands_refuse_several_processes(run_cli, monkeypatch):
    monkeypatch.setattr(distributed, "lead_ranks", contextlib.nullcontext)  # there are no other ranks
    monkeypatch.setenv("WORLD_SIZE", "2")
    for words in (("eval", "x"), ("train", "x"), ("estimate", "sft"), ("runs",)):
        found = run_cli(*words)
        assert found.code == 2
        assert f"{words[0]} works in one process" in found.err
