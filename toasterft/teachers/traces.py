"""Builds a data set of traces: asks, filters, and writes a folder that `--data NAME` finds.

<data folder>/NAME/
    train.jsonl        kept rows, with `reasoning`; the pictures they show lie in images/
    validation.jsonl   test.jsonl      held-out rows of the source, unchanged
    rejects.jsonl      rows without a trace, and why
    hard.jsonl         self-supervised only: rows on which no rationale survived, with every vote
    card.json          teacher, prompt, prices, counts, hashes; `complete: false` while it is being built
    answers.ledger     every paid answer, written before it was used
"""

from __future__ import annotations

import asyncio
import datetime
import time
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from toasterft.data.example import Example
from toasterft.errors import RunFailed, ToasterError
from toasterft.progress import Reporter
from toasterft.scoring import right
from toasterft.scoring.traces import strict_faults
from toasterft.teachers import batch, filters, shelf
from toasterft.teachers import panel as jury
from toasterft.teachers.api import (
    Endpoint,
    EndpointError,
    EndpointRefused,
    Request,
    Service,
    SpendCapReached,
    SpendLedger,
    api_key,
)
from toasterft.teachers.batch import LEDGER
from toasterft.teachers.plan import Expected, Plan, held_out, shuffled
from toasterft.teachers.rules import write as rules

# Rows of each held-out split that go along; `eval_limit` of a training is 200 by default.
HELD_OUT_ROWS = 500


@dataclass(frozen=True)
class Outcome:
    """What became of one row: `reason` is None for a kept trace, "endpoint" where nobody answered."""

    example: Example
    reason: str | None
    teacher: str = ""
    reasoning: str = ""
    detail: str = ""
    said: str = ""
    tries: int = 1
    candidates: tuple[jury.Candidate, ...] = ()


@dataclass
class Build:
    """Outcomes so far, by place in the order of rows."""

    plan: Plan
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    ended: ToasterError | None = None

    @property
    def kept(self) -> list[Outcome]:
        """The first `n` kept rows, in order, so that how fast answers came does not decide what is in."""
        found = [
            self.outcomes[place] for place in sorted(self.outcomes) if self.outcomes[place].reason is None
        ]
        return found[: self.plan.n]

    @property
    def others(self) -> list[Outcome]:
        return [
            self.outcomes[place] for place in sorted(self.outcomes) if self.outcomes[place].reason is not None
        ]

    @property
    def complete(self) -> bool:
        """Enough traces, or every row has had its say."""
        if len(self.kept) >= self.plan.n:
            return True
        return len(self.outcomes) == len(self.plan.data) and batch.all_settled(self.outcomes.values())


def run(plan: Plan, expected: Expected, report: Reporter) -> dict[str, Any]:
    """Build, or go on building, and return the card.

    Raises:
        UserError: the folder holds something else, or the endpoint refuses every request.
        CapReached: the budget is used up; what was written so far is a data set that can be trained on.
        Interrupted: Ctrl-C or SIGTERM, likewise.
        RunFailed: the endpoint stopped answering, or nothing survived.
    """
    for service in (*plan.teachers, *plan.judges):
        api_key(service)  # before anything is written
    began = time.time()
    apart = held_out(plan.data_name, plan.seed, HELD_OUT_ROWS)
    fresh = not plan.folder.exists()
    card = batch.opened(plan.folder, plan.name, plan.data.task, plan.identity)
    build = Build(plan)
    ledger = plan.folder / LEDGER
    purse = SpendLedger(ledger, plan.budget_usd)
    try:
        report.phase("writing", plan.n)
        if plan.teachers:
            if purse.answers:
                report.say(f"going on from {purse.paid:,} answers, ${purse.spent_usd:.4f} spent")
            asyncio.run(_ask_all(build, purse, report))
        else:
            _write_all(build, report)
        report.done()
        batch.give_up_if_refused(build, purse, plan.folder, fresh=fresh)
        card |= _summary(build, purse, expected, card, time.time() - began)
        shelf.write(plan.folder, card, build.kept, build.others, apart)
    finally:
        report.done()
        purse.close()
        if not plan.teachers:
            ledger.unlink(missing_ok=True)
    _end(build, card)
    return card


