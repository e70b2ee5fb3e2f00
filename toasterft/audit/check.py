"""Checks a whole data set: every row, every image, within and across splits, and against evaluation data."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from toasterft.audit import cross_rows, labels, traces
from toasterft.audit.cross_rows import Row
from toasterft.audit.images import Picture, key_of, stats
from toasterft.audit.kinds import KINDS, Finding
from toasterft.data import control_tokens
from toasterft.data.example import Example, ImageRef
from toasterft.data.reading import Reading
from toasterft.data.sources import DatasetSplits
from toasterft.data.token_stats import text_tokens
from toasterft.errors import DataError
from toasterft.models.geometry import Geometry
from toasterft.progress import Reporter
from toasterft.recipe import Prompt

SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True)
class Limits:
    """What counts as long, for which model.

    Attributes:
        geometry: how its images become tokens.
        count: tokens of a text by its tokenizer; None estimates from the length.
        control: what finds its control tokens in a text.
    """

    geometry: Geometry
    max_length: int
    max_trace_tokens: int = 1000
    count: Callable[[str], int] | None = None
    control: re.Pattern[str] = control_tokens.USUAL


@dataclass(frozen=True)
class Report:
    """What was found, the gravest kinds first.

    Attributes:
        splits: rows by split, unreadable ones left out.
        images: different image files.
        classes: rows by split and label, for a task with labels.
    """

    name: str
    findings: list[Finding]
    splits: dict[str, int]
    images: int
    classes: dict[str, Counter[str]] = field(default_factory=dict)
    seconds: float = 0.0

    def count(self, severity: str) -> int:
        """How many findings are so grave."""
        return sum(finding.severity == severity for finding in self.findings)

    def by_kind(self) -> dict[str, list[Finding]]:
        found: dict[str, list[Finding]] = {}
        for finding in self.findings:
            found.setdefault(finding.kind, []).append(finding)
        return found

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "rows": self.splits,
            "images": self.images,
            "errors": self.count("error"),
            "warnings": self.count("warning"),
            "notes": self.count("note"),
            "counts": {kind: len(found) for kind, found in self.by_kind().items()},
            "classes": self.classes,
            "findings": [finding.as_json() for finding in self.findings],
            "seconds": round(self.seconds, 2),
        }


def check(data: DatasetSplits, against: Sequence[DatasetSplits], limits: Limits, report: Reporter) -> Report:
    """Everything that is wrong with `data`.

    Args:
        against: evaluation data: its test and validation rows, or all where it has neither.
    """
    began = time.monotonic()
    seen = _pictures([data, *against], report)
    mine = _rows(data, seen)
    found = [*_unreadable(data), *_of_reading(data.reading), *_of_images(mine)]
    whole = [row for row in mine if all(picture.look >= 0 for picture in row.pictures)]
    found += _of_texts(mine, limits)
    found += cross_rows.duplicates(whole)
    for split in data.splits:
        own = [row for row in whole if row.split == split]
        found += cross_rows.leaks(
            own, [row for row in whole if cross_rows.is_later(row.split, split)], "leak"
        )
        if split in ("", "train"):
            for other in against:
                found += cross_rows.leaks(own, _evaluation(_rows(other, seen)), "eval")
    found += cross_rows.repeated_images(whole)
    classes, unbalanced = cross_rows.class_balance(mine)
    order = {kind: (SEVERITIES.index(row.severity), place) for place, (kind, row) in enumerate(KINDS.items())}
    return Report(
        name=data.name,
        findings=sorted([*found, *unbalanced], key=lambda finding: order[finding.kind]),
        splits={split: len(examples) for split, examples in data.splits.items()},
        images=len({id(picture) for row in mine for picture in row.pictures}),
        classes=classes,
        seconds=time.monotonic() - began,
    )


def _keys(data: DatasetSplits) -> Iterator[tuple[str, Example, list[tuple[Hashable, ImageRef]]]]:
    for split, examples in data.splits.items():
        for example in examples:
            owner = f"{data.name}/{split}/{example.id}"
            yield split, example, [(key_of(image, owner), image) for image in example.images]


def _pictures(sets: Sequence[DatasetSplits], report: Reporter) -> dict[Hashable, Picture]:
    images = dict(pair for data in sets for _, _, pairs in _keys(data) for pair in pairs)
    report.phase("images", len(images))
    seen = stats(images, report.advance)
    report.done()
    return seen


def _rows(data: DatasetSplits, seen: dict[Hashable, Picture]) -> list[Row]:
    return [
        Row(example, split, tuple(seen[key] for key, _ in pairs)) for split, example, pairs in _keys(data)
    ]


def _unreadable(data: DatasetSplits) -> Iterator[Finding]:
    for fault in data.faults:
        kind = "empty" if fault.what in ("empty question", "empty answer") else "unreadable"
        yield Finding(kind, fault.what, fault.id or fault.where, fault.split, fault.where)


def _of_reading(reading: Reading) -> Iterator[Finding]:
    texts = {
        "pictures-unread": reading.fault,
        "columns-unread": reading.unread_text,
        "rows-changed": reading.changes_text,
    }
    yield from (Finding(kind, text) for kind, text in texts.items() if text)


def _of_images(mine: Sequence[Row]) -> Iterator[Finding]:
    for row in mine:
        for picture in row.pictures:
            yield from (row.finding(kind, what) for kind, what in picture.faults)


def text_findings(example: Example, limits: Limits) -> Iterator[Finding]:
    """Findings about one row's answer, text and trace; no image is opened."""
    of_row = text_tokens(Prompt(), limits.count)
    trace_tokens = of_row(example)[1] - of_row(replace(example, reasoning=None))[1]
    if words := control_tokens.found_in(example, limits.control):
        what = f"{', '.join(words)}: read as text in training and evaluation, never as the token"
        yield Finding("control-token", what, example.id, where=example.where)
    yield from labels.faults(example)
    yield from traces.faults(example, trace_tokens, limits.max_trace_tokens)


def _of_texts(mine: Sequence[Row], limits: Limits) -> Iterator[Finding]:
    of_row = text_tokens(Prompt(), limits.count)
    for row in mine:
        yield from (replace(finding, split=row.split) for finding in text_findings(row.example, limits))
        sizes = [picture.size_px for picture in row.pictures if picture.size_px is not None]
        try:
            images = sum(limits.geometry.image_tokens(*size) for size in sizes)
        except DataError as error:
            yield row.finding("image-narrow", error.what)
            continue
        prompt, completion = of_row(row.example)
        length = images + prompt + completion
        if length > limits.max_length:
            parts = f"{images:,} for the image, {prompt + completion:,} of text"
            yield row.finding("row-long", f"{length:,} tokens ({parts}), max_length is {limits.max_length:,}")


def _evaluation(found: list[Row]) -> list[Row]:
    """The rows of a data set that measure; all of them where no split is named so."""
    return [row for row in found if row.split not in ("", "train")] or found
