"""Pictures in a run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def loss(rows: list[dict[str, Any]], path: Path) -> None:
    """Training and evaluation loss over optimizer steps, as a PNG; nothing where none was logged."""
    train = [
        (row["step"], row["loss"]) for row in rows if row.get("loss") is not None and "eval_loss" not in row
    ]
    held_out = [(row["step"], row["eval_loss"]) for row in rows if row.get("eval_loss") is not None]
    if not train:
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    axes.plot(*zip(*train), color="tab:blue", linewidth=1.2, label="training")
    if held_out:
        axes.plot(*zip(*held_out), color="tab:orange", marker="o", markersize=4, label="evaluation")
        axes.legend(frameon=False)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss (nats per token)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
