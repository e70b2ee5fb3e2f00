"""A first closed-form plan: memory, time and dollars of a run, before it starts.

Rough: it adds up weights, adapter, activations and logits, and divides FLOPs by a share of the GPU's
dense rate. Bytes and seconds are arithmetic on a `ModelShape` and a `Survey`; nothing is measured here.
"""

from __future__ import annotations

import datetime
from dataclasses import asdict, dataclass, field
from typing import Any

from toasterft.catalog import Gpu
from toasterft.data.survey import Survey
from toasterft.recipe import Trained
from toasterft.shapes import ModelShape

# Share of the dense half-precision rate that training reaches (low, likely, high speed). Assumed:
# small models on short sequences are launch-bound; nothing has been measured on CUDA yet.
TRAIN_EFFICIENCY = (0.12, 0.25, 0.40)
ENCODE_EFFICIENCY = (0.20, 0.35, 0.50)
# Seconds to import, load weights and warm up. Assumed.
START_SECONDS = (30.0, 60.0, 120.0)
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


@dataclass(frozen=True)
class Spread:
    """Low, likely and high value of one quantity."""

    low: float
    likely: float
    high: float

    def times(self, factor: float) -> Spread:
        return Spread(self.low * factor, self.likely * factor, self.high * factor)


@dataclass(frozen=True)
class Estimate:
    """What one run is expected to take on one GPU."""

    gpu: str
    fits: bool
    vram_bytes: dict[str, int]
    """Items of the peak phase, and `peak`."""
    phase: str
    seconds: Spread
    optimizer_steps: int
    disk_bytes: dict[str, int]
    usd: Spread | None
    price: dict[str, Any] | None
    notes: tuple[str, ...] = field(default=())

    def as_json(self) -> dict[str, Any]:
        row = asdict(self)
        phase = row.pop("phase")
        return {**row, "vram_bytes": {**row["vram_bytes"], "phase": phase}, "notes": list(self.notes)}


def of_training(
    shape: ModelShape,
    survey: Survey,
    recipe: Trained,
    gpu: Gpu,
    *,
    price: float | None = None,
    today: datetime.date,
) -> Estimate:
    """A training run on cached features (where the architecture takes them).

    Args:
        price: dollars per hour instead of the catalog's.
    """
    width_bytes = 2
    train = _training_bytes(shape, survey, recipe, width_bytes)
    encode = _encoding_bytes(shape, recipe, width_bytes)
    phase, items = max((("train", train), ("encode", encode)), key=lambda pair: sum(pair[1].values()))
    peak = sum(items.values())
    peak = int(peak * (1 + ALLOCATOR_SLACK)) + CUDA_CONTEXT_BYTES
    rows = max(0, survey.rows - survey.over_max_length)
    per_step = recipe.per_device_train_batch_size * recipe.gradient_accumulation_steps
    steps = (
        recipe.max_steps if recipe.max_steps > 0 else max(1, round(rows * recipe.num_train_epochs / per_step))
    )
    seconds = _seconds(shape, survey, recipe, gpu, seen=steps * per_step)
    offer = gpu.default_offer
    stated: dict[str, Any] | None = None
    notes: list[str] = []
    if price is not None:
        stated = {"usd_per_hour": price, "source": "--price", "as_of": None}
    elif offer is not None:
        stated = {
            "usd_per_hour": offer.usd_per_hour,
            "source": f"{offer.provider} ({offer.source})",
            "as_of": offer.as_of,
        }
        flag = offer.flag(today)
        if flag:
            notes.append(f"the price of {gpu.name} is {flag}: check it, or give --price")
    usd = seconds.times(stated["usd_per_hour"] / 3600) if stated is not None else None
    return Estimate(
        gpu=gpu.name,
        fits=peak <= gpu.vram_bytes,
        vram_bytes={**items, "cuda_and_slack": peak - sum(items.values()), "peak": peak},
        phase=phase,
        seconds=seconds,
        optimizer_steps=steps,
        disk_bytes={
            "feature_cache": int(survey.images * survey.feature_tokens * shape.text.hidden * width_bytes),
            "checkpoints": _checkpoint_bytes(shape, recipe),
        },
        usd=usd,
        price=stated,
        notes=tuple(notes),
    )


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


def _training_bytes(shape: ModelShape, survey: Survey, recipe: Trained, width_bytes: int) -> dict[str, int]:
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


def _encoding_bytes(shape: ModelShape, recipe: Trained, width_bytes: int) -> dict[str, int]:
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


def _seconds(shape: ModelShape, survey: Survey, recipe: Trained, gpu: Gpu, *, seen: int) -> Spread:
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


def _checkpoint_bytes(shape: ModelShape, recipe: Trained) -> int:
    trainable = _trainable(shape, recipe)
    return (recipe.save_total_limit + 1) * trainable * (4 + 2)
