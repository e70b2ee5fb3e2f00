"""Pictures in a run's folder, in a matrix's, and in a report's page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

LINES = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple")
# What a memorised, an explored and a solved group are drawn as.
SWITCH = {"memorise": "#d95f02", "explore": "#1b9e77", "solved": "#bdbdbd"}
# 16-bit (or as trained) and 4-bit weights; light enough for hatches and labels to show, also in print.
WEIGHTS = {False: "#8fb8de", True: "#f2b97f"}
STEP_HATCH, OTHER_HATCHES = "///", ("...", "xxx", "\\\\\\", "ooo", "+++")


def of_run(rows: list[dict[str, Any]], folder: Path) -> None:
    """Every picture that a run's metrics allow: the loss, rewards over time, the switch over time."""
    loss(rows, folder / "loss.png")
    sampled = [row for row in rows if "reward" in row]
    if not sampled:
        return
    names = [key.split("/")[1] for key in sampled[0] if key.startswith("rewards/") and key.endswith("/mean")]
    lines = {"total": "reward", **{name: f"rewards/{name}/mean" for name in names}}
    over_time(sampled, lines, "reward (mean of a step's samples)", folder / "rewards.png")
    if "switch/memorise" in sampled[0]:
        switch(sampled, folder / "switch.png")


def loss(rows: list[dict[str, Any]], path: Path) -> None:
    """Training and evaluation loss over optimizer steps; nothing where none was logged."""
    train = [row for row in rows if row.get("loss") is not None and "eval_loss" not in row]
    held_out = [(row["step"], row["eval_loss"]) for row in rows if row.get("eval_loss") is not None]
    if not train:
        return
    with _axes(path, "loss (nats per token)") as axes:
        axes.plot(
            [row["step"] for row in train], [row["loss"] for row in train], label="training", linewidth=1.2
        )
        if held_out:
            axes.plot(*zip(*held_out), color="tab:orange", marker="o", markersize=4, label="evaluation")
            axes.legend(frameon=False)


def over_time(rows: list[dict[str, Any]], lines: dict[str, str], unit: str, path: Path) -> None:
    """One line per name, of the metric it stands for."""
    with _axes(path, unit) as axes:
        for (name, key), colour in zip(lines.items(), LINES):
            there = [row for row in rows if row.get(key) is not None]
            axes.plot(
                [row["step"] for row in there],
                [row[key] for row in there],
                color=colour,
                label=name,
                linewidth=1.2,
            )
        axes.legend(frameon=False)


def switch(rows: list[dict[str, Any]], path: Path) -> None:
    """Shares of groups that memorised, explored and were solved, stacked to one."""
    with _axes(path, "share of prompt groups") as axes:
        shares = [[row[f"switch/{name}"] for row in rows] for name in SWITCH]
        axes.stackplot(
            [row["step"] for row in rows],
            shares,
            labels=list(SWITCH),
            colors=list(SWITCH.values()),
            step="mid",
        )
        axes.set_ylim(0, 1)
        axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.12), ncol=3)


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
        Patch(facecolor="white", edgecolor="#333333", hatch=hatch, label=_short(name))
        for name, hatch in hatches.items()
    ]
    if len(held) > 1:
        marks += [Patch(facecolor=WEIGHTS[one], label="4-bit" if one else "16-bit") for one in (False, True)]
    return marks


def _short(text: str, longest: int = 28) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


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

Point = tuple[float, float]


def thinned(points: Sequence[Point]) -> tuple[list[Point], int]:
    """At most `PAGE_POINTS` points, and how many each is the mean of."""
    many = max(1, -(-len(points) // PAGE_POINTS))
    parts = [points[start : start + many] for start in range(0, len(points), many)]
    return [(fmean(x for x, _ in part), fmean(y for _, y in part)) for part in parts], many


def page_lines(
    lines: Sequence[Sequence[Point]], *, salt: str, dotted: Sequence[int] = (), whole: bool = False
) -> str:
    """Lines over optimizer steps as an SVG element, coloured `--line-1` onwards.

    Args:
        lines: (step, value) pairs; not more lines than there are colours.
        salt: makes the drawing's ids its own among the page's drawings.
        dotted: places of lines whose points are marked.
        whole: values are shares; the axis shows 0 to 100 %.
    """
    figure, axes = _page_figure(whole=whole)
    for place, points in enumerate(lines):
        marker = "o" if place in dotted or len(points) == 1 else ""
        axes.plot(*zip(*points), color=PAGE_LINES[place], linewidth=1.3, marker=marker, markersize=3.5)
    return _svg(figure, salt)


def page_shares(steps: Sequence[float], shares: Sequence[Sequence[float]], *, salt: str) -> str:
    """Shares that add up to one, stacked over optimizer steps, as an SVG element coloured `--line-1` onwards."""
    figure, axes = _page_figure(whole=True)
    if len(steps) == 1:  # one step has no width
        steps, shares = [steps[0] - 0.5, steps[0] + 0.5], [[*each, *each] for each in shares]
    axes.stackplot(steps, shares, colors=PAGE_LINES[: len(shares)], step="mid", linewidth=0, alpha=0.75)
    axes.set_xlim(min(steps), max(steps))
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
    """The drawing as an element that fills the width it is given."""
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
