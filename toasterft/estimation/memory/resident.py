"""Bytes that stay on the GPU for a whole training (weights, gradients, optimizer), and of its checkpoints on disk."""

from __future__ import annotations

from collections.abc import Iterator

from toasterft.estimation import passes
from toasterft.models.architectures import ModelShape, TextShape
from toasterft.recipe import LINEARS, Trained

# Weights per 8-bit scale, and scales per float32 scale of scales. Derived: bitsandbytes, double quantisation.
NF4_BLOCK, NF4_SCALE_BLOCK = 64, 256
# Per matrix: 16 levels, 256 levels of the scales, and their offset, in float32. Derived: its QuantState.
NF4_TABLES_BYTES = 4 * (16 + 256 + 1)

# Entries of an 8-bit optimizer state per float32 scale; the levels of both states, once per optimizer; tensors with
# fewer entries keep float32 states; those with as many can move to host memory where the optimizer is paged (a small
# model's LoRA has none). Derived: bitsandbytes.optim.
STATE_BLOCK = 256
STATE_TABLES_BYTES = 2 * 4 * 256
MIN_8BIT_ENTRIES = 4096
MIN_PAGED_ENTRIES = 100_000

# Linears of a decoder layer, in the order of `TextShape.layer_linears`.
# Bytes of a tokenizer's files per entry of its vocabulary. Measured on SmolVLM's (4.8 MB for 49,280), 2026-11-21.
TOKENIZER_BYTES = 98


def resident(shape: ModelShape, recipe: Trained, width_bytes: int, *, tower: bool) -> dict[str, int]:
    """Bytes that stay on the GPU for a whole training.

    Args:
        tower: with the vision tower, which leaves once every image is encoded.

    Returns:
        `weights` (those that do not learn, or all in full tuning), `adapter` (those that do), `gradients`,
        `optimizer`, and `optimizer_paged`: states that can move to host memory when the GPU is full.
    """
    linears = shape.text.linear_params
    rest = shape.total_params - linears - (0 if tower else shape.vision_params)
    trainable = trainable_params(shape, recipe)
    if recipe.lora is None:
        # Full tuning keeps float32 weights, frozen ones too; autocast does the rest.
        weights, adapter = 4 * (linears + rest), 0
    else:
        if recipe.train_vision:
            rest -= shape.vision_params
        if recipe.train_connector and passes.caches(shape, recipe):
            rest += shape.text.hidden**2  # the zero matrix that the factor stands on
        packed = sum(_nf4_bytes(inputs * outputs) for inputs, outputs in shape.text.layer_linears)
        held = shape.text.layers * packed if recipe.load_in_4bit else linears * width_bytes
        weights, adapter = held + rest * width_bytes, 4 * trainable
    states, paged = _optimizer_bytes(shape, recipe)
    return {
        "weights": weights,
        "adapter": adapter,
        "gradients": 4 * trainable,
        "optimizer": states - paged,
        "optimizer_paged": paged,
    }


def trainable_params(shape: ModelShape, recipe: Trained) -> int:
    """Number of trainable parameters."""
    return sum(count * entries for count, entries, _ in _learned(shape, recipe))


def checkpoint_bytes(shape: ModelShape, recipe: Trained) -> int:
    """Disk for all checkpoints of a run at once, one more than are kept while one is written."""
    saved = trainable_params(shape, recipe) if recipe.lora is not None else shape.total_params
    states, _ = _optimizer_bytes(shape, recipe)
    return (recipe.save_total_limit + 1) * (4 * saved + states + TOKENIZER_BYTES * shape.text.vocab)


def _learned(shape: ModelShape, recipe: Trained) -> Iterator[tuple[int, int, bool]]:
    """(n_tensors, numel, is_embedding) of each group of equal trainable tensors."""
    text, lora = shape.text, recipe.lora
    if lora is not None:
        for inputs, outputs in adapted_linears(text, recipe):
            yield text.layers, lora.r * inputs, False
            yield text.layers, lora.r * outputs, False
        if recipe.train_connector:
            # Behind cached features a square factor; through pixels about as large.
            yield 2, lora.r * text.hidden, False
    else:
        for inputs, outputs in text.layer_linears:
            yield text.layers, inputs * outputs, False
        vectors = text.layer_params - text.linear_params
        yield vectors // text.hidden, text.hidden, False
        yield 1, shape.embedding_params, True
        if shape.lm_head_params:
            yield 1, shape.lm_head_params, False
        if recipe.train_connector:
            yield 1, shape.connector_params, False
    if recipe.train_vision:
        yield shape.vision.layers, shape.vision_params // shape.vision.layers, False


def adapted_linears(text: TextShape, recipe: Trained) -> tuple[tuple[int, int], ...]:
    """(in, out) features of the linears of a layer that get a LoRA."""
    targets = "all-linear" if recipe.lora is None else recipe.lora.target_modules
    pairs = zip(LINEARS, text.layer_linears)
    return tuple(pair for name, pair in pairs if targets == "all-linear" or name in targets)


def _optimizer_bytes(shape: ModelShape, recipe: Trained) -> tuple[int, int]:
    """Bytes of both Adam states, and how many of them can move to host memory."""
    if recipe.optim == "adamw_torch":
        return 8 * trainable_params(shape, recipe), 0
    total, paged = STATE_TABLES_BYTES, 0
    for count, entries, embedding in _learned(shape, recipe):
        # transformers keeps 32-bit states for embeddings.
        small = embedding or entries < MIN_8BIT_ENTRIES
        state, scales = (8 * entries, 0) if small else (2 * entries, 2 * 4 * -(-entries // STATE_BLOCK))
        total += count * (state + scales)
        if recipe.optim == "paged_adamw_8bit" and entries >= MIN_PAGED_ENTRIES:
            paged += count * state
    return total, paged


def _nf4_bytes(entries: int) -> int:
    """One matrix in NF4 with double quantisation (QLoRA, section 3)."""
    scales = -(-entries // NF4_BLOCK)
    return -(-entries // 2) + scales + 4 * -(-scales // NF4_SCALE_BLOCK) + NF4_TABLES_BYTES
