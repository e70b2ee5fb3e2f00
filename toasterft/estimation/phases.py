"""Phases of a run and the bytes of each, from the sums of `memory`."""

from __future__ import annotations

import math

from toasterft.catalog import Gpu
from toasterft.data.token_stats import TokenStats
from toasterft.estimation import memory, passes
from toasterft.estimation.memory import Sequences
from toasterft.estimation.passes import Sampling
from toasterft.models.architectures import ModelShape, architecture
from toasterft.recipe import Eval, Policy, Recipe, Sft, Trained

# GPUs from this compute capability on have flash attention (torch's sdp_utils.cpp).
FLASH_FROM = 8.0
# What of a training stays on the GPU while the model generates; gradients are dropped after every step.
RESIDENT = ("weights", "adapter", "optimizer", "optimizer_paged")

Phases = dict[str, dict[str, int]]


def of_run(
    shape: ModelShape, stats: TokenStats, held_out: TokenStats | None, recipe: Trained | Eval, gpu: Gpu
) -> Phases:
    """Bytes by phase and item, on a GPU with CUDA's context and its allocator's slack, on a CPU of the process.

    The phases are `encode` where features are cached, `rollout` where completions are sampled, `train`, and
    `evaluate`.

    Args:
        held_out: rows that are answered at the end of a training; None where there are none.
    """
    if gpu.is_cpu and recipe.dtype == "auto":  # float32 there
        recipe = recipe.model_copy(update={"dtype": "float32"})
    # The CPU's attention kernel works in blocks as flash attention does.
    flash = gpu.is_cpu or gpu.compute_capability >= FLASH_FROM
    if isinstance(recipe, Eval):
        found = _of_evaluation(shape, stats, recipe)
    else:
        found = _of_training(shape, stats, held_out, recipe, flash=flash)
    for name, items in found.items():
        if gpu.is_cpu and name != "encode" and passes.caches(shape, recipe):
            # Nothing leaves a process: the tower stays.
            items["tower"] = (shape.vision_params + shape.connector_params) * _width_bytes(recipe)
        fixed = memory.PROCESS_BYTES if gpu.is_cpu else memory.CUDA_CONTEXT_BYTES
        items["cuda_and_slack"] = int(sum(items.values()) * memory.ALLOCATOR_SLACK) + fixed
    return found


def _of_training(
    shape: ModelShape, stats: TokenStats, held_out: TokenStats | None, recipe: Trained, *, flash: bool
) -> Phases:
    width, work = _width_bytes(recipe), passes.of(shape, stats, recipe)
    cached = passes.caches(shape, recipe)
    images = work.longest.prompts * stats.images_per_row
    features = stats.images * stats.feature_tokens * shape.text.hidden * width
    train = memory.of_step(
        shape,
        recipe,
        Sequences.of(work.longest, round(images * stats.feature_tokens), packed=passes.caches(shape, recipe)),
        width,
        # Without room for all features the tower stays, to encode some images in every pass.
        tower=passes.cached_share(shape, recipe, features) < 1,
        patches=0 if cached else round(images * stats.tower_patches),
        flash=flash,
    )
    stays = {name: train[name] for name in RESIDENT}
    found = {"encode": _encoding(shape, stats, recipe, width)} if cached else {}
    if work.rollouts is not None:
        found["rollout"] = stays | _generation(shape, stats, recipe, work.rollouts)
    found["train"] = train
    if held_out is not None:
        answers = passes.answering(held_out, recipe)
        found["evaluate"] = stays | _generation(shape, held_out, recipe, answers)
    return found


def _of_evaluation(shape: ModelShape, stats: TokenStats, recipe: Eval) -> Phases:
    # `memory` knows weights by how a training holds them.
    held = Sft(load_in_4bit=bool(recipe.load_in_4bit), encode_batch_size=recipe.encode_batch_size)
    encode = _encoding(shape, stats, held, _width_bytes(recipe))
    del encode["adapter"]
    found = {"encode": encode} if passes.caches(shape, recipe) else {}
    answers = _generation(shape, stats, recipe, passes.answering(stats, recipe))
    return {**found, "evaluate": {"weights": encode["weights"], **answers}}


def _encoding(shape: ModelShape, stats: TokenStats, recipe: Trained, width: int) -> dict[str, int]:
    """Peak of the tower on tiles of several images, or on one image where a pass takes no more."""
    tiles = recipe.encode_batch_size
    if not architecture(shape.model_type).tiles_apart:
        tiles = max(1, math.ceil(stats.tower_patches / memory.tile_patches(shape)))
    return memory.of_encoding(shape, recipe.model_copy(update={"encode_batch_size": tiles}), width)


def _generation(
    shape: ModelShape, stats: TokenStats, recipe: Trained | Eval, sampling: Sampling
) -> dict[str, int]:
    """Bytes beside the resident ones: the largest batch that is decoded, or the tower where images come as pixels."""
    width, prompts = _width_bytes(recipe), sampling.at_once // sampling.group
    decoding = memory.of_generation(
        shape,
        rows=sampling.at_once,
        prompt_tokens=stats.longest_prompt_tokens,
        completion_tokens=recipe.max_completion_length,
        prompts=prompts,
        image_tokens=round(stats.images_per_row * stats.feature_tokens),
        top_p=recipe.top_p if isinstance(recipe, Policy) else 1.0,
        width_bytes=4 if isinstance(recipe, Trained) and recipe.lora is None else width,
    )
    if passes.caches(shape, recipe):
        return decoding
    patches = stats.images_per_row * stats.tower_patches
    tiles = max(1, math.ceil(patches / memory.tile_patches(shape)))
    encode = memory.of_encoding(shape, Sft(encode_batch_size=tiles), width)
    reading = {name: encode[name] for name in ("pixels", "activations")}
    return max(decoding, reading, key=lambda items: sum(items.values()))


def _width_bytes(recipe: Recipe) -> int:
    """Of a number in the compute dtype."""
    return 4 if recipe.dtype == "float32" else 2
