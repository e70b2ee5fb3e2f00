"""API models of a DyME run: the judge of thinking and the refiner of references.

Both pay from one ledger, in the run's folder. Its cap is the recipe's `teachers_usd`, and never more than what the
run's own budget leaves. An API failure falls back to the local checker, or to the reference as it is.
"""

from __future__ import annotations

import datetime
from pathlib import Path

from toasterft.errors import BudgetError, UserError
from toasterft.progress import Reporter
from toasterft.recipe import Dyme
from toasterft.runs import distributed
from toasterft.runs.meter import Meter
from toasterft.teachers import directory
from toasterft.teachers.api import BackgroundRequests, Endpoint, SpendLedger, api_key
from toasterft.teachers.judge import Judge
from toasterft.teachers.refine import Writer

LEDGER = "answers.ledger"
# A step waits for its answers, so a try ends sooner than in a build, and a dead endpoint rests longer.
TRY_SECONDS, TRIES, REST_SECONDS = 30.0, 3, 300.0
CONCURRENCY = 16


class LiveTeachers:
    """Judge and refiner: resolved before anything is written, opened with the run's folder, closed with the run.

    Attributes:
        judge, writer: None where the recipe names none.

    Raises:
        UserError: from the constructor: no such row, no key, or nothing that holds the bill down.
    """

    def __init__(self, recipe: Dyme, budget_usd: float | None) -> None:
        self.services = directory.of_run(recipe, datetime.date.today())
        if self.services and distributed.world_size() > 1:
            raise UserError(
                f"{next(iter(self.services.values())).name} serves one process only; nothing was run",
                why="all its answers are paid from one ledger, which processes do not share",
                next_step="one process, or no judge and refiner=local",
            )
        for service in self.services.values():
            api_key(service)
        caps = [cap for cap in (recipe.teachers_usd, budget_usd) if cap is not None]
        dear = [one.name for one in self.services.values() if one.usd(1, 1) > 0]
        if dear and not caps:
            raise BudgetError(
                f"{dear[0]} is paid by the token: a run that calls it needs a cap; nothing was run",
                next_step="teachers_usd=DOLLARS for what it may cost, or --budget for the whole run",
            )
        self.cap_usd = recipe.teachers_usd
        self.judge: Judge | None = None
        self.writer: Writer | None = None
        self._requests: dict[str, BackgroundRequests] = {}
        self._ledger: SpendLedger | None = None
        self._reported: set[str] = set()

    def open(self, folder: Path, meter: Meter) -> None:
        """Open the ledger and the endpoints; what is spent shows on the meter."""
        if not self.services:
            return
        self._ledger = SpendLedger(folder / LEDGER, self.cap_usd)
        meter.teachers_usd = lambda: self.usd
        self.cap_spending(meter)
        for role, service in self.services.items():
            endpoint = Endpoint(
                service, self._ledger, concurrency=CONCURRENCY, timeout_seconds=TRY_SECONDS, tries=TRIES,
                rest_seconds=REST_SECONDS,
            )  # fmt: skip
            self._requests[role] = BackgroundRequests(endpoint, next(iter(self._requests.values()), None))
        if "judge" in self._requests:
            self.judge = Judge(self._requests["judge"])
        if "refiner" in self._requests:
            self.writer = Writer(self._requests["refiner"])

    @property
    def usd(self) -> float:
        """Dollars of this run's answers, all its processes together."""
        return self._ledger.spent_usd if self._ledger is not None else 0.0

    def cap_spending(self, meter: Meter) -> None:
        """Cap the ledger at what the run's budget leaves, which shrinks while the machine runs."""
        if self._ledger is None or meter.budget_usd is None:
            return
        left = max(0.0, meter.budget_usd - (meter.usd or 0.0))
        caps = [cap for cap in (self.cap_usd, self.usd + left) if cap is not None]
        self._ledger.cap_usd = min(caps)

    def report_failures(self, report: Reporter) -> None:
        """Report each kind of failure once, and what was changed on an endpoint's account."""
        for role, requests in self._requests.items():
            name = f"{role} {requests.endpoint.service.name}"
            for note in {*requests.endpoint.notes} - self._reported:
                self._reported.add(note)
                report.say(f"{name}: {note}")
            for kind in requests.failures:
                if f"{role} {kind}" not in self._reported:
                    self._reported.add(f"{role} {kind}")
                    instead = "the local checker" if role == "judge" else "the reference as it is"
                    report.say(f"{name}: {requests.problem}; {instead} takes its place")

    def close(self) -> None:
        """Cancel requests in flight, and release the ledger."""
        for requests in reversed(self._requests.values()):
            requests.close()
        if self._ledger is not None:
            self._ledger.close()
