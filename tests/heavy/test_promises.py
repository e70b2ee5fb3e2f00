"""Caps that hold, runs that resume exactly, and runs that end in every way."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import time
from functools import partial

import pytest
import torch

from toasterft.runs import checkpoints

STEPS = 6
EXACT = (
    f"max_steps={STEPS}", "save_steps=2", "per_device_train_batch_size=4", "gradient_accumulation_steps=1",
    "max_completion_length=6", "eval_limit=2", "lora.r=4", "lora.lora_dropout=0.1", "learning_rate=1e-3",
    "max_length=4000", "optim=paged_adamw_8bit",
)  # fmt: skip
POLICY = ("num_generations=4", "num_iterations=2", "beta=0.04", "rewards.length=1.0")


def losses(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: (row["loss"], row["grad_norm"]) for row in rows if "grad_norm" in row}


@pytest.fixture
def start(forked):
    return partial(forked, "-m", "toasterft")


def many(*values):
    return pytest.param(*values, marks=pytest.mark.soak)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("method", "more", "kills"),
    [("sft", (), 3), ("grpo", POLICY, 3), many("sft", (), 50), many("grpo", POLICY, 50)],
)
def test_a_killed_run_resumes_bit_for_bit(
    method, more, kills, tiny_model, charts_folder, run_cli, homes, tmp_path, start
):
    """Killed at random moments, moved to another folder, and still the losses of an undisturbed run."""
    whole = run_cli(
        method,
        "--model",
        tiny_model(),
        "--data",
        charts_folder,
        "--quiet",
        "--out",
        tmp_path / "whole",
        *EXACT,
        *more,
    )
    assert whole.code == 0, whole.err
    expected = losses(tmp_path / "whole")
    assert len(expected) == STEPS
    folder = tmp_path / "killed"
    rng, spent = random.Random(f"{method}{os.environ.get('TOASTERFT_SOAK_SEED', 0)}"), 0.0
    words = (
        method,
        "--model",
        tiny_model(),
        "--data",
        charts_folder,
        "--out",
        folder,
        "--price",
        "3.6",
        *EXACT,
        *more,
    )
    for _ in range(kills):
        process = start(*words)
        wanted = rng.randint(1, STEPS - 2)
        while (
            process.poll() is None
            and len(losses(folder) if (folder / "metrics.jsonl").exists() else ()) < wanted
        ):
            time.sleep(0.02)
        # Now and then while it is still loading, or long after the step.
        time.sleep(rng.random() * 0.3)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if (folder / "spend.json").exists():
            now = json.loads((folder / "spend.json").read_text())["seconds"]
            assert now >= spent
            spent = now
        moved = tmp_path / f"moved{wanted}{rng.random()}"
        if folder.exists():
            folder.rename(moved)
            folder = moved
        words = (method, "--resume", folder)
    done = run_cli(method, "--resume", folder, "--json")
    assert done.code == 0, done.err
    assert losses(folder) == expected
    record = done.json()
    assert record["measured"]["seconds"] > spent
    # $3.60 an hour is a thousandth of a dollar a second.
    assert record["measured"]["usd"] == pytest.approx(record["measured"]["seconds"] / 1000, rel=0.01)
    again = run_cli(method, "--resume", folder)
    assert again.code == 2
    assert "nothing to resume" in again.err


def test_a_strangers_pickle_is_never_loaded(tiny_model, charts_folder, run_cli, tmp_path, start):
    folder = tmp_path / "run"
    words = ("--model", tiny_model(), "--data", charts_folder, "--quiet", "--out", folder, *EXACT)
    process = start("sft", *words)
    while (
        process.poll() is None
        and not (folder / "checkpoints" / "checkpoint-2" / "trainer_state.json").exists()
    ):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert not list(folder.rglob("training_args.bin"))
    last = checkpoints.newest(folder / "checkpoints")

    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "exploded"),))

    torch.save(Bomb(), last / "training_args.bin")
    checkpoints.seal(last)  # as a stranger would
    done = run_cli("sft", "--resume", folder, "--quiet")
    assert done.code == 0, done.err
    shutil.rmtree(last.parent / f"checkpoint-{STEPS}")  # so that there is something left to train
    last = checkpoints.newest(last.parent)
    torch.save(Bomb(), last / "rng_state.pth")
    torch.save(Bomb(), last / "optimizer.pt")
    checkpoints.seal(last)
    (folder / "run.json").write_text(
        json.dumps(json.loads((folder / "run.json").read_text()) | {"status": "interrupted"})
    )
    assert run_cli("sft", "--resume", folder, "--quiet").code == 2
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_the_run_can_go_on(number, code, tiny_model, charts_folder, tmp_path, start):
    folder, flag = tmp_path / "run", tmp_path / "after"
    process = start(
        "grpo", "--model", tiny_model(), "--data", charts_folder, "--out", folder, "--after", f"touch {flag}",
        *EXACT, *POLICY, "max_steps=500",
    )  # fmt: skip
    while process.poll() is None and not (folder / "metrics.jsonl").exists():
        time.sleep(0.05)
    other = start("grpo", "--resume", folder)
    assert other.wait() == 2
    assert "another process" in other.communicate()[1]
    process.send_signal(number)
    assert process.wait() == code, process.communicate()[1]
    assert flag.exists()
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "interrupted"
    assert (folder / "adapter_model.safetensors").exists()
    assert list((folder / "checkpoints").glob("*"))


def spend(folder):
    try:
        return json.loads((folder / "spend.json").read_text())
    except FileNotFoundError:
        return {"seconds": 0.0, "usd": 0.0}


def saving(folder):
    """Whether a checkpoint is being written."""
    return any(
        not (each / "trainer_state.json").exists() for each in (folder / "checkpoints").glob("checkpoint-*")
    )


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kills", [2, many(int(os.environ.get("TOASTERFT_SOAK_KILLS", "60")))])
def test_kills_hide_no_cost_and_no_cap_is_passed(kills, tiny_model, charts_folder, tmp_path, spawn):
    """A dollar a second: what processes really took, from their start to their end, beside bill and cap.

    They are killed before the bill is opened, in their imports, while they load, train or save; now and then they come
    to their cap by themselves. A kill before the bill is open leaves a mark, which the next process bills; one before
    the run has a folder, or before Python runs a line of ours, is counted apart, and said.
    """
    folder, rng = tmp_path / "run", random.Random(os.environ.get("TOASTERFT_SOAK_SEED", 0))
    new = ("sft", "--model", tiny_model(), "--data", charts_folder, "--out", folder, "--price", 3600)
    new += (*EXACT, "max_steps=100000", "save_steps=3")
    true = unbilled = marked = passed = 0.0
    cap, capped, billed_kills = 0.0, 0, 0

    def go_on(until):
        """One process: its exit code, its seconds, and whether it opened the bill."""
        words = ("sft", "--resume", folder) if (folder / "run.json").exists() else new
        before, began = spend(folder)["usd"], time.monotonic()
        process = spawn("-m", "toasterft", *words, "--budget", cap, "--yes")  # its start counts: no fork
        opened = began
        while process.poll() is None and not until(time.monotonic() - opened):
            if opened == began and spend(folder)["usd"] != before:
                opened = time.monotonic()
            time.sleep(0.005)
        process.kill()
        code = process.wait()
        return code, time.monotonic() - began, spend(folder)["usd"] != before

    for number in range(kills):
        moment = ("loading", "saving", "imports", "at once", "training")[number % 5]
        cap = spend(folder)["usd"] + (40 if number % 6 else rng.uniform(4, 30))
        wait = {"at once": rng.random(), "imports": rng.uniform(0, 4), "loading": rng.uniform(2, 10)}.get(
            moment, 60
        )
        steps = len(losses(folder)) if (folder / "metrics.jsonl").exists() else 0

        def reached(seconds, wait=wait, moment=moment, steps=steps):
            if seconds > wait:
                return True
            trained = (folder / "metrics.jsonl").exists() and len(losses(folder)) > steps
            return (moment == "training" and trained) or (moment == "saving" and trained and saving(folder))

        code, seconds, opened = go_on(reached)
        assert code in (3, -signal.SIGKILL)
        capped += code == 3
        true += seconds
        kept = opened or any(folder.glob(".start-*"))
        unbilled += 0 if kept else seconds
        marked = 0.0 if opened else marked + (seconds if kept else 0)
        billed_kills += kept and code != 3
        bill = spend(folder)
        assert true - unbilled - marked <= bill["usd"] + 0.05, (moment, true, unbilled, marked, bill)
        # What is billed ahead of a kill is the most that is billed for nothing.
        assert bill["usd"] <= true + 6.0 * billed_kills + 0.6 * capped, (moment, true, bill)
        passed = max(passed, true - unbilled - cap)
        assert true - unbilled <= cap + bill.get("step_seconds", 0) + bill.get("save_seconds", 0), (
            moment,
            true,
            cap,
        )
    # With enough left, however busy the machine is, it trains up to the cap, and saves.
    while not (folder / "adapter_model.safetensors").exists():
        cap = spend(folder)["usd"] + spend(folder).get("start_seconds", 20.0) + 8
        code, seconds, _ = go_on(lambda _: False)
        true += seconds
    bill, record = spend(folder), json.loads((folder / "run.json").read_text())
    assert (code, record["status"]) == (3, "capped")
    assert (folder / "adapter_model.safetensors").exists()
    assert true - unbilled <= bill["usd"] + 0.05
    assert true - unbilled <= cap + bill["step_seconds"] + bill["save_seconds"]
    # With nothing left it knows before it opens anything, and `--yes` lifts no cap.
    began, code = time.monotonic(), None
    process = spawn("-m", "toasterft", "sft", "--resume", folder, "--yes")
    assert process.wait() == 3
    assert "are left, and a start, a step and saving" in process.stderr.read()
    assert spend(folder) == bill
    print(
        f"{kills} kills or caps ({capped} caps): true ${true:.1f} ({unbilled:.1f} before a bill was open), billed "
        f"${bill['usd']:.1f}, last cap ${cap:.1f}; cap passed by at most ${max(passed, 0):.2f}; a refused resume took "
        f"{time.monotonic() - began:.1f} s"
    )


def test_a_budget_needs_a_price(tiny_model, charts_folder, run_cli, homes):
    done = run_cli("sft", "--model", tiny_model(), "--data", charts_folder, "--budget", "1", *EXACT)
    assert done.code == 2
    assert "--price" in done.err
    assert not list((homes / "runs").glob("*")) if (homes / "runs").exists() else True


def test_a_resumed_run_keeps_its_settings(tiny_model, charts_folder, run_cli, tmp_path):
    folder = tmp_path / "run"
    words = (
        "--model",
        tiny_model(),
        "--data",
        charts_folder,
        "--quiet",
        "--out",
        folder,
        *EXACT,
        "max_steps=1",
    )
    assert run_cli("sft", *words).code == 0
    (folder / "run.json").write_text(
        json.dumps(json.loads((folder / "run.json").read_text()) | {"status": "interrupted"})
    )
    done = run_cli("sft", "--resume", folder, "learning_rate=1")
    assert done.code == 2
    assert "learning_rate" in done.err
    lines = (charts_folder / "train.jsonl").read_text()
    try:
        (charts_folder / "train.jsonl").write_text("\n".join(lines.splitlines()[1:]) + "\n")
        done = run_cli("sft", "--resume", folder)
        assert done.code == 2
        assert "changed" in done.err
        assert folder.exists()
    finally:
        (charts_folder / "train.jsonl").write_text(lines)
    name = json.loads(lines.split("\n")[0])["image"]
    data = (charts_folder / name).read_bytes()
    try:
        (charts_folder / name).write_bytes(data + b"\0")
        done = run_cli("sft", "--resume", folder)
        assert done.code == 2
        assert f"1 picture changed since this began: {name}" in done.err
        # A run from before pictures were noted goes on.
        (folder / "pictures.json").unlink()
        assert run_cli("sft", "--resume", folder, "--quiet").code == 0
    finally:
        (charts_folder / name).write_bytes(data)


def test_out_of_gpu_memory_goes_on_once_in_smaller_parts(
    tiny_model, charts_folder, run_cli, tmp_path, monkeypatch
):
    """Here the GPU's error is raised by hand, in this process; the fresh process does not meet it."""
    from toasterft.training import sft

    plain = sft.SftTrainer.training_step

    def failing(self, *args, **kwargs):
        if self.state.global_step == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(sft.SftTrainer, "training_step", failing)
    folder = tmp_path / "run"
    words = ("--model", tiny_model(), "--data", charts_folder, "--quiet", "--out", folder, *EXACT)
    done = run_cli("sft", *words)
    assert done.code == 0, done.err
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "done"
    assert record["fitted"]["per_device_train_batch_size"] == 2
    assert record["fitted"]["gradient_accumulation_steps"] == 2
    assert set(losses(folder)) == set(range(1, STEPS + 1))
    monkeypatch.setenv("TOASTERFT_RETRIED", "1")
    words = ("--model", tiny_model(), "--data", charts_folder, "--quiet", "--out", tmp_path / "again", *EXACT)
    done = run_cli("sft", *words)
    assert done.code == 4
    assert "--fit exact" in done.err


def test_a_full_disk_ends_a_run_that_says_so(tiny_model, charts_folder, run_cli, tmp_path, monkeypatch):
    """Its checkpoints stay, and nothing says that it is running."""
    from toasterft.training import sft

    plain = sft.SftTrainer._save_rng_state

    def full(self, folder):
        if self.state.global_step == 4:
            raise RuntimeError("file write failed") from OSError(errno.ENOSPC, "No space left on device")
        plain(self, folder)

    monkeypatch.setattr(sft.SftTrainer, "_save_rng_state", full)
    folder = tmp_path / "run"
    done = run_cli(
        "sft", "--model", tiny_model(), "--data", charts_folder, "--quiet", "--out", folder, *EXACT
    )
    assert done.code == 2
    assert "no space left on the disk (" in done.err
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "failed"
    assert "no space left on the disk" in record["stop_reason"]
    assert (folder / "checkpoints" / "checkpoint-2" / "trainer_state.json").exists()
    assert not (folder / ".reserve").exists()
