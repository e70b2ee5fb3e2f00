"""Curves of a training's metrics, drawn and described."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from toasterft.runs import plots
from toasterft.runs.plots import Drawing, Point
from toasterft.units import shorten


def figures(rows: Sequence[dict[str, Any]], salt: str) -> list[dict[str, Any]]:
    """Every drawing that a training's metrics allow, for the template.

    Args:
        salt: tells this training's drawings from another's on the page.

    Returns:
        `title`, `unit`, `svg`, `legend` (names in the order of the page's colours; none for one line), `words` (from
        its beginning to its end) and `note` of each.
    """
    return [_figure(drawing, f"{salt}-{place}") for place, drawing in enumerate(plots.drawings(rows))]


def _figure(drawing: Drawing, salt: str) -> dict[str, Any]:
    shown = dict(list(drawing.lines.items())[: len(plots.PAGE_LINES)])
    several = len(shown) > 1
    words = [
        f"{shorten(name) if several else ''} {_ends(points, share=drawing.share)}".strip()
        for name, points in shown.items()
    ]
    left_out = ", ".join(shorten(name) for name in drawing.lines if name not in shown)
    many = max(plots.thinned(points)[1] for points in shown.values())
    notes = [
        drawing.note,
        f"Not drawn: {left_out}." if left_out else "",
        f"Each point is the mean of {many} logged steps." if many > 1 else "",
    ]
    return {
        "title": drawing.title,
        "unit": drawing.unit,
        "svg": plots.svg(replace(drawing, lines=shown), salt),
        "legend": tuple(shown) if several else (),
        "words": "" if drawing.note else ", ".join(words),
        "note": " ".join(filter(None, notes)),
    }


def _ends(points: Sequence[Point], *, share: bool) -> str:
    """Where it began and where it ended, each the mean of a tenth of the points: single steps say little."""
    tenth = max(1, len(points) // 10)
    ends = [fmean(value for _, value in part) for part in (points[:tenth], points[-tenth:])]
    return " → ".join(f"{100 * end:.0f} %" if share else _number(end) for end in ends)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) >= 1e-4 else "0"
