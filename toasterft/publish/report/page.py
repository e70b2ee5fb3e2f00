"""The page: everything found, through a template that escapes whatever it is given."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import toasterft
from toasterft import paths, units
from toasterft.audit.preview import visible
from toasterft.errors import UserError
from toasterft.evaluation import compare
from toasterft.evaluation.compare import Answers
from toasterft.publish.report import run_facts as facts
from toasterft.publish.report.collect import Subject, asked_of, choose, spent, subjects, total
from toasterft.publish.report.curves import Figure, figures
from toasterft.publish.report.gallery import Gallery, gallery
from toasterft.publish.report.run_facts import Bill, Facts
from toasterft.publish.report.scores import Above, Standing, above, added, main_gain, standing
from toasterft.runs.run_folder import Run

TEMPLATE = "page.html"
LONGEST_REMARK = 600


@dataclass(frozen=True)
class Tile:
    """A figure that a reader looks for first."""

    name: str
    value: str
    beside: Sequence[str] = ()


@dataclass(frozen=True)
class Part:
    """One run: a training, an evaluation, or a stage of a pipeline."""

    title: str
    command: str
    facts: Facts
    data: Facts
    bill: Bill
    figures: list[Figure]
    remarks: list[str]


@dataclass(frozen=True)
class Chapter:
    """One of the runs named."""

    label: str
    name: str
    about: str
    tiles: list[Tile]
    warnings: list[str]
    parts: list[Part]
    standings: list[Standing]
    gains: list[Above]
    no_base: str


@dataclass(frozen=True)
class Written:
    """The page's file, and what is in it."""

    path: Path
    size_bytes: int
    runs: list[str]
    shown: int
    """Questions in the gallery."""


def write(names: Sequence[str], runs_dir: Path, out: Path, *, limit: int, force: bool = False) -> Written:
    """The page about these runs.

    Args:
        limit: questions in the gallery at most.
        force: put it in the place of a file that is there.

    Raises:
        UserError: no such run, nothing to show, or `out` cannot be written or exists.
    """
    _require_place(out, force=force)
    found = subjects(names, runs_dir)
    context = _context(found, runs_dir, limit)
    text = render(context)
    paths.write_atomic(out, text)
    shown = sum(len(group.cards) for group in context["gallery"].groups) if context["gallery"] else 0
    return Written(out, len(text.encode()), [subject.name for subject in found], shown)


def _require_place(out: Path, *, force: bool) -> None:
    if out.is_dir():
        raise UserError("this is a folder, not a file", where=str(out), next_step=f"-o {out / 'report.html'}")
    if out.exists() and not force:
        raise UserError(
            "this file exists; nothing is overwritten", where=str(out), next_step="--force, or -o elsewhere"
        )
    if not out.parent.is_dir():
        raise UserError("there is no such folder", where=str(out.parent), next_step=f"mkdir -p {out.parent}")


