"""The cleaned copy: rows with a fault left out, traces taken off, answers put right, and a list of all that."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

from toasterft.audit.check import Report
from toasterft.audit.kinds import KINDS, Finding
from toasterft.data.example import Example
from toasterft.data.sources import DatasetSplits
from toasterft.data.write import write_dataset
from toasterft.errors import DataError

FIXES = "fixes.jsonl"
DONE = {"row": "left out", "trace": "trace taken off", "answer": "answer put right"}


def write_clean(data: DatasetSplits, report: Report, folder: Path) -> dict[str, Any]:
    """Write `data` without what `report` found into the new `folder`; returns the copy's card.

    The original is only read. Findings without a cure stay, and the copy's `fixes.jsonl` names all others.

    Raises:
        DataError: `folder` is in use, lies inside the data, no row of a split would be left, or no row has a picture
            while a column looks like pictures.
    """
    data.reading.require_pictures(data.name)
    if data.folder is not None and folder.resolve().is_relative_to(data.folder.resolve()):
        raise DataError("the cleaned copy would lie inside the data", where=str(folder))
    by_row: dict[tuple[str, str, str], list[Finding]] = defaultdict(list)
    for finding in report.findings:
        by_row[finding.split, finding.id, finding.where].append(finding)
    fixes: list[dict[str, Any]] = []
    splits: dict[str, list[Example]] = {}
    for split, examples in data.splits.items():
        splits[split] = []
        for example in examples:
            fixed = _fixed(example, by_row.pop((split, example.id, example.where), []), fixes)
            if fixed is not None:
                splits[split].append(fixed)
    for findings in by_row.values():
        # Rows that could not even be read.
        fixes += [_fix(finding, "row") for finding in findings if KINDS[finding.kind].fix == "row"]
    faulty = {fault.split for fault in data.faults}
    had_rows = [split for split, rows in data.splits.items() if rows or split in faulty]
    if emptied := [split or "the rows" for split in had_rows if not splits[split]]:
        raise DataError(
            f"nothing would be left of {emptied[0]}; nothing was written",
            where=data.name,
            why="each of its rows has a fault that leaves it out",
        )
    counts = Counter(fix["kind"] for fix in fixes)
    return write_dataset(
        folder,
        {**data.card, "cleaned_from": data.name, "fixes": dict(counts.most_common())},
        splits,
        {FIXES: fixes},
    )


def _fixed(example: Example, findings: list[Finding], fixes: list[dict[str, Any]]) -> Example | None:
    """The row as the copy has it; None where it is left out."""
    remedies = {KINDS[finding.kind].fix: finding for finding in reversed(findings)}
    if "row" in remedies or ("answer" in remedies and remedies["answer"].answer is None):
        fixes.append(_fix(remedies.get("row", remedies.get("answer", findings[0])), "row"))
        return None
    if "answer" in remedies and remedies["answer"].answer is not None:
        fixes.append({**_fix(remedies["answer"], "answer"), "answer": remedies["answer"].answer})
        example = replace(example, answer=remedies["answer"].answer)
    if "trace" in remedies:
        fixes.append(_fix(remedies["trace"], "trace"))
        example = replace(example, reasoning=None)
    return example


def _fix(finding: Finding, done: str) -> dict[str, Any]:
    return {
        "id": finding.id,
        "split": finding.split,
        "where": finding.where,
        "kind": finding.kind,
        "what": finding.what,
        "done": DONE[done],
    }
