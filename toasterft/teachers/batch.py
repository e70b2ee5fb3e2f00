"""What commands that ask a teacher about many rows share: requests on their way, a folder to go on in, the bill.

Such a command keeps nothing but the ledger of its answers while it runs. What came of them follows from them,
so a process that was killed starts again from the top, is answered from the ledger, and pays for what is missing.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from toasterft import paths
from toasterft.data.write import CARD
from toasterft.errors import CapReached, DataError, Interrupted, RunFailed, ToasterError, UserError
from toasterft.teachers.api import EndpointRefused, Service, SpendCapReached, SpendLedger
from toasterft.units import Range

LEDGER = "answers.ledger"

Item = TypeVar("Item")
Found = TypeVar("Found")


class Ending(Protocol):
    """A job in progress; once `ended` says why, nothing further is asked."""

    ended: ToasterError | None


class Outcome(Protocol):
    """What came of one item: `reason` is None where it will do, "endpoint" where nobody answered."""

    @property
    def reason(self) -> str | None: ...


# --- asking ----------------------------------------------------------------------------------


async def request_all(
    job: Ending,
    items: Iterator[tuple[int, Item]],
    ask: Callable[[Item], Coroutine[Any, Any, Found]],
    settle: Callable[[int, Item, asyncio.Task[Found]], None],
    *,
    concurrency: int,
    more: Callable[[int], bool],
) -> None:
    """Keep `concurrency` items on their way until there are enough, the items end, or something stops it.

    Args:
        items: with their places; `settle` hears the place again.
        more: whether another one is wanted, given how many are on their way.
    """
    waiting: dict[asyncio.Task[Found], tuple[int, Item]] = {}

    def start() -> None:
        while job.ended is None and len(waiting) < concurrency and more(len(waiting)):
            following = next(items, None)
            if following is None:
                return
            place, item = following
            waiting[asyncio.ensure_future(ask(item))] = (place, item)

    start()
    while waiting:
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            settle(*waiting.pop(task), task)
        start()


def result_of(job: Ending, task: asyncio.Task[Found], damaged: Callable[[DataError], Found]) -> Found | None:
    """What became of one item; None where it ends the job.

    Args:
        damaged: what to make of an item whose picture cannot be read.
    """
    try:
        return task.result()
    except (EndpointRefused, SpendCapReached) as problem:
        job.ended = job.ended or problem
        return None
    except DataError as problem:
        return damaged(problem)


def outage(job: Ending, teacher: str) -> None:
    """An endpoint that counts as down ends the job."""
    job.ended = job.ended or RunFailed(
        f"{teacher} stopped answering",
        why="several requests in a row failed after all their tries",
        next_step="the same command goes on from here; what was paid for is kept",
    )


def all_settled(outcomes: Iterable[Outcome]) -> bool:
    """Whether asking again could change nothing; an endpoint that did not answer may answer later."""
    return all(one.reason != "endpoint" for one in outcomes)


@contextmanager
def stopping(job: Ending) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM lets requests on their way come in; the second ends at once."""

    def stop(number: int, _: Any) -> None:
        if job.ended is not None:
            raise KeyboardInterrupt
        job.ended = Interrupted("stopping", exit_code=128 + number)

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


# --- the folder and the bill -----------------------------------------------------------------


def opened(folder: Path, name: str, task: str, identity: dict[str, Any]) -> dict[str, Any]:
    """The card of a new folder, or of the one to go on in.

    Args:
        identity: what two runs must share for one to go on where the other stopped.

    Raises:
        UserError: the folder holds another build, or something else.
    """
    card = paths.read_json(folder / CARD) if folder.is_dir() else None
    if card is not None and isinstance(card.get("build"), dict):
        other = [key for key, value in identity.items() if card["build"].get(key) != value]
        if other:
            raise UserError(
                f"{name} was built another way",
                where=str(folder),
                details=[
                    f"{key}: {card['build'].get(key)} there, {identity[key]} asked for" for key in other
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


def give_up_if_refused(job: Ending, purse: SpendLedger, folder: Path, *, fresh: bool) -> None:
    """Raise an endpoint's refusal of everything that was asked; a `fresh` folder is removed again."""
    if isinstance(job.ended, EndpointRefused) and not purse.paid:
        if fresh:
            shutil.rmtree(folder, ignore_errors=True)
        raise job.ended


def who(service: Service) -> dict[str, str]:
    """A service as an identity names it."""
    return {"name": service.name, "endpoint": service.base_url, "model_id": service.model_id}


def price_row(service: Service) -> dict[str, Any]:
    """A service's price as a card states it."""
    price = service.price
    return {
        "teacher": service.name,
        "input_usd_per_mtok": price.input_usd_per_mtok,
        "output_usd_per_mtok": price.output_usd_per_mtok,
        "as_of": str(price.as_of) if price.as_of else None,
        "source": price.source,
    }


def bill(purse: SpendLedger, budget_usd: float | None, expected_usd: Range | None) -> dict[str, Any]:
    """What has been spent, as a card states it."""
    return {
        "usd": purse.paid_usd,
        "uncertain_usd": purse.uncertain_usd,
        "budget_usd": budget_usd,
        "expected_usd": vars(expected_usd) if expected_usd else None,
        "answers": purse.paid,
        "input_tokens": purse.input_tokens,
        "output_tokens": purse.output_tokens,
        "thinking_tokens": purse.thinking_tokens,
        "by_teacher": purse.by_service,
    }


def end(ended: ToasterError | None, done: str, folder: Path, *, use: str) -> None:
    """Raise what stopped a job, once everything is written; nothing where it came to its end.

    Args:
        done: how far it came, such as "12 of 40 traces".
        use: what can be done with it as it is.
    """
    if isinstance(ended, SpendCapReached):
        raise CapReached(
            f"stopped at the budget with {done}",
            where=str(folder),
            why=ended.why,
            next_step=f"{use}, or go on: the same command with a larger --budget",
        )
    if isinstance(ended, Interrupted):
        raise Interrupted(
            f"stopped with {done}",
            exit_code=ended.exit_code,
            next_step="the same command goes on from here; what was paid for is kept",
        )
    if ended is not None:
        raise ended
