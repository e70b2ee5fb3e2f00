"""Bytes of a run by phase and item: arithmetic on a `ModelShape`, a `TokenStats` and a recipe.

A phase is a dict of items whose sum is the phase's peak. A training step has several moments that can be its
peak (the loss, the last layer's backward pass, the optimizer's step …): each is summed up tensor by tensor,
and the items are those of the highest. Which tensors are alive in it was read off a replay of the real model on
the `meta` device (`methods/simulate/`, 2026-11-21, transformers 5.17, PEFT 0.21, bitsandbytes 0.50, TRL 1.14);
`benchmarks/memory_grid.py` holds these sums to that replay: 324 configurations, 0.3 % apart at worst. Neither has
been held to a CUDA device yet.

    stays       weights, adapter, gradients, optimizer states: `resident`, `checkpoint_bytes`
    step        the moments of a training step: `Sequences`, `of_step`
    tower       a pass through the vision tower

In the formulas: h hidden size, i intermediate size, q and k width of all query and of all key heads.
"""

from __future__ import annotations

from toasterft.data.token_stats import TokenStats
from toasterft.estimation import passes
from toasterft.estimation.memory.resident import (
    NF4_BLOCK,
    NF4_SCALE_BLOCK,
    checkpoint_bytes,
    resident,
    trainable_params,
)
from toasterft.estimation.memory.step import (
    BIAS_ALIGNMENT,
    KEPT_LOGITS_BYTES,
    LOGIT_CHUNK_TOKENS,
    Sequences,
    keys,
    of_step,
    queries,
)
from toasterft.estimation.memory.vision import pixel_bytes, tile_patches, tower_pass
from toasterft.models.architectures import ModelShape
from toasterft.recipe import Trained

__all__ = [
    "ALLOCATOR_SLACK",
    "BIAS_ALIGNMENT",
    "CUDA_CONTEXT_BYTES",
    "KEPT_LOGITS_BYTES",
    "LOGIT_CHUNK_TOKENS",
    "NF4_BLOCK",
    "NF4_SCALE_BLOCK",
    "PROCESS_BYTES",
    "Sequences",
    "checkpoint_bytes",
    "of_encoding",
    "of_generation",
    "of_policy_update",
    "of_step",
    "of_training",
    "resident",
    "tile_patches",
    "trainable_params",
]

# CUDA context and cuBLAS workspaces. Assumed, not measured.
CUDA_CONTEXT_BYTES = 500_000_000
# Python, torch, transformers and what a first step brings in: resident memory of a process whose model is negligible.
# Measured: toast-tiny's sft and grpo on Linux, torch 2.13, 0.59 to 0.64 GB, 2026-11-21.
PROCESS_BYTES = 600_000_000
# What the caching allocator holds beyond what is asked of it, as a share of the tensors. Assumed, not measured.
ALLOCATOR_SLACK = 0.10

# Per score when sampling, beside the logits: a copy and the probabilities; or what top-p sorts, sums up and marks.
# Measured by simulation, 2026-11-21.
SAMPLING_BYTES, TOP_P_BYTES = 8, 26


def of_training(
    shape: ModelShape, stats: TokenStats, recipe: Trained, width_bytes: int, *, flash: bool = True
) -> dict[str, int]:
    """Peak of the training phase, every row as long as the longest.

    Args:
        width_bytes: of the dtype that is computed in: 2, or 4 for float32.
        flash: the GPU has flash attention (compute capability 8.0 and above).
    """
    rows = recipe.per_device_train_batch_size
    images = rows * stats.images_per_row
    sequences = Sequences(
        rows=rows,
        tokens=min(stats.longest_tokens, recipe.max_length),
        head_tokens=round(rows * stats.completion_tokens),
        image_tokens=round(images * stats.feature_tokens),
    )
    if not passes.caches(shape, recipe):
        patches = round(images * stats.tower_patches)
        return of_step(shape, recipe, sequences, width_bytes, tower=True, patches=patches, flash=flash)
    features = stats.images * stats.feature_tokens * shape.text.hidden * width_bytes
    # Without room for all features the tower has to stay, to encode some images in every pass.
    tower = passes.cached_share(shape, recipe, features) < 1
    return of_step(shape, recipe, sequences, width_bytes, tower=tower, flash=flash)


