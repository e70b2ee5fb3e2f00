"""What ends a run before its time: SIGINT, SIGTERM, or an alarm at its cap.

In its start there is nothing to save: it ends at once. Once it trains, a signal lets the step end and is saved.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from toasterft.progress import Reporter, Silent

# Whoever catches everything in a library swallows an alarm: it rings again.
AGAIN_SECONDS = 1.0
PUT_OFF_SECONDS = 0.01


class Stop:
    """Takes signals as long as it is entered; in a thread other than the main one, whoever runs us there does.

    Attributes:
        signal_number: SIGINT or SIGTERM once received, else None.
        capped: the next step would pass the budget or the hours, or the alarm rang.
        at_once: nothing would be lost: a signal raises KeyboardInterrupt where the process stands.
    """

    def __init__(self, report: Reporter | None = None) -> None:
        self.report = report or Silent()
        self.signal_number: int | None = None
        self.capped = False
        self.at_once = True
        self._held = False
        self._handlers: dict[int, Any] = {}
        self._timer: tuple[float, float] | None = None

    def __enter__(self) -> Stop:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
            try:
                self._handlers[number] = signal.signal(number, self._on_signal)
            except ValueError:
                break  # not the main thread
        return self

    def __exit__(self, *_: object) -> None:
        self.disarm()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def arm(self, seconds: float | None) -> None:
        """Raise KeyboardInterrupt after so many seconds, and again until `disarm`; None never."""
        if seconds is not None and self._handlers:
            found = signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3), AGAIN_SECONDS)
            self._timer = self._timer or found

    def disarm(self) -> None:
        """Set the timer back to whoever used it before."""
        if self._timer is not None:
            signal.setitimer(signal.ITIMER_REAL, *self._timer)
            self._timer = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold an alarm back while something is written that must be whole."""
        self._held = True
        try:
            yield
        finally:
            self._held = False

    @property
    def stopped(self) -> bool:
        return self.signal_number is not None or self.capped

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGALRM:
            self.capped |= self.signal_number is None  # else it is a signal that was put off
            if self._held:
                return
        elif self.signal_number is not None:
            # A second one: stop at once. Checkpoints are renamed into place, so the last one is whole.
            os._exit(128 + number)
        else:
            self.signal_number = number
            if not self.at_once:
                self.report.say("stopping after this step; a second signal stops at once")
                return
        if frame is not None and frame.f_globals.get("__name__") == "logging":
            # Raised between taking logging's lock and its `try`, this would leave it taken: the next thread
            # that logs, Pillow's among them, would wait for ever.
            self.arm(PUT_OFF_SECONDS)
            return
        raise KeyboardInterrupt
