"""LLaVA-OneVision: the best of a list of canvases and the whole image, a SigLIP tower, two linears, a Qwen2 decoder."""

from __future__ import annotations

import math
from dataclasses import dataclass

from toasterft.errors import ModelError
from toasterft.models.architectures.common import Architecture, Config, decoder, linear, section, siglip
from toasterft.models.geometry import TiledGeometry, ceil_div, fit_within
from toasterft.models.shape import ModelShape, VisionShape

# A feature map that exceeds its budget is only shrunk where it does so by more than this factor (per edge).
SHRINK_ABOVE = 1.1
# The tower where the file has no vision_config, and the defaults of one that leaves keys out.
DEFAULT_TOWER = (26, 1152, 4304, 16, 384, 14)
SIGLIP_DEFAULTS = (12, 768, 3072, 12, 224, 16)


def read_shape(config: Config, preprocessor: Config | None) -> ModelShape:
    text_config = section(config, "text_config")
    tied = bool(config.get("tie_word_embeddings") or text_config.get("tie_word_embeddings"))
    text = decoder(text_config, text_config.get("model_type", "qwen2"), tied=tied)
    if config.get("vision_feature_select_strategy", "full") != "full":
        raise ModelError(
            "vision_feature_select_strategy must be 'full'",
            where="config.json",
            why="the other one drops a class token, which SigLIP towers do not have",
        )
    vision = _vision(config.get("vision_config"))
    taps = config.get("vision_feature_layer", -1)
    inputs = vision.hidden * (1 if isinstance(taps, int) else len(taps))
    bias = config.get("multimodal_projector_bias", True)
    projector = linear(inputs, text.hidden, bias=bias) + linear(text.hidden, text.hidden, bias=bias)
    newline = text.hidden
    geometry = _geometry(config, preprocessor or {"size": {"height": vision.image_px}}, vision.patch_px)
    return ModelShape(config["model_type"], text, vision, projector + newline, geometry)


def _vision(tower: Config | None) -> VisionShape:
    if tower is None:
        return siglip({}, DEFAULT_TOWER, head=False, all_hidden_states=True)
    kind = tower.get("model_type", "siglip_vision_model")
    if kind != "siglip_vision_model":
        raise ModelError(
            f"vision tower {kind!r} is not supported",
            where="config.json: vision_config.model_type",
            why="known vision towers: siglip_vision_model",
        )
    # An unused pooling head is still there, and counted, unless the file switches it off.
    head = tower.get("vision_use_head", True)
    return siglip(tower, SIGLIP_DEFAULTS, head=head, all_hidden_states=True)


def _geometry(config: Config, preprocessor: Config, patch_px: int) -> LlavaOnevisionGeometry:
    size = preprocessor.get("crop_size") or preprocessor.get("size") or {"height": 384}
    default_edges = range(384, 2305, 384)
    canvases = (
        preprocessor.get("image_grid_pinpoints")
        or config.get("image_grid_pinpoints")
        or [(height, width) for height in default_edges for width in default_edges]
    )
    budget = str(config.get("vision_aspect_ratio", "anyres_max_9"))
    return LlavaOnevisionGeometry(
        tile_px=size.get("height") or size["shortest_edge"],
        patch_px=patch_px,
        canvases_px=tuple((height, width) for height, width in canvases),
        budget_tiles=int(budget.removeprefix("anyres_max_")),
    )


ARCHITECTURES = (
    Architecture(
        model_type="llava_onevision",
        read_shape=read_shape,
        vision="model.vision_tower",
        connector="model.multi_modal_projector",
        text="model.language_model",
        processor="llava_onevision.processing_llava_onevision:LlavaOnevisionProcessor",
        pil_processor="llava_onevision.image_processing_pil_llava_onevision:LlavaOnevisionImageProcessorPil",
        takes_features=False,  # what an image gives depends on how many its row has
    ),
)


@dataclass(frozen=True, kw_only=True)
class LlavaOnevisionGeometry(TiledGeometry):
    """Fit the image into the best of a list of canvases, cut that, add the whole image.

    The features of the canvas' padding are dropped again, the rest is shrunk to a budget of
    `budget_tiles` tiles, and every row of features ends in a learned newline vector. Those newlines
    are image features to the model and count as such.

    Attributes:
        canvases_px: (height, width) of each canvas, multiples of `tile_px`.
    """

    canvases_px: tuple[tuple[int, int], ...]
    budget_tiles: int = 9

    def canvas(self, width_px: int, height_px: int) -> tuple[int, int]:
        """(height, width) of the canvas that keeps most of the image's pixels and, then, wastes least."""
        width, height = fit_within(width_px, height_px, self.longest_edge_px)

        def merit(canvas: tuple[int, int]) -> tuple[int, int]:
            scale = min(canvas[1] / width, canvas[0] / height)
            kept = min(int(width * scale) * int(height * scale), width * height)
            return kept, kept - canvas[0] * canvas[1]

        return max(self.canvases_px, key=merit)

    def tiles(self, width_px: int, height_px: int) -> int:
        height, width = self.canvas(width_px, height_px)
        return ceil_div(height, self.tile_px) * ceil_div(width, self.tile_px) + 1

    def feature_tokens(self, width_px: int, height_px: int) -> int:
        width, height = fit_within(width_px, height_px, self.longest_edge_px)
        side = self.tile_px // self.patch_px
        canvas_height, canvas_width = self.canvas(width_px, height_px)
        rows, columns = side * (canvas_height // self.tile_px), side * (canvas_width // self.tile_px)
        # Padding is taken off in equal parts on both sides; an odd remainder of one row or column stays.
        if width / height > columns / rows:
            rows -= (rows - int(round(height * (columns / width), 7))) // 2 * 2
        else:
            columns -= (columns - int(round(width * (rows / height), 7))) // 2 * 2
        excess = math.sqrt(rows * columns / (self.budget_tiles * side**2))
        if excess > SHRINK_ABOVE:
            rows, columns = int(rows // excess), int(columns // excess)
        return side**2 + rows * (columns + 1)
