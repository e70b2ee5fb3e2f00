"""Seconds and dollars of a run over all its processes, and its caps.

The clock starts with the process, because imports and loading are rented time too. A heartbeat writes
`spend.json` every few seconds, so that a process that is killed loses at most one beat of the bill.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from toasterft import paths
from toasterft.runs import records

SPEND_FILE = "spend.json"
HEARTBEAT_SECONDS = 5.0

_claimed = False


def read_spend(folder: Path) -> dict[str, Any]:
    """The bill of a run so far; empty where none was written.

    Raises:
        UserError: it is damaged.
    """
    return paths.read_json(folder / SPEND_FILE, records.Spend) or {}


def process_start() -> float:
    """Unix time at which the first run of this process began: with the process itself.

    A process that does several runs, one after the other, charges each from its own start.
    """
    global _claimed
    if _claimed:
        return time.time()
    _claimed = True
    import psutil

    return float(psutil.Process(os.getpid()).create_time())


class Meter:
    """Seconds and dollars of one run, those of its earlier processes included.

    Args:
        folder: the run's folder, once it exists; `attach` gives it later.
        usd_per_hour: price of this machine; None counts no dollars.
        budget_usd, max_seconds: caps over the whole run, or None.
    """

    def __init__(
        self,
        usd_per_hour: float | None = None,
        budget_usd: float | None = None,
        max_seconds: float | None = None,
    ) -> None:
        self.usd_per_hour, self.budget_usd, self.max_seconds = usd_per_hour, budget_usd, max_seconds
        self.before_seconds = self.before_usd = 0.0
        self.teachers_usd: Callable[[], float] = lambda: 0.0
        """Dollars of API teachers of this run so far, all its processes together."""
        self._began = process_start()
        self._folder: Path | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def attach(self, folder: Path, *, keep: bool = True) -> None:
        """Read what the run spent before, and start to write what it spends now.

        Args:
            keep: False only reads; of several processes one keeps the bill.
        """
        self._folder = folder
        spent = read_spend(folder)
        self.before_seconds = float(spent.get("seconds", 0.0))
        # The teachers' ledger has the exact bill of earlier processes, which `teachers_usd` gives from then on.
        if spent.get("usd") is not None:
            self.before_usd = float(spent["usd"]) - float(spent.get("teachers_usd", 0.0))
        if not keep:
            return
        self._write()
        self._thread = threading.Thread(target=self._beat, name="toasterft-meter", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write the last figures and stop the heartbeat."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            self._write()

    @property
    def session_seconds(self) -> float:
        """Seconds of this process."""
        return time.time() - self._began

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
        return self.before_usd + hours * self.usd_per_hour + self.teachers_usd()

    @property
    def seconds_left(self) -> float | None:
        """Until the nearer cap; None without one."""
        left = []
        if self.max_seconds is not None:
            left.append(self.max_seconds - self.seconds)
        if self.budget_usd is not None and self.usd_per_hour:
            left.append((self.budget_usd - (self.usd or 0.0)) / self.usd_per_hour * 3600)
        return min(left) if left else None

    @property
    def cap(self) -> str:
        """The caps in words, for messages."""
        parts = []
        if self.budget_usd is not None:
            parts.append(f"budget ${self.budget_usd:g}")
        if self.max_seconds is not None:
            parts.append(f"{self.max_seconds / 3600:.3g} h")
        return " and ".join(parts) or "no cap"

    def reached(self, next_seconds: float = 0.0) -> bool:
        """Whether a step of `next_seconds` would end beyond a cap."""
        left = self.seconds_left
        return left is not None and left <= next_seconds

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            self._write()

    def _write(self) -> None:
        assert self._folder is not None
        spent: dict[str, Any] = {"seconds": round(self.seconds, 2), "usd": self.usd}
        if teachers_usd := self.teachers_usd():
            spent["teachers_usd"] = teachers_usd
        try:
            paths.write_json(self._folder / SPEND_FILE, spent)
        except Exception:  # a full disk ends the run where it writes results, not here
            return
