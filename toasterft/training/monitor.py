"""A trainer callback that meters a run: seconds, dollars, memory, loss; and stops it at a signal or cap."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from transformers import TrainerCallback

from toasterft.engine.phases import Phases
from toasterft.errors import CapReached
from toasterft.progress import Reporter
from toasterft.runs import distributed
from toasterft.runs.meter import Meter, keep_saving
from toasterft.runs.run_folder import Run
from toasterft.runs.stop import Stop

# Three in a row are no accident of one batch (issue trail of fp16 runs); one or two are skipped.
MAX_NON_FINITE = 3
# A step takes as long as the longest of the last few.
RECENT_STEPS = 10


class EvaluationCutShort(Exception):
    """The cap came in an evaluation between two steps: what was trained is whole."""


class RunMonitor(TrainerCallback):
    """Writes metrics, feeds the live line, and ends training after a step where `stop` or the cap says so.

    Attributes:
        failed: why the run must not go on, else None.
    """

    def __init__(self, run: Run, report: Reporter, meter: Meter, stop: Stop | None = None) -> None:
        self.run = run
        self.report = report
        self.meter = meter
        self.stop = stop or Stop(report)
        self.phases = Phases(meter.session_seconds)
        self.failed: str | None = None
        self.non_finite = 0
        self._began_training: float | None = None
        self._first_step = 0
        self._loss: float | None = None
        self._steps: deque[float] = deque(maxlen=RECENT_STEPS)
        # Since the last step, evaluation or checkpoint ended; the longest of the latter two so far.
        self._since = 0.0
        self._evaluation_seconds = self._checkpoint_seconds = 0.0

    # --- trainer events

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._began_training = time.monotonic()
        starting = self.phases.as_json().get("start", {}).get("seconds", 0.0)
        self.meter.pace["start_seconds"] = min(starting, self.meter.pace.get("start_seconds", starting))
        self.phases.enter("train")
        self._first_step = state.global_step
        self.report.phase("training", state.max_steps)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._loss = None
        if self.stop.at_once:
            self._end_start()

    def _end_start(self) -> None:
        """From the first step on there is something to save; it begins where the money lasts for it, as estimated.

        Raises:
            CapReached: it does not; in all processes.
        """
        self.stop.at_once = False
        self.stop.disarm()
        self._since = time.monotonic()
        self.stopping_for_the_cap()
        self.agree()
        if self.stop.capped:
            raise CapReached("before the first step")

    def add_loss(self, part: float) -> None:
        """Add what one backward pass of this process is of the step's loss."""
        self._loss = part + (self._loss or 0.0)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._steps.append(self._lap())
        self.meter.pace["step_seconds"] = max(self._steps)
        self.phases.turn()
        losses = [loss for loss in distributed.all_gather(self._loss) if loss is not None]
        self._loss = sum(losses) / len(losses) if losses else None
        self.report.advance(state.global_step, state.max_steps, **self._facts(state))
        # What comes before the next step besides: the trainer has said so by now.
        more = self._evaluation_seconds if control.should_evaluate else 0.0
        more += self._checkpoint_seconds if control.should_save else 0.0
        self._end_if_stopped(state, control, more)
        if self.stop.stopped or self.failed is not None:
            control.should_evaluate = False
            control.should_save = self.failed is None

    def on_prediction_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # The first evaluation's length is not known. Several processes end it together, whatever it takes.
        if distributed.world_size() == 1 and self.meter.reached(self.meter.pace.get("save_seconds", 0.0)):
            self.stop.capped = True
            raise EvaluationCutShort

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._evaluation_seconds = max(self._evaluation_seconds, self._lap())

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._checkpoint_seconds = max(self._checkpoint_seconds, self._lap())
        self._end_if_stopped(state, control, 0.0)

    def _lap(self) -> float:
        """Seconds since the last call."""
        before, self._since = self._since, time.monotonic()
        return self._since - before

    def _end_if_stopped(self, state: Any, control: Any, more_seconds: float) -> None:
        if state.global_step < state.max_steps:
            self.stopping_for_the_cap(more_seconds)
        self.agree()
        if self.stop.stopped or self.failed is not None:
            control.should_training_stop = True

    def saved(self, what: str) -> None:
        """Note what a checkpoint, and the adapter and plot since training ended, took: for caps of this machine's runs."""
        self.meter.pace["save_seconds"] = self._checkpoint_seconds + self._lap()
        if distributed.is_main():
            keep_saving(what, self.meter.pace["save_seconds"])

    def figures(self) -> dict[str, Any]:
        """Measured memory and phases, for run.json."""
        return {"peak_memory_bytes": self.phases.peak_bytes, "phases": self.phases.as_json()}

    def agree(self) -> None:
        """All-reduce signals and caps over processes: a step needs every one of them."""
        number, capped = distributed.all_reduce_max([self.stop.signal_number or 0, int(self.stop.capped)])
        if number:
            self.stop.signal_number = number
        if capped:
            self.stop.capped = True

    def stopping_for_the_cap(self, more_seconds: float = 0.0) -> None:
        """Stop where another step like the longest recent one, saving, and `more_seconds` would pass a cap."""
        pace = self.meter.pace
        if self.meter.reached(pace.get("step_seconds", 0.0) + pace.get("save_seconds", 0.0) + more_seconds):
            self.stop.capped = True

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
