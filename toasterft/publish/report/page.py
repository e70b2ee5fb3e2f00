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
from toasterft.publish.command import command
from toasterft.publish.report.collect import Subject, choose, subjects
from toasterft.publish.report.curves import figures
from toasterft.publish.report.gallery import Gallery, gallery
from toasterft.publish.report.scores import condition_words, conditions, main_gain, point_costs, standing
from toasterft.publish.run_view import Quantity, RunView, recipe_text, short_path, shortened, total
from toasterft.units import (
    NOTHING,
    Range,
    dollars,
    duration,
    excerpt,
    interval,
    points,
    points_interval,
    share,
)

TEMPLATE = "page.html"
LONGEST_REMARK = 600


@dataclass(frozen=True)
class Tile:
    """A figure that a reader looks for first."""

    name: str
    value: str
    beside: Sequence[str] = ()


def write(
    names: Sequence[str], runs_dir: Path, out: Path, *, limit: int, force: bool = False
) -> dict[str, Any]:
    """Write the page about these runs, and return where it is and what is in it.

    Args:
        limit: questions in the gallery at most.
        force: put it in the place of a file that is there.

    Raises:
        UserError: no such run, nothing to show, or `out` cannot be written or exists.
    """
    _require_place(out, force=force)
    found = subjects(names, runs_dir)
    context = _context(found, limit)
    text = render(context)
    paths.write_atomic(out, text)
    shown = sum(len(group.cards) for group in context["gallery"].groups) if context["gallery"] else 0
    return {
        "page": str(out),
        "size_bytes": len(text.encode()),
        "runs": [subject.name for subject in found],
        "questions": shown,
    }


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
    """Fill the template; every value is escaped, and what would steer a line or hide in it is written out."""
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
    environment.filters |= {"bar": _bar, "condition": condition_words, "point_costs": point_costs}
    # Our own drawings, in which matplotlib has escaped the texts.
    environment.filters["drawing"] = Markup
    return environment.get_template(TEMPLATE).render(context)


def _bar(one: Quantity) -> tuple[float, float, float, float] | None:
    """Low, likely, high and measured as per cent of a drawing's width; None where they do not test each other."""
    predicted, measured = one.test or (Range(0, 0, 0), 0)
    widest = 1.06 * max(predicted.high, measured)
    if not widest:
        return None
    low, likely, high = (100 * part / widest for part in (predicted.low, predicted.likely, predicted.high))
    return low, likely, high, 100 * measured / widest


# --- what goes in ----------------------------------------------------------------------------


def _context(found: Sequence[Subject], limit: int) -> dict[str, Any]:
    chapters = [_chapter(subject) for subject in found]
    versus, no_comparison, chosen = _comparison(found)
    return {
        "title": chapters[0]["name"] if len(chapters) == 1 else f"{len(chapters)} runs compared",
        "made": f"{datetime.datetime.now().astimezone():%d %B %Y, %H:%M}",
        "version": toasterft.__version__,
        "chapters": chapters,
        "versus": versus,
        "no_comparison": no_comparison,
        "rows": [_row(subject, place, versus) for place, subject in enumerate(found)],
        "widest": _widest(versus),
        "gallery": _gallery(found, chosen, limit) if limit else None,
    }


def _chapter(subject: Subject) -> dict[str, Any]:
    """One of the runs named."""
    no_base = ""
    if subject.trainings and not subject.gains and subject.answered:
        base = short_path(subject.trainings[0].record.get("model_base"))
        no_base = (
            f"There is no evaluation of {base} itself on the same questions, so nothing says "
            f"how much was gained: toasterft eval {base} --data … makes one."
        )
    main = subject.main
    in_order = [*([main] if main else []), *(each for each in subject.answered if each is not main)]
    return {
        "label": subject.label,
        "name": subject.name,
        "about": _about(subject),
        "tiles": [tile for tile in _tiles(subject) if tile.value != NOTHING],
        "warnings": _warnings(subject),
        "parts": [_part(subject, place, RunView(run)) for place, run in enumerate(subject.runs)],
        "standings": [standing(answers) for answers in in_order],
        "gains": subject.gains,
        "no_base": no_base,
        "recipe": recipe_text(subject.recipe),
        "versions": ", ".join(map(" ".join, (subject.runs[0].record.get("versions") or {}).items())),
    }


