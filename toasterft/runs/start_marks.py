"""Marks of processes that go on with a run, left before anything is imported: a kill in the first second is billed, too."""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

MARK = ".start-"


def leave(words: Sequence[str]) -> None:
    """Leave a mark of this process in the run that its command line resumes, until it opens the bill or ends.

    The first process of a run has no folder to leave it in, and of several ranks the first alone keeps the bill.
    """
    folder = next((word for before, word in pairwise(words) if before == "--resume"), "")
    folder = next((word[len("--resume=") :] for word in words if word.startswith("--resume=")), folder)
    if not os.path.isfile(os.path.join(folder, "run.json")) or os.environ.get("RANK", "0") != "0":
        return
    mark = os.path.join(folder, f"{MARK}{os.getpid()}")
    with suppress(OSError):
        open(mark, "w").close()
        atexit.register(_remove, mark)


def killed(folder: Path) -> list[Path]:
    """The marks of processes that were killed before they opened the bill."""
    import psutil

    marks = {mark: mark.name[len(MARK) :] for mark in folder.glob(f"{MARK}*")}
    return [
        mark for mark, number in marks.items() if number.isdecimal() and not psutil.pid_exists(int(number))
    ]


def clear(folder: Path) -> None:
    """Remove the marks that are on the bill now, this process's own among them."""
    for mark in [*killed(folder), folder / f"{MARK}{os.getpid()}"]:
        _remove(mark)


def _remove(mark: str | Path) -> None:
    with suppress(OSError):
        os.unlink(mark)
