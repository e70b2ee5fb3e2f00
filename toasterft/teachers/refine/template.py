"""The shape of a refined trace, and how it follows the traces that score high."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from toasterft.data.charts.phrases import HEADINGS
from toasterft.errors import DataError
from toasterft.scoring import traces
from toasterft.scoring.numbers import NUM

# The template changes its shape only for one that this many good traces have, and more than its own.
ENOUGH_VOTES = 8
# Beyond this many votes all are halved, so that what a model did long ago weighs less.
MOST_VOTES = 512
# What a trace can be made of, with the heading of each part in the structured form.
PARTS = dict(zip(("goal", "needs", "facts", "step", "recheck", "conclusion"), HEADINGS, strict=True))

_DESCRIPTIONS = {
    "goal": "the question",
    "needs": "what must be read and done to answer it",
    "facts": 'the values, like "red = 7, blue = 3."',
    "step": 'what follows from them, like "7 - 3 = 4."',
    "recheck": "the same worked out another way",
    "conclusion": 'the answer, like "So 4."',
}


@dataclass(frozen=True)
class Template:
    """The shape of a refined trace.

    Attributes:
        parts: of `PARTS`, in this order; always with a step.
        whole_table: read every row first (of the series that matter), not only those that the question needs.
        headings: one line per part, under its heading.
        votes: how many good traces had a shape, by `shape`.
    """

    parts: tuple[str, ...] = ("facts", "step")
    whole_table: bool = False
    headings: bool = False
    votes: dict[str, int] = field(default_factory=dict, hash=False, compare=False)

    @property
    def shape(self) -> str:
        """Everything that decides what a refined trace looks like, as text."""
        return _shape(self.parts, self.headings) + (" whole" if self.whole_table else "")

    @property
    def hash(self) -> str:
        """With the sample's id the key under which a refined trace is kept."""
        return hashlib.sha256(self.shape.encode()).hexdigest()[:16]

    def instruction(self) -> str:
        """The shape as a part of a model's prompt."""
        needed = "every row of the table" if self.whole_table else "only what the question needs"
        texts = {**_DESCRIPTIONS, "facts": f"{_DESCRIPTIONS['facts']}, {needed}"}
        if not self.headings:
            return f"plain sentences in this order: {'; '.join(texts[part] for part in self.parts)}."
        lines = "\n".join(f"{PARTS[part]}: {texts[part]}" for part in self.parts)
        return f"one line for each of these headings, and nothing else:\n{lines}"

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "parts": list(self.parts),
            "whole_table": self.whole_table,
            "headings": self.headings,
            "votes": dict(sorted(self.votes.items())),
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Template:
        """The template of `to_json`.

        Raises:
            DataError: it is damaged.
        """
        try:
            parts = tuple(str(part) for part in stored["parts"])
            votes = {str(shape): int(count) for shape, count in stored.get("votes", {}).items()}
            template = cls(parts, bool(stored["whole_table"]), bool(stored["headings"]), votes)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError("this is no template of refined traces", why=repr(error)) from None
        if not set(parts) <= set(PARTS) or "step" not in parts:
            raise DataError("this is no template of refined traces", why=f"its parts are {', '.join(parts)}")
        return template


def _shape(parts: Sequence[str], headings: bool) -> str:
    return " ".join([*parts, *(["headings"] if headings else [])])


# Votes of their own: a shape is seen in every trace, this is not.
_ROWS = {True: "rows: all", False: "rows: needed"}


def learn(template: Template, good_traces: Iterable[str]) -> Template:
    """The template after more traces that scored high: the shape that most of them have.

    The first shape stays until another has `ENOUGH_VOTES` and more than its own; the same holds for
    reading the whole table. The order of the traces does not matter.
    """
    votes = Counter(template.votes)
    for trace in good_traces:
        parts, headings, whole = shape_of(trace)
        if "step" in parts:
            votes[_shape(parts, headings)] += 1
        if whole is not None:
            votes[_ROWS[whole]] += 1
    while sum(votes.values()) > MOST_VOTES:
        votes = Counter({shape: count // 2 for shape, count in votes.items() if count > 1})

    def wins(new: str, old: str) -> bool:
        return votes[new] >= ENOUGH_VOTES and votes[new] > votes[old]

    shapes = [shape for shape in votes if shape not in _ROWS.values()]
    best = min(shapes, key=lambda shape: (-votes[shape], len(shape), shape), default="")
    parts, headings, whole = template.parts, template.headings, template.whole_table
    if wins(best, _shape(parts, headings)):
        words = best.split()
        parts, headings = tuple(word for word in words if word in PARTS), "headings" in words
    if wins(_ROWS[not whole], _ROWS[whole]):
        whole = not whole
    return Template(parts, whole, headings, dict(votes))


_PART_OF_HEADING = {heading.lower(): part for part, heading in PARTS.items()}
# "red = 7, blue = 3"
_READINGS = re.compile(rf"(?:[^=<>,]+?\s*=\s*{NUM}\s*(?:,\s*|$))+")
# "So 4", "The answer is 4"
_CONCLUDES = re.compile(r"(?:so|therefore|thus|hence)\b,?\s|.*\banswer\b\s*(?:is|:)", re.IGNORECASE)
# "7 - 3", "7 > (3"
_CALCULATES = re.compile(r"\d\s*[-+*/<>]\s*[\d(]")
# "The largest is 12", "red is 7"
_STATES_STEP = re.compile(
    rf"{_CALCULATES.pattern}|\b(?:largest|smallest|highest|lowest|there are|above|below|counted)\b|\bis\s+{NUM}$",
    re.IGNORECASE,
)


def shape_of(trace: str) -> tuple[tuple[str, ...], bool, bool | None]:
    """(parts, whether under headings, whether the whole table was read first; None where that is unknown).

    A table is whole for certain where values were read that the calculation does not use.
    """
    found = traces.sentences(trace)
    headings = sum(each.heading in _PART_OF_HEADING for each in found) >= len(PARTS) // 2
    texts = [
        (_PART_OF_HEADING.get(each.heading, "") if headings else _part(each.text), each.text)
        for each in found
    ]
    seen: list[str] = []
    for part, _ in texts:
        again = "recheck" if part == "step" and "conclusion" in seen else part
        if again and again not in seen:
            seen.append(again)
    read = [value for part, text in texts if part == "facts" for value in re.findall(rf"= *({NUM})", text)]
    step = next((text for part, text in texts if part == "step"), "")
    used = re.findall(NUM, step)
    decisive = bool(_CALCULATES.search(step)) or re.fullmatch(rf"[^,]+ is {NUM}", step) is not None
    whole = any(value not in used for value in read) if decisive and read else None
    return tuple(seen), headings, whole


def _part(text: str) -> str:
    """What a sentence does, or "" where that is not understood."""
    if _READINGS.fullmatch(text) and not _CALCULATES.search(text):
        return "facts"
    if _CONCLUDES.match(text):
        return "conclusion"
    return "step" if _STATES_STEP.search(text) else ""
