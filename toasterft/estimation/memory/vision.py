"""Bytes that a pass through the vision tower needs for a moment."""

from __future__ import annotations

from toasterft.estimation import passes
from toasterft.models.architectures import ModelShape

# Edge of a tile where the tower has no size of its own.
UNTILED_PX = 512


def tile_patches(shape: ModelShape) -> int:
    """Patches of one tile."""
    return ((shape.vision.image_px or UNTILED_PX) // shape.vision.patch_px) ** 2


def pixel_bytes(shape: ModelShape, patches: int) -> int:
    """float32 pixels as the processor gives them; Qwen2.5-VL's hold every picture twice, as a film."""
    frames = 2 if shape.model_type == "qwen2_5_vl" else 1
    return 4 * 3 * frames * patches * shape.vision.patch_px**2


def tower_pass(shape: ModelShape, patches: int, width: int, *, norm_bytes: int) -> int:
    """Alive in the MLP of one of a tower's layers; a frozen one keeps nothing for later.

    Args:
        norm_bytes: of a normalised value: 4 under autocast.
    """
    vision = shape.vision
    # The residual before and after attention, their sum so far, and the normalised input.
    vectors = 3 * width + norm_bytes
    if shape.model_type == "internvl":
        vectors += width  # a scaled copy
    if shape.model_type == "llava_onevision":
        vectors += width * (vision.layers - 2)  # it asks for the output of every layer
    # Pixels in the dtype of the weights; Idefics3 makes a mask of them.
    pixels = 3 * width + (1 if shape.model_type in passes.TAKES_FEATURES else 0)
    return patches * (vectors * vision.hidden + mlp_bytes(shape, width) + pixels * vision.patch_px**2)


def mlp_bytes(shape: ModelShape, width: int) -> int:
    """Per patch: hidden values of the MLP before and after their activation; a gated one has them twice."""
    return (4 if shape.vision.gated_mlp else 2) * width * shape.vision.intermediate
