"""Some answers with their pictures: drawn by lot, never picked; changed, wrong and right ones."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, Literal

from toasterft.data import sources
from toasterft.data.example import Example
from toasterft.errors import DataError, ToasterError
from toasterft.evaluation import compare
from toasterft.evaluation.arena import contenders
from toasterft.evaluation.compare import Answers
from toasterft.publish.scores import evaluated_rows
from toasterft.units import excerpt, shorten

LONGEST_EDGE_PX = 640
# Pictures of one question, and characters of a text, beyond which a page is no longer read.
MOST_IMAGES = 3
LONGEST_ANSWER, LONGEST_REASONING, LONGEST_QUESTION = 300, 900, 600
# Of all pictures together, as they stand in the page: it is still sent by mail.
MOST_BYTES = 6_000_000
SCORER = "robust"


@dataclass(frozen=True)
class Answer:
    """One model's answer to a question."""

    voice: str
    right: bool
    answer: str
    reasoning: str
    faults: tuple[str, ...]
    cut_off: bool


@dataclass(frozen=True)
class Picture:
    """A reduced picture as a data: address."""

    address: str
    width: int
    height: int


@dataclass(frozen=True)
class Card:
    """A question with the answers to it, ready to be shown.

    Attributes:
        missing: why there is no picture; empty where there is one, or none belongs to the question.
    """

    id: str
    kind: str
    question: str
    gold: str
    answers: tuple[Answer, ...]
    pictures: tuple[Picture, ...] = ()
    missing: str = ""


@dataclass(frozen=True)
class Group:
    """Cards of one outcome, drawn by lot from `count` questions."""

    title: str
    count: int
    cards: tuple[Card, ...]


@dataclass(frozen=True)
class Gallery:
    """The groups, and why pictures are missing."""

    groups: tuple[Group, ...]
    n: int
    note: str = ""

    @property
    def checked(self) -> bool:
        """The checker found something wrong in an answer that is shown."""
        return any(one.faults for group in self.groups for card in group.cards for one in card.answers)


Rows = dict[str, dict[str, Any]]
"""What each voice answered to one question."""


def gallery(voices: dict[str, Answers], limit: int, *, changed: tuple[str, str] | None) -> Gallery:
    """Up to `limit` questions that all voices answered, shared out evenly over the outcomes there are.

    Args:
        voices: answers by what the page calls them.
        changed: of two voices, what it is called when only the second is right, and when only the first is.
    """
    together = [dict(zip(voices, rows)) for rows in compare.shared(list(voices.values()))]
    items = [rows for rows in together if all(SCORER in row["correct"] for row in rows.values())]
    outcomes = _outcomes(items, list(voices), changed)
    lot = random.Random(0)
    for rows in outcomes.values():
        lot.shuffle(rows)
    shares = _shares({title: len(rows) for title, rows in outcomes.items()}, limit)
    pictures = Pictures(list(voices.values()))
    groups = tuple(
        Group(title, len(rows), tuple(_card(row, pictures) for row in _apart(rows, shares[title])))
        for title, rows in outcomes.items()
        if shares[title]
    )
    return Gallery(groups, len(items), pictures.note if groups else "")


def _outcomes(
    items: Sequence[Rows], names: Sequence[str], changed: tuple[str, str] | None
) -> dict[str, list[Rows]]:
    """Questions by outcome, in the order in which they are shown; outcomes that did not occur are left out."""
    titles: dict[tuple[bool, ...], str]
    if len(names) == 1:
        titles = {(False,): "Wrong", (True,): "Right"}
    elif len(names) == 2 and changed is not None:
        now_right, now_wrong = changed
        titles = {
            (False, True): now_right, (True, False): now_wrong,
            (False, False): "Both wrong", (True, True): "Both right",
        }  # fmt: skip
    else:
        titles = {(False,) * len(names): "All wrong", (True,) * len(names): "All right"}
    found: dict[str, list[Rows]] = {title: [] for title in ("They differ", *titles.values())}
    for rows in items:
        outcome = tuple(bool(rows[name]["correct"][SCORER]) for name in names)
        found[titles.get(outcome, "They differ")].append(rows)
    return {title: rows for title, rows in found.items() if rows}


