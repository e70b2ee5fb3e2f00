"""The parts of `gpu.py`, done in a worker process that reads one task per line from stdin, as JSON.

A part puts what it finds into the task's answer file as it goes, so that a kill loses only what was under way.
Nothing heavy is imported before an engine is opened: Unsloth has to come before transformers, trl and peft.
"""

from __future__ import annotations

import json
import math
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common

from gpu_checks.task import (
    HELD_OUT_ROWS,
    STEPS,
    TRAIN_ROWS,
    Keep,
    Task,
    examples,
    opened_engine,
    recipe_of,
    session,
)
from toasterft import paths
from toasterft.data import charts
from toasterft.jobs import guards, prepare
from toasterft.jobs.prepare import Job
from toasterft.models import lookup
from toasterft.progress import Silent

# Drawn at 4:3, as charts often are: 13 tiles of 512 px at SmolVLM's default size.
CHART_PX, TINY_CHART_PX = (640, 480), (64, 64)
# Positions at the end of a row whose logits are compared.
COMPARED_LOGITS = 64


def main() -> None:
    for line in sys.stdin:
        given = json.loads(line)
        paths = ("folder", "data", "scratch", "answer", "tokenizer")
        perform(
            Task(**{key: Path(value) if key in paths and value else value for key, value in given.items()})
        )


def perform(task: Task) -> None:
    """Do a part; whatever it raises is written down and ends nothing else."""
    found: dict[str, Any] = {}

    def keep(**more: Any) -> None:
        found.update(more)
        paths.write_json(task.answer, found)

    # Every part starts without features of the one before.
    os.environ["TOASTERFT_CACHE"] = str(task.scratch / f"cache-{task.name}")
    try:
        PARTS[task.kind](task, keep)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        text = "; ".join(error.lines()) if hasattr(error, "lines") else str(error)
        keep(error=f"{type(error).__name__}: {text}"[:600], where=f"{Path(last.filename).name}:{last.lineno}")
    keep(finished=True)


# --- what everything stands on -----------------------------------------------------------------


def describe(task: Task, keep: Keep) -> None:
    """The machine and the commit, as torch sees them."""
    import torch

    found = {"environment": common.environment(), "gpu": None}
    if task.device == "cuda":
        seen = torch.cuda.get_device_properties(0)
        found["gpu"] = {
            "name": seen.name,
            "total_bytes": seen.total_memory,
            "compute_capability": seen.major + seen.minor / 10,
            "cuda": torch.version.cuda,
            "bf16": torch.cuda.is_bf16_supported(including_emulation=False),
        }
        if not torch.zeros(1, device="cuda").is_cuda:
            found["gpu"], found["environment"]["gpu"] = None, "none: what is sent to it stays on the CPU"
    keep(**found)


def build(task: Task, keep: Keep) -> None:
    """The model with random weights, and the charts."""
    if task.model == "tiny":
        common.tiny_smolvlm(task.folder)
    else:
        tokenizer = task.tokenizer or common.generated_tokenizer(task.scratch / "tokenizer")
        # As models are published.
        common.smolvlm(tokenizer, task.folder, task.model, dtype="bfloat16")
    if not task.data.exists():
        rows = TRAIN_ROWS + HELD_OUT_ROWS
        charts.write_dataset(
            task.data, n=rows, seed=0, per_chart=1, splits=(TRAIN_ROWS / rows, HELD_OUT_ROWS / rows, 0.0),
            size_px=TINY_CHART_PX if task.model == "tiny" else CHART_PX,
        )  # fmt: skip
    shape = lookup.resolve(str(task.folder), task.scratch).shape
    tokens = len(paths.read_json(task.folder / "tokenizer.json")["model"]["vocab"])
    keep(
        params=shape.total_params, layers=shape.text.layers, hidden=shape.text.hidden, tokenizer_tokens=tokens
    )


def prepared(task: Task, method: str) -> Job:
    """The run as the command line would plan it."""
    return prepare.prepare_training(
        recipe_of(task, method), task.scratch, out=task.scratch / f"run-{task.name}"
    )


# --- the product's own commands ------------------------------------------------------------------


