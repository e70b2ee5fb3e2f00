"""Print alternatives to a plan: other image sizes, changes towards a fit or a budget, and the replay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from toasterft.estimation import Estimate
from toasterft.estimation.fit import Change
from toasterft.estimation.suggest import Suggestion
from toasterft.terminal.output import line, table
from toasterft.units import dollars, duration, ranged_time, ranged_usd, size


def largest_parts(items: Mapping[str, int], most: int | None = None) -> str:
    """The largest items of a sum of bytes, without the sum itself and what no one item causes."""
    named = [pair for pair in items.items() if pair[0] not in ("peak", "cuda_and_slack") and pair[1]]
    largest = sorted(named, key=lambda item: -item[1])[:most]
    return ", ".join(f"{name.replace('_', ' ')} {size(value)}" for name, value in largest)


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
    line()
    line(f"does not fit {gpu}; what would change that (exact keeps the mathematics):", "bold")
    table(
        ["kind", "change", ">memory", ""],
        [[way.kind, way.words(), size(way.peak_bytes), "✓" if way.fits else "✗"] for way in ways],
        styles=["" if way.fits else "dim" for way in ways],
    )


def print_budget(usd: float, planned: Estimate, offers: Sequence[Suggestion]) -> None:
    """Whether a run is within a sum of money, and what would be."""
    assert planned.usd is not None
    line()
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
    table(
        ["less of", "change", ">dollars", ">time", ">memory"],
        [_offer(offer.what, offer.changes, offer.estimate) for offer in offers],
    )


def _offer(what: str, changes: Mapping[str, Any], found: Estimate) -> list[str]:
    assert found.usd is not None
    memory = size(found.peak_bytes) + ("" if found.fits else " ✗")
    settings = " ".join(f"{key}={value}" for key, value in changes.items())
    return [what, settings, ranged_usd(found.usd), ranged_time(found.seconds), memory]


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
                largest_parts(row["items_bytes"], most=2),
            ]
            for name, row in phases.items()
        ],
        title="replayed on the meta device (without CUDA's context and slack)",
    )