# --- asking ----------------------------------------------------------------------------------


async def _ask_all(build: Build, purse: SpendLedger, report: Reporter) -> None:
    """Ask until there are enough traces, the rows end, or something stops it."""
    plan = build.plan
    built: dict[tuple[str, str], Endpoint] = {}

    def opened(services: tuple[Service, ...]) -> tuple[Endpoint, ...]:
        """One endpoint per model, whether it writes, judges, or both."""
        keys = [(service.base_url, service.model_id) for service in services]
        for key, service in zip(keys, services):
            if key not in built:
                built[key] = Endpoint(service, purse, concurrency=plan.concurrency)
        return tuple(built[key] for key in keys)

    writers, judges = opened(plan.teachers), opened(plan.judges)
    panel = jury.Panel(writers, judges, plan.style, plan.temperature, plan.max_tokens) if judges else None
    rows = ((place, plan.data.examples[row]) for place, row in enumerate(shuffled(plan.data, plan.seed)))
    began, replayed = time.monotonic(), purse.paid_usd

    def ask(example: Example) -> Coroutine[Any, Any, Outcome]:
        return _judged(panel, example) if panel else _asked(writers[0], plan, example)

    def settle(place: int, example: Example, task: asyncio.Task[Outcome]) -> None:
        _settle(build, place, example, task)
        kept, seconds = len(build.kept), time.monotonic() - began
        share = kept / plan.n
        report.advance(
            kept,
            plan.n,
            usd=purse.spent_usd,
            # Until a few are in, a projection would only jump about.
            usd_end=_projected(purse.spent_usd, share) if kept >= 5 else None,
            seconds_left=seconds / share * (1 - share) if kept >= 5 and purse.paid_usd > replayed else None,
        )

    def more(waiting: int) -> bool:
        return len(build.kept) + waiting < plan.n

    with batch.stopping(build):
        await batch.request_all(build, rows, ask, settle, concurrency=plan.concurrency, more=more)
        for endpoint in built.values():
            await endpoint.settle()
            await endpoint.close()


def _projected(usd: float, share: float) -> float:
    return usd / share if share else usd


def _settle(build: Build, place: int, example: Example, task: asyncio.Task[Outcome]) -> None:
    """Book one row, or the reason for which no further ones are started."""
    outcome = batch.result_of(build, task, lambda problem: Outcome(example, "picture", detail=problem.what))
    if outcome is None:
        return
    build.outcomes[place] = outcome
    if outcome.reason == "endpoint" and outcome.detail == "down":
        batch.outage(build, outcome.teacher)


async def _asked(writer: Endpoint, plan: Plan, example: Example) -> Outcome:
    """One row by one teacher: asked again where the answer does not do, up to `tries` times."""
    name, said = writer.service.name, ""
    verdict: filters.Verdict | None = None
    for attempt in range(plan.tries):
        request = Request(
            plan.style.ask(example, blind=plan.blind),
            example.images,
            max_tokens=plan.max_tokens,
            temperature=plan.temperature,
            attempt=attempt,
        )
        try:
            said = (await writer.ask(request)).text
        except (EndpointRefused, SpendCapReached):
            raise
        except EndpointError as problem:
            return Outcome(example, "endpoint", name, detail=problem.kind, tries=attempt + 1)
        verdict = filters.judge(said, example, plan.style)
        if verdict.kept:
            return Outcome(example, None, name, verdict.reasoning, tries=attempt + 1)
    assert verdict is not None
    return Outcome(example, verdict.reason, name, verdict.reasoning, verdict.detail, said, plan.tries)


async def _judged(panel: jury.Panel, example: Example) -> Outcome:
    """One row by several generators and their judges."""
    found = tuple(await jury.candidates(panel, example))
    best = jury.survivor(found)
    if best is not None:
        return Outcome(example, None, best.teacher, best.reasoning, best.detail, candidates=found)
    missing = next((one for one in found if one.reason == "endpoint"), None)
    # The row is hard only once everybody has spoken.
    reason, detail = ("endpoint", missing.detail) if missing else ("hard", _why_hard(found))
    return Outcome(example, reason, missing.teacher if missing else "", detail=detail, candidates=found)


