"""Pictures in a run's folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LINES = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple")
# What a memorised, an explored and a solved group are drawn as.
SWITCH = {"memorise": "#d95f02", "explore": "#1b9e77", "solved": "#bdbdbd"}


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


@contextmanager
def _axes(path: Path, unit: str) -> Iterator[Any]:
    """Axes over optimizer steps, saved as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    yield axes
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(unit)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
