"""Visual facts for pictures whose data has none: a vision model reads each picture once, offline.

    <data folder>/NAME/
        train.jsonl        every row of the source, with `facts` where its pictures were read
        validation.jsonl   test.jsonl      held-out rows of the source, unchanged
        rejects.jsonl      pictures that could not be read, and why
        card.json          teacher, prompt, prices, counts, hashes; `complete: false` while it is being built
        answers.ledger     every paid answer, written before it was used

Facts are a JSON list, one object for each mark of a chart, cell of a table, or thing in a picture:

    {"label": "2019", "value": 12.5}                        label: text; value: a number, or words
    {"label": "2019", "value": 12.5, "series": "north"}     one of several series, or a table's column
    {"name": "dog", "attributes": ["brown"], "position": "left"}     attributes and position may be left out

The first two are what charts drawn here carry, the third is DyME's (arXiv 2506.23061v2); `scoring.tables.read`
reads them all.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from toasterft import paths
from toasterft.data.example import Example, ImageRef
from toasterft.data.sources import Dataset
from toasterft.data.write import CARD, row, write_rows
from toasterft.errors import DataError, RunFailed, ToasterError
from toasterft.estimation import prices
from toasterft.progress import Reporter
from toasterft.scoring.numbers import fraction
from toasterft.teachers import batch
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
from toasterft.teachers.plan import Expected, held_out
from toasterft.teachers.shelf import REJECTS, TRAIN

PROMPT = (Path(__file__).parent / "prompts" / "facts.txt").read_text(encoding="utf-8").strip()
# Output tokens of one picture's facts: a dozen marks of about 20 tokens of JSON. Assumed.
FACTS_TOKENS = 250
# More is no chart that a small model could reason about, and a sign of a model that repeats itself.
MOST_FACTS = 200
LONGEST_NAME = 200
# A first answer that will not do is asked for again with some chance in it.
SECOND_TEMPERATURE = 0.5
KEYS = ({"label", "value", "series"}, {"name", "attributes", "position"})

Pictures = tuple[ImageRef, ...]


@dataclass(frozen=True)
class Plan:
    """One set of facts.

    Attributes:
        most: read at most so many pictures; None for all.
        tries: how often a picture is asked for before it is given up.
        max_tokens: longest answer, thinking included.
    """

    name: str
    folder: Path
    data_name: str
    data: Dataset
    teacher: Service
    most: int | None = None
    budget_usd: float | None = None
    concurrency: int = 8
    tries: int = 2
    max_tokens: int = 8192

    @cached_property
    def pictures(self) -> list[Pictures]:
        """The pictures to read, each once, in the data's order: those of rows without facts."""
        wanted = (one.images for one in self.data.examples if one.images and not one.facts)
        return list({_key(images): images for images in wanted}.values())

    @property
    def n(self) -> int:
        """How many will be read."""
        return len(self.pictures) if self.most is None else min(self.most, len(self.pictures))

    @property
    def identity(self) -> dict[str, Any]:
        """What two runs must share for one to go on where the other stopped; how many and how fast may change."""
        return {
            "kind": "facts",
            "data": self.data.name,
            "data_sha256": self.data.sha256,
            "split": self.data.split,
            "prompt_sha256": hashlib.sha256(PROMPT.encode()).hexdigest(),
            "tries": self.tries,
            "max_tokens": self.max_tokens,
            "teachers": [batch.who(self.teacher)],
        }


@dataclass(frozen=True)
class Read:
    """What came of one row's pictures: `reason` is None where there are facts."""

    images: Pictures
    facts: tuple[dict[str, Any], ...] = ()
    reason: str | None = None
    detail: str = ""
    said: str = ""


@dataclass
class Reading:
    """Pictures read so far, by place in their order."""

    plan: Plan
    found: dict[int, Read] = field(default_factory=dict)
    ended: ToasterError | None = None

    @property
    def facts(self) -> dict[str, list[dict[str, Any]]]:
        """Facts by the pictures' content."""
        return {_key(one.images): list(one.facts) for one in self.found.values() if one.reason is None}


def expect(plan: Plan) -> Expected:
    """Requests and dollars of reading every picture once.

    Raises:
        DataError: a picture cannot be read.
    """
    if not plan.n:
        return Expected(0, None)
    price = plan.teacher.price
    tokens = [sum(price.tokens_of_image(*image.size_px) for image in images) for images in plan.pictures]
    usd = prices.of_api(plan.n, prices.INSTRUCTION_TOKENS, sum(tokens) / len(tokens), FACTS_TOKENS, price)
    return Expected(plan.n, usd)