def _about(subject: Subject) -> str:
    settings = shortened(subject.recipe)
    methods = ", then ".join(str(run.record.get("method")) for run in subject.runs)
    of = f"{methods} of {short_path(subject.last.record.get('model_base') or settings.get('model'))}"
    return ", ".join(
        [f"{of} on {settings['data']}" if settings.get("data") else of, *conditions(subject.recipe)]
    )


def _part(subject: Subject, place: int, view: RunView) -> dict[str, Any]:
    """One run: a training, an evaluation, or a stage of a pipeline."""
    notes = [excerpt(str(note), LONGEST_REMARK) for note in view.record.get("notes") or ()]
    fitted = [f"made to fit: {key}={value}" for key, value in (view.record.get("fitted") or {}).items()]
    return {
        "title": f"Stage {place + 1}: {view.method}" if subject.is_pipeline else "",
        "view": view,
        "command": command(view.recipe),
        "figures": figures(view.run.metrics(), f"{subject.label or 'a'}-{place}"),
        "remarks": [*notes, *fitted],
    }


def _tiles(subject: Subject) -> list[Tile]:
    tiles = []
    if main := subject.main:
        found = standing(main)
        questions = f"{found.n:,} question" + ("" if found.n == 1 else "s")
        beside = [f"{interval(found.headline)} at 95 %", questions]
        tiles.append(Tile("right answers", share(found.headline), beside))
    if gain := main_gain(subject):
        beside = ["points", points_interval(gain.difference)]
        tiles.append(Tile("above the base", points(gain.difference), beside))
        if gain.difference["value"] > 0:
            usd_a_point, time_a_point = point_costs(gain)
            cost, bounds = time_a_point if usd_a_point[0] == NOTHING else usd_a_point
            tiles.append(Tile("cost of a point", cost, [bounds]))
    if len(subject.runs) == 1:
        return [*tiles, *(_taken(one) for one in RunView(subject.runs[0]).took)]
    seconds, usd = total(subject.runs)
    stages = [f"{len(subject.runs)} stages"]
    return [*tiles, Tile("time", duration(seconds), stages), Tile("dollars", dollars(usd), stages)]


def _taken(one: Quantity) -> Tile:
    tested = one.comparable and one.predicted is not None
    return Tile(one.name, one.measured_text, ["predicted", one.predicted_text] if tested else [])


def _warnings(subject: Subject) -> list[str]:
    return [
        f"{run.id if subject.is_pipeline else 'This run'} did not end as planned: {RunView(run).ending}."
        for run in subject.runs
        if run.record.get("status") != "done"
    ]


# --- several runs ----------------------------------------------------------------------------


def _comparison(
    found: Sequence[Subject],
) -> tuple[dict[str, Any] | None, str, list[Answers] | None]:
    """Paired tests of all runs on the questions that all of them answered, or why there are none."""
    if len(found) < 2:
        return None, "", None
    chosen = choose(found)
    if chosen is None:
        silent = " and ".join(subject.label for subject in found if not subject.answered)
        why = f"{silent} answered no questions" if silent else "they have no question in common"
        return None, f"These runs cannot be compared: {why}. Evaluate them on the same data and split.", None
    try:
        return compare.paired(chosen), "", chosen
    except UserError as problem:
        return None, f"These runs cannot be compared: {problem.what}.", None


def _row(subject: Subject, place: int, versus: dict[str, Any] | None) -> dict[str, Any]:
    """A run's line in the table of all runs."""
    seconds, usd = total(subject.runs)
    main = standing(subject.main) if subject.main is not None else None
    return {
        "label": subject.label,
        "name": subject.name,
        "rate": versus["runs"][place]["score"] if versus else main.headline if main else None,
        "asked": main.asked if main else "",
        "time": duration(seconds),
        "usd": dollars(usd),
    }


def _widest(versus: dict[str, Any] | None) -> float:
    """Half the width of the drawing that all pairs' intervals fit in."""
    pairs = versus["pairs"] if versus else []
    bounds = [abs(pair["difference"][name]) for pair in pairs for name in ("low", "high")]
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
