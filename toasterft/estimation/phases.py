"""Which phases a run has, and the bytes of each: `memory`'s sums for what a recipe makes the model do."""

from __future__ import annotations

import math
from dataclasses import replace

from toasterft.data.token_stats import TokenStats
from toasterft.estimation import memory, passes
from toasterft.estimation.passes import Sampling
from toasterft.models.architectures import ModelShape
from toasterft.recipe import Dpo, Eval, Policy, Recipe, Sft, Trained

# What of a training stays on the GPU while the model writes; gradients are dropped after every step.
RESIDENT = ("weights", "adapter", "optimizer", "optimizer_paged")


def of_training(
    shape: ModelShape, stats: TokenStats, held_out: TokenStats | None, recipe: Trained, *, flash: bool
) -> dict[str, dict[str, int]]:
    """`encode` where features are cached, `rollout` where completions are sampled, `train`, and `evaluate`.

    Args:
        held_out: rows that are answered at the end; None where there are none.
        flash: the GPU has flash attention.
    """
    width = _width_bytes(recipe)
    phases = {"encode": memory.of_encoding(shape, recipe, width)} if passes.caches(shape, recipe) else {}
    train = _update_bytes(shape, stats, recipe, width, flash=flash)
    stays = {name: train[name] for name in RESIDENT}
    rollouts = passes.of(shape, stats, recipe).rollouts
    if rollouts is not None:
        phases["rollout"] = stays | _writing_bytes(shape, stats, recipe, rollouts, width)
    phases["train"] = train
    if held_out is not None:
        rows = min(held_out.rows, recipe.per_device_eval_batch_size)
        phases["evaluate"] = stays | _writing_bytes(shape, held_out, recipe, Sampling(rows, rows), width)
    return phases


def _update_bytes(
    shape: ModelShape, stats: TokenStats, recipe: Trained, width: int, *, flash: bool
) -> dict[str, int]:
    """One forward and backward pass, as large as they get."""
    if not isinstance(recipe, Policy | Dpo):
        return memory.of_training(shape, stats, recipe, width, flash=flash)
    largest = passes.of(shape, stats, recipe).longest
    prompt, completion = round(largest.prompt_tokens), round(largest.completion_tokens)
    if passes.caches(shape, recipe):
        return memory.of_policy_update(
            shape,
            recipe,
            groups=largest.prompts,
            branches=largest.branches,
            prompt_tokens=prompt,
            completion_tokens=completion,
            image_tokens=round(stats.images_per_row * stats.feature_tokens),
            width_bytes=width,
            flash=flash,
        )
    # Every completion runs with its own prompt, as rows of a supervised training do.
    rows = recipe.model_copy(
        update={"per_device_train_batch_size": largest.prompts, "max_length": prompt + completion}
    )
    longest = replace(stats, longest_tokens=prompt + completion, completion_tokens=completion)
    return memory.of_training(shape, longest, rows, width, flash=flash)


def of_evaluation(shape: ModelShape, stats: TokenStats, recipe: Eval) -> dict[str, dict[str, int]]:
    """`encode` where features are cached, and `evaluate`."""
    width = _width_bytes(recipe)
    # `memory` knows weights by how a training holds them.
    held = Sft(load_in_4bit=bool(recipe.load_in_4bit), encode_batch_size=recipe.encode_batch_size)
    encode = memory.of_encoding(shape, held, width)
    weights = {"weights": encode["weights"]}
    rows = min(stats.rows, recipe.per_device_eval_batch_size)
    phases = {}
    if passes.caches(shape, recipe):
        phases["encode"] = {name: encode[name] for name in ("weights", "pixels", "activations")}
    phases["evaluate"] = weights | _writing_bytes(shape, stats, recipe, Sampling(rows, rows), width)
    return phases


def _writing_bytes(
    shape: ModelShape, stats: TokenStats, recipe: Trained | Eval, asked: Sampling, width: int
) -> dict[str, int]:
    """Beside what stays: the largest batch that is decoded, or the tower where pictures come as pixels."""
    prompts = asked.at_once // asked.group
    images = prompts * stats.images_per_row
    writing = memory.of_generation(
        shape,
        rows=asked.at_once,
        prompt_tokens=stats.longest_prompt_tokens,
        completion_tokens=recipe.max_completion_length,
        prompts=prompts,
        image_tokens=round(stats.images_per_row * stats.feature_tokens),
        top_p=recipe.top_p if isinstance(recipe, Policy) else 1.0,
        width_bytes=4 if isinstance(recipe, Trained) and recipe.lora is None else width,
    )
    if passes.caches(shape, recipe):
        return writing
    tiles = math.ceil(images * stats.tower_patches / memory.tile_patches(shape))
    encode = memory.of_encoding(shape, Sft(encode_batch_size=max(1, tiles)), width)
    reading = {name: encode[name] for name in ("pixels", "activations")}
    return max(writing, reading, key=lambda items: sum(items.values()))


def _width_bytes(recipe: Recipe) -> int:
    return 4 if recipe.dtype == "float32" else 2


def on_cpu(recipe: Trained | Eval) -> Trained | Eval:
    """`dtype: auto` is float32 on a CPU."""
    return recipe.model_copy(update={"dtype": "float32"}) if recipe.dtype == "auto" else recipe


def in_process(
    phases: dict[str, dict[str, int]], shape: ModelShape, recipe: Trained | Eval
) -> dict[str, dict[str, int]]:
    """Each phase as resident memory of a process without a GPU: the tower stays, libraries count."""
    width = _width_bytes(on_cpu(recipe))
    tower = (shape.vision_params + shape.connector_params) * width
    found = {}
    for name, items in phases.items():
        stays = {} if name == "encode" or not passes.caches(shape, recipe) else {"tower": tower}
        held = sum(items.values()) + sum(stays.values())
        extra = int(held * memory.ALLOCATOR_SLACK) + memory.PROCESS_BYTES
        found[name] = {**items, **stays, "cuda_and_slack": extra}
    return found


def with_slack(phases: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """Each phase with what CUDA and its allocator take on top of the tensors."""
    found = {}
    for name, items in phases.items():
        held = sum(items.values())
        extra = int(held * memory.ALLOCATOR_SLACK) + memory.CUDA_CONTEXT_BYTES
        found[name] = {**items, "cuda_and_slack": extra}
    return found