def run(plan: Plan, expected: Expected, report: Reporter) -> dict[str, Any]:
    """Read the pictures, or go on reading, and return the card.

    Raises:
        UserError: the folder holds something else, or the endpoint refuses every request.
        DataError: no row has a picture without facts.
        CapReached: the budget is used up; what was written so far is a data set that can be trained on.
        Interrupted: Ctrl-C or SIGTERM, likewise.
        RunFailed: the endpoint stopped answering, or nothing could be read.
    """
    api_key(plan.teacher)  # before anything is written
    if not plan.pictures:
        raise DataError("every row has facts already, or no picture", where=plan.data_name)
    began, fresh = time.time(), not plan.folder.exists()
    apart = held_out(plan.data_name, 0, None)
    card = batch.opened(plan.folder, plan.name, plan.data.task, plan.identity)
    reading = Reading(plan)
    purse = SpendLedger(plan.folder / batch.LEDGER, plan.budget_usd)
    try:
        report.phase("reading pictures", plan.n)
        if purse.answers:
            report.say(f"going on from {purse.paid:,} answers, ${purse.spent_usd:.4f} spent")
        asyncio.run(_read_all(reading, purse, report))
        report.done()
        batch.give_up_if_refused(reading, purse, plan.folder, fresh=fresh)
        card |= _summary(reading, purse, expected, float(card.get("seconds", 0.0)) + time.time() - began)
        _write(reading, card, apart)
    finally:
        report.done()
        purse.close()
    counts = card["counts"]
    done = f"{counts['read']:,} of {plan.n:,} pictures"
    batch.end(reading.ended, done, plan.folder, use="train with the facts there are")
    if not counts["read"]:
        raise RunFailed(
            "no picture could be read",
            where=str(plan.folder),
            details=[f"{count:,} {reason}" for reason, count in card["rejects"].items()],
            next_step=f"look at {plan.folder / REJECTS}",
        )
    return card


# --- asking ----------------------------------------------------------------------------------


async def _read_all(reading: Reading, purse: SpendLedger, report: Reporter) -> None:
    plan = reading.plan
    endpoint = Endpoint(plan.teacher, purse, concurrency=plan.concurrency)

    def ask(images: Pictures) -> Coroutine[Any, Any, Read]:
        return _read(endpoint, plan, images)

    def settle(place: int, images: Pictures, task: asyncio.Task[Read]) -> None:
        read = batch.result_of(
            reading, task, lambda problem: Read(images, reason="picture", detail=problem.what)
        )
        if read is None:
            return
        reading.found[place] = read
        if read.reason == "endpoint" and read.detail == "down":
            batch.outage(reading, plan.teacher.name)
        report.advance(len(reading.found), plan.n, usd=purse.spent_usd)

    with batch.stopping(reading):
        await batch.request_all(
            reading, iter(enumerate(plan.pictures[: plan.n])), ask, settle,
            concurrency=plan.concurrency, more=lambda _: True,
        )  # fmt: skip
        await endpoint.settle()
        await endpoint.close()


async def _read(endpoint: Endpoint, plan: Plan, images: Pictures) -> Read:
    """One row's pictures: asked again where the answer is no list of facts, up to `tries` times."""
    said = detail = ""
    for attempt in range(plan.tries):
        request = Request(
            PROMPT,
            images,
            max_tokens=plan.max_tokens,
            temperature=SECOND_TEMPERATURE if attempt else 0.0,
            attempt=attempt,
        )
        try:
            said = (await endpoint.ask(request)).text
        except (EndpointRefused, SpendCapReached):
            raise
        except EndpointError as problem:
            return Read(images, reason="endpoint", detail=problem.kind)
        try:
            return Read(images, tuple(parse(said)))
        except ValueError as problem:
            detail = str(problem)
    return Read(images, reason="no facts", detail=detail, said=said)


def parse(text: str) -> list[dict[str, Any]]:
    """The facts in an answer, numbers as numbers, what is said twice once.

    Raises:
        ValueError: saying what is wrong with it.
    """
    begin = re.search(r"\[\s*\{|\{", text)  # of the whole list, so that half a list is none
    if begin is None:
        raise ValueError("no JSON")
    try:
        value, _ = json.JSONDecoder(parse_constant=_no_number).raw_decode(text[begin.start() :])
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON ({error.msg})") from None
    if isinstance(value, dict):  # {"facts": […]}, or a lone fact
        lists = [each for each in value.values() if isinstance(each, list)]
        value = lists[0] if len(lists) == 1 and not set(value) <= KEYS[1] else [value]
    if not isinstance(value, list) or not value:
        raise ValueError("no list of facts")
    if len(value) > MOST_FACTS:
        raise ValueError(f"{len(value)} facts, more than {MOST_FACTS}")
    facts = list({json.dumps(fact, sort_keys=True): fact for fact in map(_fact, value)}.values())
    marks = Counter((fact["label"], fact.get("series")) for fact in facts if "label" in fact)
    for (label, series), count in marks.items():
        if count > 1:
            name = f"{series} {label}" if series else label
            raise ValueError(f"{name!r} has {count} values")
    return facts


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number")


