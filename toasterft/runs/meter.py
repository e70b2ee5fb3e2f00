"""Seconds and dollars of a run over all its processes, and its caps.

The clock starts with the process, because imports and loading are rented time too. `spend.json` is always ahead of it:
written before anything heavy is imported and every few seconds from then on, it bills the seconds until the next time
beforehand. So a process that is killed has been charged to its last beat and one more, and none pays less than it took.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from toasterft import paths
from toasterft.errors import UserError
from toasterft.runs import distributed, records, start_marks

SPEND_FILE = "spend.json"
BEAT_SECONDS = 2.5
# Twice a beat: one that comes late, because a library holds the interpreter for long, still comes in time.
AHEAD_SECONDS = 2 * BEAT_SECONDS
# From the last figures to the end of the process, which does not take torch apart: 0.2 s (two cores, 2026-11-28).
EXIT_SECONDS = 0.5
# Unix time at which a process of ours began that started this one for its own run.
STARTED = "TOASTERFT_STARTED"
# Seconds that saving took on this machine, by method and model, in the cache folder.
SAVING_FILE = "saving.json"
# Of a model that was never saved here: checkpoint, adapter and plot.
SAVING_SECONDS = 2.0

# Figures of the run itself, from which a resume knows whether what is left lasts for a start and a step.
PACE = ("start_seconds", "step_seconds", "save_seconds")

opened: list[Path] = []
"""Folders whose bill this process has kept."""
_claimed = False


def read_spend(folder: Path) -> dict[str, Any]:
    """The bill of a run so far; empty where none was written.

    Raises:
        UserError: it is damaged.
    """
    return paths.read_json(folder / SPEND_FILE, records.Spend) or {}


def process_start() -> float:
    """Unix time at which the first run of this process began: with the process itself, or with the one of ours or the
    launcher of several that started it.

    A process that does several runs, one after the other, charges each from its own start.
    """
    global _claimed
    if _claimed:
        return time.time()
    _claimed = True
    if STARTED in os.environ:
        return float(os.environ.pop(STARTED))
    import psutil

    process = psutil.Process(os.getpid())
    if distributed.was_launched():
        process = process.parent() or process
    return float(process.create_time())


class Meter:
    """Seconds and dollars of one run, those of its earlier processes included.

    Args:
        usd_per_hour: price of this machine; None counts no dollars.
        budget_usd, max_seconds: caps over the whole run, or None.

    Attributes:
        pace: what this run's start (its shortest, encoding apart), its steps and saving took, as far as known.
    """

    def __init__(
        self,
        usd_per_hour: float | None = None,
        budget_usd: float | None = None,
        max_seconds: float | None = None,
    ) -> None:
        self.usd_per_hour, self.budget_usd, self.max_seconds = usd_per_hour, budget_usd, max_seconds
        self.before_seconds = self.before_usd = 0.0
        self.pace: dict[str, float] = {}
        self.teachers_usd: Callable[[], float] = lambda: 0.0
        """Dollars of API teachers of this run so far, all its processes together."""
        self._before_teachers_usd = 0.0
        # Clocks are set while runs run; this one only goes on.
        self._began = time.monotonic() - (time.time() - process_start())
        self._folder: Path | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def attach(self, folder: Path, *, keep: bool = True) -> None:
        """Read what the run spent before, and start to write what it spends now.

        Args:
            keep: False only reads; of several processes one keeps the bill.
        """
        spent = read_spend(folder)
        self.before_seconds = spent.get("seconds", 0.0)
        # The teachers' ledger has the exact bill of earlier processes, which `teachers_usd` gives once it is open.
        self._before_teachers_usd = spent.get("teachers_usd") or 0.0
        if spent.get("usd") is not None:
            self.before_usd = spent["usd"] - self._before_teachers_usd
        # Those that were killed before their first beat took at most what one is billed beforehand.
        unbilled = len(start_marks.killed(folder)) * AHEAD_SECONDS
        self.before_seconds += unbilled
        self.before_usd += unbilled / 3600 * (self.usd_per_hour or 0.0)
        self.pace = {name: spent[name] for name in PACE if spent.get(name) is not None}
        if not keep:
            return
        self._folder = folder
        opened.append(folder)
        self._write(AHEAD_SECONDS)
        start_marks.clear(folder)
        self._thread = threading.Thread(target=self._beat, name="toasterft-meter", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write the last figures, the end of the process included, and stop the heartbeat."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            self._began -= EXIT_SECONDS
            self._write(0.0)

    @property
    def session_seconds(self) -> float:
        """Seconds of this process."""
        return time.monotonic() - self._began

    @property
    def seconds(self) -> float:
        """Seconds of the run."""
        return self.before_seconds + self.session_seconds

    @property
    def usd(self) -> float | None:
        """Dollars of the run, each process at its own price, and what teachers cost."""
        return self.usd_after(0.0)

    def usd_after(self, more_seconds: float) -> float | None:
        """Dollars once `more_seconds` have passed; None without a price."""
        if self.usd_per_hour is None:
            return None
        hours = (self.session_seconds + more_seconds) / 3600
        return self.before_usd + hours * self.usd_per_hour + self._all_teachers_usd

    @property
    def _all_teachers_usd(self) -> float:
        return max(self._before_teachers_usd, self.teachers_usd())

    @property
    def seconds_left(self) -> float | None:
        """Until the nearer cap, the end of the process kept back; None without one."""
        left = []
        if self.max_seconds is not None:
            left.append(self.max_seconds - self.seconds)
        if self.budget_usd is not None and self.usd_per_hour:
            left.append((self.budget_usd - (self.usd or 0.0)) / self.usd_per_hour * 3600)
        return min(left) - EXIT_SECONDS if left else None

    @property
    def cap(self) -> str:
        """The caps in words, for messages."""
        parts = []
        if self.budget_usd is not None:
            parts.append(f"budget ${self.budget_usd:g}")
        if self.max_seconds is not None:
            parts.append(f"{self.max_seconds / 3600:.3g} h")
        return " and ".join(parts) or "no cap"

    @property
    def spent(self) -> str:
        """What the run has taken, in words."""
        return f"{self.seconds:,.0f} s" + ("" if self.usd is None else f", ${self.usd:.4f}")

    def reached(self, next_seconds: float = 0.0) -> bool:
        """Whether a step of `next_seconds` would end beyond a cap."""
        left = self.seconds_left
        return left is not None and left <= next_seconds

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            self._write(AHEAD_SECONDS)

    def _write(self, ahead_seconds: float) -> None:
        assert self._folder is not None
        spent: dict[str, Any] = {
            "seconds": round(self.seconds + ahead_seconds, 2), "usd": self.usd_after(ahead_seconds),
            **{name: round(seconds, 3) for name, seconds in self.pace.items()},
        }  # fmt: skip
        if self._all_teachers_usd:
            spent["teachers_usd"] = self._all_teachers_usd
        try:
            paths.write_json(self._folder / SPEND_FILE, spent)
        except Exception:  # a full disk ends the run where it writes results, not here
            return


def known_saving(what: str) -> float:
    """Seconds that saving `what` takes on this machine, as learned by earlier runs."""
    return float(_savings().get(what, SAVING_SECONDS))


def keep_saving(what: str, seconds: float) -> None:
    """Keep what saving took, for the caps of later runs; a cache that cannot be written keeps nothing."""
    try:
        paths.cache_dir().mkdir(parents=True, exist_ok=True)
        paths.write_json(paths.cache_dir() / SAVING_FILE, {**_savings(), what: round(seconds, 2)})
    except (OSError, UserError):
        return


def _savings() -> dict[str, Any]:
    try:
        found = paths.read_json(paths.cache_dir() / SAVING_FILE)
    except (OSError, UserError):
        return {}
    return found if isinstance(found, dict) else {}
