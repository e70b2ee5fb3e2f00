"""Models, GPUs and the feature cache in the terminal."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import Any

from toasterft.catalog import Gpu, Model
from toasterft.models.shape import ModelShape
from toasterft.terminal.output import line, table
from toasterft.units import size


def print_models(models: Iterable[Model], shapes: Mapping[str, ModelShape]) -> None:
    """Catalog names with the sizes that matter to a plan."""
    rows = []
    for row in models:
        shape = shapes[row.name]
        tokens = f"{shape.geometry.image_tokens(800, 557):,} tokens"
        parameters = f"{shape.total_params / 1e6:,.0f} M"
        rows.append([row.name, row.hub_id, shape.model_type, parameters, tokens, row.verified])
    table(["name", "hub id", "architecture", ">parameters", ">800×557 chart", "checked"], rows)


def print_gpus(gpus: Iterable[Gpu]) -> None:
    """Memory, speed and dated price of each."""
    rows, today = [], datetime.date.today()
    for row in gpus:
        offer = row.default_offer
        price = "–" if offer is None else f"${offer.usd_per_hour:.2f}"
        dated = "no offer: give --price" if offer is None else f"{offer.provider}, {offer.as_of or 'undated'}"
        flag = offer.flag(today) if offer is not None and offer.as_of is not None else None
        rows.append([
            row.name, f"{row.vram_gb:.0f} GB", "yes" if row.bf16 else "no", f"{row.half_tflops:.0f}",
            f"{row.bandwidth_gb_s:,.0f} GB/s", price, dated + (f" ({flag})" if flag else ""),
        ])  # fmt: skip
    table(["GPU", ">memory", "bf16", ">TFLOP/s", ">bandwidth", ">$/h", "price from"], rows)


def print_cache(result: dict[str, Any], *, cleared: bool) -> None:
    """Images and bytes by model; or what was freed."""
    if cleared:
        line(f"freed {size(result['freed_bytes'])} in {result['root']}")
        return
    rows = [
        [str(space["about"].get("model")), str(space["about"].get("dtype")), f"{space['entries']:,}",
         size(space["size_bytes"])]
        for space in result["spaces"]
    ]  # fmt: skip
    table(["model", "dtype", ">images", ">size"], rows)
    line(f"in {result['root']}; default limit {size(result['limit_bytes'])}", "dim")
