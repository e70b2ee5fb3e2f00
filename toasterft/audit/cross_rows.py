"""Faults between rows: duplicates, contradictions, images that are on two sides, labels out of balance."""

from __future__ import annotations

import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
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
        return re.sub(r"[\s.?!:]+$", "", " ".join(self.example.question_in_context.lower().split()))

    def finding(self, kind: str, what: str) -> Finding:
        return Finding(kind, what, self.example.id, self.split, self.example.where)


def duplicates(rows: Sequence[Row]) -> Iterator[Finding]:
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
            given = ", ".join(f"{answer} ({count})" for answer, count in answers.most_common())
            yield from (row.finding("contradiction", f"answers: {given}; {_ids(same, row)}") for row in same)
        else:
            yield from (row.finding("duplicate", f"as {first.example.id}") for row in same[1:])


def _agree(one: Example, other: Example) -> bool:
    return scoring.right(one.answer, other) or scoring.right(other.answer, one)


def leaks(rows: Sequence[Row], held_out: Sequence[Row], prefix: str) -> Iterator[Finding]:
    """Rows whose image, or without one whose question, is also among the held-out ones.

    Args:
        prefix: of the kind: `leak` within one data set, `eval` against another.
    """
    first: dict[tuple[str, object], Row] = {}
    for row in held_out:
        for key in _keys(row):
            first.setdefault(key, row)
    for row in rows:
        if shared := next((key for key in _keys(row) if key in first), None):
            yield row.finding(f"{prefix}-{shared[0]}", _where_else(first[shared]))


def _keys(row: Row) -> Iterator[tuple[str, object]]:
    """What no row on the other side may share, the surest first: (end of the finding's kind, key)."""
    if not row.pictures:
        yield "question", row.question
    yield from (("image", picture.content) for picture in row.pictures if picture.content)
    yield from (("lookalike", picture.look) for picture in row.pictures if picture.look >= 0)


def _where_else(row: Row) -> str:
    pictures = ", ".join(picture.ref.name for picture in row.pictures)
    split = f" in {row.split}" if row.split else ""
    return f"{row.example.id}{split}" + (f" shows {pictures}" if pictures else " asks it")


def repeated_images(rows: Sequence[Row]) -> Iterator[Finding]:
    """Images of one split under two names, and ones that look the same; one finding a file."""
    by_look: dict[tuple[str, int], dict[int, tuple[Row, Picture]]] = defaultdict(dict)
    for row in rows:
        for picture in row.pictures:
            if picture.look >= 0:
                by_look[row.split, picture.look].setdefault(id(picture), (row, picture))
    for group in by_look.values():
        (_, first), *others = group.values()
        for row, picture in others:
            same = picture.content == first.content
            # In a table every row has its picture to itself; only of files is it a finding.
            if not same or picture.ref.path is not None:
                kind = "same-image" if same else "lookalike"
                yield row.finding(kind, f"{picture.ref.name} and {first.ref.name}")


def class_balance(rows: Sequence[Row]) -> tuple[dict[str, Counter[str]], list[Finding]]:
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


def is_later(split: str, than: str) -> bool:
    """Whether rows of `split` must stay unknown to rows of `than`."""
    place, other = (ORDER.index(name) if name in ORDER else len(ORDER) for name in (split, than))
    return place > other


def _ids(rows: Sequence[Row], own: Row) -> str:
    others = [row.example.id for row in rows if row is not own]
    more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
    return f"also {', '.join(others[:NAMED])}{more}"
