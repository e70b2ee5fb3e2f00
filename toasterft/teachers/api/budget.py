"""The spend ledger: written before a reply is used, and a cap that is held."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from toasterft.runs.journal import Journal
from toasterft.teachers.api.types import Reply, SpendCapReached


class SpendLedger:
    """Dollars of one job, over all its processes and endpoints.

    The largest possible cost of a request is reserved before it is sent. Where the cap leaves no room for it, the
    request waits for others to come in below theirs, and is refused once none is in flight. So the cap is passed only
    where an endpoint bills more than `max_tokens`, or more input than for any request before, and then by no more than
    the requests in flight.

    The file is a journal: `sent` before a request, then `received` with the body as it came, before anything reads it,
    and `paid` with the reply, or `failed`. A `sent` without an end belongs to a process that was killed: the endpoint
    may have billed it, so its likely cost counts as spent.

    Args:
        path: the journal; None keeps nothing, for jobs that the cache alone is enough for.
        cap_usd: the most that may be spent; None for no cap.

    Attributes:
        paid_usd: dollars of replies that arrived.
        uncertain_usd: likely dollars of requests that may have been billed although no reply arrived.
        reserved_usd: set aside for requests in flight.
        replies: what was paid for, by the request's key.
        unread: bodies that a killed process had received and not yet read, likewise.

    Raises:
        UserError: another process works with the same file.
    """

    def __init__(self, path: Path | None = None, cap_usd: float | None = None) -> None:
        self.cap_usd = cap_usd
        self.paid_usd = self.uncertain_usd = self.reserved_usd = 0.0
        self.paid = 0
        self.input_tokens = self.output_tokens = self.thinking_tokens = 0
        self.by_service: dict[str, dict[str, float]] = {}
        self.replies: dict[str, dict[str, Any]] = {}
        self.unread: dict[str, str] = {}
        self._room = asyncio.Condition()
        self._journal = None if path is None else Journal(path)
        if self._journal is not None:
            self._resume(self._journal)

    @property
    def spent_usd(self) -> float:
        return self.paid_usd + self.uncertain_usd

    async def reserve(self, usd: float) -> None:
        """Reserve dollars, waiting for room where others may still come in below their reserve.

        Raises:
            SpendCapReached: there is no room, and nothing in flight could make some.
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
        """Release a reserve, once the true cost is booked."""
        async with self._room:
            self.reserved_usd = max(0.0, self.reserved_usd - usd)
            self._room.notify_all()

    def sent(self, key: str, service: str, usd: float) -> None:
        """Note a request before it leaves; `usd` is the most it can cost."""
        # Survives a killed process without a sync; only a power cut could lose it.
        self._append({"event": "sent", "key": key, "service": service, "usd": usd}, sync=False)

    def receive(self, key: str, body: str) -> None:
        """Keep a body as it came; nothing can be wrong with it that would lose it."""
        self._append({"event": "received", "key": key, "body": body}, sync=False)

    def pay(self, key: str, service: str, reply: Reply) -> None:
        """Book a reply: on disk before this returns."""
        record = {"event": "paid", "key": key, "service": service, **asdict(reply), "at": round(time.time())}
        self._append(record, sync=True)
        self._book(record)

    def fail(self, key: str, service: str, why: str, usd: float) -> None:
        """Book a request without a reply; `usd` is what it may have cost all the same."""
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
        """Book what earlier processes sent."""
        open_requests: dict[str, dict[str, Any]] = {}
        for record in journal.rows():
            if record["event"] == "sent":
                # The same request is sent again only after a failure, or by a process after a kill.
                if record["key"] in open_requests:
                    self._book_lost(open_requests[record["key"]])
                open_requests[record["key"]] = record
            elif record["event"] == "received":
                self.unread[record["key"]] = record["body"]
            else:
                open_requests.pop(record["key"], None)
                self.unread.pop(record["key"], None)
                self._book(record)
        for record in open_requests.values():
            self._book_lost(record)

    def _book(self, record: dict[str, Any]) -> None:
        if record["event"] == "failed":
            self.uncertain_usd += record["usd"]
            return
        self.replies[record["key"]] = record
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
