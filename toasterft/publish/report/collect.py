"""Collect a page's contents: the runs named, their evaluations, their bases, and the costs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toasterft.errors import UserError
from toasterft.evaluation import compare
from toasterft.evaluation.compare import Answers
from toasterft.jobs import pipeline
from toasterft.publish.run_view import total
from toasterft.publish.scores import evaluations
from toasterft.runs import run_folder
from toasterft.runs.run_folder import Run
from toasterft.units import Rate

# Keys of an evaluation's recipe that make it another question to the same model.
CONDITION = ("step", "suffix", "reasoner")
# More trainings behind each other than anyone does: a record that names itself as its origin.
LONGEST_LINE = 50


@dataclass(frozen=True)
class Gain:
    """A run's answers held against its base's, on the questions that both answered.

    Attributes:
        paired: as `compare.compare` makes it, the base first.
        seconds, usd: of every training behind the run; None where some of it is unknown.
    """

    base: Answers
    own: Answers
    paired: dict[str, Any]
    seconds: float | None
    usd: float | None

    @property
    def scores(self) -> tuple[Rate, Rate]:
        """The base's and its own."""
        before, after = (run["score"] for run in self.paired["runs"])
        return before, after

    @property
    def pair(self) -> dict[str, Any]:
        """How they differ, and with which p value."""
        found: dict[str, Any] = self.paired["pairs"][0]
        return found

    @property
    def difference(self) -> Rate:
        found: Rate = self.pair["difference"]
        return found


@dataclass
class Subject:
    """One of the runs named: a training or an evaluation, or a pipeline with its stages.

    Attributes:
        runs: the run, or a pipeline's stages that began, in order.
        answered: its scored answers: evaluations of it, newest first, then what trainings scored at their end.
        trainings: every training behind its weights, oldest first.
    """

    name: str
    folder: Path
    runs: list[Run]
    recipe: dict[str, Any]
    label: str = ""
    answered: list[Answers] = field(default_factory=list)
    trainings: list[Run] = field(default_factory=list)
    gains: list[Gain] = field(default_factory=list)

    @property
    def is_pipeline(self) -> bool:
        return self.folder != self.runs[-1].path

    @property
    def last(self) -> Run:
        """What its weights came from: the last stage that was finished, else the last that began."""
        done = [run for run in self.runs if run.record.get("status") == "done"]
        return (done or self.runs)[-1]

    @property
    def main(self) -> Answers | None:
        """The answers it is judged by: those with a base to hold against, then the most, then the newest."""
        against = {gain.own.folder for gain in self.gains}
        plain = [each for each in self.answered if not any(condition(each.recipe))]
        ranked = sorted(
            plain or self.answered, key=lambda each: (each.folder in against, len(each.rows)), reverse=True
        )
        return ranked[0] if ranked else None


# --- the runs --------------------------------------------------------------------------------


def subjects(names: Sequence[str], runs_dir: Path) -> list[Subject]:
    """What the names stand for, labelled A, B … where there are several.

    Raises:
        UserError: no such run, one is named twice, or one has nothing to show.
    """
    found: list[Subject] = []
    for name in names:
        subject = _subject(name, runs_dir)
        if subject.folder in {other.folder for other in found}:
            raise UserError("this run is named twice", where=name)
        found.append(subject)
    homes = dict.fromkeys(path.resolve() for path in (runs_dir, *(each.folder.parent for each in found)))
    everything = [run for home in homes for run in run_folder.runs(home)]
    for subject in found:
        _find_answers(subject, everything)
        _require_something(subject)
    # An evaluation of a training that is named too is shown with it.
    shown = {each.folder for subject in found for each in subject.answered if each.folder != subject.folder}
    found = [subject for subject in found if subject.folder not in shown]
    for place, subject in enumerate(found if len(found) > 1 else []):
        subject.label = compare.label(place, len(found))
    return found


def _subject(name: str, runs_dir: Path) -> Subject:
    for path in (Path(name).expanduser(), runs_dir / name):
        if (path / pipeline.PIPELINE_FILE).is_file():
            path = path.resolve()
            begun = [
                Run(file.parent, run_folder.read_record(file.parent) or {})
                for file in path.glob(f"*/{run_folder.RUN_FILE}")
            ]
            if not begun:
                raise UserError(
                    "no stage of this pipeline has begun: there is nothing to show",
                    where=name,
                    next_step=f"toasterft train --resume {name}",
                )
            begun.sort(key=lambda run: int(run.id.partition("-")[0]))
            return Subject(path.name, path, begun, run_folder.recipe_of(path))
    run = run_folder.open_run(name, runs_dir)
    return Subject(run.id, run.path, [run], run.recipe)


