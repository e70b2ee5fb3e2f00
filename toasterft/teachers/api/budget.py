"""What has been spent: a ledger that is written before an answer is used, and a cap that is held."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from toasterft.runs.journal import Journal
from toasterft.teachers.api.types import Answer, SpendCapReached


class SpendLedger:
    """Dollars of one job, over all its processes and endpoints.

    Before a request is sent its largest likely cost is set aside; where the cap leaves no room for that,
    the request waits for others to come in below theirs, and is refused once nothing is on its way. So the
    cap is passed only where an endpoint bills more than `max_tokens`, or more input than for any request
    before, and then by no more than the requests in flight.

    The ledger is a file of JSON lines that only grows: `sent` before a request, then `paid` with the answer,
    or `failed`. A `sent` without an end belongs to a process that was killed: the endpoint may have billed
    it, so its likely cost counts as spent.

    Args:
        ledger: the file; None keeps nothing, for jobs that the cache alone is enough for.
        cap_usd: the most that may be spent; None for no cap.

    Raises:
        UserError: another process works with the same ledger.
    """

    def __init__(self, ledger: Path | None = None, cap_usd: float | None = None) -> None:
        self.cap_usd = cap_usd
        self.paid_usd = 0.0
        """Dollars of answers that arrived."""
        self.uncertain_usd = 0.0
        """Likely dollars of requests that may have been billed although no answer arrived."""
        self.reserved_usd = 0.0
        """Set aside for requests on their way."""
        self.paid = 0
        self.input_tokens = self.output_tokens = self.thinking_tokens = 0
        self.by_service: dict[str, dict[str, float]] = {}
        self.answers: dict[str, dict[str, Any]] = {}
        self._room = asyncio.Condition()
        self._journal = None if ledger is None else Journal(ledger)
        if self._journal is not None:
            self._resume(self._journal)

    @property
    def spent_usd(self) -> float:
        return self.paid_usd + self.uncertain_usd

    async def reserve(self, usd: float) -> None:
        """Set dollars aside, waiting for room where others may still come in below their reserve.

        Raises:
            SpendCapReached: there is no room, and nothing on its way could make some.
        """
        async with self._room:
            while self.cap_usd is not None and self.spent_usd + self.reserved_usd + usd > self.cap_usd + 1e-9:
                if self.reserved_usd <= 1e-12:
                    raise SpendCapReached(
                        f"the budget of ${self.cap_usd:g} is used up",
                        kind="cap",
                        why=f"${self.spent_usd:.4f} are spent, and one more request may cost ${usd:.4f}",
                        next_step="the same command with a larger --budget goes on from here",
                    )
                await self._room.wait()
            self.reserved_usd += usd

    async def release(self, usd: float) -> None:
        """Give back what was set aside, once the true cost is booked."""
        async with self._room:
            self.reserved_usd = max(0.0, self.reserved_usd - usd)
            self._room.notify_all()

    def sent(self, key: str, service: str, usd: float) -> None:
        """A request is about to leave; `usd` is the most it can cost."""
        # Survives a killed process without a sync; only a power cut could lose it.
        self._append({"event": "sent", "key": key, "service": service, "usd": usd}, sync=False)

    def pay(self, key: str, service: str, answer: Answer) -> None:
        """Book an answer: on disk before this returns."""
        record = {"event": "paid", "key": key, "service": service, **asdict(answer), "at": round(time.time())}
        self._append(record, sync=True)
        self._book(record)

    def fail(self, key: str, service: str, why: str, usd: float) -> None:
        """Book a request without an answer; `usd` is what it may have cost all the same."""
        record = {"event": "failed", "key": key, "service": service, "why": why, "usd": usd}
        self._append(record, sync=False)
        self._book(record)

    def likely_usd(self, service: str, most_usd: float) -> float:
        """What a request that left no bill probably cost: the mean so far, else the most."""
        known = self.by_service.get(service)
        return min(most_usd, known["usd"] / known["answers"]) if known else most_usd

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()

    def _resume(self, journal: Journal) -> None:
        """Book what earlier processes asked."""
        open_requests: dict[str, dict[str, Any]] = {}
        for record in journal.rows():
            if record["event"] == "sent":
                # The same request is sent again only after a failure, or by a process after a kill.
                if record["key"] in open_requests:
                    self._book_lost(open_requests[record["key"]])
                open_requests[record["key"]] = record
            else:
                open_requests.pop(record["key"], None)
                self._book(record)
        for record in open_requests.values():
            self._book_lost(record)

    def _book(self, record: dict[str, Any]) -> None:
        if record["event"] == "failed":
            self.uncertain_usd += record["usd"]
            return
        self.answers[record["key"]] = record
        self.paid += 1
        self.paid_usd += record["usd"]
        mine = self.by_service.setdefault(
            record["service"], {"answers": 0, "usd": 0.0, "input_tokens": 0, "output_tokens": 0}
        )
        mine["answers"] += 1
        mine["usd"] += record["usd"]
        for name in ("input_tokens", "output_tokens", "thinking_tokens"):
            setattr(self, name, getattr(self, name) + record[name])
            if name in mine:
                mine[name] += record[name]

    def _book_lost(self, record: dict[str, Any]) -> None:
        self.uncertain_usd += self.likely_usd(record["service"], record["usd"])

    def _append(self, record: dict[str, Any], *, sync: bool) -> None:
        if self._journal is not None:
            self._journal.append([record], sync=sync)