def render(context: dict[str, Any]) -> str:
    """The template with its values in, each escaped, and with what would steer a line or hide in it written out."""
    environment = Environment(
        loader=PackageLoader("toasterft.publish.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else visible(str(value)),
    )
    for name in ("shorten", "share", "interval", "points", "points_interval", "p_value"):
        environment.filters[name] = getattr(units, name)
    # Our own drawings, in which matplotlib has escaped the texts.
    environment.filters["drawing"] = Markup
    return environment.get_template(TEMPLATE).render(context)


# --- what goes in ----------------------------------------------------------------------------


def _context(found: Sequence[Subject], runs_dir: Path, limit: int) -> dict[str, Any]:
    chapters = [_chapter(subject) for subject in found]
    versus, no_comparison, chosen = _comparison(found, runs_dir)
    return {
        "title": chapters[0].name if len(chapters) == 1 else f"{len(chapters)} runs compared",
        "made": f"{datetime.datetime.now().astimezone():%d %B %Y, %H:%M}",
        "version": toasterft.__version__,
        "chapters": chapters,
        "versus": versus,
        "no_comparison": no_comparison,
        "rows": [_row(subject, place, versus) for place, subject in enumerate(found)],
        "widest": _widest(versus),
        "gallery": _gallery(found, chosen, limit) if limit else None,
        "recipes": [
            (f"{subject.label} " * bool(subject.label) + each.name, facts.recipe_text(each), _versions(subject))
            for subject in found
            for each in [subject.folder]
        ],
    }  # fmt: skip


def _chapter(subject: Subject) -> Chapter:
    last = subject.last
    asked = facts.shortened(subject.asked)
    model = last.record.get("model_base") or asked.get("model")
    about = " ".join(
        part
        for part in (
            f"{', then '.join(str(run.record.get('method')) for run in subject.runs)} of {facts.shortened(str(model))}",
            f"on {asked['data']}" if asked.get("data") else "",
        )
        if part
    )
    held = [above(gain) for gain in subject.gains]
    no_base = ""
    if subject.trainings and not held and subject.answered:
        base = subject.trainings[0].record.get("model_base")
        no_base = (
            f"There is no evaluation of {facts.shortened(str(base))} itself on the same questions, so nothing says "
            f"how much was gained: toasterft eval {facts.shortened(str(base))} --data … makes one."
        )
    return Chapter(
        label=subject.label,
        name=subject.name,
        about=", ".join([about, *added(subject.asked)]),
        tiles=_tiles(subject),
        warnings=_warnings(subject),
        parts=[_part(subject, place, run) for place, run in enumerate(subject.runs)],
        standings=[standing(answers) for answers in _in_order(subject)],
        gains=held,
        no_base=no_base,
    )


def _in_order(subject: Subject) -> list[Answers]:
    """The answers it is judged by first."""
    main = subject.main
    return [*([main] if main else []), *(each for each in subject.answered if each is not main)]


def _part(subject: Subject, place: int, run: Run) -> Part:
    method = str(run.record.get("method"))
    return Part(
        title=f"Stage {place + 1}: {method}" if subject.is_pipeline else "",
        command=facts.command(asked_of(run.path)),
        facts=facts.run_facts(run),
        data=facts.data_facts(run),
        bill=facts.bill(run),
        figures=figures(run.metrics(), f"{subject.label or 'a'}-{place}"),
        remarks=[units.excerpt(str(note), LONGEST_REMARK) for note in run.record.get("notes") or ()]
        + [f"made to fit: {key}={value}" for key, value in (run.record.get("fitted") or {}).items()],
    )


def _tiles(subject: Subject) -> list[Tile]:
    tiles = []
    if main := subject.main:
        found = standing(main)
        rate = found.headline
        questions = f"{found.n:,} question" + ("" if found.n == 1 else "s")
        tiles.append(Tile("right answers", units.share(rate), [f"{units.interval(rate)} at 95 %", questions]))
    if gain := main_gain(subject):
        held = above(gain)
        bounds = units.points_interval(held.difference)
        tiles.append(Tile("above the base", units.points(held.difference), ["points", bounds]))
        if held.difference["value"] > 0:
            cost = held.seconds if held.usd[0] == "–" else held.usd
            tiles.append(Tile("cost of a point", cost[0], [cost[1]]))
    bills = [facts.bill(run) for run in subject.runs]
    for place, name in enumerate(("time", "dollars", "peak memory")):
        rows = [bill.whole[place] for bill in bills]
        if len(rows) == 1:
            planned = bills[0].planned_for and rows[0].predicted != "–"
            beside = ["predicted", rows[0].predicted] if planned and bills[0].comparable else []
            tiles.append(Tile(name, rows[0].measured, beside))
    if len(bills) > 1:
        seconds, usd = _spent(subject)
        stages = [f"{len(bills)} stages"]
        tiles += [Tile("time", units.duration(seconds), stages), Tile("dollars", units.dollars(usd), stages)]
    return [tile for tile in tiles if tile.value != "–"]


def _spent(subject: Subject) -> tuple[float | None, float | None]:
    """Seconds and dollars of the run, or of a pipeline's stages; None where any is unknown."""
    bills = [spent(run) for run in subject.runs]
    return total(seconds for seconds, _ in bills), total(usd for _, usd in bills)


def _warnings(subject: Subject) -> list[str]:
    found = []
    for run in subject.runs:
        status = run.record.get("status")
        if status != "done":
            name = run.id if subject.is_pipeline else "This run"
            found.append(f"{name} did not end as planned: {facts.ending(run.record)}.")
    return found


# --- several runs ----------------------------------------------------------------------------


def _comparison(
    found: Sequence[Subject], runs_dir: Path
) -> tuple[dict[str, Any] | None, str, list[Answers] | None]:
    """Paired tests of all runs on the questions that all of them answered, or why there are none."""
    if len(found) < 2:
        return None, "", None
    chosen = choose(found)
    if chosen is None:
        silent = [subject.label for subject in found if not subject.answered]
        why = (
            f"{' and '.join(silent)} answered no questions"
            if silent
            else "no question was asked of all of them"
        )
        return None, f"These runs cannot be compared: {why}. Evaluate them on the same data and split.", None
    try:
        paired = compare.compare([str(each.folder) for each in chosen], runs_dir, differ=0)
    except UserError as problem:
        return None, f"These runs cannot be compared: {problem.what}.", None
    return paired, "", chosen


@dataclass(frozen=True)
class RunRow:
    """A run's line in the table of all runs."""

    label: str
    name: str
    rate: units.Rate | None
    asked: str
    time: str
    usd: str


def _row(subject: Subject, place: int, versus: dict[str, Any] | None) -> RunRow:
    seconds, usd = _spent(subject)
    main = standing(subject.main) if subject.main is not None else None
    rate = versus["runs"][place]["score"] if versus else main.headline if main else None
    asked = main.asked if main else ""
    return RunRow(subject.label, subject.name, rate, asked, units.duration(seconds), units.dollars(usd))


def _widest(versus: dict[str, Any] | None) -> float:
    """Half the width of the drawing that all pairs' intervals fit in."""
    bounds = (
        [abs(pair["difference"][name]) for pair in versus["pairs"] for name in ("low", "high")]
        if versus
        else []
    )
    return 1.06 * max(bounds, default=0.0) or 1.0


def _gallery(found: Sequence[Subject], chosen: list[Answers] | None, limit: int) -> Gallery | None:
    if chosen is not None:
        voices = {subject.label: answers for subject, answers in zip(found, chosen)}
        changed = ("Only B right", "Only A right") if len(chosen) == 2 else None
        return gallery(voices, limit, changed=changed)
    subject = next((each for each in found if each.answered), None)
    if subject is None or subject.main is None:
        return None
    gain = main_gain(subject)
    if gain is None:
        return gallery({"this run": subject.main}, limit, changed=None)
    changed = ("Wrong before, right now", "Right before, wrong now")
    return gallery({"the base": gain.base, "this run": gain.own}, limit, changed=changed)


def _versions(subject: Subject) -> str:
    return facts.versions(subject.runs[0])
