"""The closed form of `estimate/memory.py` beside the replay of `methods/simulate.py`: deviations over a grid.

    OMP_NUM_THREADS=1 python benchmarks/memory_grid.py

324 micro-steps of three full-size models on the `meta` device (about 12 minutes on one CPU core), and a few each of
full tuning, 16-bit LoRA, policy updates, generation and encoding. `all` is the peak, `moment` what of it is alive
for that moment alone: activations, logits and key-value cache, without weights and optimizer states.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from typing import Any

import common

from toasterft import catalog
from toasterft.estimate import memory
from toasterft.estimate.memory import Sequences
from toasterft.methods import simulate
from toasterft.recipe import Lora, Sft
from toasterft.shapes import ModelShape, shape_from_config

# Tokens of one tile, and of the tags and the newline beside it.
TILE_TOKENS = {"SmolVLM-256M": (64, 5), "SmolVLM-500M": (64, 5), "LLaVA-OneVision-0.5B": (729, 1)}
QUESTION_TOKENS = 60
GRID = tuple(itertools.product((1, 5, 13), (1, 2, 8), (64, 256), (True, False), (8, 16, 64)))
KEYS = ("tiles", "batch", "completion_tokens", "checkpointing", "rank")
MOMENT = ("activations", "logits", "kv_cache")
WORST = 5


def main() -> None:
    began = time.monotonic()
    groups = {name: [step(name, **dict(zip(KEYS, row))) for row in GRID] for name in TILE_TOKENS}
    models = ("SmolVLM-256M", "LLaVA-OneVision-0.5B")
    some = [
        {"tiles": 13, "batch": batch, "completion_tokens": 64, "checkpointing": checkpointing}
        for batch in (1, 8)
        for checkpointing in (True, False)
    ]
    whole = {"rank": None, "load_in_4bit": False}
    groups["16-bit LoRA"] = [step(name, load_in_4bit=False, **row) for name in models for row in some]
    groups["full tuning"] = [step(name, **whole, **row) for name in models for row in some]
    groups["full tuning, adamw_torch"] = [
        step(name, optim="adamw_torch", **whole, **row) for name in models for row in some
    ]
    groups["no flash attention"] = [step(name, flash=False, **row) for name in models for row in some[:2]]
    groups["policy update"] = [
        policy(name, groups=prompts, completion_tokens=length, checkpointing=checkpointing)
        for name in models
        for prompts in (1, 4)
        for length in (64, 256)
        for checkpointing in (True, False)
    ]
    groups["generation"] = [
        generation(name, prompts=prompts, generations=generations, top_p=top_p)
        for name in models
        for prompts, generations in ((1, 8), (8, 8), (16, 1))
        for top_p in (1.0, 0.9)
    ]
    groups["encoding"] = [
        encoding(name, tiles) for name in (*TILE_TOKENS, "SmolVLM2-2.2B", "InternVL3-1B") for tiles in (1, 8)
    ]
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    result = {name: summary(rows) for name, rows in groups.items()}
    grid = [row for name in TILE_TOKENS for row in groups[name]]
    common.write("memory_grid", {"grid": summary(grid), "groups": result})


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Worst and median deviation in per cent, and the rows that are furthest off."""
    found: dict[str, Any] = {"count": len(rows)}
    for kind in ("all", "moment"):
        off = [abs(row[kind]) for row in rows]
        found[kind] = {"worst_percent": max(off), "median_percent": round(statistics.median(off), 3)}
    found["furthest"] = sorted(rows, key=lambda row: -abs(row["moment"]))[:WORST]
    return found


def compared(label: dict[str, Any], items: dict[str, int], found: dict[str, Any]) -> dict[str, Any]:
    """Deviation of the closed form's `items` from the replay, in per cent of the replay."""

    def percent(one: int, other: int) -> float:
        return round(100 * (one / other - 1), 3)

    moments = [sum(part.get(name, 0) for name in MOMENT) for part in (items, found)]
    row = {
        **label,
        "peak_bytes": found["peak"],
        "phase": found["phase"],
        "all": percent(sum(items.values()), found["peak"]),
        "moment": percent(*moments),
    }
    print(row, file=sys.stderr, flush=True)
    return row


def shape_of(name: str) -> ModelShape:
    row = catalog.models()[name]
    return shape_from_config(row.config, row.preprocessor)


def step(
    name: str,
    *,
    tiles: int,
    batch: int,
    completion_tokens: int,
    checkpointing: bool,
    rank: int | None = 16,
    load_in_4bit: bool = True,
    optim: str = "paged_adamw_8bit",
    flash: bool = True,
) -> dict[str, Any]:
    features, tags = (tiles * each for each in TILE_TOKENS[name])
    tokens = features + tags + QUESTION_TOKENS + completion_tokens
    settings = {"load_in_4bit": load_in_4bit, "optim": optim}
    recipe = Sft(
        lora=None if rank is None else Lora(r=rank), gradient_checkpointing=checkpointing, **settings
    )
    sequences = Sequences(batch, tokens, batch * completion_tokens, batch * features)
    items = memory.of_step(shape_of(name), recipe, sequences, 2, tower=False, flash=flash)
    found = simulate.peak(
        catalog.models()[name].config, batch=batch, tokens=tokens, image_tokens=features, rank=rank, flash=flash,
        completion_tokens=completion_tokens, checkpointing=checkpointing, **settings,
    )  # fmt: skip
    label = {"model": name, "tiles": tiles, "batch": batch, "completion_tokens": completion_tokens}
    return compared({**label, "checkpointing": checkpointing, "rank": rank}, items, found)


def policy(name: str, *, groups: int, completion_tokens: int, checkpointing: bool) -> dict[str, Any]:
    features, tags = (5 * each for each in TILE_TOKENS[name])
    sizes = {
        "groups": groups, "branches": 8, "prompt_tokens": features + tags + QUESTION_TOKENS,
        "completion_tokens": completion_tokens, "image_tokens": features,
    }  # fmt: skip
    recipe = Sft(gradient_checkpointing=checkpointing)
    items = memory.of_policy_update(shape_of(name), recipe, width_bytes=2, **sizes)
    found = simulate.policy_peak(catalog.models()[name].config, checkpointing=checkpointing, **sizes)
    return compared({"model": name, "checkpointing": checkpointing, **sizes}, items, found)


def generation(name: str, *, prompts: int, generations: int, top_p: float) -> dict[str, Any]:
    features, tags = (5 * each for each in TILE_TOKENS[name])
    sizes = {
        "prompts": prompts, "prompt_tokens": features + tags + QUESTION_TOKENS, "completion_tokens": 256,
        "image_tokens": features, "top_p": top_p,
    }  # fmt: skip
    shape = shape_of(name)
    stays = memory.resident(shape, Sft(), 2, tower=False)
    items = {part: stays[part] for part in ("weights", "adapter")}
    items |= memory.of_generation(shape, rows=prompts * generations, width_bytes=2, **sizes)
    found = simulate.generate_peak(catalog.models()[name].config, generations=generations, **sizes)
    return compared({"model": name, "generations": generations, **sizes}, items, found)


def encoding(name: str, tiles: int) -> dict[str, Any]:
    shape = shape_of(name)
    items = memory.of_encoding(shape, Sft(encode_batch_size=tiles), 2)
    # The replay has the tower and its connector alone.
    items |= {"weights": 2 * (shape.vision_params + shape.connector_params), "adapter": 0}
    found = simulate.encode_peak(catalog.models()[name].config, tiles=tiles)
    return compared({"model": name, "tiles": tiles}, items, found)


if __name__ == "__main__":
    main()
