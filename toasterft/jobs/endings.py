"""How a training ends: done, stopped by a signal or a cap, refused, or failed; recorded in run.json. Light.

It is watched from the moment its folder is open, before torch is imported.
"""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from toasterft import paths
from toasterft.errors import CapReached, Interrupted, OutOfMemory, RunFailed, UserError
from toasterft.jobs.prepare import Job
from toasterft.progress import Reporter
from toasterft.runs import distributed
from toasterft.runs.meter import Meter
from toasterft.runs.run_folder import Run
from toasterft.runs.stop import Stop

# Room in the run's folder, given back at its end: a full disk then still holds how the run ended.
RESERVE_FILE, RESERVE_BYTES = ".reserve", 2**18


class Ending:
    """An open training, and what it leaves in run.json once it ends.

    Attributes:
        facts: fields of run.json that were found on the way.
        figures: measured memory and phases; nothing as long as nothing was measured.
        steps: (done, planned) optimizer steps, once training has ended.
    """

    def __init__(self, job: Job, run: Run, meter: Meter, report: Reporter) -> None:
        self.job, self.run, self.meter, self.report = job, run, meter, report
        self.stop = Stop(report)
        self.facts: dict[str, Any] = {}
        self.figures: Callable[[], dict[str, Any]] = lambda: {"peak_memory_bytes": None, "phases": {}}
        self.steps = (0, 0)
        if distributed.is_main():
            (run.path / RESERVE_FILE).write_bytes(bytes(RESERVE_BYTES))

    def arm(self) -> None:
        """Have the cap end the start while there is still time for a first step and what saves it."""
        left, pace = self.meter.seconds_left, self.meter.pace
        if left is not None:
            self.stop.arm(left - pace.get("step_seconds", 0.0) - pace.get("save_seconds", 0.0))

    def finish(self) -> None:
        """Close a run that no exception ended: it is done, or was stopped between two steps.

        Raises:
            Interrupted, CapReached: it was stopped.
        """
        if self.stop.signal_number is not None:
            raise self._interrupted(f"checkpoint and adapter are in {self.run.path}")
        if self.stop.capped:
            raise self._capped(f"at step {self.steps[0]} of {self.steps[1]}")
        self._close("done", None)

    def problem(self, error: BaseException) -> BaseException:
        """Close a run that an exception ended, and return the error to raise for it."""
        starting = self.stop.at_once
        if isinstance(error, CapReached):
            return self._capped(error.what)
        # A library may have made an error of its own of what stopped it.
        if starting and self.stop.signal_number is not None:
            return self._interrupted(self._kept)
        if starting and self.stop.capped:
            return self._capped("before the first step")
        if starting and isinstance(error, UserError) and self.job.resume is None:
            self.meter.close()
            self.run.discard()
            return error
        status, reason, problem = "failed", f"{type(error).__name__}: {error}"[:500], error
        if paths.is_full(error, self.run.path):
            (self.run.path / RESERVE_FILE).unlink(missing_ok=True)
            error = problem = paths.disk_error(OSError(errno.ENOSPC, reason), self.run.path)
        if isinstance(error, UserError):
            reason = "refused" if starting else error.what
        elif isinstance(error, Interrupted):
            status, reason = "interrupted", error.what
        elif isinstance(error, _torch_s_out_of_memory()):
            reason = "out of memory"
            problem = OutOfMemory(
                "out of GPU memory",
                where=str(self.run.path),
                why="a step needed more than the estimate said",
                next_step=f"{self._resume} --fit exact",
            )
        elif distributed.is_lost_rank(error):
            reason = "another process ended"
            problem = RunFailed(
                "another process of this training ended, and a step needs all of them",
                where=str(self.run.path),
                next_step=self._resume,
            )
        self._close(status, reason)
        return problem

    @property
    def _resume(self) -> str:
        return f"{distributed.command()} {self.job.recipe.method} --resume {self.run.path}"

    @property
    def _kept(self) -> str:
        if not any(self.run.checkpoints.glob("checkpoint-*")):
            return "nothing was trained yet"
        return "the last checkpoint is as it was" if self.stop.at_once else "checkpoint and adapter are saved"

    def _interrupted(self, kept: str) -> Interrupted:
        assert self.stop.signal_number is not None
        name = signal.Signals(self.stop.signal_number).name
        self._close("interrupted", name)
        return Interrupted(
            f"stopped by {name}; {kept}",
            exit_code=128 + self.stop.signal_number,
            next_step=self._resume,
        )

    def _capped(self, where: str) -> CapReached:
        self._close("capped", self.meter.cap)
        return CapReached(
            f"stopped at the cap ({self.meter.cap}) {where}; {self._kept}",
            where=str(self.run.path),
            why=f"the next step would have passed it; spent so far: {self.meter.spent}. "
            "Idle time of a rented machine is not counted",
            next_step=f"{self._resume} --budget …",
        )

    def _close(self, status: str, reason: str | None) -> None:
        """Write how the run ended and what it took to run.json, and release the run."""
        (self.run.path / RESERVE_FILE).unlink(missing_ok=True)
        figures = self.figures()
        self.meter.close()
        measured = {"seconds": round(self.meter.seconds, 2), "usd": self.meter.usd, **figures}
        self.run.update(status=status, stop_reason=reason, measured=measured, **self.facts)
        self.run.unlock()


def _torch_s_out_of_memory() -> Any:
    """The class of torch's error, or nothing as long as torch is not imported."""
    return getattr(sys.modules.get("torch"), "OutOfMemoryError", ())


@contextmanager
def ending(job: Job, run: Run, meter: Meter, report: Reporter) -> Iterator[Ending]:
    """Watch an open training to its end, whichever it is; several processes end alike.

    Raises:
        ToasterError: the run was stopped, refused or failed, in words for its user.
    """
    end = Ending(job, run, meter, report)
    try:
        with end.stop:
            if distributed.is_main():
                end.arm()
            yield end
    except BaseException as error:
        problem = end.problem(error)
        if problem is error:
            raise
        raise problem from None
    finally:
        report.done()
    with distributed.share_errors():
        end.finish()
