"""Builds a data set item by item: `cot build` and `cot facts` ask a teacher, `cot pairs` samples a model.

Only the journal of paid answers or samples is kept while it runs. Everything else follows from it, so a process that
was killed starts again from the top, finds in the journal what is done, and pays for what is missing.
"""

from __future__ import annotations

import asyncio
import datetime
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from toasterft import paths
from toasterft.data import write
from toasterft.data.sources import Dataset
from toasterft.data.write import CARD
from toasterft.errors import CapReached, DataError, Interrupted, RunFailed, ToasterError, UserError
from toasterft.progress import Reporter
from toasterft.teachers.api import Endpoint, EndpointRefused, Service, SpendCapReached, SpendLedger, api_key
from toasterft.teachers.build import Build, Outcome, model_of
from toasterft.teachers.plan import Expected
from toasterft.units import Range

LEDGER = "answers.ledger"
TRAIN, REJECTS = "train.jsonl", "rejects.jsonl"
RESUME = "the same command goes on from here; what is done is kept"


class Stoppable(Protocol):
    """A job in progress; once `ended` is set, no further item is started."""

    ended: ToasterError | None


def run(
    build: Build, expected: Expected, held_out: Mapping[str, Dataset], report: Reporter
) -> dict[str, Any]:
    """Build, or resume, and return the card.

    Raises:
        UserError: the folder holds something else, or the endpoint refuses every request.
        CapReached: the budget is used up; what was written so far is a data set that can be trained on.
        Interrupted: Ctrl-C or SIGTERM, likewise.
        RunFailed: the endpoint stopped answering, or no item is good.
    """
    plan, started = build.plan, time.time()
    for service in plan.services:
        api_key(service)  # before anything is written
    ledger = None
    with open_build(
        plan.folder,
        plan.name,
        plan.data.task,
        plan.identity,
        keep=lambda: ledger is not None and ledger.paid > 0,
    ) as card:
        # The rules send nothing, so there is nothing to keep.
        ledger = SpendLedger(plan.folder / LEDGER if plan.services else None, plan.budget_usd)
        try:
            report.phase(build.phase, plan.n)
            if ledger.replies:
                report.say(f"going on from {ledger.paid:,} answers, ${ledger.spent_usd:.4f} spent")
            notes = asyncio.run(_ask_all(build, ledger, expected, report))
            report.done()
            if isinstance(build.ended, EndpointRefused) and not ledger.paid:
                raise build.ended
            card |= {
                "complete": build.complete,
                "built_at": now(),
                "prices": [_price_row(one) for one in {one.name: one for one in plan.services}.values()],
                **build.summary(),
                "spent": _bill(ledger, plan.budget_usd, expected.usd),
                "seconds": round(float(card.get("seconds", 0.0)) + time.time() - started, 2),
            }
            if notes:
                card["notes"] = dict(Counter(card.get("notes", {})) + notes)
            write_set(plan.folder, card, build.files(card["task"]), held_out)
        finally:
            report.done()
            ledger.close()
    raise_ended(build.ended, f"{build.good:,} of {plan.n:,} {build.unit}", plan.folder, use=build.use)
    if not build.good:
        what, hint = build.nothing
        raise RunFailed(
            what,
            where=str(plan.folder),
            details=[f"{count:,} {reason}" for reason, count in card["rejects"].items()],
            next_step=f"look at {plan.folder / REJECTS}{hint}",
        )
    return card


# --- asking ----------------------------------------------------------------------------------


async def _ask_all(build: Build, ledger: SpendLedger, expected: Expected, report: Reporter) -> Counter[str]:
    """Keep items in flight until there are enough, they end, or something stops it; the endpoints' notes."""
    plan, items = build.plan, enumerate(build.items())
    endpoints = {
        model_of(service): Endpoint(service, ledger, concurrency=plan.concurrency, on_trial=True)
        for service in reversed(plan.services)
    }
    tasks: dict[asyncio.Task[Outcome], tuple[int, Any]] = {}
    started, resumed_usd = time.monotonic(), ledger.paid_usd
    spoken: set[str] = set()

    def say_once(text: str, about: str) -> None:
        if about not in spoken:
            spoken.add(about)
            report.say(text)

    def start() -> None:
        while build.ended is None and len(tasks) < plan.concurrency and build.wants_more(len(tasks)):
            following = next(items, None)
            if following is None:
                return
            tasks[asyncio.ensure_future(build.ask(following[1], endpoints))] = following

    with stop_on_signals(build):
        start()
        while tasks:
            for task in (await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED))[0]:
                _settle(build, *tasks.pop(task), task)
                for endpoint in endpoints.values():
                    for note in endpoint.notes:
                        say_once(f"{endpoint.service.name}: {note}", f"{endpoint.service.name}: {note}")
                if expected.requests and ledger.paid > expected.high_requests:
                    say_once(_overrun(build, ledger, expected), "overrun")
                usd, share = ledger.spent_usd, build.done / plan.n
                projected = build.done >= 5  # with fewer a projection would only jump about
                report.advance(
                    build.done,
                    plan.n,
                    usd=usd if plan.services else None,
                    usd_end=usd / share if projected and plan.services else None,
                    seconds_left=(time.monotonic() - started) / share * (1 - share)
                    if projected and ledger.paid_usd > resumed_usd
                    else None,
                )
            start()
        for endpoint in endpoints.values():
            await endpoint.settle()
            await endpoint.close()
    return sum((endpoint.notes for endpoint in endpoints.values()), Counter())


