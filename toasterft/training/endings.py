"""How a training ends: done, stopped by a signal or a cap, refused, or failed; recorded in run.json."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from toasterft.errors import CapReached, Interrupted, OutOfMemory, RunFailed, UserError
from toasterft.jobs.prepare import Job
from toasterft.runs import distributed
from toasterft.training.monitor import RunMonitor


class Ending:
    """What a run leaves in run.json once it ends.

    Attributes:
        facts: fields of run.json that were found on the way.
        steps: (done, planned) optimizer steps, once training has ended.
    """

    def __init__(self, job: Job, monitor: RunMonitor) -> None:
        self.job, self.monitor, self.run = job, monitor, monitor.run
        self.facts: dict[str, Any] = {}
        self.steps = (0, 0)

    def finish(self) -> None:
        """Close a run that no exception ended: it is done, or was stopped between two steps.

        Raises:
            Interrupted, CapReached: it was stopped.
        """
        if self.monitor.signal_number is not None:
            name = signal.Signals(self.monitor.signal_number).name
            self._close("interrupted", name)
            raise Interrupted(
                f"stopped by {name}; checkpoint and adapter are in {self.run.path}",
                exit_code=128 + self.monitor.signal_number,
                next_step=self._resume,
            )
        if self.monitor.capped:
            self._close("capped", self.monitor.meter.cap)
            raise self._capped(f"at step {self.steps[0]} of {self.steps[1]}")
        self._close("done", None)

    def problem(self, error: BaseException) -> BaseException:
        """Close a run that an exception ended, and return the error to raise for it."""
        if isinstance(error, UserError) and self.job.resume is None:
            self.monitor.meter.close()
            self.run.discard()
            return error
        status, reason, problem = "failed", f"{type(error).__name__}: {error}"[:500], error
        if isinstance(error, UserError):
            reason = "refused"
        elif isinstance(error, CapReached):
            status, reason, problem = "capped", self.monitor.meter.cap, self._capped(error.what)
        elif isinstance(error, Interrupted):
            status, reason = "interrupted", error.what
        elif isinstance(error, torch.OutOfMemoryError):
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

    def _capped(self, where: str) -> CapReached:
        meter = self.monitor.meter
        spent = f"{meter.seconds:,.0f} s" + ("" if meter.usd is None else f", ${meter.usd:.4f}")
        trained = any(self.run.checkpoints.glob("*"))
        saved = "checkpoint and adapter are saved" if trained else "nothing was trained yet"
        return CapReached(
            f"stopped at the cap ({meter.cap}) {where}; {saved}",
            where=str(self.run.path),
            why=f"the next step would have passed it; spent so far: {spent}. Idle time of a rented machine is not counted",
            next_step=f"{self._resume} --budget …",
        )

    def _close(self, status: str, reason: str | None) -> None:
        self.monitor.close(status, reason, **self.facts)


@contextmanager
def ending(job: Job, monitor: RunMonitor) -> Iterator[Ending]:
    """Watch a run to its end, whichever it is; several processes end alike.

    Raises:
        ToasterError: the run was stopped, refused or failed, in words for its user.
    """
    end = Ending(job, monitor)
    try:
        with monitor:
            yield end
    except BaseException as error:
        problem = end.problem(error)
        if problem is error:
            raise
        raise problem from None
    finally:
        monitor.report.done()
    with distributed.share_errors():
        end.finish()
