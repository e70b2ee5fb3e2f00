"""Builds a data set of traces: asks, filters, and writes a folder that `--data NAME` finds.

    <data folder>/NAME/
        train.jsonl        kept rows, with `reasoning`; the pictures they show lie in images/
        validation.jsonl   test.jsonl      held-out rows of the source, unchanged
        rejects.jsonl      rows without a trace, and why
        hard.jsonl         self-supervised only: rows on which no rationale survived, with every vote
        card.json          teacher, prompt, prices, counts, hashes; `complete: false` while it is being built
        answers.ledger     every paid answer, written before it was used

A build keeps nothing but that ledger while it runs. What came of the answers follows from them, so a process
that was killed starts again from the top, is answered from the ledger, and pays only for what is missing.
"""

from __future__ import annotations

import asyncio
import datetime
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toasterft import places
from toasterft.cot import filters, jury, recompute, rules, shelf
from toasterft.cot.plan import Expected, Plan, held_out, shuffled
from toasterft.data.example import Example
from toasterft.endpoint import (
    Endpoint,
    EndpointError,
    EndpointRefused,
    Purse,
    Request,
    Service,
    SpendCapReached,
    api_key,
)
from toasterft.errors import CapReached, DataError, Interrupted, RunFailed, ToasterError, UserError
from toasterft.progress import Reporter
from toasterft.scoring import robust

LEDGER = "answers.ledger"
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

    @property
    def settled(self) -> bool:
        """Whether asking again could change nothing; an endpoint that did not answer may answer later."""
        return self.reason != "endpoint"


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
        return len(self.outcomes) == len(self.plan.data) and all(
            one.settled for one in self.outcomes.values()
        )


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
    card = _opened(plan)
    build = Build(plan)
    ledger = plan.folder / LEDGER
    purse = Purse(ledger, plan.budget_usd)
    try:
        report.phase("writing", plan.n)
        if plan.teachers:
            if purse.answers:
                report.say(f"going on from {purse.paid:,} answers, ${purse.spent_usd:.4f} spent")
            asyncio.run(_ask_all(build, purse, report))
        else:
            _write_all(build, report)
        report.done()
        if isinstance(build.ended, EndpointRefused) and not purse.paid:
            if fresh:
                shutil.rmtree(plan.folder, ignore_errors=True)
            raise build.ended
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


async def _ask_all(build: Build, purse: Purse, report: Reporter) -> None:
    """Keep `concurrency` rows on their way until there are enough, the rows end, or something stops it."""
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
    rows = iter(enumerate(shuffled(plan.data, plan.seed)))
    began, replayed = time.monotonic(), purse.paid_usd
    waiting: dict[asyncio.Task[Outcome], tuple[int, Example]] = {}

    def start() -> None:
        while build.ended is None and len(waiting) < plan.concurrency:
            if len(build.kept) + len(waiting) >= plan.n:
                return
            place, row = next(rows, (None, None))
            if place is None or row is None:
                return
            example = plan.data.examples[row]
            work = _judged(panel, example) if panel else _asked(writers[0], plan, example)
            waiting[asyncio.ensure_future(work)] = (place, example)

    with _stopping(build):
        start()
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                _settle(build, *waiting.pop(task), task)
            kept, seconds = len(build.kept), time.monotonic() - began
            share = kept / plan.n
            report.advance(
                kept,
                plan.n,
                usd=purse.spent_usd,
                # Until a few are in, a projection would only jump about.
                usd_end=_projected(purse.spent_usd, share) if kept >= 5 else None,
                seconds_left=seconds / share * (1 - share)
                if kept >= 5 and purse.paid_usd > replayed
                else None,
            )
            start()
        for endpoint in built.values():
            await endpoint.settle()
            await endpoint.close()


def _projected(usd: float, share: float) -> float:
    return usd / share if share else usd


def _settle(build: Build, place: int, example: Example, task: asyncio.Task[Outcome]) -> None:
    """Book one row, or the reason for which no further ones are started."""
    try:
        outcome = task.result()
    except (EndpointRefused, SpendCapReached) as problem:
        build.ended = build.ended or problem
        return
    except DataError as problem:
        outcome = Outcome(example, "picture", detail=problem.what)
    build.outcomes[place] = outcome
    if outcome.reason == "endpoint" and outcome.detail == "down":
        build.ended = build.ended or RunFailed(
            f"{outcome.teacher} stopped answering",
            why="several requests in a row failed after all their tries",
            next_step="the same command goes on from here; what was paid for is kept",
        )


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
        verdict = filters.judge(said, example.answer, plan.style)
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
    with _stopping(build):
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
    if plan.blind and not robust(written.answer, example.answer):
        return Outcome(example, "answer", "rules", trace, f"{written.answer} is not {example.answer}")
    if tokens > plan.style.max_trace_tokens:
        detail = f"{tokens} tokens of {plan.style.max_trace_tokens}"
        return Outcome(example, "length", "rules", trace, detail)
    faults = recompute.faults(trace, example.facts, written.answer)
    if faults:
        return Outcome(example, "arithmetic", "rules", trace, faults[0])
    return Outcome(example, None, "rules", trace)


