"""The plan of a run: memory, time and dollars before it starts.

`memory` counts bytes, `seconds` counts time, and this puts them beside a GPU and a price.
"""

from __future__ import annotations

import datetime
from dataclasses import asdict, dataclass, field
from typing import Any

from toasterft.catalog import Gpu
from toasterft.data.survey import Survey
from toasterft.estimate import memory, seconds
from toasterft.estimate.spread import Spread
from toasterft.recipe import Trained
from toasterft.shapes import ModelShape

__all__ = ["Estimate", "Spread", "of_training"]


@dataclass(frozen=True)
class Estimate:
    """What one run is expected to take on one GPU."""

    gpu: str
    fits: bool
    vram_bytes: dict[str, int]
    """Items of the peak phase, and `peak`."""
    phase: str
    seconds: Spread
    optimizer_steps: int
    disk_bytes: dict[str, int]
    usd: Spread | None
    price: dict[str, Any] | None
    notes: tuple[str, ...] = field(default=())

    def as_json(self) -> dict[str, Any]:
        row = asdict(self)
        phase = row.pop("phase")
        return {**row, "vram_bytes": {**row["vram_bytes"], "phase": phase}, "notes": list(self.notes)}


def of_training(
    shape: ModelShape,
    survey: Survey,
    recipe: Trained,
    gpu: Gpu,
    *,
    price: float | None = None,
    today: datetime.date,
) -> Estimate:
    """A training run on cached features (where the architecture takes them).

    Args:
        price: dollars per hour instead of the catalog's.
    """
    width_bytes = 2
    train = memory.of_training(shape, survey, recipe, width_bytes)
    encode = memory.of_encoding(shape, recipe, width_bytes)
    phase, items = max((("train", train), ("encode", encode)), key=lambda pair: sum(pair[1].values()))
    peak = sum(items.values())
    peak = int(peak * (1 + memory.ALLOCATOR_SLACK)) + memory.CUDA_CONTEXT_BYTES
    rows = max(0, survey.rows - survey.over_max_length)
    per_step = recipe.per_device_train_batch_size * recipe.gradient_accumulation_steps
    steps = (
        recipe.max_steps if recipe.max_steps > 0 else max(1, round(rows * recipe.num_train_epochs / per_step))
    )
    taken = seconds.of_training(shape, survey, recipe, gpu, seen=steps * per_step)
    offer = gpu.default_offer
    stated: dict[str, Any] | None = None
    notes: list[str] = []
    if price is not None:
        stated = {"usd_per_hour": price, "source": "--price", "as_of": None}
    elif offer is not None:
        stated = {
            "usd_per_hour": offer.usd_per_hour,
            "source": f"{offer.provider} ({offer.source})",
            "as_of": offer.as_of,
        }
        flag = offer.flag(today)
        if flag:
            notes.append(f"the price of {gpu.name} is {flag}: check it, or give --price")
    usd = taken.times(stated["usd_per_hour"] / 3600) if stated is not None else None
    return Estimate(
        gpu=gpu.name,
        fits=peak <= gpu.vram_bytes,
        vram_bytes={**items, "cuda_and_slack": peak - sum(items.values()), "peak": peak},
        phase=phase,
        seconds=taken,
        optimizer_steps=steps,
        disk_bytes={
            "feature_cache": int(survey.images * survey.feature_tokens * shape.text.hidden * width_bytes),
            "checkpoints": memory.checkpoint_bytes(shape, recipe),
        },
        usd=usd,
        price=stated,
        notes=tuple(notes),
    )
