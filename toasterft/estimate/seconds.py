"""Seconds of a run by phase: FLOPs over a share of the GPU's dense rate."""

from __future__ import annotations

from toasterft.catalog import Gpu
from toasterft.data.survey import Survey
from toasterft.estimate.spread import Spread
from toasterft.recipe import Trained
from toasterft.shapes import ModelShape

# Share of the dense half-precision rate that training reaches (low, likely, high speed). Assumed:
# small models on short sequences are launch-bound; nothing has been measured on CUDA yet.
TRAIN_EFFICIENCY = (0.12, 0.25, 0.40)
ENCODE_EFFICIENCY = (0.20, 0.35, 0.50)
# Seconds to import, load weights and warm up. Assumed.
START_SECONDS = (30.0, 60.0, 120.0)


def encode_flops(shape: ModelShape, patches: float, tiles: float) -> float:
    """Forward pass of tower and connector over one image."""
    per_tile = patches / max(1.0, tiles)
    attention = 4 * patches * per_tile * shape.vision.hidden * shape.vision.layers
    return 2 * patches * shape.vision_params + attention + 2 * tiles * shape.connector_params


def train_flops(shape: ModelShape, recipe: Trained, tokens: float, completion_tokens: float) -> float:
    """Forward, backward and recomputation of one sequence; the head runs on completion tokens alone."""
    layers = 2 * shape.linear_params_text * tokens + 2 * shape.text.layers * tokens**2 * shape.text.heads * (
        shape.text.head_dim
    )
    # Backward through frozen weights needs their input gradient alone; training them needs both.
    passes = 2 + (1 if recipe.gradient_checkpointing else 0) + (1 if recipe.lora is None else 0)
    head = 3 * 2 * shape.embedding_params * completion_tokens
    return layers * passes + head


def of_training(shape: ModelShape, survey: Survey, recipe: Trained, gpu: Gpu, *, seen: int) -> Spread:
    """Start-up, encoding each image once, and every training sequence."""
    rate = gpu.half_tflops * 1e12
    per_row = train_flops(shape, recipe, survey.row_tokens, survey.completion_tokens)
    image = encode_flops(shape, survey.tower_patches, survey.tiles)
    pixels = recipe.train_vision or shape.model_type not in ("idefics3", "smolvlm")
    times = []
    for place in range(3):  # slow, likely, fast
        encoding = image * (seen if pixels else survey.images) / (rate * ENCODE_EFFICIENCY[place])
        training = per_row * seen / (rate * TRAIN_EFFICIENCY[place])
        times.append(START_SECONDS[2 - place] + encoding + training)
    return Spread(times[2], times[1], times[0])
