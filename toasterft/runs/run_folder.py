"""A run's folder: recipe, record, metrics, samples, results.

    runs/<time>-<method>-<model>-<data>/
        recipe.yaml     the resolved recipe; loading it gives the same run
        run.json        identity, versions, estimate, measured figures, status; replaced atomically
        metrics.jsonl   one object per logged step
        samples.jsonl   questions with the model's answers
        loss.png        the loss over time
        adapter_*       the adapter in PEFT's layout, with the processor; toasterft.json beside it
        checkpoints/    what `--resume` starts from

Names never collide and nothing is overwritten. A run that a user's mistake stops before its first
step is removed again.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import toasterft
from toasterft import paths, recipe
from toasterft.errors import UserError, did_you_mean
from toasterft.runs import journal, records

RUN_FILE = "run.json"
METRICS_FILE = "metrics.jsonl"
SAMPLES_FILE = "samples.jsonl"
RECIPE_FILE = "recipe.yaml"
# Prompt settings and base of an adapter, read by every later command on it.
ADAPTER_NOTES_FILE = "toasterft.json"
CHECKPOINTS = "checkpoints"
LOCK_FILE = ".lock"

RECORDED_PACKAGES = (
    "torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "datasets", "unsloth", "unsloth_zoo",
    "safetensors", "tokenizers", "torchvision",
)  # fmt: skip


@dataclass
class Run:
    """One run's folder and the content of its run.json."""

    path: Path
    record: dict[str, Any] = field(default_factory=dict)
    start: Path | None = None  # the checkpoint that a resumed training starts from
    _lock: IO[str] | None = None  # a lock lasts as long as its file is open

    @property
    def id(self) -> str:
        return self.path.name

    def update(self, **values: Any) -> None:
        """Change run.json; readers see the old file or the new one."""
        self.record |= values
        paths.write_json(self.path / RUN_FILE, self.record)

    def log(self, row: dict[str, Any]) -> None:
        """Append one object to metrics.jsonl."""
        journal.append(self.path / METRICS_FILE, row)

    def sample(self, row: dict[str, Any]) -> None:
        """Append one object to samples.jsonl."""
        journal.append(self.path / SAMPLES_FILE, row)

    def metrics(self) -> list[dict[str, Any]]:
        """Rows of metrics.jsonl that are whole."""
        return list(journal.read(self.path / METRICS_FILE, records.Metric))

    def samples(self) -> list[dict[str, Any]]:
        """Rows of samples.jsonl that are whole."""
        return list(journal.read(self.path / SAMPLES_FILE, records.Sample))

    def answers(self, types: type[records.Answer] = records.Answer) -> list[dict[str, Any]]:
        """Rows of samples.jsonl with a verdict, those that are whole."""
        return list(journal.read(self.path / SAMPLES_FILE, types))

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """The resolved recipe; empty where it was not written."""
        return recipe_of(self.path)

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    def lock(self) -> None:
        """Keep every other process off this run until `unlock`, or until this process ends.

        Raises:
            UserError: another process has it.
        """
        handle = open(self.path / LOCK_FILE, "w")  # noqa: SIM115 - stays open: closing it unlocks
        journal.lock(
            handle,
            "another process is working on this run",
            where=str(self.path),
            why=f"process {self.record.get('process_id')} holds its lock",
        )
        self._lock = handle

    def unlock(self) -> None:
        """Let others work on this run again."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def forget_after(self, step: int) -> None:
        """Drop metrics of steps that are about to be repeated."""
        file = self.path / METRICS_FILE
        if file.exists():
            journal.rewrite(file, [row for row in journal.read(file) if row.get("step", 0) <= step])

    def discard(self) -> None:
        """Remove the folder of a run in which nothing happened, and the folder of all runs where it was the only one."""
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()


class FollowerRun(Run):
    """A run as every rank but 0 sees it: it writes nothing, rank 0 owns the folder."""

    def update(self, **values: Any) -> None:
        self.record |= values

    def log(self, row: dict[str, Any]) -> None: ...

    def sample(self, row: dict[str, Any]) -> None: ...

    def forget_after(self, step: int) -> None: ...

    def discard(self) -> None: ...


def create(
    runs_dir: Path, *, method: str, model: str, data: str, out: Path | None = None, **record: Any
) -> Run:
    """A new run folder with status `running`.

    Args:
        out: the folder to use instead of a generated name; it must be new or empty.

    Raises:
        UserError: the folder exists and holds something, or cannot be made.
    """
    try:
        if out is not None:
            if out.exists() and not out.is_dir():
                raise UserError("this is no folder", where=str(out), next_step="--out elsewhere")
            if out.exists() and any(out.iterdir()):
                raise UserError(
                    "this folder is not empty; nothing is overwritten",
                    where=str(out),
                    next_step="--out elsewhere",
                )
            out.mkdir(parents=True, exist_ok=True)
            path = out
        else:
            path = _new_folder(
                runs_dir, f"{datetime.datetime.now():%Y%m%d-%H%M%S}-{method}-{_slug(model)}-{_slug(data)}"
            )
    except OSError as error:
        raise paths.disk_error(error, out or runs_dir) from error
    run = Run(path)
    run.update(
        id=path.name,
        toasterft=toasterft.__version__,
        method=method,
        status="running",
        stop_reason=None,
        started_at=now(),
        process_id=os.getpid(),
        machine={
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cpus": os.cpu_count(),
        },
        versions=versions(),
        git_commit=_git_commit(),
        **record,
    )
    return run


def now() -> str:
    """Local time with its offset, to the second."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def open_run(name: str, runs_dir: Path) -> Run:
    """A run by its folder or its name below `runs_dir`.

    Raises:
        UserError: with the nearest name.
    """
    for path in (Path(name).expanduser(), runs_dir / name):
        if (path / RUN_FILE).is_file():
            return Run(path.resolve(), read_record(path) or {})
    known = [run.id for run in runs(runs_dir)]
    raise UserError(
        f"no such run{did_you_mean(name, known)}",
        where=name,
        next_step=f"toasterft runs   lists those in {runs_dir}",
    )