# --- beginning and end -----------------------------------------------------------------------


def _opened(plan: Plan) -> dict[str, Any]:
    """The card of a new folder, or of the one to go on in.

    Raises:
        UserError: the folder holds another build, or something else.
    """
    folder = plan.folder
    card = places.read_json(folder / shelf.CARD) if folder.is_dir() else None
    if card is not None and isinstance(card.get("build"), dict):
        other = [key for key, value in plan.identity.items() if card["build"].get(key) != value]
        if other:
            raise UserError(
                f"{plan.name} was built another way",
                where=str(folder),
                details=[
                    f"{key}: {card['build'].get(key)} there, {plan.identity[key]} asked for" for key in other
                ],
                next_step="choose another name, or ask for the same to go on with it",
            )
        return dict(card)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(
            "this exists already, and is no data set that was built here",
            where=str(folder),
            next_step="choose another name or --out, or remove it first",
        )
    card = {"name": plan.name, "task": plan.data.task, "complete": False, "build": plan.identity}
    folder.mkdir(parents=True, exist_ok=True)
    places.write_json(folder / shelf.CARD, card)
    return card


def _summary(
    build: Build, purse: Purse, expected: Expected, card: dict[str, Any], seconds: float
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
        "prices": [_price(one) for one in {one.name: one for one in (*plan.teachers, *plan.judges)}.values()],
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
        "spent": {
            "usd": purse.paid_usd,
            "uncertain_usd": purse.uncertain_usd,
            "budget_usd": plan.budget_usd,
            "expected_usd": vars(expected.usd) if expected.usd else None,
            "answers": purse.paid,
            "input_tokens": purse.input_tokens,
            "output_tokens": purse.output_tokens,
            "thinking_tokens": purse.thinking_tokens,
            "by_teacher": purse.by_service,
        },
        "seconds": round(float(card.get("seconds", 0.0)) + seconds, 2),
    }


def _price(service: Service) -> dict[str, Any]:
    price = service.price
    return {
        "teacher": service.name,
        "input_usd_per_mtok": price.input_usd_per_mtok,
        "output_usd_per_mtok": price.output_usd_per_mtok,
        "as_of": str(price.as_of) if price.as_of else None,
        "source": price.source,
    }


def _end(build: Build, card: dict[str, Any]) -> None:
    """Raise what stopped the build, once everything is written."""
    plan, counts = build.plan, card["counts"]
    ended = build.ended
    if isinstance(ended, SpendCapReached):
        raise CapReached(
            f"stopped at the budget with {counts['kept']:,} of {plan.n:,} traces",
            where=str(plan.folder),
            why=ended.why,
            next_step="train on what there is, or go on: the same command with a larger --budget",
        )
    if isinstance(ended, Interrupted):
        raise Interrupted(
            f"stopped with {counts['kept']:,} of {plan.n:,} traces",
            exit_code=ended.exit_code,
            next_step="the same command goes on from here; what was paid for is kept",
        )
    if ended is not None:
        raise ended
    if not counts["kept"]:
        reasons = [f"{count:,} {reason}" for reason, count in card["rejects"].items()]
        raise RunFailed(
            "no trace survived",
            where=str(plan.folder),
            details=reasons,
            next_step=f"look at {plan.folder / shelf.REJECTS}"
            + ("" if plan.teachers else "; the rules need rows with a table (`facts` or `table`)"),
        )


@contextmanager
def _stopping(build: Build) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM lets requests on their way come in; the second ends at once."""

    def stop(number: int, _: Any) -> None:
        if build.ended is not None:
            raise KeyboardInterrupt
        build.ended = Interrupted("stopping", exit_code=128 + number)

    signals = (signal.SIGINT, signal.SIGTERM)
    try:
        before = [signal.signal(number, stop) for number in signals]
    except ValueError:  # not the main thread: whoever started it listens
        yield
        return
    try:
        yield
    finally:
        for number, handler in zip(signals, before):
            signal.signal(number, handler)


def folder_of(name: str, out: Path | None) -> Path:
    """Where a data set of this name is built.

    Raises:
        UserError: the name is a path, which `--data NAME` could not find.
    """
    if out is not None:
        return out
    if not name or Path(name).name != name or name.startswith("."):
        raise UserError(
            f"{name!r} is no name",
            why="it names a folder under the data folder",
            next_step="use --out for a path",
        )
    return places.data_dir() / name
