"""What is promised about CUDA, proven on the GPU of this machine: one command, offline, within ten minutes.

    python benchmarks/gpu.py                                       # drawn charts, generated tokenizer
    python benchmarks/gpu.py --tokenizer FOLDER                    # SmolVLM's own tokenizer and configuration
    python benchmarks/gpu.py --only decode vllm --resume           # some parts, beside what an earlier call has found
    python benchmarks/gpu.py --device cpu --models tiny --out rehearsal.json

Models have the real shapes of SmolVLM-256M and 500M and random weights. On both engines: logits agree, features-in
equals pixels-in, and `sft`, `grpo --clip-low` and `dyme` run a few steps through the product's own code with 4-bit
weights, checkpointing and paged 8-bit AdamW; peak memory and time by phase stand beside the estimate and the
simulation. TRL's trainers and Unsloth's notebook loop train on the same rows. Ways to decode are compared.

Every part runs in a process of its own, the most telling first; one that fails is recorded and the next begins. The
result, results/gpu-NAME.json, is written after every part. The runs calibrate this machine's later estimates, as
`toasterft estimate … --measure` does. Without CUDA all of it is rehearsed on the CPU, in one process: that is no GPU
result, and only `--out` keeps it. `--models tiny` is a model of 0.1 M parameters for such rehearsals. Exit code 1
where a part failed or missed its goal.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common
from gpu_checks import cards, parts, table, verdict
from gpu_checks.task import GENERATIONS, STEPS, Task
from gpu_checks.turns import ENGINES, MODELS, PARTS, Turn, allowance, in_order, is_installed, missing
from gpu_checks.worker import Worker, asked

from toasterft import catalog, paths
from toasterft.catalog import hardware

EDGES_PX = {"tiny": (32, 64)}
DEFAULT_EDGES_PX = (512, 1024, 2048)


def main() -> None:
    given = arguments()
    device = given.device or ("cuda" if hardware.gpu() is not None else "cpu")
    if device == "cuda" and hardware.gpu() is None:
        sys.exit("no CUDA GPU is here (nvidia-smi shows none); --device cpu rehearses")
    ended = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="toasterft-gpu-") as scratch:
        bench = Bench(given, device, Path(scratch))
        try:
            bench.run()
        finally:
            bench.worker.stop()
            signal.signal(signal.SIGTERM, ended)
    print(table.told(bench.result))
    print()
    for calibration in () if bench.rehearsal else bench.result["calibrations"]:
        print(f"later estimates here are calibrated by {calibration['name']}")
    print("nothing was written: --out FILE keeps a rehearsal" if bench.out is None else f"wrote {bench.out}")
    failed = [c for c in bench.result["checks"].values() if re.match("FAIL|failed|timed out", c["verdict"])]
    sys.exit(1 if failed else 0)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), help="cuda where there is one, else a rehearsal")
    parser.add_argument("--tokenizer", type=Path, help="folder with SmolVLM's tokenizer and configuration")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["256M", "500M"])
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--only", nargs="+", choices=[name for name in PARTS if name != "build"])
    parser.add_argument("--minutes", type=float, default=10.0, help="parts left after that are not run")
    parser.add_argument("--longest-edge", type=int, help="px of pictures; the model's own by default")
    parser.add_argument("--tokens", type=int, default=48, help="that are written per completion")
    parser.add_argument("--out", type=Path, help="where the result goes; needed to keep a rehearsal")
    parser.add_argument(
        "--resume", action="store_true", help="keep what --out holds of this commit, run the rest"
    )
    return parser.parse_args()


class Bench:
    """The checks one after the other, and the result as it grows."""

    def __init__(self, given: argparse.Namespace, device: str, scratch: Path) -> None:
        self.given, self.device, self.scratch = given, device, scratch
        self.began = time.monotonic()
        self.worker = Worker(device, scratch / "worker.log")
        self.rehearsal = device == "cpu"
        present = hardware.gpu()
        name = (present.row.name if present.row else present.name) if present is not None else "cpu"
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        self.out: Path | None = given.out or (None if self.rehearsal else common.RESULTS / f"gpu-{slug}.json")
        self.result: dict[str, Any] = {
            "rehearsal": self.rehearsal,
            "settings": {
                "models": given.models,
                "tokenizer": "generated" if given.tokenizer is None else "given",
                "longest_edge": given.longest_edge,
                "tokens": given.tokens,
                "generations": GENERATIONS,
                "steps": {name: steps for name, (steps, _) in STEPS.items()},
            },
            "checks": {},
            "speed": [],
            "decoding": {},
            "efficiencies": [],
            "calibrations": [],
            "cards": {},
        }

    def run(self) -> None:
        told = self.worker.ask(self._task(Turn("describe", self.given.models[0], "plain")), 120)
        environment = told.get("environment") or {"error": told.get("error", "torch did not start in time")}
        environment["command"] = common.command()
        gpu = told.get("gpu")
        if gpu is not None:
            gpu["driver"] = asked("driver_version", str)
        elif "error" not in environment:
            self._rehearse()
        self.result = {"environment": environment, "gpu": gpu, **self.result}
        if self.given.resume:
            self._take_over()
        for turn in in_order(self.given.models, self.given.engines, self.given.only):
            kept = self.result["checks"].get(turn.name, {})
            # What other checks stand on went with the scratch folder: models, and the logits to compare with.
            if kept.get("status") != "done" or turn.kind in ("build", "agree"):
                check = self._check(turn)
                self.result["checks"][turn.name] = check
                what = check.get("reason") or f"{check['seconds']:.1f} s"
                print(
                    f"[{time.monotonic() - self.began:4.0f} s] {turn.name}: {check['status']}, {what}",
                    file=sys.stderr,
                )
            self._conclude()
        self._conclude(final=True)

    def _rehearse(self) -> None:
        """No GPU holds what is sent to it: whatever is found is no GPU's result, even where CUDA's calls are made."""
        self.rehearsal = self.result["rehearsal"] = True
        self.out = self.given.out

    def _take_over(self) -> None:
        """Checks of an earlier call, where commit, versions, GPU and settings are the same."""
        before = paths.read_json(self.out) if self.out is not None else None
        same = before is not None and all(
            before["environment"].get(key) == self.result["environment"].get(key)
            for key in ("commit", "versions")
        )
        same = same and all(
            before["settings"][key] == value
            for key, value in self.result["settings"].items()
            if key != "models"
        )
        if same:
            self.result |= {"checks": before["checks"], "cards": before["cards"]}
        elif before is not None:
            sys.exit(f"{self.out} was measured on another commit, with other versions or other settings")

    def _check(self, turn: Turn) -> dict[str, Any]:
        """One check, whatever becomes of it."""
        check: dict[str, Any] = {
            "name": turn.name, "kind": turn.kind, "model": turn.model, "engine": turn.engine,
            "status": "not run", "reason": missing(turn, self.device, is_installed), "seconds": 0.0, "verdict": "not judged",
        }  # fmt: skip
        built = self.result["checks"].get(f"build {turn.model} plain", {}).get("status")
        # The parts' own limits are a GPU's.
        limit = math.inf if self.rehearsal else PARTS[turn.kind].seconds
        seconds = allowance(limit, self.given.minutes * 60 - (time.monotonic() - self.began))
        if check["reason"] is None and turn.kind != "build" and built != "done":
            check["reason"] = "there is no model"
        elif check["reason"] is None and seconds is None:
            check["reason"] = "out of time"
        if check["reason"] is not None:
            return check
        assert seconds is not None
        began = time.monotonic()
        found = self.worker.ask(self._task(turn), seconds)
        check |= {key: value for key, value in found.items() if key not in ("finished", "error", "late")}
        check |= {"status": "done", "seconds": round(time.monotonic() - began, 1)}
        if found.get("late"):
            check |= {"status": "timed out", "reason": f"stopped after {seconds:.0f} s"}
        elif "error" in found:
            check |= {"status": "failed", "reason": found["error"]}
        if turn.kind in STEPS:
            check |= {"optimizer_steps": STEPS[turn.kind][0]}
        return check

    def _task(self, turn: Turn) -> Task:
        return Task(
            kind=turn.kind, model=turn.model, engine=turn.engine, device=self.device,
            folder=self.scratch / f"SmolVLM-{turn.model}",
            data=self.scratch / ("charts-tiny" if turn.model == "tiny" else "charts"),
            scratch=self.scratch, answer=self.scratch / "answer.json",
            tokenizer=None if self.given.tokenizer is None else self.given.tokenizer.resolve(),
            longest_edge=self.given.longest_edge, new_tokens=self.given.tokens,
        )  # fmt: skip

    def _conclude(self, *, final: bool = False) -> None:
        """Verdicts and comparisons from the figures so far, and all of it on disk."""
        try:
            self._compare(final=final)
        except Exception as error:  # a figure nobody thought of costs a comparison, not the measurements
            self.result["comparison_error"] = f"{type(error).__name__}: {error}"
        self.result["seconds"] = round(time.monotonic() - self.began, 1)
        if self.out is not None:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            paths.write_json(self.out, self.result)

    def _compare(self, *, final: bool) -> None:
        result, checks = self.result, self.result["checks"]
        for check in checks.values():
            simulated = checks.get(f"simulate {check['model']} plain")
            goals = verdict.goals(check, simulated, rehearsal=self.rehearsal)
            check |= {"verdict": verdict.verdict(check, goals), "goals": verdict.as_json(goals)}
            if check["status"] == "done" and check["kind"] in verdict.METHODS:
                check["by_phase"] = verdict.phases(check, simulated)
        result["speed"], result["decoding"] = verdict.speed(checks), verdict.decoding(checks)
        # The constants are GPUs'.
        result["efficiencies"] = [] if self.rehearsal else verdict.efficiencies(checks)
        environment = result["environment"]
        calibrated = verdict.calibrations(
            checks, environment.get("date", ""), environment.get("versions", {})
        )
        result["calibrations"] = [{"name": each.name, **dataclasses.asdict(each)} for each in calibrated]
        if final:
            result["cards"] |= {model: self._cards(model, calibrated) for model in self.given.models}
            for each in calibrated if not self.rehearsal else ():
                each.save()

    def _cards(self, model: str, calibrated: list[Any]) -> list[dict[str, Any]]:
        if self.result["checks"].get(f"build {model} plain", {}).get("status") != "done":
            return []
        rows = []
        for method in verdict.METHODS:
            planned = parts.prepared(self._task(Turn(method, model, "plain")), method)
            known = [each for each in calibrated if (each.method, each.model) == (method, f"SmolVLM-{model}")]
            gpu = catalog.gpu(catalog.DEFAULT_GPU) if self.rehearsal else planned.target.gpu
            measured = known[0] if known and known[0].machine == gpu.name else None
            assert planned.plan is not None
            plan = dataclasses.replace(planned.plan, calibration=None)
            edges = EDGES_PX.get(model, DEFAULT_EDGES_PX)
            rows += cards.held(plan, gpu, measured, edges)
        return rows


if __name__ == "__main__":
    main()