def _shares(there: dict[str, int], limit: int) -> dict[str, int]:
    """Share out `limit` places in turns, as long as there are any and a group has more questions."""
    given = dict.fromkeys(there, 0)
    for title in cycle(there):
        if limit <= sum(given.values()) or given == there:
            return given
        given[title] += given[title] < there[title]
    return given


def _apart(rows: Sequence[Rows], count: int) -> list[Rows]:
    """The first `count`, those about a picture that was shown before only where there are no others."""
    seen: set[tuple[str, ...]] = set()
    first: list[Rows] = []
    again: list[Rows] = []
    for row in rows:
        picture = tuple(next(iter(row.values())).get("images", ()))
        (again if picture and picture in seen else first).append(row)
        seen.add(picture)
    return [*first, *again][:count]


def _card(rows: Rows, pictures: Pictures) -> Card:
    one = next(iter(rows.values()))
    shown, missing = pictures.of(one)
    return Card(
        id=str(one.get("id", "")),
        kind=shorten(str(one.get("kind") or "")),
        question=excerpt(str(one.get("question", "")), LONGEST_QUESTION),
        gold=excerpt(str(one.get("gold", "")), LONGEST_ANSWER),
        answers=tuple(_answer(voice, row) for voice, row in rows.items()),
        pictures=shown,
        missing=missing,
    )


def _answer(voice: str, row: dict[str, Any]) -> Answer:
    given = contenders.output({"text": str(row.get("answer") or ""), **row})
    return Answer(
        voice,
        bool(row["correct"][SCORER]),
        excerpt(given.answer, LONGEST_ANSWER),
        excerpt(given.reasoning, LONGEST_REASONING),
        tuple(excerpt(str(fault), LONGEST_ANSWER) for fault in row.get("faults") or ()),
        given.cut_off,
    )


# --- pictures --------------------------------------------------------------------------------


class Pictures:
    """The questions' pictures, reduced, until together they are as large as a page may be.

    A question is found in the data by its id and words; where its stored digest is not that of what is there
    now, the picture is another one, and is not shown.

    Attributes:
        note: why there are no pictures at all; empty where the data is here.
    """

    def __init__(self, several: Sequence[Answers]) -> None:
        self.note = ""
        self._left = MOST_BYTES
        self._found: dict[tuple[str, str, str], list[Example]] = {}
        for answers in several:  # all were asked the same; the data of one may be here where another's is not
            try:
                examples = _examples(answers)
            except ToasterError as problem:
                self.note = f"No pictures: the data cannot be read here ({problem.what})."
                continue
            for example in examples:
                self._found.setdefault((example.id, example.question, example.answer), []).append(example)
            self.note = ""
            return

    def of(self, row: dict[str, Any]) -> tuple[tuple[Picture, ...], str]:
        """A question's pictures, or why there are none."""
        if self.note or not row.get("images", True):
            return (), ""
        asked = str(row.get("id")), str(row.get("question")), str(row.get("gold"))
        try:
            alike = self._found.get(asked, [])
            example = next((one for one in alike if row.get("item") in (None, one.key)), None)
            if example is None:
                return (), "picture not shown: the data has changed since"
            found = tuple(Picture(*image.data_url(LONGEST_EDGE_PX)) for image in example.images[:MOST_IMAGES])
        except DataError as error:
            return (), f"picture not shown: {error.what}"
        size = sum(len(picture.address) for picture in found)
        if size > self._left:
            return (), f"picture left out: a page holds {MOST_BYTES / 1e6:.0f} MB of them"
        self._left -= size
        return found, ""


def _examples(answers: Answers) -> list[Example]:
    """The rows of the questions, whatever part of them a limit took."""
    name, split = evaluated_rows(answers.record, answers.recipe)
    if name is None:
        raise DataError("its recipe names none")
    purpose: Literal["evaluate", "validate"] = (
        "evaluate" if answers.record.get("method") == "eval" else "validate"
    )
    images = answers.recipe.get("images")
    return sources.load(
        _where(name, answers.folder),
        purpose=purpose,
        split=split,
        images=_where(images, answers.folder) if images else None,
    ).examples


def _where(name: str, folder: Path) -> str:
    """A path or the data's name, or its place above the run's folder: relative paths were of its working folder."""
    if sources.on_this_machine(name) or Path(name).is_absolute():
        return name
    return next((str(above / name) for above in folder.parents if (above / name).exists()), name)
