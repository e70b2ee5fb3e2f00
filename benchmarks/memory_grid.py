"""The closed form of `estimation/memory` beside the replay of `estimation/simulate`: deviations over a grid.

    OMP_NUM_THREADS=1 python benchmarks/memory_grid.py --rows memory_grid.jsonl --seconds 60

324 micro-steps of three full-size models on the `meta` device, and a few each of full tuning, 16-bit LoRA, policy
updates, generation and encoding: about 15 minutes on one CPU core. `--rows` keeps finished ones, and `--seconds` stops
after a while, so that the whole can be run in pieces; the last piece writes the result. `all` is the peak, `moment`
what of it is alive for that moment alone: activations, logits and key-value cache, without weights and states.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import common

from toasterft import catalog
from toasterft.estimation import memory, simulate
from toasterft.estimation.memory import Sequences
from toasterft.estimation.passes import Pass
from toasterft.models.architectures import ModelShape, shape_from_config
from toasterft.recipe import Lora, Sft

# Tokens of one tile, and of the tags and the newline beside it.
TILE_TOKENS = {"SmolVLM-256M": (64, 5), "SmolVLM-500M": (64, 5), "LLaVA-OneVision-0.5B": (729, 1)}
QUESTION_TOKENS = 60
GRID = tuple(itertools.product((1, 5, 13), (1, 2, 8), (64, 256), (True, False), (8, 16, 64)))
KEYS = ("tiles", "batch", "completion_tokens", "checkpointing", "rank")
MOMENT = ("activations", "logits", "kv_cache")
WORST = 5


Row = dict[str, Any]
MODELS = ("SmolVLM-256M", "LLaVA-OneVision-0.5B")


def cases() -> Iterator[tuple[str, Callable[..., Row], Row]]:
    """(group, function, its arguments) of every comparison."""
    for name in TILE_TOKENS:
        for row in GRID:
            yield name, step, {"name": name, **dict(zip(KEYS, row))}
    for name, batch, checkpointing in itertools.product(MODELS, (1, 8), (True, False)):
        row = {
            "name": name,
            "tiles": 13,
            "batch": batch,
            "completion_tokens": 64,
            "checkpointing": checkpointing,
        }
        full = {**row, "rank": None, "load_in_4bit": False}
        yield "16-bit LoRA", step, {**row, "rank": 16, "load_in_4bit": False}
        yield "full tuning", step, full
        yield "full tuning, adamw_torch", step, {**full, "optim": "adamw_torch"}
        if batch == 1:
            yield "no flash attention", step, {**row, "rank": 16, "flash": False}
    for name, groups, length, checkpointing in itertools.product(MODELS, (1, 4), (64, 256), (True, False)):
        sizes = {"groups": groups, "completion_tokens": length, "checkpointing": checkpointing}
        yield "policy update", policy, {"name": name, **sizes}
    for name, (prompts, generations), top_p in itertools.product(
        MODELS, ((1, 8), (8, 8), (16, 1)), (1.0, 0.9)
    ):
        sizes = {"prompts": prompts, "generations": generations, "top_p": top_p}
        yield "generation", generation, {"name": name, **sizes}
    for name, tiles in itertools.product((*TILE_TOKENS, "SmolVLM2-2.2B", "InternVL3-1B"), (1, 8)):
        yield "encoding", encoding, {"name": name, "tiles": tiles}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--rows", type=Path, help="JSON lines: finished comparisons are read from here, new ones added"
    )
    parser.add_argument("--seconds", type=float, default=math.inf, help="stop after so long")
    given = parser.parse_args()
    began = time.monotonic()
    known: dict[str, Row] = {}
    if given.rows and given.rows.exists():
        lines = map(json.loads, filter(None, given.rows.read_text().split("\n")))
        known = {line["case"]: line["row"] for line in lines}
    groups: dict[str, list[Row]] = {}
    for group, compare, arguments in cases():
        case = f"{group}: {json.dumps(arguments)}"
        if case not in known:
            if time.monotonic() - began > given.seconds:
                print("not finished: run the same command again", file=sys.stderr)
                return
            known[case] = {**arguments, **compare(**arguments)}
            print(known[case], file=sys.stderr, flush=True)
            if given.rows:
                with given.rows.open("a") as file:
                    file.write(json.dumps({"case": case, "row": known[case]}) + "\n")
        groups.setdefault(group, []).append(known[case])
    grid = [row for name in TILE_TOKENS for row in groups[name]]
    summaries = {name: summary(rows) for name, rows in groups.items()}
    common.write("memory_grid", {"grid": summary(grid), "groups": summaries})


def summary(rows: list[Row]) -> dict[str, Any]:
    """Worst and median deviation in per cent, and the rows that are furthest off."""
    found: dict[str, Any] = {"count": len(rows)}
    for kind in ("all", "moment"):
        off = [abs(row[kind]) for row in rows]
        found[kind] = {"worst_percent": max(off), "median_percent": round(statistics.median(off), 3)}
    found["furthest"] = sorted(rows, key=lambda row: -abs(row["moment"]))[:WORST]
    return found


def compared(items: dict[str, int], found: dict[str, Any]) -> Row:
    """Deviation of the closed form's `items` from the replay, in per cent of the replay."""

    def percent(one: int, other: int) -> float:
        return round(100 * (one / other - 1), 3)

    moments = [sum(part.get(name, 0) for name in MOMENT) for part in (items, found)]
    return {
        "peak_bytes": found["peak"],
        "phase": found["phase"],
        "all": percent(sum(items.values()), found["peak"]),
        "moment": percent(*moments),
    }


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
    rank: int | None,
    load_in_4bit: bool = True,
    optim: str = "paged_adamw_8bit",
    flash: bool = True,
) -> Row:
    features, tags = (tiles * each for each in TILE_TOKENS[name])
    tokens = features + tags + QUESTION_TOKENS + completion_tokens
    settings = {"load_in_4bit": load_in_4bit, "optim": optim}
    recipe = Sft(
        lora=None if rank is None else Lora(r=rank), gradient_checkpointing=checkpointing, **settings
    )
    sequences = Sequences(batch, tokens, batch * completion_tokens, batch * features)
    items = memory.of_step(shape_of(name), recipe, sequences, 2, tower=False, flash=flash)
    found = simulate.peak(catalog.models()[name].config, recipe, sequences, flash=flash)
    return compared(items, found)