def _overrun(build: Build, ledger: SpendLedger, expected: Expected) -> str:
    """What a job comes to that needs more requests than were forecast, at its rate so far."""
    come_to = f"it may come to {expected.most_requests:,}"
    if share := build.good / build.plan.n:
        requests = min(expected.most_requests, ledger.paid / share)
        come_to = f"at this rate it comes to {requests:,.0f} and ${ledger.spent_usd / share:.2f}"
    return (
        f"{ledger.paid:,} answers for {build.good:,} {build.unit}, more than the {expected.high_requests:,} forecast; "
        f"{come_to}; Ctrl-C ends with what there is"
    )


def _settle(build: Build, place: int, item: Any, task: asyncio.Task[Outcome]) -> None:
    """Book one item, or the reason for which no further ones are started."""
    try:
        found = task.result()
    except (EndpointRefused, SpendCapReached) as problem:
        build.ended = build.ended or problem
        return
    except DataError as problem:
        found = Outcome(item, "picture", detail=problem.what)
    build.outcomes[place] = found
    build.passed += found.reason is None
    if found.reason == "endpoint" and found.detail.startswith("down: "):
        build.ended = build.ended or RunFailed(
            f"{found.teacher} stopped answering",
            why=f"several requests in a row failed after all their tries: {found.detail.removeprefix('down: ')}",
            next_step=RESUME,
        )


@contextmanager
def stop_on_signals(job: Stoppable) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM lets what is in flight come in; the second ends at once."""

    def stop(number: int, _: Any) -> None:
        if job.ended is not None:
            raise KeyboardInterrupt
        job.ended = Interrupted("stopping", exit_code=128 + number)

    signals = (signal.SIGINT, signal.SIGTERM)
    try:
        before = [signal.signal(number, stop) for number in signals]
    except ValueError:  # not the main thread, which alone may listen
        yield
        return
    try:
        yield
    finally:
        for number, handler in zip(signals, before):
            signal.signal(number, handler)


# --- the folder and the bill -----------------------------------------------------------------


@contextmanager
def open_build(
    folder: Path, name: str, task: str, identity: dict[str, Any], keep: Callable[[], bool]
) -> Iterator[dict[str, Any]]:
    """The card of a new folder or of the one to resume; a user's mistake removes a new folder again.

    Args:
        identity: what two builds must share for one to resume the other.
        keep: whether there are results, for which a new folder stays.

    Raises:
        UserError: the folder holds another build, or something else.
    """
    fresh = not folder.exists()
    card = _open(folder, name, task, identity)
    try:
        yield card
    except UserError:
        if fresh and not keep():
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _open(folder: Path, name: str, task: str, identity: dict[str, Any]) -> dict[str, Any]:
    card = paths.read_json(folder / CARD) if folder.is_dir() else None
    if card is not None and isinstance(card.get("build"), dict):
        other = [key for key, value in identity.items() if card["build"].get(key) != value]
        if other:
            raise UserError(
                f"{name} was built another way",
                where=str(folder),
                details=[
                    f"{key}: {card['build'].get(key)} there, {identity[key]} requested" for key in other
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
    card = {"name": name, "task": task, "complete": False, "build": identity}
    folder.mkdir(parents=True, exist_ok=True)
    paths.write_json(folder / CARD, card)
    return card


def write_set(
    folder: Path,
    card: dict[str, Any],
    files: Mapping[str, Sequence[dict[str, Any]]],
    held_out: Mapping[str, Dataset],
) -> None:
    """Write rows and images, and the card with their hashes last; readers see whole files only."""
    apart = {
        f"{split}.jsonl": [
            write.row(folder, example, task=card["task"], link=True) for example in data.examples
        ]
        for split, data in held_out.items()
    }
    card["sha256"] = {
        name: write.write_rows(folder / name, rows)
        for name, rows in {**files, **apart}.items()
        if rows or name == REJECTS
    }
    paths.write_json(folder / CARD, card)


def now() -> str:
    """Universal time, to the second, as a card has it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _price_row(service: Service) -> dict[str, Any]:
    price = service.price
    return {
        "teacher": service.name,
        "input_usd_per_mtok": price.input_usd_per_mtok,
        "output_usd_per_mtok": price.output_usd_per_mtok,
        "as_of": str(price.as_of) if price.as_of else None,
        "source": price.source,
    }


def _bill(ledger: SpendLedger, budget_usd: float | None, expected_usd: Range | None) -> dict[str, Any]:
    return {
        "usd": ledger.paid_usd,
        "uncertain_usd": ledger.uncertain_usd,
        "budget_usd": budget_usd,
        "expected_usd": vars(expected_usd) if expected_usd else None,
        "answers": ledger.paid,
        "input_tokens": ledger.input_tokens,
        "output_tokens": ledger.output_tokens,
        "thinking_tokens": ledger.thinking_tokens,
        "by_teacher": ledger.by_service,
    }


def raise_ended(ended: ToasterError | None, done: str, folder: Path, *, use: str) -> None:
    """Raise what stopped a job, once everything is written.

    Args:
        done: how far it came, such as "12 of 40 traces".
        use: what can be done with the set as it is.
    """
    if isinstance(ended, CapReached):
        paid = isinstance(ended, SpendCapReached)
        raise CapReached(
            f"stopped at the {'budget' if paid else f'cap ({ended.what})'} with {done}",
            where=str(folder),
            why=ended.why,
            next_step=f"{use}, or go on: the same command with a larger {'--budget' if paid else 'cap'}",
        )
    if isinstance(ended, Interrupted):
        raise Interrupted(f"stopped with {done}", exit_code=ended.exit_code, next_step=RESUME)
    if ended is not None:
        raise ended
