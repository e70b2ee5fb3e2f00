"""Build visual facts for images whose data has none: a vision model reads each image once, offline.

    <data folder>/NAME/
        train.jsonl        every row of the source, with `facts` where its images were read
        validation.jsonl   test.jsonl      held-out rows of the source, unchanged
        rejects.jsonl      images that could not be read, and why
        card.json          teacher, prompt, prices, counts, hashes; `complete: false` while it is being built
        answers.ledger     every paid answer, written before it was used

Facts are a JSON list, one object for each mark of a chart, cell of a table, or thing in an image:

    {"label": "2019", "value": 12.5}                        label: text; value: a number, or words
    {"label": "2019", "value": 12.5, "series": "north"}     one of several series, or a table's column
    {"name": "dog", "attributes": ["brown"], "position": "left"}     attributes and position may be left out

The first two are what charts drawn here carry, the third is DyME's (arXiv 2506.23061v2); `scoring.tables.read`
reads them all.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from toasterft.data.example import Example
from toasterft.data.write import row
from toasterft.errors import DataError
from toasterft.progress import Reporter
from toasterft.scoring.numbers import fraction
from toasterft.teachers import batch
from toasterft.teachers.api import Reply, Request
from toasterft.teachers.batch import REJECTS, TRAIN
from toasterft.teachers.build import Build, Endpoints, Outcome, ask_until_good, model_of
from toasterft.teachers.plan import FACTS_PROMPT, Expected, FactsPlan, Images, held_out, images_key
from toasterft.teachers.replies import after_thinking

# More is no chart that a small model could reason about, and a sign of a model that repeats itself.
MOST_FACTS = 200
LONGEST_NAME = 200
# A second try is sampled: at temperature 0 it would give the same answer.
SECOND_TEMPERATURE = 0.5
KEYS = ({"label", "value", "series"}, {"name", "attributes", "position"})


def run(plan: FactsPlan, expected: Expected, report: Reporter) -> dict[str, Any]:
    """Read the images, or resume, and return the card; raises as `batch.run`.

    Raises:
        DataError: no row has an image without facts.
    """
    if not plan.images:
        raise DataError("every row has facts already, or no picture", where=plan.data_name)
    apart = held_out(plan.data_name, 0, images=plan.data.images, most=None)
    return batch.run(FactsBuild(plan), expected, apart, report)


@dataclass
class FactsBuild(Build):
    """Facts of the images that have none, in the data's order."""

    plan: FactsPlan

    phase, unit, use = "reading pictures", "pictures", "train with the facts there are"

    @property
    def nothing(self) -> tuple[str, str]:
        return "no picture could be read", ""

    @property
    def facts(self) -> dict[str, list[dict[str, Any]]]:
        """Facts by the images' content."""
        return {images_key(one.item): one.written for one in self.in_order if one.reason is None}

    @property
    def complete(self) -> bool:
        return self.finished(len(self.plan.images))

    def items(self) -> list[Images]:
        return self.plan.images[: self.plan.n]

    async def ask(self, images: Images, endpoints: Endpoints) -> Outcome:
        """Read one row's images; asked again where the answer is no list of facts, up to `tries` times."""
        plan = self.plan
        requests = (
            Request(
                FACTS_PROMPT,
                images,
                max_tokens=plan.max_tokens,
                temperature=SECOND_TEMPERATURE if attempt else 0.0,
                attempt=attempt,
            )
            for attempt in range(plan.tries)
        )

        def read(reply: Reply) -> Outcome:
            try:
                return Outcome(images, written=parse(after_thinking(reply.text)))
            except ValueError as problem:
                ending, detail = reply.ending
                reason = "no facts" if ending in ("", "empty") else ending
                return Outcome(
                    images, reason, detail=f"{problem}; {detail}" if detail else str(problem), said=reply.text
                )

        return await ask_until_good(images, endpoints[model_of(plan.teacher)], requests, read)

    def summary(self) -> dict[str, Any]:
        facts, examples = self.facts, self.plan.data.examples
        return {
            "prompt": FACTS_PROMPT,
            "counts": {
                "rows": len(examples),
                "had_facts": sum(bool(example.facts) for example in examples),
                "got_facts": sum(_lacks_facts(one) and images_key(one.images) in facts for one in examples),
                "pictures": len(self.plan.images),
                "read": len(facts),
            },
            "rejects": self.rejects(),
            "mean_facts": sum(map(len, facts.values())) / len(facts) if facts else 0.0,
        }

    def files(self, task: str) -> dict[str, list[dict[str, Any]]]:
        folder, facts, teacher = self.plan.folder, self.facts, self.plan.teacher.name

        def written(example: Example) -> dict[str, Any]:
            read = facts.get(images_key(example.images)) if _lacks_facts(example) else None
            more = {} if read is None else {"facts_by": teacher}
            return row(folder, replace(example, facts=read or example.facts), task=task, link=True, **more)

        rejects = [
            {
                "images": [image.name for image in one.item],
                "reason": one.reason,
                "detail": one.detail,
                "said": one.said,
            }
            for one in self.in_order
            if one.reason is not None
        ]
        return {TRAIN: [written(example) for example in self.plan.data.examples], REJECTS: rejects}


def _lacks_facts(example: Example) -> bool:
    return bool(example.images) and not example.facts


# --- an answer -------------------------------------------------------------------------------


def parse(text: str) -> list[dict[str, Any]]:
    """Parse the facts in an answer: numbers as numbers, each fact once.

    Raises:
        ValueError: says what is wrong with it.
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
