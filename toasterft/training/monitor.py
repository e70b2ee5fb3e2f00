"""A trainer callback that meters a run: seconds, dollars, memory, loss; and stops it at a signal or cap."""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from types import FrameType
from typing import Any

from transformers import TrainerCallback

from toasterft.engine.phases import Phases
from toasterft.progress import Reporter
from toasterft.runs import distributed
from toasterft.runs.meter import Meter
from toasterft.runs.run_folder import Run

# Three in a row are no accident of one batch (issue trail of fp16 runs); one or two are skipped.
MAX_NON_FINITE = 3
# A step takes as long as the longest of the last few.
RECENT_STEPS = 10
# Kept back for a checkpoint, the adapter and the plots after the last step.
SAVING_SECONDS = 2.0


class RunMonitor(TrainerCallback):
    """Writes metrics, feeds the live line, and turns signals into a stop at the end of the step.

    Attributes:
        signal_number: SIGINT or SIGTERM once received, else None.
        capped: the next step would pass the budget or the hours.
        failed: why the run must not go on, else None.
    """

    def __init__(self, run: Run, report: Reporter, meter: Meter) -> None:
        self.run = run
        self.report = report
        self.meter = meter
        self.phases = Phases(meter.session_seconds)
        self.signal_number: int | None = None
        self.capped = False
        self.failed: str | None = None
        self.non_finite = 0
        self._began_training: float | None = None
        self._first_step = 0
        self._loss: float | None = None
        self._steps: deque[float] = deque(maxlen=RECENT_STEPS)
        self._step_began = 0.0
        self._handlers: dict[int, Any] = {}

    # --- signals

    def __enter__(self) -> RunMonitor:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._handlers[number] = signal.signal(number, self._on_signal)
            except ValueError:
                break  # not the main thread: whoever runs us there handles signals
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.signal_number is not None:
            # A second one: stop at once. Checkpoints are renamed into place, so the last one is whole.
            os._exit(128 + number)
        self.signal_number = number
        self.report.say("stopping after this step; a second signal stops at once")

    # --- trainer events

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._began_training = time.monotonic()
        self.phases.turn()
        self.phases.enter("train")
        self._first_step = state.global_step
        self.report.phase("training", state.max_steps)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._step_began, self._loss = time.monotonic(), None

    def add_loss(self, part: float) -> None:
        """Add what one backward pass of this process is of the step's loss."""
        self._loss = part + (self._loss or 0.0)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._steps.append(time.monotonic() - self._step_began)
        self.phases.turn()
        losses = [loss for loss in distributed.all_gather(self._loss) if loss is not None]
        self._loss = sum(losses) / len(losses) if losses else None
        self.report.advance(state.global_step, state.max_steps, **self._facts(state))
        if state.global_step < state.max_steps:
            self.stopping_for_the_cap()
        self.agree()
        if self.stopped or self.failed is not None:
            control.should_training_stop = True
            control.should_save = self.failed is None

    @property
    def stopped(self) -> bool:
        """Whether a signal or a cap ends the run."""
        return self.signal_number is not None or self.capped

    def close(self, status: str, reason: str | None, **facts: Any) -> None:
        """Write how the run ended and what it took, beside `facts`, to run.json, and release the run."""
        self.meter.close()
        measured = {
            "seconds": round(self.meter.seconds, 2),
            "usd": self.meter.usd,
            "peak_memory_bytes": self.phases.peak_bytes,
            "phases": self.phases.as_json(),
        }
        self.run.update(status=status, stop_reason=reason, measured=measured, **facts)
        self.run.unlock()

    def agree(self) -> None:
        """All-reduce signals and caps over processes: a step needs every one of them."""
        number, capped = distributed.all_reduce_max([self.signal_number or 0, int(self.capped)])
        if number:
            self.signal_number = number
        if capped:
            self.capped = True

    def stopping_for_the_cap(self) -> bool:
        """Whether another step like the longest recent one, and saving after it, would pass a cap."""
        if self.meter.reached(max(self._steps, default=0.0) + SAVING_SECONDS):
            self.capped = True
        return self.capped

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any
    ) -> None:
        logs = dict(logs or {})
        if "train_runtime" in logs:
            return  # the trainer's closing summary; the ledger has its own
        # A row's own loss is the mean since the row before; the live line shows that of the step.
        self.run.log({"step": state.global_step, "total": state.max_steps, **self._facts(state), **logs})

    def _facts(self, state: Any) -> dict[str, Any]:
        done = state.global_step - self._first_step
        left = None
        if self._began_training is not None and done > 0:
            left = (time.monotonic() - self._began_training) / done * (state.max_steps - state.global_step)
        return {
            "loss": self._loss,
            "seconds_elapsed": round(self.meter.seconds, 2),
            "seconds_left": None if left is None else round(left, 2),
            "memory_bytes": self.phases.peak_bytes,
            "usd": self.meter.usd,
            "usd_end": None if left is None else self.meter.usd_after(left),
        }
