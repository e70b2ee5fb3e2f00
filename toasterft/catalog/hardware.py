"""Detect this machine's GPU, processor and packages, without torch."""

from __future__ import annotations

import functools
import importlib.util
import shutil
import subprocess
from dataclasses import dataclass

from toasterft.catalog import rows
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


@dataclass(frozen=True)
class Target:
    """The GPU a plan is for, and why this one."""

    gpu: Gpu
    reason: str
    present: bool


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


def choose_gpu(name: str | None) -> Target:
    """The named GPU (or `cpu`), else the one in this machine, else an A40."""
    present = gpu()
    if name is not None and name.lower() == CPU:
        return Target(cpu(), "this machine's processor", present is None)
    if name is not None:
        row = rows.gpu(name)
        return Target(row, "as asked", present is not None and present.row is row)
    if present is None:
        return Target(rows.gpu(rows.DEFAULT_GPU), "no GPU here: planned for the default", False)
    if present.row is not None:
        return Target(present.row, "the GPU in this machine", True)
    # Peak rates of a card that is not in the catalog are unknown; the slowest known card of its
    # generation is a guess that errs on the slow side.
    capable = [row for row in rows.gpus().values() if row.compute_capability <= present.compute_capability]
    slowest = min(capable or rows.gpus().values(), key=lambda row: row.half_tflops)
    row = Gpu(
        name=present.name,
        vram_gb=present.total_bytes / 1e9,
        bf16=present.compute_capability >= 8.0,
        compute_capability=present.compute_capability,
        half_tflops=slowest.half_tflops,
        bandwidth_gb_s=slowest.bandwidth_gb_s,
        source=f"memory from nvidia-smi; speed assumed to be the {slowest.name}'s",
    )
    return Target(row, "the GPU in this machine; not in the catalog, speed assumed", True)


def has_unsloth() -> bool:
    """Whether the package is installed; importing it is the engine's business."""
    found = importlib.util.find_spec("unsloth")
    # Without an origin it is a folder of that name that happens to lie here, such as a clone of its repository.
    return found is not None and found.origin is not None
