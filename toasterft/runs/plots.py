"""Pictures in a run's folder, in a matrix's, and in a report's page."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from toasterft.units import shorten

Point = tuple[float, float]
Rows = Sequence[dict[str, Any]]

COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")
# What became of a prompt group, by its metric: colours that stay apart for the colour-blind and in print.
SWITCH = {"memorise": "memorised", "explore": "explored", "solved": "solved"}
SWITCH_COLOURS = ("#d95f02", "#1b9e77", "#bdbdbd")
# 16-bit (or as trained) and 4-bit weights; light enough for hatches and labels to show, also in print.
WEIGHTS = {False: "#8fb8de", True: "#f2b97f"}
STEP_HATCH, OTHER_HATCHES = "///", ("...", "xxx", "\\\\\\", "ooo", "+++")
# Drawings that lie in a run's folder; a report's page shows all.
FILES = {"Loss": "loss.png", "Reward": "rewards.png", "Switch": "switch.png"}


@dataclass(frozen=True)
class Drawing:
    """What is drawn over a training's steps.

    Attributes:
        unit: what its axis counts.
        lines: (step, value) pairs by name.
        share: values are shares; the axis shows 0 to 100 %.
        stacked: the lines add up to one, and are drawn as bands.
        marked: lines of few points, which are marked.
        note: what must be known to read it.
    """

    title: str
    unit: str
    lines: dict[str, list[Point]]
    share: bool = False
    stacked: bool = False
    marked: tuple[str, ...] = ()
    note: str = ""


def drawings(rows: Rows) -> list[Drawing]:
    """Every drawing that a training's metrics allow."""

    def lines(keys: dict[str, str]) -> dict[str, list[Point]]:
        return {name: points for name, key in keys.items() if (points := _series(rows, key))}

    sampled = any("reward" in row for row in rows)
    rewards = [key for row in rows for key in row if key.startswith("rewards/") and key.endswith("/mean")]
    parts = {key.removeprefix("rewards/").removesuffix("/mean"): key for key in rewards}
    switched = [row for row in rows if all(f"switch/{name}" in row for name in SWITCH)]
    groups = {shown: _series(switched, f"switch/{name}") for name, shown in SWITCH.items() if switched}
    shares = {
        "form kept": "format_rate",
        "cut off": "completions/truncated",
        "groups some right": "groups/some_right",
        "groups all right": "groups/all_right",
    }
    preferred = {"better": "rewards/chosen", "worse": "rewards/rejected"}
    predicted = {} if sampled else lines({"tokens": "mean_token_accuracy"})
    found = [
        _loss(rows, sampled=sampled),
        Drawing("Reward", "mean of a step's samples", lines({"total": "reward"} | parts)),
        Drawing("Switch", "share of prompt groups", groups, share=True, stacked=True),
        Drawing("Length", "tokens of a completion, mean", lines({"tokens": "completions/mean_length"})),
        Drawing("Samples", "share of a step's samples, or groups", lines(shares), share=True),
        Drawing("Preference", "DPO's reward, in nats", lines(preferred)),
        Drawing("Pairs ranked right", "share of pairs", lines({"pairs": "rewards/accuracies"}), share=True),
        Drawing("Tokens predicted", "share of trained tokens", predicted, share=True),
    ]
    return [drawing for drawing in found if drawing.lines]


def _loss(rows: Rows, *, sampled: bool) -> Drawing:
    train = _series([row for row in rows if "eval_loss" not in row], "loss")
    held_out = _series(rows, "eval_loss")
    lines = {"training": train, **({"evaluation": held_out} if held_out else {})} if train else {}
    # Learning from samples or pairs has a loss that measures no distance to a text.
    objective = sampled or any("rewards/chosen" in row for row in rows)
    note = "The objective of learning from samples: it hovers around zero and does not measure progress."
    unit = "objective" if objective else "nats per token"
    return Drawing("Loss", unit, lines, marked=("evaluation",), note=note if sampled else "")


def _series(rows: Rows, key: str) -> list[Point]:
    return [
        (row["step"], row[key])
        for row in rows
        if "step" in row and isinstance(row.get(key), (int, float)) and math.isfinite(row[key])
    ]


