"""Is this machine ready? Each finding comes with its remedy. Nothing heavy is imported."""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from toasterft import paths
from toasterft.catalog import hardware

MIN_FREE_BYTES = 10_000_000_000
HUB_SECONDS = 5.0
RETRY = "only folders and names that are cached can be used; check the network, HTTPS_PROXY or HF_ENDPOINT"
# The sets of versions that the tests were run with.
TESTED = ("constraints.txt", "constraints-latest.txt")
# What Unsloth is seen to fail without, half a minute after its import.
UNSLOTH_NEEDS = ("unsloth_zoo", "triton")
QUANTISE = """
import torch, bitsandbytes.functional as F
device = "cuda" if torch.cuda.is_available() else "cpu"
packed, state = F.quantize_4bit(torch.ones(64, 64, device=device), quant_type="nf4")
assert torch.allclose(F.dequantize_4bit(packed, state), torch.ones(64, 64, device=device), atol=0.1)
print(device)
"""


@dataclass(frozen=True)
class Check:
    """One finding."""

    name: str
    ok: bool
    found: str
    remedy: str = ""


def checks(runs_dir: Path) -> list[Check]:
    """Versions, GPU, disk, hub: in the order in which they matter."""
    packages = _packages()
    return [
        _python(), *packages, _gpu(), _bitsandbytes(), _unsloth(), _torchvision(), *_disks(runs_dir), _hub(), _token(),
    ]  # fmt: skip


def _python() -> Check:
    version = platform.python_version()
    ok = tuple(map(int, version.split(".")[:2])) >= (3, 11)
    return Check("python", ok, version, "" if ok else "use Python 3.11 or newer")


def _packages() -> list[Check]:
    """Each package that is needed, and which set of versions that was tested these are."""
    requirements = [Requirement(text) for text in metadata.requires("toasterft") or []]
    needed = [each for each in requirements if each.marker is None or each.marker.evaluate({"extra": ""})]
    versions = {each.name: _version(each.name) for each in needed}
    name, tested = min(
        ((file, tested_set(file)) for file in TESTED), key=lambda one: len(_apart(versions, one[1]))
    )
    apart = _apart(versions, tested)
    found = []
    for each in needed:
        version, remedy = versions[each.name], f"pip install '{each}'"
        if version is None:
            found.append(Check(each.name, False, "not installed", remedy))
            continue
        ok = each.specifier.contains(version, prereleases=True)
        shown = f"{version} (tested with {apart[each.name]})" if each.name in apart else version
        found.append(Check(each.name, ok, shown, "" if ok else remedy))
    differ = f"{len(apart)} of {len(needed)} packages differ from {name}, the nearest set that was tested"
    return [*found, Check("versions", True, differ if apart else f"the set of {name}, which was tested")]


def _version(name: str) -> str | None:
    """The installed version, None where there is none."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _apart(versions: Mapping[str, str | None], tested: Mapping[str, str]) -> dict[str, str]:
    """What was tested in place of the versions that are here, by package."""
    wanted = {name: tested.get(canonicalize_name(name)) for name in versions}
    here = {name: (version or "").partition("+")[0] for name, version in versions.items()}
    return {name: version for name, version in wanted.items() if version and version != here[name]}


def tested_set(name: str) -> dict[str, str]:
    """Versions that toasterft was tested with, by package.

    Args:
        name: one of `TESTED`.
    """
    here = Path(__file__).parents[1]
    # Beside the package in a checkout, inside it in a wheel.
    file = next(path for path in (here / name, here.parent / name) if path.is_file())
    lines = (line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    pairs = (line.split("==") for line in lines if "==" in line)
    return {canonicalize_name(name): version for name, version in pairs}


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


def _bitsandbytes() -> Check:
    """Whether its compiled library loads and quantises; tried in another process, since it brings torch along."""
    tried = subprocess.run([sys.executable, "-c", QUANTISE], capture_output=True, text=True)
    if tried.returncode == 0:
        return Check("4-bit", True, f"quantises on {tried.stdout.strip()}")
    last = (tried.stderr.strip().splitlines() or ["no message"])[-1][:200]
    return Check("4-bit", False, last, "pip install --force-reinstall bitsandbytes, or load_in_4bit=false")


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
    lacking = [name for name in UNSLOTH_NEEDS if importlib.util.find_spec(name) is None]
    found = metadata.version("unsloth") + (f", without {', '.join(lacking)}" if lacking else "")
    remedy = f"pip install {' '.join(lacking)}, or engine=plain" if lacking else ""
    return Check("unsloth", not lacking, found, remedy)


def _torchvision() -> Check:
    if importlib.util.find_spec("torchvision") is None:
        return Check("torchvision", True, "not installed: pictures are prepared by Pillow")
    torch, vision = metadata.version("torch"), metadata.version("torchvision")
    # The registry's torchvision is built for CUDA and breaks transformers beside a CPU torch.
    bad = "+cpu" in torch and "+cpu" not in vision
    return Check("torchvision", not bad, vision, "pip uninstall torchvision" if bad else "")


def _disks(runs_dir: Path) -> list[Check]:
    found = []
    for name, path in (("feature cache", paths.cache_dir()), ("runs", runs_dir)):
        free = paths.free_bytes(path.resolve())
        ok = free >= MIN_FREE_BYTES
        remedy = "" if ok else "free some space, or set TOASTERFT_CACHE / TOASTERFT_RUNS elsewhere"
        found.append(Check(f"disk for {name}", ok, f"{free / 1e9:.0f} GB free at {path}", remedy))
    return found


def _hub() -> Check:
    """Whether models and data can be fetched by name."""
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return Check("hub", True, "HF_HUB_OFFLINE is set: only what is here already")
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=HUB_SECONDS):
            pass
    except urllib.error.HTTPError as error:  # it answered
        return Check(
            "hub", error.code < 500, f"{address} answers {error.code}", "" if error.code < 500 else RETRY
        )
    except (OSError, ValueError) as error:
        return Check("hub", False, f"{address} cannot be reached ({error})", RETRY)
    return Check("hub", True, f"{address} answers")


def _token() -> Check:
    token = os.environ.get("HF_TOKEN") or ""
    file = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface")) / "token"
    if not token and file.is_file():
        token = file.read_text(encoding="utf-8").strip()
    shown = f"{token[:3]}…{token[-2:]}" if len(token) > 8 else "none"
    return Check(
        "hub token", True, shown, "" if token else "only for gated or private repositories: hf auth login"
    )
