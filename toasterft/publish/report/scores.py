"""How right a run is: every set of its answers as rows of figures with intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toasterft import scoring
from toasterft.evaluation.compare import Answers
from toasterft.publish.report.collect import Gain, Subject, per_point
from toasterft.publish.report.run_facts import shortened
from toasterft.units import Rate, dollars, duration, when

# A confusion matrix of more labels is no longer read.
MATRIX_LABELS = 12
# An interval that is wider, in points, says little about a model.
WIDE = 20
NOTHING_GAINED = ("nothing gained", "")


@dataclass(frozen=True)
class Row:
    """A share with its interval, or a figure in words."""

    name: str
    rate: Rate | None = None
    n: int | None = None
    said: str = ""


@dataclass(frozen=True)
class Standing:
    """One set of answers, summed up.

    Attributes:
        asked: on which rows, and what was added to the questions.
        parts: titled groups of rows: kinds or classes, the task's own figures, the reasoning.
        confusion: labels, and a row of counts per label of the gold; None for other tasks.
    """

    title: str
    asked: str
    n: int
    scores: list[Row]
    parts: list[tuple[str, list[Row]]]
    confusion: tuple[list[str], list[list[int]]] | None
    remarks: list[str]

    @property
    def headline(self) -> Rate:
        found = self.scores[0].rate
        assert found is not None
        return found


def standing(answers: Answers) -> Standing:
    """What an evaluation found: as it was recorded, or counted from the answers where it did not end."""
    result = answers.record.get("eval") or _counted(answers)
    n = int(result["n"])
    scores = [Row(name, rate) for name, rate in result["scores"].items()]
    parts = [
        ("the reasoning", [*_reasoning(result)]),
        ("besides", [*_besides(answers, result)]),
        ("by class" if "per_class" in result else "by kind", [*_kinds(result)]),
    ]
    return Standing(
        title(answers), asked_words(answers), n, scores, [part for part in parts if part[1]], _confusion(result),
        [*_remarks(answers, n, scores)],
    )  # fmt: skip


def title(answers: Answers) -> str:
    """Where the answers come from."""
    if answers.record.get("method") != "eval":
        return f"at the end of {answers.name}"
    return (
        f"evaluation of {when(answers.record['started_at'])}"
        if "started_at" in answers.record
        else answers.name
    )


def asked_words(answers: Answers) -> str:
    """The data, the split, and what was added to the questions."""
    asked, record = answers.asked, answers.record
    if record.get("method") == "eval":
        name, split = asked.get("data"), record.get("data_split") or asked.get("split")
    else:
        name, split = asked.get("eval_data") or asked.get("data"), asked.get("eval_split") or "validation"
    where = " ".join(filter(None, [str(shortened(str(name))), split]))
    return ", ".join([where, *added(asked)])


def added(asked: dict[str, Any]) -> list[str]:
    """What was asked beyond the plain question."""
    found = []
    if asked.get("step"):
        found.append("step by step")
    if asked.get("suffix"):
        found.append(f"with {asked['suffix']!r}")
    if asked.get("reasoner"):
        found.append(f"from the reasoning of {Path(str(asked['reasoner'])).name}")
    if asked.get("method") == "eval" and asked.get("load_in_4bit") is not None:
        found.append("4-bit" if asked["load_in_4bit"] else "16-bit")
    return found


def _counted(answers: Answers) -> dict[str, Any]:
    """Scores and kinds of answers without a summary: an evaluation that was interrupted."""
    verdicts = [row["correct"] for row in answers.rows]
    names = [name for name in verdicts[0] if all(name in each for each in verdicts)]
    kinds = Counter(str(row["kind"]) for row in answers.rows if row.get("kind") is not None)
    right = Counter(
        str(row["kind"])
        for row in answers.rows
        if row.get("kind") is not None and row["correct"].get(names[0])
    )
    return {
        "n": len(verdicts),
        "scores": {name: scoring.share(sum(map(bool, (each[name] for each in verdicts))), len(verdicts)) for name in names},
        "by_kind": {kind: {"n": kinds[kind], "robust": scoring.share(right[kind], kinds[kind])} for kind in sorted(kinds)},
    }  # fmt: skip


def _kinds(result: dict[str, Any]) -> Iterator[Row]:
    if "per_class" in result:
        for label, row in result["per_class"].items():
            yield Row(label, row["recall"], row["n"])
        return
    for kind, row in result.get("by_kind", {}).items():
        yield Row(kind, row["robust"], row["n"])


def _reasoning(result: dict[str, Any]) -> Iterator[Row]:
    traces = result.get("traces")
    if not traces:
        return
    of_all, n = result["n"], traces["n"]
    reasoned = None if n == of_all else n
    yield Row("answered without reasoning", traces["without_reasoning"])
    yield Row("repeats itself", traces["repeating"])
    if traces["tokens"]:
        yield Row("length, median", n=reasoned, said=f"{traces['tokens']['median']:.0f} tokens")
        yield Row("length, 90th percentile", n=reasoned, said=f"{traces['tokens']['p90']:,} tokens")
        yield Row("no wrong calculation", traces["arithmetic_right"], reasoned)
    if checked := traces["checked"]:
        known = None if checked["n"] == of_all else checked["n"]
        yield Row("facts all read, and right", checked["facts_right"], known)
        yield Row("nothing wrong said", checked["faultless"], known)
        yield Row("valid: both", checked["valid"], known)


def _besides(answers: Answers, result: dict[str, Any]) -> Iterator[Row]:
    """Form, and what only some tasks have."""
    if rate := result.get("format_rate"):
        yield Row("form kept", rate)
    if (tokens := result.get("mean_completion_tokens")) is not None:
        yield Row("mean length of an answer", said=f"{tokens:.0f} tokens")
    if "macro_recall" in result:
        yield Row("recall, mean of the classes", said=f"{100 * result['macro_recall']:.1f} %")
    if read := result.get("pairs"):
        yield Row("pairs of a table read", read, read["n"])
    if closed := result.get("closed"):
        yield Row("yes-or-no questions", closed["robust"], closed["n"])
    if others := result.get("open"):
        yield Row("open questions", others["robust"], others["n"])
        if others["token_recall"] is not None:
            yield Row("words found in open answers", said=f"{100 * others['token_recall']:.1f} %")
    if failures := result.get("parse_failures"):
        yield Row("no option read", failures)
    seconds = (answers.record.get("measured") or {}).get("seconds_per_1000_answers")
    if seconds is not None:
        price = answers.record.get("usd_per_hour")
        cost = f", {dollars(seconds / 3600 * price)}" if price is not None else ""
        yield Row("1,000 answers take", said=duration(seconds) + cost)


def _confusion(result: dict[str, Any]) -> tuple[list[str], list[list[int]]] | None:
    found = result.get("confusion")
    return (found["labels"], found["counts"]) if found and len(found["labels"]) <= MATRIX_LABELS else None


def _remarks(answers: Answers, n: int, scores: list[Row]) -> Iterator[str]:
    status = answers.record.get("status")
    if status != "done":
        yield f"This evaluation did not end ({status}): these are the answers it got to."
    if silent := (answers.record.get("reasoner") or {}).get("without_reasoning"):
        yield f"{silent:,} of {n:,} had no reasoning from the other model, and were answered alone."
    rate = scores[0].rate
    width = 100 * (rate["high"] - rate["low"]) if rate else 0
    if width > WIDE:
        yield f"With {n:,} questions the interval is {width:.0f} points wide: this says little about a model."


# --- above the base --------------------------------------------------------------------------


@dataclass(frozen=True)
class Above:
    """Points above the base on the same questions, and what each of them cost."""

    asked: str
    n: int
    base: Rate
    own: Rate
    difference: Rate
    p: float
    usd: tuple[str, str]
    seconds: tuple[str, str]


def above(gain: Gain) -> Above:
    before, after = (run["score"] for run in gain.paired["runs"])
    gained = gain.difference["value"] > 0
    return Above(
        asked=asked_words(gain.own),
        n=gain.paired["n"],
        base=before,
        own=after,
        difference=gain.difference,
        p=gain.paired["pairs"][0]["p"],
        usd=point_cost(per_point(gain.usd, gain.difference), dollars) if gained else NOTHING_GAINED,
        seconds=point_cost(per_point(gain.seconds, gain.difference), duration) if gained else NOTHING_GAINED,
    )


def point_cost(found: dict[str, float | None] | None, write: Any) -> tuple[str, str]:
    """What a point cost, and its bounds; where the upper one is open, the lower one is all that is known."""
    if found is None:
        return "–", ""
    if found["high"] is None:
        return write(found["low"]), "or more"
    return write(found["value"]), f"{write(found['low'])} to {write(found['high'])}"


def main_gain(subject: Subject) -> Gain | None:
    """The gain of the answers that the run is judged by."""
    main = subject.main
    return next((gain for gain in subject.gains if main is not None and gain.own.folder == main.folder), None)