def _fact(fact: Any) -> dict[str, Any]:
    """One fact in its plain form."""
    if not isinstance(fact, dict):
        raise ValueError(f"a fact is an object, not {json.dumps(fact)[:40]}")
    given = {key: value for key, value in fact.items() if value not in (None, "", [])}
    keys = next((keys for keys in KEYS if keys >= set(given)), None)
    if keys is None:
        raise ValueError(f"a fact with the keys {', '.join(map(str, given))}")
    if "label" in keys:
        if not {"label", "value"} <= set(given):
            raise ValueError("a mark without label or value")
        series = {"series": _words(given["series"])} if "series" in given else {}
        return {"label": _words(given["label"]), "value": _value(given["value"]), **series}
    attributes = given.get("attributes", [])
    if "name" not in given or not isinstance(attributes, list):
        raise ValueError("a thing without a name, or whose attributes are no list")
    found = {"name": _words(given["name"]), "attributes": [_words(each) for each in attributes]}
    return found | ({"position": _words(given["position"])} if "position" in given else {})


def _words(value: Any) -> str:
    text = str(value).strip() if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
    if not text or len(text) > LONGEST_NAME:
        raise ValueError(f"{json.dumps(value)[:40]} is no name")
    return text


def _value(value: Any) -> int | float | str:
    number = fraction(value)
    if number is None:
        return _words(value)
    return number.numerator if number.denominator == 1 else float(number)


# --- writing ---------------------------------------------------------------------------------


def _summary(reading: Reading, purse: SpendLedger, expected: Expected, seconds: float) -> dict[str, Any]:
    plan = reading.plan
    rejects = Counter(one.reason for one in reading.found.values() if one.reason is not None)
    facts = reading.facts
    counts = [len(each) for each in facts.values()]
    return {
        "complete": len(reading.found) == len(plan.pictures) and batch.all_settled(reading.found.values()),
        "built_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "prompt": PROMPT,
        "prices": [batch.price_row(plan.teacher)],
        "counts": {
            "rows": len(plan.data),
            "had_facts": sum(bool(example.facts) for example in plan.data.examples),
            "got_facts": sum(_gets(example, facts) for example in plan.data.examples),
            "pictures": len(plan.pictures),
            "read": len(facts),
        },
        "rejects": dict(rejects.most_common()),
        "mean_facts": sum(counts) / len(counts) if counts else 0.0,
        "spent": batch.bill(purse, plan.budget_usd, expected.usd),
        "seconds": round(seconds, 2),
    }


def _write(reading: Reading, card: dict[str, Any], apart: dict[str, Dataset]) -> None:
    """Everything but the ledger; readers see whole files only, and the card with their hashes last."""
    plan, facts = reading.plan, reading.facts

    def written(example: Example) -> dict[str, Any]:
        if not _gets(example, facts):
            return row(plan.folder, example, task=card["task"], link=True)
        read = replace(example, facts=facts[_key(example.images)])
        return row(plan.folder, read, task=card["task"], link=True, facts_by=plan.teacher.name)

    files = {TRAIN: [written(example) for example in plan.data.examples]}
    for split, data in apart.items():
        files[f"{split}.jsonl"] = [
            row(plan.folder, one, task=card["task"], link=True) for one in data.examples
        ]
    files[REJECTS] = [
        {
            "images": [image.name for image in one.images],
            "reason": one.reason,
            "detail": one.detail,
            "said": one.said,
        }
        for one in reading.found.values()
        if one.reason is not None
    ]
    card["sha256"] = {name: write_rows(plan.folder / name, rows) for name, rows in files.items()}
    paths.write_json(plan.folder / CARD, card)


def _gets(example: Example, facts: dict[str, list[dict[str, Any]]]) -> bool:
    return bool(example.images) and not example.facts and _key(example.images) in facts


def _key(images: Pictures) -> str:
    """Pictures by their content, in their order."""
    return " ".join(image.sha256 for image in images)
