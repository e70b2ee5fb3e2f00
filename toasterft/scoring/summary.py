"""From verdicts to the figures of an evaluation."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from toasterft.scoring.answers.values import tidy
from toasterft.scoring.answers.yes_no import is_closed
from toasterft.scoring.statistics import share
from toasterft.scoring.tasks import SCORERS


@dataclass(frozen=True)
class Scored:
    """One item after scoring; `correct` by scorer name, `completion_tokens` as generated."""

    id: str
    kind: str | None
    correct: dict[str, bool]
    well_formed: bool
    completion_tokens: int
    pairs: tuple[int, int] | None = None
    """(right, in the table) of a transcription's `label = value` pairs; None for other questions."""
    task: str = "chart"
    gold: str = ""
    picked: str | None = None
    """The option or label read from the answer; None where none was, and for other tasks."""
    choices: tuple[str, ...] = ()
    """The options or labels to choose from, where the data has them."""
    token_recall: float | None = None
    """Of an open short answer; None for other questions."""


_LABEL_VALUE = re.compile(r"\s*(.+?)\s*=\s*([^,]+?)\s*(?:,|\.?\s*$)")


def table_pairs(answer: str, gold: str) -> tuple[int, int] | None:
    """How many of a table's `label = value` pairs a transcription has right, and how many there are.

    A pair said twice counts once; None where `gold` is no table of at least two pairs.
    """
    wanted = _LABEL_VALUE.findall(gold)
    if len(wanted) < 2:
        return None
    return len(set(_LABEL_VALUE.findall(answer)) & set(wanted)), len(set(wanted))


def _rate(outcomes: Sequence[bool]) -> dict[str, float]:
    return share(sum(outcomes), len(outcomes))


def summarise(rows: Iterable[Scored]) -> dict[str, Any]:
    """The JSON-ready summary of an evaluation: fractions with intervals, tokens as a mean per item.

    Rows of several tasks are summed up by the `robust` headline alone.

    Raises:
        KeyError: a row lacks the verdict of one of its task's scorers.
    """
    rows = list(rows)
    tasks = {row.task for row in rows} or {"chart"}
    task = tasks.pop() if len(tasks) == 1 else "mixed"
    names = list(SCORERS) if task == "chart" else ["robust"]
    by_kind: dict[str, list[bool]] = {}
    for row in rows:
        if row.kind is not None:
            by_kind.setdefault(row.kind, []).append(row.correct["robust"])
    tables = [row.pairs for row in rows if row.pairs is not None]
    pairs = sum(right for right, _ in tables), sum(there for _, there in tables)
    return {
        "n": len(rows),
        "task": task,
        **({"pairs": {"n": pairs[1], **share(*pairs)}} if tables else {}),
        "scores": {name: _rate([row.correct[name] for row in rows]) for name in names},
        **_OF_TASK.get(task, lambda _: {})(rows),
        "by_kind": {k: {"n": len(by_kind[k]), "robust": _rate(by_kind[k])} for k in sorted(by_kind)},
        "format_rate": _rate([row.well_formed for row in rows]),
        "mean_completion_tokens": sum(r.completion_tokens for r in rows) / len(rows) if rows else 0.0,
    }


def _closed_and_open(rows: Sequence[Scored]) -> dict[str, Any]:
    """Questions of yes or no apart from the others, as the medical tables report them."""
    closed = [row.correct["robust"] for row in rows if is_closed(row.gold)]
    others = [row for row in rows if not is_closed(row.gold)]
    recalls = [row.token_recall for row in others if row.token_recall is not None]
    return {
        "closed": {"n": len(closed), "robust": _rate(closed)},
        "open": {
            "n": len(others),
            "robust": _rate([row.correct["robust"] for row in others]),
            "token_recall": statistics.fmean(recalls) if recalls else None,
        },
    }


def _read(rows: Sequence[Scored]) -> dict[str, Any]:
    return {"parse_failures": _rate([row.picked is None for row in rows])}


def _by_class(rows: Sequence[Scored]) -> dict[str, Any]:
    """Recall by class, its mean over the classes that occur, and who was taken for whom.

    An answer that names no label is a parse failure, and wrong. `confusion.counts` has a row per label of
    the gold and a column per label said, with the parse failures in a last column.
    """
    choices = {choice for choices in {row.choices for row in rows} for choice in choices}
    spelled = {tidy(label): label for label in (*choices, *(row.gold for row in rows))}
    predicted = [None if row.picked is None else spelled.get(tidy(row.picked)) for row in rows]
    labels = sorted(spelled.values())
    counts = {label: Counter[str | None]() for label in labels}
    for row, label in zip(rows, predicted):
        counts[spelled[tidy(row.gold)]][label] += 1
    recall = {label: share(found[label], found.total()) for label, found in counts.items() if found.total()}
    return {
        "macro_recall": statistics.fmean(each["value"] for each in recall.values()),
        "per_class": {label: {"n": counts[label].total(), "recall": recall[label]} for label in recall},
        "confusion": {
            "labels": labels,
            "counts": [[*(counts[gold][label] for label in labels), counts[gold][None]] for gold in labels],
        },
        "parse_failures": _rate([label is None for label in predicted]),
    }


_OF_TASK = {"yesno-open": _closed_and_open, "choice": _read, "class": _by_class}
