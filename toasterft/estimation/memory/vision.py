"""Bytes that a pass through the vision tower needs for a moment."""

from __future__ import annotations

from toasterft.estimation.memory.resident import resident
from toasterft.models.architectures import ModelShape
from toasterft.recipe import Trained

# Edge of a tile where the tower has no size of its own.
UNTILED_PX = 512


def of_encoding(shape: ModelShape, recipe: Trained, width_bytes: int) -> dict[str, int]:
    """Peak of the vision tower on `encode_batch_size` tiles, the whole model on the GPU."""
    held = resident(shape, recipe, width_bytes, tower=True)
    width = 4 if recipe.lora is None else width_bytes
    patches = recipe.encode_batch_size * tile_patches(shape)
    return {
        "weights": held["weights"],
        "adapter": held["adapter"],
        "pixels": pixel_bytes(shape, patches),
        "activations": tower_pass(shape, patches, width, norm_bytes=width),
    }


def tile_patches(shape: ModelShape) -> int:
    """Patches of one tile."""
    return ((shape.vision.image_px or UNTILED_PX) // shape.vision.patch_px) ** 2


def pixel_bytes(shape: ModelShape, patches: int) -> int:
    """float32 pixels as the processor gives them."""
    return 4 * 3 * shape.vision.frames * patches * shape.vision.patch_px**2


def tower_pass(shape: ModelShape, patches: int, width: int, *, norm_bytes: int) -> int:
    """Alive in the MLP of one of a tower's layers; a frozen one keeps nothing for later.

    Args:
        norm_bytes: of a normalised value: 4 under autocast.
    """
    vision = shape.vision
    # The residual before and after attention, their sum so far, and the normalised input; a scaled copy.
    vectors = 3 * width + norm_bytes + width * vision.scaled_layers
    if vision.all_hidden_states:
        vectors += width * (vision.layers - 2)
    # Pixels in the dtype of the weights, and a mask made of them.
    pixels = 3 * width + vision.masks_pixels
    return patches * (vectors * vision.hidden + mlp_bytes(shape, width) + pixels * vision.patch_px**2)


def mlp_bytes(shape: ModelShape, width: int) -> int:
    """Per patch: hidden values of the MLP before and after their activation; a gated one has them twice."""
    return (4 if shape.vision.gated_mlp else 2) * width * shape.vision.intermediate
