"""What a run will take, before it starts, and what would change that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.text import Text

from toasterft.estimation import Estimate
from toasterft.estimation.fit import Change
from toasterft.estimation.suggest import Suggestion
from toasterft.jobs.prepare import Job
from toasterft.terminal.output import empty_table, line, out, pairs, table
from toasterft.units import dollars, duration, ranged_time, ranged_usd, size


def print_plan(job: Job, edges: list[dict[str, Any]]) -> None:
    """What a training run will take, before it starts."""
    stats, planned = job.stats, job.estimate
    assert stats is not None
    assert planned is not None
    out.print()
    out.print(
        Text(f"{job.recipe.method}  ", style="bold cyan")
        + Text(f"{job.model.name}", style="bold")
        + Text(f" on {job.data_name}, {job.target.gpu.name} ({job.target.reason})")
    )
    price = planned.price
    pairs(
        [
            (
                "data",
                f"{stats.rows:,} rows, {stats.images:,} images of {stats.tiles:.1f} tiles; "
                f"{stats.row_tokens:.0f} tokens a row, longest {stats.longest_tokens:,}",
            ),
            ("steps", f"{planned.optimizer_steps:,} optimizer steps"),
            (
                "memory",
                f"{size(planned.vram_bytes['peak'])} of {job.target.gpu.vram_gb:.0f} GB, in phase {planned.phase}"
                + ("" if planned.fits else "  — does not fit"),
            ),
            ("time", ranged_time(planned.seconds)),
            (
                "dollars",
                "no price known: give --price"
                if planned.usd is None or price is None
                else f"{ranged_usd(planned.usd)} at ${price['usd_per_hour']:.2f}/h, {price['source']}"
                + (f", {price['as_of']}" if price["as_of"] else ""),
            ),
            (
                "disk",
                ", ".join(
                    f"{size(value)} {name.replace('_', ' ')}" for name, value in planned.disk_bytes.items()
                ),
            ),
        ]
    )
    items = [
        (name.replace("_", " "), value)
        for name, value in planned.vram_bytes.items()
        if name != "peak" and value
    ]
    out.print(Text("         " + " · ".join(f"{name} {size(value)}" for name, value in items), style="dim"))
    for note in planned.notes:
        out.print(Text(f"! {note}", style="yellow"))
    if stats.over_max_length:
        out.print(
            Text(
                f"! {stats.over_max_length} rows are longer than max_length and would be left out",
                style="yellow",
            )
        )
    print_other_sizes(edges)
    out.print(
        Text("rough closed-form plan; unverified on CUDA. Sizes: ", style="dim")
        + Text(stats.provenance, style="dim")
    )


def print_other_sizes(rows: Sequence[dict[str, Any]]) -> None:
    """The same run at other image sizes."""
    if rows:
        table(
            ["longest edge", ">tiles", ">tokens/row", ">longest", ">memory", ">time", ">dollars"],
            [
                [
                    f"{row['image_longest_edge']} px",
                    f"{row['tiles']:.1f}",
                    f"{row['row_tokens']:.0f}",
                    f"{row['longest_tokens']:,}",
                    size(row["peak_bytes"]),
                    duration(row["seconds"]),
                    dollars(row["usd"]),
                ]
                for row in rows
            ],
        )


def print_changes(ways: Sequence[Change], gpu: str) -> None:
    """What to change when a run does not fit."""
    if not ways:
        return
    out.print()
    line(f"does not fit {gpu}; what would change that (exact keeps the mathematics):", "bold")
    grid = empty_table("kind", "change", ">memory", "")
    for way in ways:
        grid.add_row(
            way.kind,
            way.words(),
            size(way.peak_bytes),
            "✓" if way.fits else "✗",
            style="" if way.fits else "dim",
        )
    out.print(grid)


def print_budget(usd: float, planned: Estimate, offers: Sequence[Suggestion]) -> None:
    """Whether a run is within a sum of money, and what would be."""
    assert planned.usd is not None
    out.print()
    likely = ranged_usd(planned.usd)
    if planned.usd.likely <= usd:
        line(f"within the budget of {dollars(usd)} on {planned.gpu}: {likely}", "bold green")
        if planned.usd.high > usd:
            line("at the slow end of the estimate it is not", "yellow")
        return
    line(f"over the budget of {dollars(usd)} on {planned.gpu}: {likely}", "bold red")
    if not offers:
        line("no single change brings it down to that; --gpu all compares GPUs")
        return
    line("each of these alone is within it:")
    grid = empty_table("less of", "change", ">dollars", ">time", ">memory")
    for offer in offers:
        found = offer.estimate
        change = " ".join(f"{key}={value}" for key, value in offer.changes.items())
        assert found.usd is not None
        grid.add_row(
            offer.what,
            change,
            ranged_usd(found.usd),
            ranged_time(found.seconds),
            size(found.peak_bytes) + ("" if found.fits else " ✗"),
        )
    out.print(grid)


def print_simulation(phases: dict[str, dict[str, Any]]) -> None:
    """The replay beside the closed form, phase by phase."""
    table(
        ["phase", ">replayed", ">closed form", ">difference", "largest parts of the replay"],
        [
            [
                name,
                size(row["simulated_bytes"]),
                size(row["closed_form_bytes"]),
                f"{row['closed_form_bytes'] / row['simulated_bytes'] - 1:+.1%}",
                ", ".join(
                    f"{part.replace('_', ' ')} {size(value)}"
                    for part, value in sorted(row["items_bytes"].items(), key=lambda pair: -pair[1])[:2]
                ),
            ]
            for name, row in phases.items()
        ],
        title="replayed on the meta device (without CUDA's context and slack)",
    )
