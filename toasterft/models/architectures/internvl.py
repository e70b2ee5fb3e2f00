"""InternVL: the grid of squares nearest in shape and a thumbnail, pixel shuffle, two linears, a Qwen2 decoder."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from toasterft.models.architectures.common import Architecture, Config, decoder, edge_px, linear, section
from toasterft.models.geometry import TiledGeometry, fit_within
from toasterft.models.shape import ModelShape, VisionShape

VISION_DEFAULTS = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 448,
    "patch_size": 14,
    "num_channels": 3,
    "norm_type": "layer_norm",
    "use_absolute_position_embeddings": True,
    "use_mean_pooling": True,
}


def read_shape(config: Config, preprocessor: Config | None) -> ModelShape:
    text_config = section(config, "text_config")
    # Tied unless the outer level denies it; what text_config says is without effect.
    tied = bool(config.get("tie_word_embeddings", True))
    text = decoder(text_config, text_config.get("model_type", "qwen2"), tied=tied)
    vision = _vision(section(config, "vision_config"))
    shuffle = int(1 / config.get("downsample_ratio", 0.5))
    shuffled = vision.hidden * shuffle**2
    projector = 2 * shuffled + linear(shuffled, text.hidden) + linear(text.hidden, text.hidden)

    if preprocessor is None:
        preprocessor = {"size": {"height": vision.image_px}}
    tile_px = preprocessor.get("size", {"height": 384})["height"]
    # `crop_to_patches` is not read: the processor always turns it on, whatever the file says.
    geometry = InternVLGeometry(
        tile_px=tile_px,
        patch_px=vision.patch_px,
        tile_tokens=(tile_px // vision.patch_px) ** 2 // shuffle**2,
        min_tiles=preprocessor.get("min_patches", 1),
        max_tiles=preprocessor.get("max_patches", 12),
    )
    return ModelShape(config["model_type"], text, vision, projector, geometry)


def _vision(config: Config) -> VisionShape:
    get = {**VISION_DEFAULTS, **config}
    hidden, intermediate, layers = get["hidden_size"], get["intermediate_size"], get["num_hidden_layers"]
    image_px, patch_px = edge_px(get["image_size"]), edge_px(get["patch_size"])
    norm = hidden if get["norm_type"] == "rms_norm" else 2 * hidden
    attention = 3 * linear(hidden, hidden, bias=bool(get.get("attention_bias"))) + linear(hidden, hidden)
    query_key_norms = 2 * hidden if get.get("use_qk_norm") else 0
    mlp = linear(hidden, intermediate) + linear(intermediate, hidden)
    layer_scales = 2 * hidden
    class_and_mask = 2 * hidden if get.get("use_mask_token") else hidden
    patches = linear(get["num_channels"] * patch_px**2, hidden)
    places = (image_px // patch_px) ** 2 + 1
    positions = places * hidden if get["use_absolute_position_embeddings"] else 0
    last_norm = 0 if get["use_mean_pooling"] else 2 * hidden
    layer = attention + query_key_norms + mlp + layer_scales + 2 * norm
    return VisionShape(
        layers=layers,
        hidden=hidden,
        intermediate=intermediate,
        heads=get["num_attention_heads"],
        image_px=image_px,
        patch_px=patch_px,
        params=class_and_mask + patches + positions + layers * layer + last_norm,
        scaled_layers=True,
    )


ARCHITECTURES = (
    Architecture(
        model_type="internvl",
        read_shape=read_shape,
        vision="model.vision_tower",
        connector="model.multi_modal_projector",
        text="model.language_model",
        processor="internvl.processing_internvl:InternVLProcessor",
        pil_processor="got_ocr2.image_processing_pil_got_ocr2:GotOcr2ImageProcessorPil",
        image_options={"crop_to_patches": True},
    ),
)


@dataclass(frozen=True, kw_only=True)
class InternVLGeometry(TiledGeometry):
    """Stretch the image onto the grid of squares whose shape is nearest, and add a thumbnail.

    The thumbnail is left out where the grid is a single tile. An image-start and an image-end token
    stand around the features.
    """

    tile_tokens: int
    min_tiles: int = 1
    max_tiles: int = 12

    def grid(self, width_px: int, height_px: int) -> tuple[int, int]:
        """(rows, columns) of the grid, the thumbnail not counted."""
        if self.max_tiles <= 1:
            return 1, 1
        width, height = fit_within(width_px, height_px, self.longest_edge_px)
        aspect = width / height
        grids = _grids(self.min_tiles, self.max_tiles)
        nearest = min(abs(aspect - columns / rows) for rows, columns in grids)
        equal = [grid for grid in grids if abs(aspect - grid[1] / grid[0]) == nearest]
        # Among grids of equally good shape a larger one is taken as long as the image would fill
        # more than half of it.
        filled = [grid for grid in equal if 2 * width * height > self.tile_px**2 * grid[0] * grid[1]]
        return filled[-1] if filled else equal[0]

    def tiles(self, width_px: int, height_px: int) -> int:
        rows, columns = self.grid(width_px, height_px)
        return rows * columns + 1 if rows * columns > 1 else 1

    def feature_tokens(self, width_px: int, height_px: int) -> int:
        return self.tiles(width_px, height_px) * self.tile_tokens

    def image_tokens(self, width_px: int, height_px: int) -> int:
        return self.feature_tokens(width_px, height_px) + 2


@functools.lru_cache
def _grids(fewest: int, most: int) -> tuple[tuple[int, int], ...]:
    """Every (rows, columns) of `fewest` to `most` tiles; by tile count, then narrow ones first."""
    edges = range(1, most + 1)
    grids = [(rows, columns) for columns in edges for rows in edges if fewest <= rows * columns <= most]
    return tuple(sorted(grids, key=lambda grid: grid[0] * grid[1]))
