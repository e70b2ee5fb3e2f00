"""What is wrong between rows: duplicates, contradictions, images that are on two sides, labels out of balance."""

from __future__ import annotations

import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from toasterft import scoring
from toasterft.audit.images import Picture
from toasterft.audit.kinds import Finding
from toasterft.data.example import Example

# Rows move towards the end of this line only: what validates is no training data, and what tests is neither.
ORDER = ("", "train", "validation", "test")
# A label with fewer rows than this share of the middle one, where that has enough of them to tell.
RARE, ENOUGH_ROWS = 0.1, 20
NAMED = 3  # ids of other rows in one message


@dataclass(frozen=True)
class Row:
    """One row with its pictures, as far as they could be read."""

    example: Example
    split: str
    pictures: tuple[Picture, ...]

    @property
    def contents(self) -> tuple[str, ...]:
        return tuple(picture.content for picture in self.pictures)

    @property
    def question(self) -> str:
        """The question with case, spaces and marks at its end left aside."""
        return re.sub(r"[\s.?!:]+$", "", " ".join(self.example.question.lower().split()))

    def finding(self, kind: str, what: str) -> Finding:
        return Finding(kind, what, self.example.id, self.split, self.example.where)


def repeated(rows: Sequence[Row]) -> Iterator[Finding]:
    """Rows of one split that ask the same of the same image: again, or with another answer."""
    groups: dict[tuple[object, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.split, row.contents, row.question].append(row)
    for same in groups.values():
        if len(same) < 2:
            continue
        first = same[0]
        agreeing = [row for row in same if _agree(row.example, first.example)]
        if len(agreeing) < len(same):
            answers = Counter(row.example.answer for row in same)
            said = ", ".join(f"{answer} ({count})" for answer, count in answers.most_common())
            yield from (row.finding("contradiction", f"answers: {said}; {_ids(same, row)}") for row in same)
        else:
            yield from (row.finding("duplicate", f"as {first.example.id}") for row in same[1:])


def _agree(one: Example, other: Example) -> bool:
    return scoring.right(one.answer, other) or scoring.right(other.answer, one)


def shared(rows: Sequence[Row], held_out: Sequence[Row], prefix: str) -> Iterator[Finding]:
    """Rows whose image, or without one whose question, is also among the held-out ones.

    Args:
        prefix: of the kind: `leak` within one data set, `eval` against another.
    """
    contents, looks, questions = _first_by(held_out)
    for row in rows:
        if not row.pictures:
            if found := questions.get(row.question):
                yield row.finding(f"{prefix}-question", _where_else(found))
            continue
        same = next(
            (contents[picture.content] for picture in row.pictures if picture.content in contents), None
        )
        if same is not None:
            yield row.finding(f"{prefix}-image", _where_else(same))
            continue
        alike = next((looks[picture.look] for picture in row.pictures if picture.look in looks), None)
        if alike is not None:
            yield row.finding(f"{prefix}-lookalike", _where_else(alike))


def _first_by(rows: Iterable[Row]) -> tuple[dict[str, Row], dict[int, Row], dict[str, Row]]:
    """The first row of each picture, of each look, and of each question without a picture."""
    contents: dict[str, Row] = {}
    looks: dict[int, Row] = {}
    questions: dict[str, Row] = {}
    for row in rows:
        if not row.pictures:
            questions.setdefault(row.question, row)
        for picture in row.pictures:
            if picture.content:
                contents.setdefault(picture.content, row)
            if picture.look >= 0:
                looks.setdefault(picture.look, row)
    return contents, looks, questions


def _where_else(row: Row) -> str:
    pictures = ", ".join(picture.ref.name for picture in row.pictures)
    split = f" in {row.split}" if row.split else ""
    return f"{row.example.id}{split}" + (f" shows {pictures}" if pictures else " asks it")


def within(rows: Sequence[Row]) -> Iterator[Finding]:
    """Images of one split under two names, and ones that look the same; said once a file."""
    by_look: dict[tuple[str, int], dict[int, tuple[Row, Picture]]] = defaultdict(dict)
    for row in rows:
        for picture in row.pictures:
            if picture.look >= 0:
                by_look[row.split, picture.look].setdefault(id(picture), (row, picture))
    for group in by_look.values():
        (_, first), *others = group.values()
        for row, picture in others:
            same = picture.content == first.content
            # In a table every row has its picture to itself; only of files is it worth a word.
            if not same or picture.ref.path is not None:
                kind = "same-image" if same else "lookalike"
                yield row.finding(kind, f"{picture.ref.name} and {first.ref.name}")


def classes(rows: Sequence[Row]) -> tuple[dict[str, Counter[str]], list[Finding]]:
    """Rows by split and label for a task with labels, and what is out of balance; nothing for other tasks."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        if row.example.extra.get("task") == "class":
            counts[row.split][row.example.answer] += 1
    found: list[Finding] = []
    trained = counts.get("train", counts.get("", Counter()))
    labels = sorted({label for split in counts.values() for label in split})
    middle = statistics.median(trained.values()) if trained else 0
    for label in labels:
        count = trained.get(label, 0)
        if trained and not count:
            found.append(Finding("class-absent", f"{label}: no row to train on"))
        elif middle >= ENOUGH_ROWS and count < RARE * middle:
            found.append(
                Finding("class-rare", f"{label}: {count:,} rows, the middle label has {middle:,.0f}")
            )
    return dict(counts), found


def later(split: str) -> Callable[[Row], bool]:
    """Whether a row is in a split that must know nothing of this one."""

    def place(name: str) -> int:
        return ORDER.index(name) if name in ORDER else len(ORDER)

    return lambda row: place(row.split) > place(split) and row.split != split


def _ids(rows: Sequence[Row], own: Row) -> str:
    others = [row.example.id for row in rows if row is not own]
    more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
    return f"also {', '.join(others[:NAMED])}{more}"
