"""The shape of a refined trace, and how it follows the traces that score high."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from toasterft.data.charts.phrases import HEADINGS
from toasterft.errors import DataError
from toasterft.scoring import traces

# The template changes its shape only for one that this many good traces have, and more than its own.
ENOUGH_VOTES = 8
# Beyond this many votes all are halved, so that what a model did long ago weighs less.
MOST_VOTES = 512
# What a trace can be made of, with the heading of each part in the structured form.
PARTS = dict(zip(("goal", "needs", "facts", "step", "recheck", "conclusion"), HEADINGS, strict=True))

_SAID = {
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
        parts: what it says, in this order, of `PARTS`; always with a step.
        whole_table: read every row first (of the series that matter), not only those that the question needs.
        headings: one line per part, under its heading.
        votes: how many good traces had a shape, by `shape`; what `learn` has heard so far.
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
        """The shape's address: with the sample's id the key under which a refined trace can be kept."""
        return hashlib.sha256(self.shape.encode()).hexdigest()[:16]

    def in_words(self) -> str:
        """The shape as an instruction to somebody who writes."""
        needed = "every row of the table" if self.whole_table else "only what the question needs"
        said = {**_SAID, "facts": f"{_SAID['facts']}, {needed}"}
        if not self.headings:
            return f"plain sentences in this order: {'; '.join(said[part] for part in self.parts)}."
        lines = "\n".join(f"{PARTS[part]}: {said[part]}" for part in self.parts)
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


_WHOLE, _NEEDED = (
    "rows: all",
    "rows: needed",
)  # votes of their own: a shape is seen in every trace, this is not


def learn(template: Template, good_traces: Iterable[str]) -> Template:
    """The template after hearing traces that scored high: the shape that most of them have.

    The first shape stays until another has `ENOUGH_VOTES` and more than its own; the same holds for
    reading the whole table. The order of the traces does not matter.
    """
    heard = Counter(template.votes)
    for trace in good_traces:
        parts, headings, whole = shape_of(trace)
        if "step" in parts:
            heard[_shape(parts, headings)] += 1
        if whole is not None:
            heard[_WHOLE if whole else _NEEDED] += 1
    while sum(heard.values()) > MOST_VOTES:
        heard = Counter({shape: count // 2 for shape, count in heard.items() if count > 1})
    new = replace(template, votes=dict(heard))
    shapes = [shape for shape in heard if not shape.startswith("rows: ")]
    best = min(shapes, key=lambda shape: (-heard[shape], len(shape), shape), default="")
    if heard[best] >= ENOUGH_VOTES and heard[best] > heard[_shape(template.parts, template.headings)]:
        words = best.split()
        new = replace(new, parts=tuple(word for word in words if word in PARTS), headings="headings" in words)
    rows = _NEEDED if template.whole_table else _WHOLE
    if heard[rows] >= ENOUGH_VOTES and heard[rows] > heard[_WHOLE if template.whole_table else _NEEDED]:
        new = replace(new, whole_table=not template.whole_table)
    return new


_PART_OF_HEADING = {heading.lower(): part for part, heading in PARTS.items()}
_READINGS = re.compile(rf"(?:[^=<>,]+?\s*=\s*{traces.NUM}\s*(?:,\s*|$))+")
_CONCLUDES = re.compile(r"(?:so|therefore|thus|hence)\b,?\s|.*\banswer\b\s*(?:is|:)", re.IGNORECASE)
_CALCULATES = re.compile(r"\d\s*[-+*/<>]\s*[\d(]")
_STATES_STEP = re.compile(
    rf"{_CALCULATES.pattern}|\b(?:largest|smallest|highest|lowest|there are|above|below|counted)\b|\bis\s+{traces.NUM}$",
    re.IGNORECASE,
)


def shape_of(trace: str) -> tuple[tuple[str, ...], bool, bool | None]:
    """(parts, whether under headings, whether the whole table was read first; None where it cannot be told).

    A table is whole for certain where values were read that the calculation does not use.
    """
    spoken = [(_part(sentence), sentence) for sentence in traces.sentences(trace)]
    headings = sum(sentence.heading in _PART_OF_HEADING for _, sentence in spoken) >= len(PARTS) // 2
    if headings:
        spoken = [(_PART_OF_HEADING.get(sentence.heading, ""), sentence) for _, sentence in spoken]
    seen: list[str] = []
    for part, _ in spoken:
        again = "recheck" if part == "step" and "conclusion" in seen else part
        if again and again not in seen:
            seen.append(again)
    read = [
        value
        for part, each in spoken
        if part == "facts"
        for value in re.findall(rf"= *({traces.NUM})", each.text)
    ]
    step = next((each.text for part, each in spoken if part == "step"), "")
    used = re.findall(traces.NUM, step)
    decisive = bool(_CALCULATES.search(step)) or re.fullmatch(rf"[^,]+ is {traces.NUM}", step) is not None
    whole = any(value not in used for value in read) if decisive and read else None
    return tuple(seen), headings, whole


def _part(sentence: traces.Sentence) -> str:
    """What a sentence does, or "" where that is not understood."""
    if _READINGS.fullmatch(sentence.text) and not _CALCULATES.search(sentence.text):
        return "facts"
    if _CONCLUDES.match(sentence.text):
        return "conclusion"
    return "step" if _STATES_STEP.search(sentence.text) else ""
