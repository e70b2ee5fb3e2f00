"""Detect this machine's GPU, processor and packages, without torch."""

from __future__ import annotations

import functools
import importlib.util
import shutil
import subprocess
from dataclasses import dataclass

from toasterft.catalog.rows import Gpu, recognise_gpu

CPU = "cpu"
# Float32 rate of a core and bandwidth of all, where nothing was measured. Assumed: AVX2 at 2.5 GHz reaching half its
# peak; two channels of DDR4. One core of two EPYC machines gave 55 and 95 GFLOP/s in 1,024 x 1,024 products, 2026-11-21.
CPU_GFLOPS_PER_CORE = 40.0
CPU_BANDWIDTH_GB_S = 20.0


@dataclass(frozen=True)
class Present:
    """A GPU in this machine, as nvidia-smi reports it."""

    name: str
    total_bytes: int
    free_bytes: int
    compute_capability: float
    row: Gpu | None


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
            recognise_gpu(name, total_mib),
        )
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


@functools.cache
def cpu() -> Gpu:
    """This machine's processor and memory in a GPU's terms, for `--gpu cpu`."""
    import psutil

    cores = psutil.cpu_count(logical=False) or 1
    return Gpu(
        name=CPU,
        vram_gb=psutil.virtual_memory().total / 1e9,
        bf16=True,  # slow or not, every CPU computes in it
        compute_capability=0.0,
        half_tflops=cores * CPU_GFLOPS_PER_CORE / 1e3,
        bandwidth_gb_s=CPU_BANDWIDTH_GB_S,
        source=f"{cores} cores, speed assumed; `toasterft estimate … --measure` measures it",
    )


def has_unsloth() -> bool:
    """Whether the package is installed; importing it is the engine's business."""
    return importlib.util.find_spec("unsloth") is not None
