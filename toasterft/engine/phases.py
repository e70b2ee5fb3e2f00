"""Seconds and peak memory of a process, by phase of its work."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from contextlib import suppress
from pathlib import Path

import torch


def peak_memory_bytes() -> int:
    """Peak since the last `restart_peak` of what the GPU's allocator holds, or of this process's resident memory."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_reserved())
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage: a child process inherits its parent's peak there.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    # macOS counts in bytes, the other systems in KiB.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def restart_peak() -> None:
    """Reset the peak that `peak_memory_bytes` returns, where the system can (CUDA, Linux)."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets the peak resident set size


class Phases:
    """Seconds and peak memory of this process by phase, under the estimate's names: start, encode, rollout,
    train, evaluate.

    Work comes in turns (an image, an optimizer step). The median of a phase's turns leaves out the first ones, in
    which kernels are built and memory is asked for.

    Args:
        began_seconds: what has passed before; it counts as `start`.
    """

    def __init__(self, began_seconds: float = 0.0) -> None:
        self._began = time.monotonic() - began_seconds
        self._name = "start"
        self._turn: dict[str, float] = {}
        self._turns: dict[str, list[float]] = {}
        self._peaks: dict[str, int] = {}

    def enter(self, name: str) -> None:
        """Begin a phase, or go on with it; the one before it ends or pauses."""
        if name != self._name:
            self._measure()
            restart_peak()
            self._name = name

    def turn(self) -> None:
        """End a piece of work: what each phase took of it is its time of this turn."""
        self._measure()
        for name, seconds in self._turn.items():
            self._turns.setdefault(name, []).append(seconds)
        self._turn = {}

    @property
    def peak_bytes(self) -> int:
        """Over all phases so far."""
        self._measure()
        return max(self._peaks.values())

    def as_json(self) -> dict[str, dict[str, float]]:
        self.turn()
        return {
            name: {
                "seconds": round(sum(times), 3),
                "turns": len(times),
                "median_seconds": round(statistics.median(times), 4),
                "peak_bytes": self._peaks[name],
            }
            for name, times in self._turns.items()
        }

    def _measure(self) -> None:
        now = time.monotonic()
        self._turn[self._name] = self._turn.get(self._name, 0.0) + now - self._began
        self._began = now
        self._peaks[self._name] = max(self._peaks.get(self._name, 0), peak_memory_bytes())