def _why_hard(found: tuple[jury.Candidate, ...]) -> str:
    return "; ".join(f"{one.teacher}: {one.reason} {one.detail}".rstrip() for one in found)


# --- rules -----------------------------------------------------------------------------------


def _write_all(build: Build, report: Reporter) -> None:
    plan = build.plan
    with batch.stopping(build):
        for place, row in enumerate(shuffled(plan.data, plan.seed)):
            kept = len(build.outcomes) and len(build.kept)
            if build.ended is not None or kept >= plan.n:
                return
            build.outcomes[place] = _by_rule(plan, plan.data.examples[row])
            report.advance(min(plan.n, kept + (build.outcomes[place].reason is None)), plan.n)


def _by_rule(plan: Plan, example: Example) -> Outcome:
    """One row by the rules, held to the same form as a teacher's, and worked out again."""
    written = rules.write(example, blind=plan.blind)
    if written is None:
        reason = "no way" if rules.can_read(example) else "no table"
        return Outcome(example, reason, "rules")
    trace = written.structured if plan.style.headings else written.simplified
    tokens = filters.trace_tokens(trace)
    if plan.blind and not right(written.answer, example):
        return Outcome(example, "answer", "rules", trace, f"{written.answer} is not {example.answer}")
    if tokens > plan.style.max_trace_tokens:
        detail = f"{tokens} tokens of {plan.style.max_trace_tokens}"
        return Outcome(example, "length", "rules", trace, detail)
    faults = strict_faults(trace, example.facts, example.question, written.answer)
    if faults:
        return Outcome(example, "arithmetic", "rules", trace, faults[0])
    return Outcome(example, None, "rules", trace)


# --- beginning and end -----------------------------------------------------------------------


def _summary(
    build: Build, purse: SpendLedger, expected: Expected, card: dict[str, Any], seconds: float
) -> dict[str, Any]:
    """What the card says at the end of a build."""
    plan = build.plan
    reasons = Counter(outcome.reason for outcome in build.others)
    beyond = sum(outcome.reason is None for outcome in build.outcomes.values()) - len(build.kept)
    tokens = [filters.trace_tokens(outcome.reasoning) for outcome in build.kept]
    return {
        "complete": build.complete,
        "built_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "prompt": plan.style.prompt if plan.teachers else None,
        "prices": [
            batch.price_row(one) for one in {one.name: one for one in (*plan.teachers, *plan.judges)}.values()
        ],
        "counts": {
            "wanted": plan.n,
            "rows": len(plan.data),
            "asked": len(build.outcomes),
            "kept": len(build.kept),
            "kept_beyond_n": beyond,
            "rejected": sum(reasons.values()),
        },
        "rejects": {
            str(reason): count for reason, count in sorted(reasons.items(), key=lambda item: -item[1])
        },
        "mean_trace_tokens": sum(tokens) / len(tokens) if tokens else 0.0,
        "spent": batch.bill(purse, plan.budget_usd, expected.usd),
        "seconds": round(float(card.get("seconds", 0.0)) + seconds, 2),
    }


def _end(build: Build, card: dict[str, Any]) -> None:
    """Raise what stopped the build, once everything is written."""
    plan, counts = build.plan, card["counts"]
    done = f"{counts['kept']:,} of {plan.n:,} traces"
    batch.end(build.ended, done, plan.folder, use="train on what there is")
    if not counts["kept"]:
        reasons = [f"{count:,} {reason}" for reason, count in card["rejects"].items()]
        raise RunFailed(
            "no trace survived",
            where=str(plan.folder),
            details=reasons,
            next_step=f"look at {plan.folder / shelf.REJECTS}"
            + ("" if plan.teachers else "; the rules need rows with a table (`facts` or `table`)"),
        )