def of_run(rows: Rows, folder: Path) -> None:
    """Write the pictures of a run's folder that its metrics allow."""
    for drawing in drawings(rows):
        if drawing.title in FILES:
            _save(drawing, folder / FILES[drawing.title])


def _save(drawing: Drawing, path: Path) -> None:
    with _axes(path, f"{drawing.title.lower()} ({drawing.unit})") as axes:
        _draw(axes, drawing, SWITCH_COLOURS if drawing.stacked else COLOURS)
        if drawing.stacked:
            axes.set_ylim(0, 1)
            axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.12), ncol=3)
        elif len(drawing.lines) > 1:
            axes.legend(frameon=False)


def _draw(axes: Any, drawing: Drawing, colours: Sequence[str], **band: Any) -> None:
    if drawing.stacked:
        steps = [step for step, _ in next(iter(drawing.lines.values()))]
        shares = [[share for _, share in points] for points in drawing.lines.values()]
        if len(steps) == 1:  # one step has no width
            steps, shares = [steps[0] - 0.5, steps[0] + 0.5], [[*each, *each] for each in shares]
        axes.stackplot(steps, shares, labels=drawing.lines, colors=colours[: len(shares)], step="mid", **band)
        axes.set_xlim(min(steps), max(steps))
        return
    for (name, points), colour in zip(drawing.lines.items(), colours):
        marker = "o" if name in drawing.marked or len(points) == 1 else ""
        axes.plot(*zip(*points), color=colour, label=name, linewidth=1.3, marker=marker, markersize=3.5)


def accuracies(found: dict[str, Any], path: Path) -> None:
    """A matrix's headline accuracies with their intervals: a group of bars per model, `step` conditions hatched.

    Args:
        found: as `matrix.table` makes it.
    """
    import matplotlib

    cells = found["cells"]
    models = list(dict.fromkeys(cell["model"] for cell in cells))
    hatches = _hatches(cells)
    sides = list(dict.fromkeys((cell["prompt"], cell["load_in_4bit"]) for cell in cells))
    width = 0.84 / len(sides)
    size = (max(6.0, 1.6 + 0.5 * len(cells)), 4.2)
    with _axes(path, "right answers, % (robust)", about="", size=size) as axes:
        # Hatches are drawn with the edge's colour, and thin.
        with matplotlib.rc_context({"hatch.linewidth": 0.6}):
            for cell in cells:
                middle = models.index(cell["model"]) + width * (
                    sides.index((cell["prompt"], cell["load_in_4bit"])) - (len(sides) - 1) / 2
                )
                _bar(axes, cell, middle, width, hatches[cell["prompt"]])
        axes.set_xticks(range(len(models)), models)
        if max(map(len, models)) * len(models) > 12 * size[0]:
            axes.tick_params("x", rotation=20)
        aside = max(0.5, (4 - len(models)) / 2)  # one model's bars are no walls
        axes.set_xlim(-aside, len(models) - 1 + aside)
        axes.set_ylim(0, 105)
        axes.set_title(
            f"{found['name']}: {found['n']:,} questions, 95 % intervals", fontsize="medium", pad=26
        )
        marks = _marks(hatches, {bool(cell["load_in_4bit"]) for cell in cells})
        axes.legend(
            handles=marks, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncol=len(marks)
        )


def _hatches(cells: Sequence[dict[str, Any]]) -> dict[str, str]:
    """A hatch per prompt condition: none for the first, slanted lines where the model is asked to go step by step."""
    found: dict[str, str] = {}
    for cell in cells:
        if cell["prompt"] not in found:
            others = sum(hatch != STEP_HATCH for hatch in found.values())
            other = OTHER_HATCHES[(others - 1) % len(OTHER_HATCHES)] if others else ""
            found[cell["prompt"]] = STEP_HATCH if cell["asked"]["step"] else other
    return found


