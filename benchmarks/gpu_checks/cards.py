"""What cards of some sizes hold, by the estimate and by it corrected with what was measured. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from toasterft.catalog import Gpu
from toasterft.estimation import Plan
from toasterft.estimation.calibration import Calibration

SIZES_GB = (8, 12, 16, 24, 48)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
# What a card is asked to hold: the recipes' own limit, not the few tokens that are written here.
COMPLETION_TOKENS = 256


def held(plan: Plan, gpu: Gpu, measured: Calibration | None, edges_px: Sequence[int]) -> list[dict[str, Any]]:
    """The largest batch of a method that each card size holds, by the estimate and by it corrected with the measured
    peak; 0 where not even one row fits.

    Args:
        plan: a run of the method; without a calibration.
        gpu: the measured card, whose kernels all are taken to have.
    """
    rows = []
    for edge in edges_px:
        peaks = {batch: _peaks(_at(plan, batch, edge), gpu, measured) for batch in BATCHES}
        rows.append(
            {
                "method": plan.recipe.method,
                "image_longest_edge": edge,
                "batch_by_card_gb": {
                    size: {
                        way: largest({batch: each[way] for batch, each in peaks.items()}, size * 10**9)
                        for way in ("estimated", "measured")
                    }
                    for size in SIZES_GB
                },
                "peak_bytes": peaks,
            }
        )
    return rows


def _at(plan: Plan, batch: int, edge: int) -> Plan:
    generations = getattr(plan.recipe, "num_generations", None)
    changes: dict[str, Any] = {
        "image_longest_edge": edge, "max_length": 10**6, "per_device_train_batch_size": batch,
        "max_completion_length": COMPLETION_TOKENS,
    }  # fmt: skip
    if generations is not None:
        changes["gradient_accumulation_steps"] = max(1, generations // batch)
        changes["rollout_batch_size"] = max(generations, batch)
    return plan.changed(changes)


def _peaks(plan: Plan, gpu: Gpu, measured: Calibration | None) -> dict[str, int | None]:
    corrected = None if measured is None else replace(plan, calibration=measured).peak_bytes(gpu)
    return {"estimated": plan.peak_bytes(gpu), "measured": corrected}


def largest(peaks: Mapping[int, int | None], room_bytes: int) -> int | None:
    """The largest batch whose peak fits; 0 where none does, None where peaks are unknown."""
    known = {batch: peak for batch, peak in peaks.items() if peak is not None}
    if not known:
        return None
    return max((batch for batch, peak in known.items() if peak <= room_bytes), default=0)