def runs(runs_dir: Path) -> list[Run]:
    """Every run, oldest first; one whose run.json is damaged has the status `damaged`, and nothing else of it."""
    found = []
    for file in sorted(runs_dir.glob(f"*/{RUN_FILE}")):
        try:
            record = read_record(file.parent)
        except UserError as error:
            record = {"id": file.parent.name, "method": "?", "status": "damaged", "stop_reason": error.what}
        if record is not None:
            found.append(Run(file.parent, record))
    return found


def read_record(folder: Path) -> dict[str, Any] | None:
    """The content of a run.json; None where there is none.

    Raises:
        UserError: it is damaged.
    """
    found: dict[str, Any] | None = paths.read_json(folder / RUN_FILE, records.Record)
    return found


def predicted_and_measured(record: dict[str, Any]) -> dict[str, Any] | None:
    """Predicted beside measured figures of a finished run; None where there was no estimate for its machine.

    `comparable` is False for a run on another machine than it was planned for (a CPU, or another GPU).
    """
    planned, measured = record.get("estimate"), record.get("measured")
    if not planned or not measured or record["status"] != "done":
        return None
    here = record.get("gpu")
    return {
        "run": record["id"],
        "planned_for": planned["gpu"],
        "ran_on": here or "CPU",
        "comparable": here == planned["gpu"],
        "peak_bytes": {"predicted": planned["vram_bytes"]["peak"], "measured": measured["peak_memory_bytes"]},
        "seconds": {"predicted": planned["seconds"], "measured": measured["seconds"]},
        "usd": {"predicted": planned["usd"], "measured": measured["usd"]},
        "phases": {
            name: {
                "seconds": {"predicted": planned["phase_seconds"][name], "measured": found["seconds"]},
                "peak_bytes": {
                    "predicted": planned["phase_bytes"].get(name, {}).get("peak"),
                    "measured": found["peak_bytes"],
                },
            }
            for name, found in (measured.get("phases") or {}).items()
            # A resumed run's phases are those of its last process alone.
            if name in planned["phase_seconds"] and not record.get("resumed_at")
        },
    }


def recipe_of(folder: Path) -> dict[str, Any]:
    """A run's or pipeline's resolved recipe; empty where it was not written.

    Raises:
        UserError: it is damaged.
    """
    return recipe.of_run(folder / RECIPE_FILE)


def versions() -> dict[str, str]:
    """Installed versions of the packages that decide a run's numbers, read without importing them."""
    found = {}
    for package in RECORDED_PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _new_folder(parent: Path, name: str) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    for number in range(1, 1000):
        path = parent / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise UserError("too many runs with the same name", where=str(parent / name))


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._]+", "-", Path(name).name).strip("-.")[:40] or "unnamed"


def _git_commit() -> str | None:
    """Commit of the code that runs, where it is a checkout; `+dirty` where files differ from it."""
    here = Path(__file__).parents[1]
    if not (here.parent / ".git").exists():
        return None
    git = partial(subprocess.run, cwd=here, capture_output=True, text=True, timeout=5)
    try:
        commit = git(["git", "rev-parse", "--short=12", "HEAD"])
        changes = git(["git", "status", "--porcelain", "--untracked-files=no"])
    except (OSError, subprocess.TimeoutExpired):
        return None
    if commit.returncode:
        return None
    return str(commit.stdout).strip() + ("+dirty" if changes.stdout.strip() else "")
