"""Bytes of a run by phase and item: arithmetic on a `ModelShape`, a `Survey` and a recipe."""

from __future__ import annotations

from toasterft.data.survey import Survey
from toasterft.recipe import Trained
from toasterft.shapes import ModelShape

# CUDA context, cuBLAS workspaces and allocator slack. Assumed: 0.5 GB context, and 10 % slack below.
CUDA_CONTEXT_BYTES = 500_000_000
ALLOCATOR_SLACK = 0.10
# NF4 with double quantisation: half a byte, one 8-bit scale per 64 weights, and one float32 per 256
# scales (QLoRA, section 3).
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
# TRL's chunked loss keeps the logits of this many tokens at a time.
LOGIT_CHUNK_TOKENS = 256
# Tensors alive while one decoder layer is recomputed and differentiated, in multiples of its input.
# Assumed from the layer's structure: norms, q/k/v/o, residuals, and their gradients.
LAYER_LIVE = 16


def _weights_bytes(shape: ModelShape, recipe: Trained, width_bytes: int, *, vision: bool) -> int:
    linears = shape.linear_params_text
    rest = shape.total_params - linears - (0 if vision else shape.vision_params)
    if recipe.lora is None:
        return 4 * (linears + rest)  # full tuning keeps float32 weights
    return int(linears * (NF4_BYTES if recipe.load_in_4bit else width_bytes)) + rest * width_bytes


def _trainable(shape: ModelShape, recipe: Trained) -> int:
    if recipe.lora is not None:
        return shape.lora_params(recipe.lora.r)
    return shape.text_layer_params + shape.embedding_params + shape.lm_head_params


def of_training(shape: ModelShape, survey: Survey, recipe: Trained, width_bytes: int) -> dict[str, int]:
    trainable = _trainable(shape, recipe)
    tokens = recipe.per_device_train_batch_size * min(survey.longest_tokens, recipe.max_length)
    layer_input = tokens * shape.text.hidden * width_bytes
    mlp = 4 * tokens * shape.text.intermediate * width_bytes
    one_layer = LAYER_LIVE * layer_input + mlp
    activations = (
        shape.text.layers * layer_input + one_layer
        if recipe.gradient_checkpointing
        else shape.text.layers * one_layer
    )
    adam_bytes = 8 if recipe.optim == "adamw_torch" else 2
    chunk = min(LOGIT_CHUNK_TOKENS, tokens)
    pixels = recipe.train_vision or shape.model_type not in ("idefics3", "smolvlm")
    return {
        "weights": _weights_bytes(shape, recipe, width_bytes, vision=True),
        "adapter": 4 * trainable if recipe.lora is not None else 0,
        "gradients": 4 * trainable,
        "optimizer": adam_bytes * trainable,
        "activations": activations + (_tower_activations(shape, survey, width_bytes) if pixels else 0),
        "logits": chunk * shape.text.vocab * (width_bytes + 4 + 4),
        "image_features": int(
            recipe.per_device_train_batch_size * survey.feature_tokens * shape.text.hidden * width_bytes
        ),
    }


def of_encoding(shape: ModelShape, recipe: Trained, width_bytes: int) -> dict[str, int]:
    side = shape.vision.image_px or 512
    patches = recipe.encode_batch_size * (side // shape.vision.patch_px) ** 2
    return {
        "weights": _weights_bytes(shape, recipe, width_bytes, vision=True),
        "pixels": recipe.encode_batch_size * 3 * side * side * 4,
        "activations": patches * (6 * shape.vision.hidden + 2 * shape.vision.intermediate) * width_bytes,
    }


def _tower_activations(shape: ModelShape, survey: Survey, width_bytes: int) -> int:
    """Frozen tower run on pixels in every step: one layer's tensors at a time."""
    return int(survey.tower_patches * (6 * shape.vision.hidden + 2 * shape.vision.intermediate) * width_bytes)


def checkpoint_bytes(shape: ModelShape, recipe: Trained) -> int:
    trainable = _trainable(shape, recipe)
    return (recipe.save_total_limit + 1) * trainable * (4 + 2)
