"""`benchmarks/gpu.py` where a CUDA device seems to be there: every call is made, and no figure is a GPU's."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import gpu  # noqa: E402
from gpu_checks import verdict  # noqa: E402
from gpu_checks.turns import in_order  # noqa: E402

from tests.unsloth import standin  # noqa: E402
from tests.unsloth.conftest import Running  # noqa: E402
from toasterft.catalog import hardware, rows  # noqa: E402

FORKED = """
import io, sys
sys.path.insert(0, {path!r})
sys.stdin = io.StringIO({line!r})
from gpu_checks import parts
parts.main()
"""


class Asked:
    """The worker, but Unsloth's parts are done in forks of the process that has imported it."""

    def __init__(self, worker, forks, folder):
        self.worker, self.forks, self.folder = worker, forks, folder

    def ask(self, task, seconds):
        if task.engine == "plain":
            return self.worker.ask(task, seconds)
        line = json.dumps(dataclasses.asdict(task), default=str)
        code = FORKED.format(path=str(BENCHMARKS), line=line)
        done = Running(self.forks, self.folder, ("-c", code)).wait()
        assert task.answer.exists(), done.err[-4000:]
        return json.loads(task.answer.read_text())


def held(result, turns):
    """What every result has to be: of these turns all done and well, and not passed off as a GPU's."""
    checks = result["checks"]
    said = {turn.name: checks[turn.name]["verdict"] for turn in turns}
    assert {name: each for name, each in said.items() if each not in ("pass", "measured")} == {}
    assert result["rehearsal"]
    assert result["gpu"] is None
    assert result["environment"]["gpu"].startswith("none: ")
    assert "comparison_error" not in result
    for turn in turns:
        check = checks[turn.name]
        assert all(map(math.isfinite, check.get("losses", ())))
        if turn.kind in verdict.METHODS:
            assert check["ran_on"] == turn.engine


@pytest.mark.soak
def test_unsloths_loop_and_ours_on_both_engines(forks, homes, tmp_path, monkeypatch):
    for name, value in standin.environment().items():
        monkeypatch.setenv(name, value)
    row = rows.recognise_gpu(standin.NAME, 23028)
    present = hardware.Present(standin.NAME, standin.TOTAL_BYTES, standin.FREE_BYTES, 8.6, row)
    monkeypatch.setattr(hardware, "gpu", lambda: present)
    monkeypatch.setattr(gpu, "is_installed", lambda package: True)  # in processes that are on their way
    only = ("sft", "notebook")
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--models", "tiny", "--only", *only, "--minutes", "60"])
    bench = gpu.Bench(gpu.arguments(), "cuda", tmp_path)
    worker, bench.worker = bench.worker, Asked(bench.worker, forks, homes)
    try:
        bench.run()
    finally:
        worker.stop()
    assert bench.out is None
    assert not (homes / "cache" / "calibrations").exists()
    held(bench.result, in_order(["tiny"], ["plain", "unsloth"], list(only)))
    assert {row["loop"] for row in bench.result["speed"]} == {
        "ours, plain", "ours, unsloth", "Unsloth notebook",
    }  # fmt: skip


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_all_of_it(tmp_path, homes):
    out, before = tmp_path / "result.json", set((BENCHMARKS / "results").iterdir())
    words = ("--models", "tiny", "--tokens", "6", "--minutes", "60", "--out", out)
    command = (sys.executable, standin.__file__, BENCHMARKS / "gpu.py", *words)
    told = subprocess.run(list(map(str, command)), env=os.environ, capture_output=True, text=True)
    assert told.returncode == 0, told.stdout + told.stderr[-4000:]
    assert "REHEARSAL" in told.stdout
    assert set((BENCHMARKS / "results").iterdir()) == before
    assert not (homes / "cache" / "calibrations").exists()
    found = json.loads(out.read_text())
    turns = in_order(["tiny"], ["plain", "unsloth"], None)
    held(found, [turn for turn in turns if turn.kind != "vllm"])
    # What has to fail here fails alone.
    assert found["checks"]["vllm tiny unsloth"]["verdict"] == "not run: vllm is not installed"
    ways = found["decoding"]["tiny"]["ways"]
    assert {name: row["error"] for name, row in ways.items() if "error" in row} == {
        "captured_16bit": "RuntimeError: transformers captured no graph"
    }
    assert ways.keys() == {"plain", "static", "plain_16bit", "static_16bit", "captured_16bit", "unsloth"}
    assert {row["loop"] for row in found["speed"]} == {
        "ours, plain", "ours, unsloth", "TRL SFTTrainer", "TRL GRPOTrainer", "Unsloth notebook",
    }  # fmt: skip
    assert {row["name"].split()[0] for row in found["calibrations"]} == set(verdict.METHODS)
    assert found["efficiencies"] == []