def _bar(axes: Any, cell: dict[str, Any], middle: float, width: float, hatch: str) -> None:
    if cell["status"] != "done":
        axes.text(
            middle, 1.5, cell["status"], rotation=90, ha="center", va="bottom", color="grey", fontsize="small"
        )
        return
    rate = cell["eval"]["scores"]["robust"]
    value, low, high = (100 * rate[name] for name in ("value", "low", "high"))
    axes.bar(
        middle,
        value,
        width * 0.94,
        color=WEIGHTS[bool(cell["load_in_4bit"])],
        edgecolor="#333333",
        linewidth=0.7,
        hatch=hatch,
        yerr=[[value - low], [high - value]],
        error_kw={"elinewidth": 1.1, "capsize": 3, "ecolor": "#111111"},
    )
    axes.text(middle, high + 1.5, f"{value:.1f}", ha="center", va="bottom", fontsize="x-small")


def _marks(hatches: dict[str, str], held: set[bool]) -> list[Any]:
    """What the legend shows: prompt conditions, and weights where there are both."""
    from matplotlib.patches import Patch

    marks = [
        Patch(facecolor="white", edgecolor="#333333", hatch=hatch, label=shorten(name, 28))
        for name, hatch in hatches.items()
    ]
    if len(held) > 1:
        marks += [Patch(facecolor=WEIGHTS[one], label="4-bit" if one else "16-bit") for one in (False, True)]
    return marks


@contextmanager
def _axes(
    path: Path, unit: str, *, about: str = "optimizer step", size: tuple[float, float] = (7, 4)
) -> Iterator[Any]:
    """Axes over optimizer steps, or what they are about, saved as a PNG of `size` inches."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=size, layout="constrained")
    yield axes
    axes.set_xlabel(about)
    axes.set_ylabel(unit)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


# --- inside a page: SVG text whose colours are the page's own

# Matplotlib wants colours it can read; the page's style says what they stand for, by day, by night and on paper.
SOFT, FAINT, *PAGE_LINES = [f"#00000{place}" for place in range(1, 9)]
PAGE_COLOURS = {SOFT: "var(--soft)", FAINT: "var(--line)"} | {
    colour: f"var(--line-{place})" for place, colour in enumerate(PAGE_LINES, 1)
}
# More points than this are no longer seen; they are drawn as means of equally many.
PAGE_POINTS = 240
PAGE_TEXT = 9
# What of matplotlib's SVG would fix a size, set a font, style the whole page, or repeat an id in it; and its layout.
_SVG_NOISE = {
    r' (?:width|height)="[\d.]+pt"': "",
    r"<style.*?</style>": "",
    r'<g id="[^"]*"': "<g",
    r"font-family: [^;]*; ": "",
    r"\s+": " ",
    r"> <": "><",
}


def thinned(points: Sequence[Point]) -> tuple[list[Point], int]:
    """At most `PAGE_POINTS` points, and how many each is the mean of."""
    many = max(1, -(-len(points) // PAGE_POINTS))
    parts = [points[start : start + many] for start in range(0, len(points), many)]
    return [(fmean(x for x, _ in part), fmean(y for _, y in part)) for part in parts], many


def svg(drawing: Drawing, salt: str) -> str:
    """A drawing as an SVG element that fills the width it is given, coloured `--line-1` onwards.

    Args:
        drawing: of not more lines than there are colours.
        salt: makes its ids its own among the page's drawings.
    """
    figure, axes = _page_figure(whole=drawing.share)
    thin = {name: thinned(points)[0] for name, points in drawing.lines.items()}
    _draw(axes, replace(drawing, lines=thin), PAGE_LINES, linewidth=0, alpha=0.75)
    return _svg(figure, salt)


def _page_figure(*, whole: bool) -> tuple[Any, Any]:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    figure = Figure(figsize=(4.2, 2.3), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel("optimizer step", color=SOFT, fontsize=PAGE_TEXT)
    axes.grid(axis="y", color=FAINT, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=SOFT, length=0, labelsize=PAGE_TEXT)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    if whole:
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
        axes.set_ylim(0, 1.02)  # a line along the top stays whole
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    return figure, axes


def _svg(figure: Any, salt: str) -> str:
    import io

    import matplotlib

    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    # Text stays text: searched, read aloud, and set in the page's font.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for noise, kept in _SVG_NOISE.items():
        svg = re.sub(noise, kept, svg)
    for colour, variable in PAGE_COLOURS.items():
        svg = svg.replace(colour, variable)
    return svg
