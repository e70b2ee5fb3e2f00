"""The kinds of faults a data set can have: how grave each is, and what `data check --fix` does about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
# What becomes of the row in a cleaned copy: left out; kept without its trace; kept with another answer.
Fix = Literal["row", "trace", "answer"]


@dataclass(frozen=True)
class Kind:
    """One kind of fault.

    Attributes:
        about: the heading of its findings.
        fix: None where the copy keeps the row as it is.
    """

    severity: Severity
    about: str
    fix: Fix | None = None


KINDS: dict[str, Kind] = {
    "unreadable": Kind("error", "the row cannot be read, and training refuses the data for it", "row"),
    "pictures-unread": Kind("error", "a column that nothing reads looks like pictures, and no row has one"),
    "empty": Kind("error", "question or answer is empty", "row"),
    "image-missing": Kind("error", "the image file does not exist", "row"),
    "image-broken": Kind("error", "the image is empty, cut off, or none", "row"),
    "image-huge": Kind("error", "the image is too large to be opened safely", "row"),
    "image-large": Kind("warning", "the image is very large, and slow to read"),
    "image-narrow": Kind("error", "the model takes no image of this shape", "row"),
    "image-tiny": Kind("warning", "the image is too small to show anything"),
    "image-frames": Kind("note", "the file holds several frames or pages: the first is read"),
    "image-blank": Kind("warning", "the image has one colour only"),
    "eval-image": Kind("error", "the same image is in the evaluation data", "row"),
    "eval-lookalike": Kind("error", "an image that looks the same is in the evaluation data", "row"),
    "eval-question": Kind("error", "the same question without an image is in the evaluation data", "row"),
    "leak-image": Kind("error", "the same image is in a held-out split", "row"),
    "leak-lookalike": Kind("error", "an image that looks the same is in a held-out split", "row"),
    "leak-question": Kind("error", "the same question without an image is in a held-out split", "row"),
    "contradiction": Kind("error", "one image and question, several answers", "row"),
    "duplicate": Kind("warning", "the same image, question and answer again", "row"),
    "same-image": Kind("note", "two files hold the same image"),
    "lookalike": Kind("note", "two images of one split look the same"),
    "label": Kind("error", "the answer cannot be meant", "row"),
    "label-time": Kind("error", "a ratio was stored as a time of day", "answer"),
    "label-doubtful": Kind("warning", "the answer does not fit its question"),
    "text-damaged": Kind("warning", "characters were lost"),
    "control-token": Kind("warning", "a text holds control tokens of the model"),
    "trace-contradicts": Kind("error", "the trace concludes another answer", "row"),
    "trace-gives-up": Kind("error", "the trace gives no answer: it calls the question unanswerable", "row"),
    "trace-mentions-answer": Kind("error", "the trace mentions that its writer had the answer", "trace"),
    "trace-unfinished": Kind("warning", "the trace never states the answer"),
    "trace-arithmetic": Kind("warning", "a calculation in the trace does not hold"),
    "trace-long": Kind("warning", "the trace is very long", "trace"),
    "row-long": Kind("warning", "the row is longer than training takes", "row"),
    "columns-unread": Kind("note", "columns that nothing reads"),
    "rows-changed": Kind("note", "tags taken off, turns joined or left out as the rows were read"),
    "class-absent": Kind("warning", "a label of the held-out rows is never trained"),
    "class-rare": Kind("warning", "a label has far fewer rows than the others"),
}


@dataclass(frozen=True)
class Finding:
    """One fault of one row; `id` is empty where it is about the data set.

    Attributes:
        split: '' for data without splits.
        where: file and line.
        what: one sentence, with the ids of other rows it is about.
        answer: the right answer, where it can be derived.
    """

    kind: str
    what: str
    id: str = ""
    split: str = ""
    where: str = ""
    answer: str | None = None

    @property
    def severity(self) -> Severity:
        return KINDS[self.kind].severity

    def as_json(self) -> dict[str, Any]:
        found = {
            "kind": self.kind,
            "severity": self.severity,
            "id": self.id,
            "split": self.split,
            "where": self.where,
            "what": self.what,
        }
        return found | ({"right_answer": self.answer} if self.answer is not None else {})
