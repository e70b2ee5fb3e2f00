"""Accuracy of a run and the data of its evaluation: rows for the terminal, the report's page and the card."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toasterft.errors import UserError
from toasterft.models import lookup
from toasterft.publish.run_view import short_path
from toasterft.runs.run_folder import Run
from toasterft.units import Rate, percent


@dataclass(frozen=True)
class Row:
    """A share with its interval, or a figure in words; of `n` answers where not of all."""

    name: str
    rate: Rate | None = None
    n: int | None = None
    words: str = ""

    @property
    def text(self) -> str:
        return percent(self.rate) if self.rate else self.words


def by_scorer(result: dict[str, Any]) -> list[Row]:
    return [Row(name, rate) for name, rate in result["scores"].items()]


def by_kind(result: dict[str, Any]) -> list[Row]:
    """The headline by kind of question, or the recall of each class."""
    if "per_class" in result:
        return [Row(label, row["recall"], row["n"]) for label, row in result["per_class"].items()]
    return [Row(kind, row["robust"], row["n"]) for kind, row in result.get("by_kind", {}).items()]


def reasoning(result: dict[str, Any]) -> Iterator[Row]:
    """The quality of the traces; nothing about them where there are none."""
    traces = result.get("traces")
    if not traces:
        return
    of_all, n = result["n"], traces["n"]
    reasoned = None if n == of_all else n
    yield Row("answered without reasoning", traces["without_reasoning"])
    yield Row("repeats itself", traces["repeating"])
    if traces["tokens"]:
        yield Row("length, median", n=reasoned, words=f"{traces['tokens']['median']:.0f} tokens")
        yield Row("length, 90th percentile", n=reasoned, words=f"{traces['tokens']['p90']:,} tokens")
        yield Row("no wrong calculation", traces["arithmetic_right"], reasoned)
    if checked := traces["checked"]:
        known = None if checked["n"] == of_all else checked["n"]
        yield Row("facts all read, and right", checked["facts_right"], known)
        yield Row("nothing wrong said", checked["faultless"], known)
        yield Row("valid: both", checked["valid"], known)


def of_task(result: dict[str, Any]) -> Iterator[Row]:
    """Form and length, and what only some tasks have."""
    if rate := result.get("format_rate"):
        yield Row("format kept", rate)
    if (tokens := result.get("mean_completion_tokens")) is not None:
        yield Row("mean length of an answer", words=f"{tokens:.0f} tokens")
    if "macro_recall" in result:
        yield Row("macro recall, mean of the classes", words=f"{100 * result['macro_recall']:.1f} %")
    if read := result.get("pairs"):
        yield Row("pairs of a table read", read, read["n"])
    if closed := result.get("closed"):
        yield Row("yes-or-no questions", closed["robust"], closed["n"])
    if others := result.get("open"):
        yield Row("open questions", others["robust"], others["n"])
        if others["token_recall"] is not None:
            yield Row("words found in open answers", words=f"{100 * others['token_recall']:.1f} %")
    if failures := result.get("parse_failures"):
        yield Row("no option read", failures)


# --- which answers ---------------------------------------------------------------------------


def evaluations(run: Run, among: Iterable[Run]) -> Iterator[Run]:
    """Finished evaluations of a run or of an export of it, in their order."""
    for other in among:
        record = other.record
        if record["method"] != "eval" or record["status"] != "done":
            continue
        of_run = record.get("model_run") == run.id or record.get("model_adapter") == str(run.path)
        if of_run or _exported_from(Path(str(record.get("model_base")))) == run.id:
            yield other


def _exported_from(folder: Path) -> str | None:
    """The run that an export came from; None for any other model."""
    try:
        noted = (lookup.read_notes(folder) or {}).get("export") or {}
    except UserError:
        return None  # a damaged base is no export of ours
    return noted.get("run")


def evaluated_rows(record: dict[str, Any], settings: dict[str, Any]) -> tuple[str | None, str | None]:
    """Data and split of an evaluation's questions, or of those that a training answers at its end."""
    if record.get("method") == "eval":
        return settings.get("data"), record.get("data_split") or settings.get("split")
    return settings.get("eval_data") or settings.get("data"), settings.get("eval_split")


def evaluated_on(record: dict[str, Any], settings: dict[str, Any]) -> tuple[str, str]:
    """The same in words."""
    name, split = evaluated_rows(record, settings)
    return short_path(name), split or ("" if record.get("method") == "eval" else "validation")


def added(settings: dict[str, Any]) -> list[str]:
    """What an evaluation adds to the plain question."""
    suffix, reasoner = settings.get("suffix"), settings.get("reasoner")
    return [
        *(["step by step"] if settings.get("step") else []),
        *([f"with {suffix!r}"] if suffix else []),
        *([f"from the reasoning of {Path(str(reasoner)).name}"] if reasoner else []),
    ]
