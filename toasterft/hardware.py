"""What this machine has, asked without torch."""

from __future__ import annotations

import functools
import importlib.util
import shutil
import subprocess
from dataclasses import dataclass

from toasterft import catalog


@dataclass(frozen=True)
class Present:
    """A GPU in this machine, as nvidia-smi reports it."""

    name: str
    total_bytes: int
    free_bytes: int
    compute_capability: float
    row: catalog.Gpu | None


@functools.cache
def gpu() -> Present | None:
    """The first CUDA GPU, or None."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = "--query-gpu=name,memory.total,memory.free,compute_cap"
    try:
        answer = subprocess.run(
            ["nvidia-smi", query, "--format=csv,noheader,nounits"], capture_output=True, text=True, timeout=20
        )
        name, total, free, capability = answer.stdout.strip().split("\n")[0].rsplit(", ", 3)
        total_mib = int(total)
        return Present(
            name,
            total_mib * 2**20,
            int(free) * 2**20,
            float(capability),
            catalog.recognise_gpu(name, total_mib),
        )
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


def has_unsloth() -> bool:
    """Whether the package is installed; importing it is the engine's business."""
    return importlib.util.find_spec("unsloth") is not None