def policy(name: str, *, groups: int, completion_tokens: int, checkpointing: bool) -> Row:
    features, tags = (5 * each for each in TILE_TOKENS[name])
    one = Pass(groups, 8, features + tags + QUESTION_TOKENS, completion_tokens)
    sequences = Sequences.of(one, groups * features, packed=True)
    recipe = Sft(gradient_checkpointing=checkpointing)
    items = memory.of_step(shape_of(name), recipe, sequences, 2, tower=False)
    return compared(items, simulate.peak(catalog.models()[name].config, recipe, sequences))


def generation(name: str, *, prompts: int, generations: int, top_p: float) -> Row:
    features, tags = (5 * each for each in TILE_TOKENS[name])
    sizes = {
        "prompts": prompts, "prompt_tokens": features + tags + QUESTION_TOKENS, "completion_tokens": 256,
        "image_tokens": features, "top_p": top_p,
    }  # fmt: skip
    shape = shape_of(name)
    stays = memory.resident(shape, Sft(), 2, tower=False)
    items = {part: stays[part] for part in ("weights", "adapter")}
    items |= memory.of_generation(shape, rows=prompts * generations, width_bytes=2, **sizes)
    found = simulate.generate_peak(catalog.models()[name].config, Sft(), generations=generations, **sizes)
    return compared(items, found)


def encoding(name: str, tiles: int) -> Row:
    shape = shape_of(name)
    items = memory.of_encoding(shape, Sft(encode_batch_size=tiles), 2)
    # The replay has the tower and its connector alone.
    items |= {"weights": 2 * (shape.vision_params + shape.connector_params), "adapter": 0}
    found = simulate.encode_peak(catalog.models()[name].config, tiles=tiles)
    return compared(items, found)


if __name__ == "__main__":
    main()
