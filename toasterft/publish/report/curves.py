"""What changed during a training, drawn: loss, rewards, the switch, lengths, form."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from toasterft.runs import plots
from toasterft.runs.plots import Point
from toasterft.units import shorten

Rows = Sequence[dict[str, Any]]

SWITCH = {"memorise": "memorised", "explore": "explored", "solved": "solved"}


@dataclass(frozen=True)
class Figure:
    """One drawing.

    Attributes:
        unit: what its axis counts.
        legend: names of its lines or bands, in the order of the page's colours; none for one line.
        said: what it shows in words, from its beginning to its end.
        note: what must be known to read it.
    """

    title: str
    unit: str
    svg: str
    legend: tuple[str, ...]
    said: str
    note: str = ""


def figures(rows: Rows, salt: str) -> list[Figure]:
    """Every drawing that a training's metrics allow.

    Args:
        salt: tells this training's drawings from another's on the page.
    """
    found: list[Figure] = []
    found += _loss(rows, f"{salt}-loss")
    found += _rewards(rows, f"{salt}-rewards")
    found += _switch(rows, f"{salt}-switch")
    found += _lines(
        rows, f"{salt}-lengths", "Length", "tokens of a completion, mean", {"": "completions/mean_length"}
    )
    shares = {
        "form kept": "format_rate",
        "cut off": "completions/truncated",
        "groups some right": "groups/some_right",
        "groups all right": "groups/all_right",
    }
    found += _lines(
        rows, f"{salt}-shares", "Samples", "share of a step's samples, or groups", shares, whole=True
    )
    preferred = {"better": "rewards/chosen", "worse": "rewards/rejected"}
    found += _lines(rows, f"{salt}-preference", "Preference", "DPO's reward, in nats", preferred)
    ranked = {"": "rewards/accuracies"}
    found += _lines(rows, f"{salt}-ranked", "Pairs ranked right", "share of pairs", ranked, whole=True)
    if not any("reward" in row for row in rows):
        right = {"": "mean_token_accuracy"}
        found += _lines(
            rows, f"{salt}-tokens", "Tokens predicted", "share of trained tokens", right, whole=True
        )
    return found


def _series(rows: Rows, key: str) -> list[Point]:
    return [
        (row["step"], row[key])
        for row in rows
        if "step" in row and isinstance(row.get(key), (int, float)) and math.isfinite(row[key])
    ]


def _loss(rows: Rows, salt: str) -> Iterator[Figure]:
    train = _series([row for row in rows if "eval_loss" not in row], "loss")
    held_out = _series(rows, "eval_loss")
    if not train:
        return
    thin, many = plots.thinned(train)
    lines, legend = ([thin, held_out], ("training", "evaluation")) if held_out else ([thin], ())
    drawing = plots.page_lines(lines, salt=salt, dotted=[1])
    # Learning from samples or pairs has a loss that measures no distance to a text.
    if any("reward" in row for row in rows):
        note = (
            "The objective of learning from samples: it hovers around zero, and says little about progress."
        )
        yield Figure("Loss", "objective", drawing, legend, "", _note(note, many))
    else:
        unit = "objective" if any("rewards/chosen" in row for row in rows) else "nats per token"
        yield Figure("Loss", unit, drawing, legend, _said(train), _note("", many))


def _rewards(rows: Rows, salt: str) -> Iterator[Figure]:
    keys = dict.fromkeys(
        key for row in rows for key in row if key.startswith("rewards/") and key.endswith("/mean")
    )
    parts = {key.removeprefix("rewards/").removesuffix("/mean"): key for key in keys}
    return _lines(rows, salt, "Reward", "mean of a step's samples", {"total": "reward", **parts})


def _switch(rows: Rows, salt: str) -> Iterator[Figure]:
    there = [row for row in rows if all(f"switch/{name}" in row for name in SWITCH) and "step" in row]
    if not there:
        return
    bands = [plots.thinned(_series(there, f"switch/{name}")) for name in SWITCH]
    steps = [step for step, _ in bands[0][0]]
    shares = [[share for _, share in band] for band, _ in bands]
    said = ", ".join(
        f"{shown} {_said(_series(there, f'switch/{name}'), whole=True)}" for name, shown in SWITCH.items()
    )
    yield Figure(
        "Switch", "share of prompt groups", plots.page_shares(steps, shares, salt=salt), tuple(SWITCH.values()), said,
        _note("", bands[0][1]),
    )  # fmt: skip


def _lines(
    rows: Rows, salt: str, title: str, unit: str, keys: dict[str, str], *, whole: bool = False
) -> Iterator[Figure]:
    series = {name: points for name, key in keys.items() if (points := _series(rows, key))}
    if not series:
        return
    shown = dict(list(series.items())[: len(plots.PAGE_LINES)])
    thin = [plots.thinned(points) for points in shown.values()]
    said = ", ".join(
        f"{shorten(name)} {_said(points, whole=whole)}".strip() for name, points in shown.items()
    )
    left_out = ", ".join(shorten(name) for name in series if name not in shown)
    yield Figure(
        title, unit, plots.page_lines([points for points, _ in thin], salt=salt, whole=whole),
        tuple(shown) if len(shown) > 1 else (), said,
        _note(f"Not drawn: {left_out}." if left_out else "", thin[0][1]),
    )  # fmt: skip


def _said(points: Sequence[Point], *, whole: bool = False) -> str:
    """Where it began and where it ended, each the mean of a tenth of the points: single steps say little."""
    tenth = max(1, len(points) // 10)
    ends = [fmean(value for _, value in part) for part in (points[:tenth], points[-tenth:])]
    return " → ".join(f"{100 * end:.0f} %" if whole else _figure(end) for end in ends)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) >= 1e-4 else "0"


def _note(note: str, many: int) -> str:
    thin = f"Each point is the mean of {many} logged steps." if many > 1 else ""
    return " ".join(part for part in (note, thin) if part)
