"""Is this machine ready? Each finding comes with its remedy. Nothing heavy is imported."""

from __future__ import annotations

import importlib.util
import os
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from toasterft import hardware, places

MIN_FREE_BYTES = 10_000_000_000


@dataclass(frozen=True)
class Check:
    """One finding."""

    name: str
    ok: bool
    found: str
    remedy: str = ""


def checks(runs_dir: Path) -> list[Check]:
    """Versions, GPU, disk, hub: in the order in which they matter."""
    return [_python(), *_packages(), _gpu(), _unsloth(), _torchvision(), *_disks(runs_dir), _token()]


def _python() -> Check:
    version = platform.python_version()
    ok = tuple(map(int, version.split(".")[:2])) >= (3, 11)
    return Check("python", ok, version, "" if ok else "use Python 3.11 or newer")


def _packages() -> list[Check]:
    found = []
    for text in metadata.requires("toasterft") or []:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            found.append(Check(requirement.name, False, "not installed", f"pip install '{requirement}'"))
            continue
        ok = requirement.specifier.contains(version, prereleases=True)
        found.append(Check(requirement.name, ok, version, "" if ok else f"pip install '{requirement}'"))
    return found


def _gpu() -> Check:
    present = hardware.gpu()
    if present is None:
        return Check(
            "GPU", True, "none found", "training runs on the CPU: fine for the demo, slow for real models"
        )
    bf16 = "bf16" if present.compute_capability >= 8.0 else "no bf16: float16 with a gradient scaler"
    free, total = present.free_bytes / 1e9, present.total_bytes / 1e9
    remedy = "" if present.row else "not in the catalog: speed is assumed, give --price"
    return Check("GPU", True, f"{present.name}, {free:.1f} of {total:.1f} GB free, {bf16}", remedy)


def _unsloth() -> Check:
    if hardware.gpu() is None:
        return Check("unsloth", True, "not used without a CUDA GPU")
    if not hardware.has_unsloth():
        return Check(
            "unsloth",
            False,
            "not installed",
            "pip install 'toasterft[cuda]' (the plain engine works without)",
        )
    return Check("unsloth", True, metadata.version("unsloth"))


def _torchvision() -> Check:
    if importlib.util.find_spec("torchvision") is None:
        return Check("torchvision", True, "not installed: pictures are prepared by Pillow")
    torch, vision = metadata.version("torch"), metadata.version("torchvision")
    # The registry's torchvision is built for CUDA and breaks transformers beside a CPU torch.
    bad = "+cpu" in torch and "+cpu" not in vision
    return Check("torchvision", not bad, vision, "pip uninstall torchvision" if bad else "")


def _disks(runs_dir: Path) -> list[Check]:
    found = []
    for name, path in (("feature cache", places.cache_dir()), ("runs", runs_dir)):
        free = places.free_bytes(path.resolve())
        ok = free >= MIN_FREE_BYTES
        remedy = "" if ok else "free some space, or set TOASTERFT_CACHE / TOASTERFT_RUNS elsewhere"
        found.append(Check(f"disk for {name}", ok, f"{free / 1e9:.0f} GB free at {path}", remedy))
    return found


def _token() -> Check:
    token = os.environ.get("HF_TOKEN") or ""
    file = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface")) / "token"
    if not token and file.is_file():
        token = file.read_text(encoding="utf-8").strip()
    shown = f"{token[:3]}…{token[-2:]}" if len(token) > 8 else "none"
    return Check(
        "hub token", True, shown, "" if token else "only for gated or private repositories: hf auth login"
    )
