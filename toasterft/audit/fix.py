"""The cleaned copy: rows with a fault left out, traces taken off, answers put right, and a list of all that."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

from toasterft import paths
from toasterft.audit.check import Report
from toasterft.audit.kinds import KINDS, Finding
from toasterft.data.example import Example
from toasterft.data.sources import Whole
from toasterft.data.write import CARD, write_set
from toasterft.errors import DataError

FIXES = "fixes.jsonl"
DONE = {"row": "left out", "trace": "trace taken off", "answer": "answer put right"}


def write_clean(data: Whole, report: Report, folder: Path) -> dict[str, Any]:
    """Write `data` without what `report` found into the new `folder`; returns the copy's card.

    The original is only read. Findings without a cure stay, and the copy's `fixes.jsonl` names all others.

    Raises:
        DataError: `folder` is in use, lies inside the data, or no row of a split would be left.
    """
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
            mended = _mended(example, by_row.pop((split, example.id, example.where), []), fixes)
            if mended is not None:
                splits[split].append(mended)
    for findings in by_row.values():
        # Rows that could not even be read.
        fixes += [_fix(finding, "row") for finding in findings if KINDS[finding.kind].mend == "row"]
    if emptied := [split or "the rows" for split, rows in splits.items() if data.splits[split] and not rows]:
        raise DataError(
            f"nothing would be left of {emptied[0]}; nothing was written",
            where=data.name,
            why="each of its rows has a fault that leaves it out",
        )
    card = paths.read_json(data.folder / CARD) if data.folder is not None else None
    before = card if isinstance(card, dict) else {"name": data.name, "task": data.task}
    counts = Counter(fix["kind"] for fix in fixes)
    return write_set(
        folder,
        {**before, "cleaned_from": data.name, "fixes": dict(counts.most_common())},
        splits,
        {FIXES: fixes},
    )


def _mended(example: Example, findings: list[Finding], fixes: list[dict[str, Any]]) -> Example | None:
    """The row as the copy has it; None where it is left out."""
    cures = {KINDS[finding.kind].mend: finding for finding in reversed(findings)}
    if "row" in cures or ("answer" in cures and cures["answer"].answer is None):
        fixes.append(_fix(cures.get("row", cures.get("answer", findings[0])), "row"))
        return None
    if "answer" in cures and cures["answer"].answer is not None:
        fixes.append({**_fix(cures["answer"], "answer"), "answer": cures["answer"].answer})
        example = replace(example, answer=cures["answer"].answer)
    if "trace" in cures:
        fixes.append(_fix(cures["trace"], "trace"))
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