def _require_something(subject: Subject) -> None:
    # A run that was killed in its first seconds: its folder holds its recipe, and no more.
    if subject.answered or any(run.record.get("measured") or run.metrics() for run in subject.runs):
        return
    status = subject.last.record.get("status")
    raise UserError(
        "this run has nothing to show yet: no metrics, no answers, no figures",
        where=subject.name,
        why=f"its status is {status!r}",
        next_step=f"toasterft show {subject.name}   shows what is known",
    )


# --- answers ---------------------------------------------------------------------------------


def _find_answers(subject: Subject, everything: Sequence[Run]) -> None:
    """Set the subject's answers, the trainings behind it, and its gains over evaluations of its base."""
    later = {
        found.path.resolve(): found
        for run in subject.runs
        for found in evaluations(run, everything)
        if _is_of(found, run)
    }
    newest = sorted(later.values(), key=lambda run: str(run.record.get("started_at")), reverse=True)
    subject.answered = _scored([*newest, *reversed(subject.runs)])
    subject.trainings, _ = _trainings(subject.last)
    if not subject.trainings:
        return
    base = subject.trainings[0].record.get("model_base")
    bases = _scored(run for run in everything if _is_plain(run, base))
    gains = (_gain(own, bases) for own in subject.answered)
    subject.gains = [gain for gain in gains if gain is not None]


def _is_of(evaluation: Run, run: Run) -> bool:
    """Stages of two pipelines have the same names: there the pipeline's name tells them apart."""
    adapter = evaluation.record.get("model_adapter")
    if adapter is None or not (run.path.parent / pipeline.PIPELINE_FILE).is_file():
        return True
    return Path(adapter).parent.name == run.path.parent.name


def _is_plain(run: Run, base: str | None) -> bool:
    """Whether this is a finished evaluation of the base model itself."""
    record = run.record
    return (
        (record.get("method"), record.get("status")) == ("eval", "done")
        and record.get("model_base") == base
        and record.get("model_adapter") is None
    )


def _scored(runs: Iterable[Run]) -> list[Answers]:
    found = []
    for run in runs:
        with suppress(UserError):  # a damaged neighbour is not in the page
            if answers := Answers.of(run):
                found.append(answers)
    return found


def condition(settings: dict[str, Any]) -> tuple[Any, ...]:
    """What was added to the questions; nothing for a plain evaluation, or one at the end of a training."""
    return tuple(settings.get(name) or None for name in CONDITION)


def _gain(own: Answers, bases: Sequence[Answers]) -> Gain | None:
    alike = [base for base in bases if condition(base.recipe) == condition(own.recipe)]
    if not alike:
        return None
    base = max(reversed(alike), key=lambda base: len(compare.shared([base, own])))  # the newest of the best
    try:
        paired = compare.paired([base, own])
    except UserError:
        return None  # no question in common, or other scorers: there is nothing to hold it against
    # A pipeline's first stage has cost less than its last.
    trainings, complete = _trainings(Run(own.folder, own.record))
    return Gain(base, own, paired, *total(trainings if complete else []))


def choose(several: Sequence[Subject]) -> list[Answers] | None:
    """One set of answers per subject, with equal prompts where possible, with the most questions in common.

    None where one has no answers, or no question was answered by all.
    """
    best: tuple[int, list[Answers]] = (0, [])
    for anchor in several[0].answered:

        def fit(other: Answers, anchor: Answers = anchor) -> tuple[bool, int]:
            return condition(other.recipe) == condition(anchor.recipe), len(compare.shared([anchor, other]))

        chosen = [anchor, *(max(each.answered, key=fit) for each in several[1:] if each.answered)]
        if len(chosen) == len(several) and (count := len(compare.shared(chosen))) > best[0]:
            best = count, chosen
    return best[1] or None


# --- what it cost ----------------------------------------------------------------------------


def _trainings(run: Run) -> tuple[list[Run], bool]:
    """Every training behind a run's weights, oldest first, and whether all of them are here."""
    found = [] if run.record.get("method") == "eval" else [run]
    while len(found) < LONGEST_LINE:
        record = run.record
        origin = record.get("model_adapter") or str(record.get("model_base"))
        # Beside the run too: a runs folder may have been moved since.
        for folder in (Path(origin), run.path.parent / Path(origin).name):
            if (folder / run_folder.RUN_FILE).is_file() and folder.resolve() != run.path.resolve():
                run = Run(folder, run_folder.read_record(folder) or {})
                found.insert(0, run)
                break
        else:
            return found, record.get("model_adapter") is None
    return found, False
