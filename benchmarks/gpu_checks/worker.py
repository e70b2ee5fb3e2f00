"""The process that does parts, and what nvidia-smi says. No torch on this side."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpu_checks.task import Task
from toasterft import paths

BENCHMARKS = Path(__file__).parents[1]
POLL_SECONDS = 0.05


class Worker:
    """A process that does parts: a fresh one for each on CUDA, where memory is measured; one for all in a rehearsal.

    Args:
        log: what it and its libraries print.
    """

    def __init__(self, device: str, log: Path) -> None:
        self.device, self.log = device, log
        self.process: subprocess.Popen[str] | None = None
        self.used_bytes: int | None = None

    def ask(self, task: Task, seconds: float) -> dict[str, Any]:
        """What the part has found; `error` where it failed, `late` where it was stopped after so many seconds."""
        if self.process is None or self.process.poll() is not None:
            self._start(task.scratch)
        assert self.process is not None
        assert self.process.stdin is not None
        whole = {**dataclasses.asdict(task), "used_bytes": self.used_bytes}
        task.answer.unlink(missing_ok=True)
        until, found, seen = time.monotonic() + seconds, {}, -1.0
        with contextlib.suppress(BrokenPipeError):  # it died: its poll says so
            self.process.stdin.write(json.dumps(whole, default=str) + "\n")
            self.process.stdin.flush()
        while not found.get("finished"):
            ended = self.process.poll()
            if task.answer.exists() and task.answer.stat().st_mtime != seen:
                seen, found = task.answer.stat().st_mtime, paths.read_json(task.answer)
            elif ended is not None:
                last = self.log.read_text(errors="replace").strip().splitlines()[-3:]
                found |= {
                    "error": f"the process ended with {ended}: {' | '.join(last)}"[-600:],
                    "finished": True,
                }
            elif time.monotonic() > until:
                self.stop()
                found |= {"late": True, "finished": True}
            else:
                time.sleep(POLL_SECONDS)
        if self.device == "cuda":
            self.stop()
        return found

    def stop(self) -> None:
        """End the process and whatever it started."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def _start(self, folder: Path) -> None:
        self.used_bytes = used_bytes() if self.device == "cuda" else None
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] if self.device == "cuda" else ""
        environment = {
            "OMP_WAIT_POLICY": "passive", **os.environ, "CUDA_VISIBLE_DEVICES": visible, "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false", "UNSLOTH_DISABLE_STATISTICS": "1",
            # Compiled once for all parts.
            "UNSLOTH_COMPILE_LOCATION": str(folder / "unsloth_compiled"),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(BENCHMARKS), os.environ.get("PYTHONPATH")])),
        }  # fmt: skip
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", "from gpu_checks import parts; parts.main()"],
                stdin=subprocess.PIPE, stdout=log, stderr=log, text=True, cwd=folder, env=environment,
                start_new_session=True,
            )  # fmt: skip


def used_bytes() -> int | None:
    """Memory of the first GPU that is in use, by anyone."""
    return asked("memory.used", lambda value: int(value) * 2**20)


def asked(what: str, read: Callable[[str], Any]) -> Any:
    """One figure of nvidia-smi's for the first GPU, or None."""
    try:
        words = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits"]
        told = subprocess.run(words, capture_output=True, text=True, timeout=20)
        return read(told.stdout.strip().splitlines()[0])
    except (OSError, ValueError, IndexError, subprocess.TimeoutExpired):
        return None