def of_policy_update(
    shape: ModelShape,
    recipe: Trained,
    *,
    groups: int,
    branches: int,
    prompt_tokens: int,
    completion_tokens: int,
    width_bytes: int,
    image_tokens: int = 0,
    flash: bool = True,
) -> dict[str, int]:
    """Peak of an update on packed trees: each of `groups` prompts once, then its `branches` completions.

    Args:
        image_tokens: positions of one prompt that hold image features.
    """
    sequences = Sequences(
        rows=groups,
        tokens=prompt_tokens,
        head_tokens=groups * branches * completion_tokens,
        image_tokens=groups * image_tokens,
        branches=branches,
        branch_tokens=completion_tokens,
    )
    return of_step(shape, recipe, sequences, width_bytes, tower=False, flash=flash)


def of_encoding(shape: ModelShape, recipe: Trained, width_bytes: int) -> dict[str, int]:
    """Peak of the vision tower on `encode_batch_size` tiles, the whole model on the GPU."""
    width = 4 if recipe.lora is None else width_bytes
    held = resident(shape, recipe, width_bytes, tower=True)
    patches = recipe.encode_batch_size * tile_patches(shape)
    return {
        "weights": held["weights"],
        "adapter": held["adapter"],
        "pixels": pixel_bytes(shape, patches),
        "activations": tower_pass(shape, patches, width, norm_bytes=width),
    }


def of_generation(
    shape: ModelShape,
    *,
    rows: int,
    prompt_tokens: int,
    completion_tokens: int,
    width_bytes: int,
    prompts: int | None = None,
    image_tokens: int = 0,
    top_p: float = 1.0,
    flash: bool = True,
) -> dict[str, int]:
    """Peak of writing `rows` completions, beside whatever stays on the GPU (`resident`).

    Args:
        prompt_tokens, completion_tokens: of one row, the longest.
        width_bytes: 4 for a fully tuned model, whose weights are float32.
        prompts: different prompts, each read once; as many as rows when unset. More than one are padded.
        image_tokens: positions of one prompt that hold image features.
    """
    text, width = shape.text, width_bytes
    prompts = rows if prompts is None else prompts
    length = prompt_tokens + completion_tokens
    per_position = 2 * text.layers * keys(text) * width
    features = prompts * image_tokens * text.hidden * width
    # Reading: one layer at a time. A LoRA computes in float32 here, its result beside the scaled one.
    h, i = text.hidden, text.intermediate
    reading = prompts * prompt_tokens * (2 * 4 * i + 2 * width * i + 4 * h + 4 * width * h)
    q, k = queries(text), keys(text)
    # Writing: a longer copy of one layer's keys; with a mask, its keys and values spread over all heads.
    per_key = width * (2 * q if prompts > 1 and k < q else k)
    if prompts > 1:
        reading += prompts * prompt_tokens**2
    elif not flash and k < q:
        # Unfused: scores, with and without the causal mask, and the mask; queries, keys and values, all in float32.
        pairs = prompt_tokens**2 * (2 * 4 * text.heads + 4)
        reading = max(reading, pairs + prompt_tokens * (16 * q + 8 * k + 4 * width * h))
        per_key = 4 * (3 * q + 2 * k)
    writing = rows * length * per_key
    sampling = rows * text.vocab * (width + (TOP_P_BYTES if top_p < 1 else SAMPLING_BYTES))
    read, written = prompts * prompt_tokens * per_position, rows * length * per_position
    moments = ((read, reading, 0), (written, writing, 0), (written, 0, sampling))
    cache, activations, logits = max(moments, key=sum)
    return {"image_features": features, "kv_cache": cache, "activations": activations, "logits": logits}
