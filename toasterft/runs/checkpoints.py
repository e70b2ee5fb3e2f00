"""Which checkpoint of a run may be resumed: one that is all there, byte for byte.

    checkpoint-200/manifest.json    {"step": 200, "files": {"optimizer.pt": {"bytes": …, "sha256": …}, …}}

The manifest is written last. What is not in it, or differs from it, was cut by a kill or a full disk, or altered since;
transformers would go on with a fresh optimizer where its file is missing, or end in a traceback.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from toasterft import paths
from toasterft.errors import UserError
from toasterft.paths import Typed
from toasterft.runs.records import Count

MANIFEST_FILE, STATE_FILE = "manifest.json", "trainer_state.json"
NAME = re.compile(r"checkpoint-(\d{1,12})")  # checkpoint-200
# What a training is not the same without: weights, optimizer, schedule, random numbers, position.
NEEDED = ("*.safetensors", "optimizer.pt", "scheduler.pt", "rng_state*.pth", STATE_FILE)


class File(Typed):
    bytes: Count
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Manifest(Typed):
    step: Count
    files: dict[str, File]


class State(Typed):
    """What we read of transformers' trainer_state.json."""

    global_step: Count
    max_steps: Count


def seal(folder: Path) -> None:
    """Write a checkpoint's manifest: from now on it is one.

    Costs a read of every file from the page cache: 1.3 s a GB (sha256, measured 2026-11-28 on one of two busy cores).
    """
    files = {file.name: _describe(file) for file in _content(folder)}
    paths.write_json(folder / MANIFEST_FILE, {"step": step_of(folder), "files": files})


def step_of(folder: Path) -> int:
    """Optimizer steps that a checkpoint's name says, -1 for a folder that is none."""
    found = NAME.fullmatch(folder.name)
    return int(found[1]) if found else -1


def newest(home: Path) -> Path | None:
    """The newest checkpoint that was written to its end, its bytes not read again."""
    return next((folder for folder in _newest_first(home) if (folder / MANIFEST_FILE).is_file()), None)


def newest_whole(home: Path, say: Callable[[str], None], *, sealed: bool) -> Path | None:
    """The newest checkpoint that is whole; None where there is none of any kind.

    Args:
        say: is told which newer ones are left out, and why.
        sealed: checkpoints have manifests; those of runs that began before there were any are checked as far as
            their files allow.

    Raises:
        UserError: there are checkpoints, and none is whole.
    """
    faults = []
    for folder in _newest_first(home):
        unsealed = not sealed and not (folder / MANIFEST_FILE).exists()
        fault = _fault_without_manifest(folder) if unsealed else _fault(folder)
        if fault is None:
            if unsealed:
                say(
                    f"{folder.name} is older than manifests: its files are there, their bytes cannot be checked"
                )
            return folder
        faults.append(f"{folder.name}: {fault}")
        say(f"left out: {faults[-1]}")
    if not faults:
        return None
    raise UserError(
        "no checkpoint of this run is whole; nothing was run",
        where=str(home),
        details=faults,
        next_step=f"put the files back; or start from step 0: rm -r {home}, and resume again",
    )


def _newest_first(home: Path) -> list[Path]:
    found = [folder for folder in home.glob("checkpoint-*") if step_of(folder) >= 0]
    return sorted(found, key=step_of, reverse=True)


def _content(folder: Path) -> list[Path]:
    """Files that a resume might read; hidden ones are the system's."""
    return [
        file
        for file in sorted(folder.rglob("*"))
        if not file.is_dir() and not file.name.startswith(".") and file.name != MANIFEST_FILE
    ]


def _describe(file: Path) -> dict[str, Any]:
    with open(file, "rb") as handle:
        return {"bytes": file.stat().st_size, "sha256": hashlib.file_digest(handle, "sha256").hexdigest()}


def _fault(folder: Path) -> str | None:
    """Why a checkpoint does not agree with its manifest."""
    try:
        manifest = paths.read_json(folder / MANIFEST_FILE, Manifest)
        if manifest is None:
            return "it has no manifest: writing it was cut short"
        here = {file.name: file for file in _content(folder)}
        expected = manifest["files"]
        if manifest["step"] != step_of(folder):
            return f"its manifest is that of step {manifest['step']}"
        if missing := sorted(set(expected) - set(here)):
            return f"{missing[0]} is missing"
        if more := sorted(set(here) - set(expected)):
            return f"{more[0]} is not in its manifest"
        # Sizes first: a file that was cut is found without reading gigabytes.
        for name, file in here.items():
            if (size := file.stat().st_size) != expected[name]["bytes"]:
                return f"{name} has {size:,} bytes instead of {expected[name]['bytes']:,}"
        for name, file in here.items():
            if _describe(file)["sha256"] != expected[name]["sha256"]:
                return f"{name} was altered since it was written"
        return _fault_of_files(folder)
    except UserError as error:
        return f"{MANIFEST_FILE}: {error.what}"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _fault_of_files(folder: Path) -> str | None:
    for pattern in NEEDED:
        if not any(file.is_file() for file in folder.glob(pattern)):
            return f"{pattern} is missing"
    try:
        state = paths.read_json(folder / STATE_FILE, State)
    except UserError as error:
        return f"{STATE_FILE}: {error.what}"
    return None if state["global_step"] == step_of(folder) else f"{STATE_FILE} is that of another step"


def _require_whole(file: Path) -> None:
    """
    Raises:
        ValueError: a safetensors file is not as long as its header says.
    """
    with open(file, "rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        rows = json.loads(handle.read(min(length, paths.MOST_JSON_BYTES)))
    ends = [row["data_offsets"][1] for name, row in rows.items() if name != "__metadata__"]
    if file.stat().st_size != 8 + length + max(ends, default=0):
        raise ValueError("it was cut")


def _fault_without_manifest(folder: Path) -> str | None:
    """What can be told without one: torch's files are zip archives with checksums, safetensors know their length."""
    if fault := _fault_of_files(folder):
        return fault
    for file in _content(folder):
        try:
            if file.suffix in (".pt", ".pth"):
                with zipfile.ZipFile(file) as archive:
                    if archive.testzip() is not None:
                        return f"{file.name} is damaged"
            elif file.suffix == ".safetensors":
                _require_whole(file)
        except (OSError, ValueError, TypeError, LookupError, RuntimeError, zipfile.BadZipFile) as error:
            return f"{file.name} is damaged ({error})"
    return None
