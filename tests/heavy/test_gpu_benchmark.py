"""`benchmarks/gpu.py`: its verdicts and order as tables of cases, and one rehearsal of all of it on a CPU."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import gpu  # noqa: E402
from gpu_checks import cards, table, turns, verdict, worker  # noqa: E402
from gpu_checks.task import Task  # noqa: E402
from gpu_checks.turns import PARTS, Turn, allowance, in_order, missing  # noqa: E402

from tests.unsloth.standin import WHEELS  # noqa: E402
from toasterft import catalog  # noqa: E402
from toasterft.catalog import hardware  # noqa: E402
from toasterft.estimation import calibration, seconds  # noqa: E402

GB = 10**9


# --- verdicts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("measured", "estimated", "value", "held"),
    [
        (10.0, 10.0, 1.0, True),
        (11.0, 10.0, 1.1, True),
        (9.0, 10.0, 0.9, True),
        (11.2, 10.0, 1.12, False),
        (8.8, 10.0, 0.88, False),
        (10.0, None, None, None),
        (None, 10.0, None, None),
        (10.0, 0, None, None),
    ],
)
def test_within_ten_per_cent(measured, estimated, value, held):
    goal = verdict.within("memory train", measured, estimated, verdict.MEMORY_GOAL, judge=True)
    assert (goal.value, goal.held) == (value, held)
    assert verdict.within("memory train", measured, estimated, 0.1, judge=False).held is None


def ran(kind="sft", engine="plain", *, model="256M", train=4 * GB, allocated=3 * GB, **more):
    """A run of ours on a GPU as its part answers, estimated to hold 4.5 GB in training, context included."""
    return {
        "name": f"{kind} {model} {engine}", "kind": kind, "model": model, "engine": engine, "ran_on": engine,
        "status": "done", "reason": None, "seconds": 20.0, "finite": True, "four_bit_layers": 210,
        "optimizer": {"class": "bitsandbytes.AdamW", "bits": 8, "paged": True}, "checkpointing": "torch.checkpoint",
        "machine": "A40", "iterations": 1, "optimizer_steps": 4, "rows_per_step": 4, "images": 12,
        "step_seconds": 0.5, "tokens_per_second": 8000.0, "outside_bytes": None,
        "allocated_bytes": {"start": GB, "encode": 2 * GB, "train": allocated},
        "phases": {
            "start": {"seconds": 20.0, "turns": 1, "median_seconds": 20.0, "peak_bytes": GB},
            "encode": {"seconds": 6.0, "turns": 12, "median_seconds": 0.5, "peak_bytes": 2 * GB},
            "train": {"seconds": 4.0, "turns": 4, "median_seconds": 0.6, "peak_bytes": train},
        },
        "estimate": {
            "gpu": "A40", "pace": {"encode": "cpu", "train": "launches"},
            "phase_bytes": {"encode": {"peak": 2_500_000_000}, "train": {"peak": 4_500_000_000}},
            "phase_seconds": {
                name: {"low": value / 2, "likely": value, "high": 2 * value}
                for name, value in (("start", 60.0), ("encode", 3.0), ("train", 1.2))
            },
        },
    } | more  # fmt: skip


@pytest.mark.parametrize(
    ("check", "simulated", "said"),
    [
        (ran(), None, "pass"),
        (ran(), {"sft": {"train": 3.1 * GB}}, "pass"),
        (ran(train=5 * GB), None, "FAIL memory train 1.22 (within 10%)"),
        # What was measured outside of the allocator takes the place of what is assumed there.
        (ran(outside_bytes=1_100_000_000), None, "FAIL memory encode 1.24 (within 10%), memory train 1.13 (within 10%)"),
        (ran(), {"sft": {"train": 3.3 * GB}}, "FAIL simulation train 0.909 (within 5%)"),
        (ran(), {"grpo": {"train": 9 * GB}}, "pass"),
        (ran(finite=False), None, "FAIL finite losses 0 (yes)"),
        (ran(engine="unsloth", ran_on="plain"), None, "FAIL engine as asked 0 (yes)"),
        (ran(four_bit_layers=0), None, "FAIL 4-bit weights 0 (yes)"),
        (ran(optimizer={"bits": 32, "paged": None}), None, "FAIL paged 8-bit AdamW 0 (yes)"),
        (ran(status="failed", reason="OutOfMemoryError: 2 GB"), None, "failed: OutOfMemoryError: 2 GB"),
        (ran(status="not run", reason="out of time"), None, "not run: out of time"),
        ({"kind": "decode", "status": "done"}, None, "measured"),
    ],
)  # fmt: skip
def test_a_verdict_names_what_missed(check, simulated, said):
    assert verdict.verdict(check, verdict.goals(check, simulated, rehearsal=False)) == said


def test_a_rehearsal_is_not_judged_by_its_memory():
    check = ran(train=50 * GB)
    goals = verdict.goals(check, {"sft": {"train": GB}}, rehearsal=True)
    assert verdict.verdict(check, goals) == "pass"
    assert [goal.value for goal in goals if goal.name == "memory train"] == [
        pytest.approx(50.5 / 4.5, rel=1e-3)
    ]


def test_engines_have_to_agree():
    apart = {"largest": 0.05, "mean": 0.001}
    check = {
        "kind": "agree", "status": "done", "engine": "unsloth", "tolerance": 0.04, "finite": True,
        "features_against_pixels": {"largest": 0.0, "mean": 0.0}, "half_against_float32": {"largest": 0.01, "mean": 0.0},
    }  # fmt: skip

    def said(check):
        return verdict.verdict(check, verdict.goals(check, None, rehearsal=False))

    assert said(check) == "pass"
    unjudged = [goal for goal in verdict.goals(check, None, rehearsal=False) if goal.held is None]
    assert [goal.name for goal in unjudged] == [
        "four_bit_against_plain"
    ]  # the plain engine left nothing to compare with
    assert (
        said(check | {"four_bit_against_plain": apart}) == "FAIL four_bit_against_plain 0.05 (at most 0.04)"
    )
    assert said(check | {"finite": False}) == "FAIL finite 0 (yes)"


# --- comparisons and calibrations ----------------------------------------------------------------


def checks_of(*checks):
    return {check["name"]: check for check in checks}


def test_steps_stand_beside_ours():
    other = {"kind": "trl_sft", "model": "256M", "engine": "plain", "status": "done", "step_seconds": 2.0}
    other |= {"name": "trl_sft 256M plain", "tokens_per_second": 2000.0, "peak_bytes": 9 * GB}
    alone = other | {"name": "trl_sft 500M plain", "model": "500M"}
    late = ran("grpo", status="timed out", reason="stopped")
    rows = verdict.speed(checks_of(other, ran(), ran(engine="unsloth", step_seconds=0.4), alone, late))
    found = {(row["model"], row["loop"]): row for row in rows}
    assert found.keys() == {
        ("256M", "ours, plain"), ("256M", "ours, unsloth"), ("256M", "TRL SFTTrainer"), ("500M", "TRL SFTTrainer"),
    }  # fmt: skip
    ours = found["256M", "ours, plain"]
    # Half a second a picture, four rows a step.
    assert (ours["step_seconds"], ours["cold_step_seconds"], ours["steps_per_second"]) == (0.5, 2.5, 2.0)
    assert ours["peak_bytes"] == 4 * GB
    theirs = found["256M", "TRL SFTTrainer"]
    assert (theirs["times_ours"], theirs["times_ours_cold"]) == (4.0, 0.8)
    assert found["256M", "ours, unsloth"]["times_ours"] == 0.8
    assert found["500M", "TRL SFTTrainer"]["times_ours"] is None


def test_the_fastest_way_to_decode_is_named():
    def way(kind, engine, **ways):
        return {
            "name": f"{kind} {engine}",
            "kind": kind,
            "engine": engine,
            "model": "256M",
            "status": "done",
            "ways": ways,
        }

    found = verdict.decoding(
        checks_of(
            way("decode", "plain", plain={"tokens_per_second": 200.0}, captured_16bit={"error": "no"}),
            way("decode", "unsloth", plain={"tokens_per_second": 300.0}),
            way("vllm", "unsloth", vllm_16bit={"tokens_per_second": 900.0}),
        )
    )
    assert found["256M"]["fastest"] == "vllm_16bit"
    assert found["256M"]["ways"].keys() == {"plain", "captured_16bit", "unsloth", "vllm_16bit"}
    assert (
        verdict.decoding(checks_of(way("decode", "plain", plain={"error": "no"})))["256M"]["fastest"] is None
    )


def test_a_result_calibrates_by_its_median_steps(homes):
    slow = ran(
        phases=ran()["phases"]
        | {"encode": {"seconds": 0.4, "turns": 12, "median_seconds": 0, "peak_bytes": GB}}
    )
    [found] = verdict.calibrations(checks_of(slow), "2026-11-21", {"torch": "2.13"})
    assert found.name == "sft of SmolVLM-256M on A40, 2026-11-21"
    # Four median steps of 0.6 s over 1.2 s; the start as a whole; encoding was too short to say anything.
    assert found.seconds == {"start": pytest.approx(1 / 3, abs=1e-3), "train": 2.0}
    assert found.bytes == {"encode": 0.6, "train": 1.0}
    found.save()
    assert calibration.find("A40", "sft", "SmolVLM-256M") == found
    both = verdict.calibrations(checks_of(ran(), ran(engine="unsloth", train=2 * GB)), "2026-11-21", {})
    assert [each.bytes["train"] for each in both] == [
        pytest.approx(2.5 / 4.5, abs=1e-4)
    ]  # what engine=auto takes


def test_constants_are_implied_by_what_set_the_pace():
    rows = {row["constant"]: row["implied"] for row in verdict.efficiencies(checks_of(ran()))}
    assert rows == {
        "START_SECONDS": pytest.approx(20.0),
        "PREPARE_SECONDS_PER_MPX": pytest.approx(2 * seconds.PREPARE_SECONDS_PER_MPX[seconds.LIKELY]),
        "LAYER_SECONDS": pytest.approx(2 * seconds.LAYER_SECONDS[seconds.LIKELY]),
    }
    computing = ran()
    computing["estimate"] = computing["estimate"] | {"pace": {"train": "gpu"}}
    rows = {row["constant"]: row["implied"] for row in verdict.efficiencies(checks_of(computing))}
    assert rows["TRAIN_EFFICIENCY"] == pytest.approx(seconds.TRAIN_EFFICIENCY[seconds.LIKELY] / 2)


@pytest.mark.parametrize(
    ("room_gb", "batch"), [(1, 0), (2, 1), (3.9, 2), (8, 8), (100, 8)]
)  # fmt: skip
def test_the_largest_batch_that_a_card_holds(room_gb, batch):
    peaks = {1: 2 * GB, 2: 3 * GB, 4: 5 * GB, 8: 8 * GB}
    assert cards.largest(peaks, room_gb * GB) == batch
    assert cards.largest(dict.fromkeys(peaks), room_gb * GB) is None


# --- order, time and what is missing -------------------------------------------------------------


def test_the_most_telling_checks_come_first():
    found = in_order(["256M", "500M"], ["plain", "unsloth"], None)
    names = [turn.name for turn in found]
    assert len(names) == len(set(names)) == 2 * sum(len(part.engines) for part in PARTS.values())
    assert names[:4] == ["build 256M plain", "agree 256M plain", "agree 256M unsloth", "sft 256M plain"]
    assert names.index("decode 256M plain") < names.index("build 500M plain") < names.index("sft 500M plain")
    assert (
        names.index("dyme 500M unsloth")
        < names.index("vllm 256M unsloth")
        < names.index("trl_sft 500M plain")
    )
    few = [turn.name for turn in in_order(["256M"], ["plain"], ["grpo", "vllm"])]
    assert few == ["build 256M plain", "grpo 256M plain"]


@pytest.mark.parametrize(
    ("turn", "device", "absent", "reason"),
    [
        (Turn("sft", "256M", "plain"), "cpu", (), None),
        (Turn("trl_sft", "256M", "plain"), "cpu", ("trl",), "trl is not installed"),
        (Turn("sft", "256M", "unsloth"), "cuda", ("unsloth",), "unsloth is not installed"),
        (Turn("sft", "256M", "unsloth"), "cpu", (), "it needs a CUDA GPU"),
        (Turn("vllm", "256M", "unsloth"), "cuda", ("vllm",), "vllm is not installed"),
        (Turn("vllm", "256M", "unsloth"), "cuda", (), None),
        (Turn("notebook", "256M", "unsloth"), "cuda", ("unsloth_zoo",), "unsloth_zoo is not installed"),
    ],
)
def test_what_is_missing_is_said(turn, device, absent, reason):
    assert missing(turn, device, lambda package: package not in absent) == reason


def test_no_check_begins_without_time_or_outlives_it():
    assert allowance(120, 600) == 120
    assert allowance(120, 45) == 45
    assert allowance(120, turns.LEAST_SECONDS - 1) is None


class Answering:
    """In the place of a worker: each kind of part answers what was put down for it."""

    def __init__(self, **answers):
        self.answers, self.asked = answers, []

    def ask(self, task, seconds):
        self.asked.append((task.kind, seconds))
        return {"finished": True, **self.answers.get(task.kind, {})}


@pytest.fixture
def bench(monkeypatch, tmp_path):
    """A bench with answers instead of a worker."""

    def make(*words, device="cpu", **answers):
        out = () if "--out" in words else ("--out", str(tmp_path / "result.json"))
        monkeypatch.setattr(sys, "argv", ["gpu.py", "--models", "tiny", *out, *words])
        made = gpu.Bench(gpu.arguments(), device, tmp_path)
        described = {"environment": {"commit": "abc", "versions": {}, "date": "2026-11-21"}}
        made.worker = Answering(**({"describe": described} | answers))
        return made

    return make


def test_one_failure_does_not_end_the_others(bench):
    made = bench(
        "--engines",
        "plain",
        "--only",
        "agree",
        "sft",
        "simulate",
        sft={"error": "boom"},
        agree={"late": True},
    )
    made.run()
    found = json.loads(made.out.read_text())
    said = {name.split()[0]: (check["status"], check["reason"]) for name, check in found["checks"].items()}
    assert said.pop("agree")[0] == "timed out"
    assert said == {"build": ("done", None), "sft": ("failed", "boom"), "simulate": ("done", None)}
    # Nothing was really built: what cards hold cannot be said, and costs nothing else.
    assert "comparison_error" in found
    assert found["environment"]["commit"] == "abc"
    assert "the comparison failed" in table.told(found)


def test_without_a_model_nothing_else_is_tried(bench):
    made = bench("--engines", "plain", build={"error": "no space"})
    made.run()
    checks = made.result["checks"]
    assert {check["reason"] for name, check in checks.items() if not name.startswith("build")} == {
        "there is no model"
    }
    assert [kind for kind, _ in made.worker.asked] == ["describe", "build"]


def test_what_is_left_is_out_of_time(bench):
    made = bench("--engines", "plain", "--minutes", "0")
    made.run()
    assert {check["reason"] for check in made.result["checks"].values()} == {
        "out of time",
        "there is no model",
    }
    assert [kind for kind, _ in made.worker.asked] == ["describe"]


def test_resuming_keeps_what_was_measured_on_the_same_commit(bench):
    words = ("--engines", "plain", "--only", "agree", "decode")
    first = bench(*words, agree={"error": "once"}, decode={"ways": {}})
    first.run()
    again = bench(*words, "--resume", agree={"tolerance": 0.1, "finite": True})
    again.run()
    assert [kind for kind, _ in again.worker.asked] == ["describe", "build", "agree"]
    assert again.result["checks"]["agree tiny plain"]["verdict"] == "pass"
    other = bench(*words, "--resume", describe={"environment": {"commit": "def", "versions": {}}})
    with pytest.raises(SystemExit, match="another commit"):
        other.run()


def test_only_a_gpu_writes_a_result_of_its_own_accord(bench, monkeypatch):
    row = catalog.gpu("A40")
    monkeypatch.setattr(hardware, "gpu", lambda: hardware.Present("NVIDIA A40", 48 * GB, 47 * GB, 8.6, row))
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    assert gpu.Bench(gpu.arguments(), "cuda", Path()).out == BENCHMARKS / "results" / "gpu-a40.json"
    assert gpu.Bench(gpu.arguments(), "cpu", Path()).out is None


# --- processes -----------------------------------------------------------------------------------


@pytest.fixture
def task(tmp_path):
    folder = tmp_path / "nothing"
    return Task("sft", "tiny", folder, folder, tmp_path, tmp_path / "answer.json", device="cpu")


def test_a_part_that_takes_too_long_is_stopped(task):
    busy = worker.Worker("cpu", task.scratch / "log")
    found = busy.ask(task, 0.2)
    assert found["late"]
    assert busy.process is None


def test_a_process_that_dies_says_its_last_words(task, monkeypatch):
    last = task.scratch / "python"
    last.write_text("#!/bin/sh\necho 'no more memory' >&2\nexit 9\n")
    last.chmod(0o755)
    monkeypatch.setattr(worker, "sys", SimpleNamespace(executable=str(last)))
    found = worker.Worker("cpu", task.scratch / "log").ask(task, 20)
    assert found["error"] == "the process ended with 9: no more memory"


def functions(file, class_name):
    (found,) = [
        node
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef) and node.name == class_name
    ]
    return {item.name: item for item in found.body if isinstance(item, ast.FunctionDef)}


def test_unsloths_functions_take_what_the_notebook_loop_gives_them():
    source = WHEELS / "unsloth" / "models"
    known = functions(source / "vision.py", "FastBaseModel") | functions(source / "loader.py", "FastModel")
    known["get_peft_model"] = functions(source / "vision.py", "FastBaseModel")["get_peft_model"]
    tree = ast.parse((BENCHMARKS / "gpu_checks" / "peers.py").read_text())
    calls = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and "FastVisionModel." in ast.unparse(node.func):
            calls.append((node.func.attr, node))
        elif isinstance(node, ast.Call) and node.args and "FastVisionModel" in ast.unparse(node.args[0]):
            calls.append(("from_pretrained", node))  # by the one door to it
    assert sorted(name for name, _ in calls) == [
        "for_training", "from_pretrained", "from_pretrained", "get_peft_model",
    ]  # fmt: skip
    for name, call in calls:
        arguments = known[name].args
        names = {argument.arg for argument in [*arguments.args, *arguments.kwonlyargs]}
        assert {word.arg for word in call.keywords} <= names
    trainer = (source.parent / "trainer.py").read_text()
    assert "class UnslothVisionDataCollator" in trainer


# --- all of it, on a CPU -------------------------------------------------------------------------


def test_a_rehearsal_of_everything(tmp_path, homes):
    """One call with two models: one cannot be built, and the other goes through every kind of check."""
    out = tmp_path / "rehearsal.json"
    before = set((BENCHMARKS / "results").iterdir())
    (tmp_path / "empty").mkdir()
    told = subprocess.run(
        [
            sys.executable, str(BENCHMARKS / "gpu.py"), "--device", "cpu", "--models", "tiny", "256M", "--tokens", "6",
            "--tokenizer", str(tmp_path / "empty"), "--out", str(out),
        ],
        env={**os.environ, "OMP_WAIT_POLICY": "passive"}, capture_output=True, text=True,
    )  # fmt: skip
    assert told.returncode == 1, told.stderr  # the 256M is missing
    found = json.loads(out.read_text())
    assert set((BENCHMARKS / "results").iterdir()) == before
    assert not (homes / "cache" / "calibrations").exists()  # a rehearsal calibrates nothing
    checks = found["checks"]
    assert checks["build 256M plain"]["reason"].startswith("FileNotFoundError")
    assert {
        check["reason"] for check in checks.values() if check["model"] == "256M" and check["kind"] == "sft"
    } >= {"there is no model"}
    here = {turn.name for turn in in_order(["tiny"], ["plain"], None)}
    assert {name: checks[name]["reason"] for name in here if checks[name]["status"] != "done"} == {}
    for check in checks.values():
        if check["engine"] == "unsloth":
            assert check["status"] == "not run"
            assert "unsloth" in check["reason"] or "CUDA" in check["reason"] or "vllm" in check["reason"]
    for method in verdict.METHODS:
        check = checks[f"{method} tiny plain"]
        assert check["verdict"] == "pass", check["goals"]
        assert {row["phase"] for row in check["by_phase"]} >= {"start", "encode", "train", "evaluate"}
        assert sum(row["share"] for row in check["by_phase"]) == pytest.approx(1, abs=1e-3)
        assert all(row["estimated_bytes"] for row in check["by_phase"] if row["phase"] != "start")
        assert check["step_seconds"] > 0
        assert check["tokens_per_second"] > 0
        assert all(row > 0 for row in checks["simulate tiny plain"][method].values())
    assert {row["phase"] for row in checks["grpo tiny plain"]["by_phase"]} >= {"rollout"}
    assert checks["agree tiny plain"]["verdict"] == "pass"
    loops = {(row["method"], row["loop"]) for row in found["speed"]}
    ours = {(method, "ours, plain") for method in verdict.METHODS}
    assert loops == ours | {("sft", "TRL SFTTrainer"), ("grpo", "TRL GRPOTrainer")}
    assert all(row["times_ours"] > 0 and row["tokens_per_second"] > 0 for row in found["speed"])
    ways = found["decoding"]["tiny"]
    assert ways["ways"].keys() == {"plain", "static", "plain_16bit", "static_16bit"}
    assert all(row["same_as_plain"] == 1 for row in ways["ways"].values())  # float32 on a CPU: to the token
    assert ways["fastest"] in ways["ways"]
    assert {row["method"] for row in found["cards"]["tiny"]} == set(verdict.METHODS)
    assert found["environment"]["versions"]["torch"]
    assert "commit" in found["environment"]
    assert "REHEARSAL" in told.stdout
    assert "not run: " in told.stdout
