"""Qwen2.5-VL: one picture at nearly its own size, windowed attention in the tower, three-axis positions."""

from __future__ import annotations

import math
from dataclasses import dataclass

from toasterft.errors import DataError
from toasterft.models.architectures.common import Architecture, Config, decoder, edge_px, linear, section
from toasterft.models.geometry import Geometry, fit_within
from toasterft.models.shape import ModelShape, VisionShape

# The image processor refuses anything narrower.
MAX_ASPECT = 200
TEXT_DEFAULTS = (80, 8192, 29568, 64, 8, 152064, 32768)
VISION_DEFAULTS = {
    "depth": 32,
    "hidden_size": 3584,
    "intermediate_size": 3420,
    "in_channels": 3,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "out_hidden_size": 3584,
}


def read_shape(config: Config, preprocessor: Config | None) -> ModelShape:
    # The hub's files of this family keep the language model's keys on the outer level.
    text_config = config["text_config"] if isinstance(config.get("text_config"), dict) else config
    tied = bool(config.get("tie_word_embeddings") or text_config.get("tie_word_embeddings"))
    # The decoder derives the head size even where a file states one.
    text = decoder({**text_config, "head_dim": None}, "qwen2", tied=tied, defaults=TEXT_DEFAULTS)

    get = {**VISION_DEFAULTS, **section(config, "vision_config")}
    layers, hidden, intermediate = get["depth"], get["hidden_size"], get["intermediate_size"]
    patch_px, merge = edge_px(get["patch_size"]), get["spatial_merge_size"]
    attention = linear(hidden, 3 * hidden) + linear(hidden, hidden)
    mlp = 2 * linear(hidden, intermediate) + linear(intermediate, hidden)
    patches = get["in_channels"] * get["temporal_patch_size"] * patch_px**2 * hidden
    vision = VisionShape(
        layers=layers,
        hidden=hidden,
        intermediate=intermediate,
        heads=get.get("num_heads", get.get("num_attention_heads", 16)),
        image_px=None,
        patch_px=patch_px,
        params=patches + layers * (attention + mlp + 2 * hidden),
        gated_mlp=True,
        frames=2,
    )
    merged = hidden * merge**2
    merger = hidden + linear(merged, merged) + linear(merged, get["out_hidden_size"])

    found = preprocessor or {}
    # In this family `size` holds areas, and the older min_pixels/max_pixels win over it.
    area = {"shortest_edge": 56**2, "longest_edge": 1280 * 28**2, **(found.get("size") or {})}
    if preprocessor is None:
        area["longest_edge"] = 16384 * 28**2
    geometry = QwenGeometry(
        patch_px=found.get("patch_size", patch_px),
        merge=found.get("merge_size", merge),
        min_pixels=found.get("min_pixels") or area["shortest_edge"],
        max_pixels=found.get("max_pixels") or area["longest_edge"],
    )
    return ModelShape(config["model_type"], text, vision, merger, geometry)


ARCHITECTURES = (
    Architecture(
        model_type="qwen2_5_vl",
        read_shape=read_shape,
        vision="model.visual",
        connector="model.visual.merger",
        text="model.language_model",
        processor="qwen2_5_vl.processing_qwen2_5_vl:Qwen2_5_VLProcessor",
        pil_processor="qwen2_vl.image_processing_pil_qwen2_vl:Qwen2VLImageProcessorPil",
        max_aspect=MAX_ASPECT,
        tiles_apart=False,
    ),
)


@dataclass(frozen=True, kw_only=True)
class QwenGeometry(Geometry):
    """One picture at nearly its own size, in multiples of `merge` patches per edge.

    The vision-start and vision-end tokens stand in the chat template, not in what replaces the
    placeholder, so they are not counted here.

    Attributes:
        merge: patches per edge that the merger joins into one feature.
    """

    merge: int
    min_pixels: int
    max_pixels: int

    def tiles(self, width_px: int, height_px: int) -> int:
        return 1

    def tower_patches(self, width_px: int, height_px: int) -> int:
        """Patches of the resized image.

        Raises:
            DataError: an aspect ratio above 200, which the image processor refuses.
        """
        width, height = fit_within(width_px, height_px, self.longest_edge_px)
        if max(width, height) / min(width, height) > MAX_ASPECT:
            raise DataError(
                f"an image of {width} × {height} px is too narrow for Qwen2.5-VL",
                why=f"its image processor refuses aspect ratios above {MAX_ASPECT}",
                next_step="leave the image out, or pad it",
            )
        unit = self.patch_px * self.merge
        columns, rows = round(width / unit), round(height / unit)
        if columns * rows * unit**2 > self.max_pixels:
            shrink = math.sqrt(width * height / self.max_pixels)
            columns, rows = (max(1, math.floor(edge / shrink / unit)) for edge in (width, height))
        elif columns * rows * unit**2 < self.min_pixels:
            grow = math.sqrt(self.min_pixels / (width * height))
            columns, rows = (math.ceil(edge * grow / unit) for edge in (width, height))
        return columns * rows * self.merge**2

    def feature_tokens(self, width_px: int, height_px: int) -> int:
        return self.tower_patches(width_px, height_px) // self.merge**2
