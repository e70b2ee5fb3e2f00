"""Accuracy of a run: every set of its answers as rows of figures, and its gain over the base."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from toasterft import scoring
from toasterft.evaluation.compare import Answers
from toasterft.publish import scores
from toasterft.publish.report.collect import Gain, Subject
from toasterft.publish.run_view import weights_text
from toasterft.publish.scores import Row, added, evaluated_on
from toasterft.units import NOTHING, Rate, dollars, duration, when

# A confusion matrix of more labels is no longer read.
MATRIX_LABELS = 12
# An interval that is wider, in points, is too wide to rank models by.
WIDE = 20


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
    n, found = int(result["n"]), scores.by_scorer(result)
    parts = [
        ("the reasoning", [*scores.reasoning(result)]),
        ("besides", [*scores.of_task(result), *_pace(answers)]),
        ("by class" if "per_class" in result else "by kind", scores.by_kind(result)),
    ]
    confusion = result.get("confusion") or {"labels": [], "counts": []}
    drawn = 0 < len(confusion["labels"]) <= MATRIX_LABELS
    return Standing(
        _title(answers),
        condition_words(answers),
        n,
        found,
        [part for part in parts if part[1]],
        (confusion["labels"], confusion["counts"]) if drawn else None,
        [*_remarks(answers, n, found)],
    )


def _title(answers: Answers) -> str:
    """Where the answers come from."""
    if answers.record.get("method") != "eval":
        return f"at the end of {answers.name}"
    started = answers.record.get("started_at")
    return f"evaluation of {when(started)}" if started else answers.name


def condition_words(answers: Answers) -> str:
    """The data, the split, and what was added to the questions."""
    where = " ".join(filter(None, evaluated_on(answers.record, answers.recipe)))
    return ", ".join([where, *conditions(answers.recipe)])


def conditions(settings: dict[str, Any]) -> list[str]:
    """What makes an evaluation another than the plain one."""
    named = settings.get("method") == "eval" and settings.get("load_in_4bit") is not None
    return [*added(settings), *([weights_text(settings["load_in_4bit"])] if named else [])]


def _counted(answers: Answers) -> dict[str, Any]:
    """Scores and kinds of answers without a summary: an evaluation that was interrupted."""
    verdicts = [row["correct"] for row in answers.rows]
    names = [name for name in verdicts[0] if all(name in each for each in verdicts)]
    kinds: dict[str, Counter[bool]] = {}
    for row in answers.rows:
        if row.get("kind") is not None:
            kinds.setdefault(str(row["kind"]), Counter())[bool(row["correct"].get(names[0]))] += 1
    return {
        "n": len(verdicts),
        "scores": {
            name: scoring.share(sum(bool(each[name]) for each in verdicts), len(verdicts)) for name in names
        },
        "by_kind": {
            kind: {"n": found.total(), "robust": scoring.share(found[True], found.total())}
            for kind, found in sorted(kinds.items())
        },
    }


def _pace(answers: Answers) -> Iterator[Row]:
    seconds = (answers.record.get("measured") or {}).get("seconds_per_1000_answers")
    if seconds is not None:
        price = answers.record.get("usd_per_hour")
        cost = f", {dollars(seconds / 3600 * price)}" if price is not None else ""
        yield Row("1,000 answers take", words=duration(seconds) + cost)


def _remarks(answers: Answers, n: int, found: list[Row]) -> Iterator[str]:
    if answers.missing:
        yield f"Answers are missing: {answers.missing}."
    status = answers.record.get("status")
    if status != "done":
        yield f"This evaluation did not end ({status}): these are the answers it got to."
    if silent := (answers.record.get("reasoner") or {}).get("without_reasoning"):
        yield f"{silent:,} of {n:,} had no reasoning from the other model, and were answered alone."
    rate = found[0].rate
    width = 100 * (rate["high"] - rate["low"]) if rate else 0
    if width > WIDE:
        yield f"With {n:,} questions the interval is {width:.0f} points wide: too wide to rank models by."


# --- above the base --------------------------------------------------------------------------


def point_costs(gain: Gain) -> tuple[tuple[str, str], tuple[str, str]]:
    """Dollars and time of a point above the base, each with its bounds."""
    return (
        _point_cost(gain.usd, gain.difference, dollars),
        _point_cost(gain.seconds, gain.difference, duration),
    )


def _point_cost(
    cost: float | None, difference: Rate, write: Callable[[float | None], str]
) -> tuple[str, str]:
    """What a point cost, and its bounds; where the upper one is open, the lower one is all that is known."""
    if difference["value"] <= 0:
        return "nothing gained", ""
    found = per_point(cost, difference)
    if found is None:
        return NOTHING, ""
    if found["high"] is None:
        return write(found["low"]), "or more"
    return write(found["value"]), f"{write(found['low'])} to {write(found['high'])}"


def per_point(cost: float | None, difference: dict[str, float]) -> dict[str, float | None] | None:
    """What a percentage point above the base cost, with the bounds that the gain's 95 % interval gives it.

    The cost is known, the gain is not: the lower bound is the cost over the gain's upper one, and the other
    way round. `high` is None where the interval reaches zero, because then no bound holds; all of it is None
    where nothing was gained, or the cost is unknown.
    """
    value, low, high = (100 * difference[name] for name in ("value", "low", "high"))
    if cost is None or value <= 0:
        return None
    return {"value": cost / value, "low": cost / high, "high": cost / low if low > 0 else None}


def main_gain(subject: Subject) -> Gain | None:
    """The gain of the answers that the run is judged by."""
    main = subject.main
    return next((gain for gain in subject.gains if main is not None and gain.own.folder == main.folder), None)