def train(task: Task, keep: Keep) -> None:
    """A whole run of `toasterft sft`, `grpo --clip-low` or `dyme` in this process: what it promised and what it took."""
    from toasterft.engine import open_engine
    from toasterft.jobs import execute

    planned = prepared(task, task.kind)
    guards.require_ready(planned)
    open_engine(planned.engine)
    from gpu_checks import watching

    with watching.Watched(warm=STEPS[task.kind][1]) as seen:
        done = execute.launch(planned, Silent())
    record, metrics = done.record, done.metrics()
    stats, wanted, plan = planned.stats, planned.recipe, planned.plan
    assert stats is not None
    assert plan is not None
    rows = wanted.per_device_train_batch_size * wanted.gradient_accumulation_steps  # type: ignore[attr-defined]
    losses = [row["loss"] for row in metrics if row.get("loss") is not None]
    sampled = [row["rollout_tokens_per_second"] for row in metrics if "rollout_tokens_per_second" in row]
    lengths = [row["completions/mean_length"] for row in metrics if "completions/mean_length" in row]
    iterations, held_out = getattr(wanted, "num_iterations", 1), plan.held_out_stats
    tokens = sum(lengths) / len(lengths) * rows / iterations if lengths else rows * stats.row_tokens
    keep(
        ran_on=record["engine"],
        machine=record["gpu"],
        losses=losses,
        finite=bool(losses) and all(math.isfinite(value) for value in losses),
        notes=record["notes"],
        rows_per_step=rows,
        images=stats.images + (held_out.images if held_out is not None else 0),
        tiles=stats.tiles,
        row_tokens=stats.row_tokens,
        longest_tokens=stats.longest_tokens,
        step_seconds=seen.clock.step_seconds,
        tokens_per_second=tokens / seen.clock.step_seconds,
        rollout_tokens_per_second=sampled[-1] if sampled else None,
        iterations=iterations,
        phases=record["measured"]["phases"],
        estimate={name: record["estimate"][name] for name in ("gpu", "phase_bytes", "phase_seconds", "pace")},
        allocated_bytes=seen.allocated_bytes,
        outside_bytes=watching.outside_bytes(task.used_bytes),
        four_bit_layers=seen.four_bit_layers,
        optimizer=seen.optimizer,
        checkpointing=seen.checkpointing,
    )


def simulate(task: Task, keep: Keep) -> None:
    """Peak bytes of each phase of all three runs, replayed on the `meta` device."""
    from toasterft.estimation import simulate as replay

    for method in STEPS:
        planned = prepared(task, method)
        assert planned.plan is not None
        found = replay.of_plan(planned.plan, lookup.config_of(planned.model))
        keep(**{method: {phase: row["peak"] for phase, row in found.items()}})


# --- the same numbers on both engines ------------------------------------------------------------


def agree(task: Task, keep: Keep) -> None:
    """Logits of one row: features against pixels, 16 bit against float32, 4 bit against the other engine's."""
    # Unsloth leaves logits out of some passes unless told that they are wanted.
    os.environ["UNSLOTH_RETURN_LOGITS"] = "1"
    engine = opened_engine(task)
    import safetensors.torch
    import torch

    from toasterft.engine.loaded import AGREEMENT

    kept = task.scratch / f"logits-{task.model}.safetensors"
    rows, found = examples(task), {}
    if task.engine == "plain":
        found["float32"] = logits(session(task, engine, load_in_4bit=False, dtype="float32"), rows)
    found["half"] = logits(session(task, engine, load_in_4bit=False), rows)
    four_bit = session(task, engine, load_in_4bit=True)
    found["four_bit"], pixels = logits(four_bit, rows), logits(four_bit, rows, pixels=True)
    dtype = four_bit.loaded.dtype
    keep(
        dtype=str(dtype).removeprefix("torch."),
        tolerance=AGREEMENT[dtype],
        finite=all(bool(torch.isfinite(value).all()) for value in found.values()),
        features_against_pixels=difference(found["four_bit"], pixels),
    )
    if task.engine == "plain":
        safetensors.torch.save_file(found, kept)
        keep(half_against_float32=difference(found["half"], found["float32"]))
    elif kept.exists():
        reference = safetensors.torch.load_file(kept)
        keep(
            half_against_float32=difference(found["half"], reference["float32"]),
            four_bit_against_plain=difference(found["four_bit"], reference["four_bit"]),
        )


def logits(model: Any, rows: list[Any], *, pixels: bool = False) -> Any:
    """[1, positions, vocabulary] in float32 on the CPU: the last ones of the first row, its completion among them."""
    from toasterft.engine.batching import Batcher
    from toasterft.engine.forward import placed

    inputs = Batcher(model.loaded, model.chat, None) if pixels else model.inputs
    batch = inputs.training(rows[:1])
    batch = {name: value.to(model.loaded.device) for name, value in batch.items() if name != "labels"}
    with model.loaded.evaluating() as network:
        return (
            network(**placed(model.loaded, batch), logits_to_keep=COMPARED_LOGITS)
            .logits.float()
            .cpu()
            .contiguous()
        )


def difference(one: Any, other: Any) -> dict[str, float]:
    """Largest and mean difference of logits, relative to the largest logit."""
    apart, scale = (one - other).abs(), other.abs().max().clamp(min=1e-6)
    return {"largest": float(apart.max() / scale), "mean": float(apart.mean() / scale)}


def decode(task: Task, keep: Keep) -> None:
    """Tokens per second of one prompt's completions, in every way to decode that is at hand."""
    engine = opened_engine(task)
    from gpu_checks import decoding

    decoding.compare(task, keep, lambda four_bit: session(task, engine, load_in_4bit=four_bit))


def peer(task: Task, keep: Keep) -> None:
    """TRL's trainers, Unsloth's notebook loop, and vLLM behind Unsloth."""
    opened_engine(task)
    from gpu_checks import peers

    peers.PEERS[task.kind](task, keep)


PARTS: dict[str, Callable[[Task, Keep], None]] = {
    "describe": describe, "build": build, "agree": agree, "sft": train, "grpo": train, "dyme": train,
    "simulate": simulate, "decode": decode, "trl_sft": peer, "trl_grpo": peer, "notebook": peer, "vllm": peer,
}  # fmt: skip
