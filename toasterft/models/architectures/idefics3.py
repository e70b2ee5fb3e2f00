"""Idefics3 and SmolVLM: tiles of the whole image at a fixed long edge, pixel shuffle, one linear, a Llama decoder."""

from __future__ import annotations

from dataclasses import dataclass, replace

from toasterft.models.architectures.common import Architecture, Config, decoder, edge_px, section, siglip
from toasterft.models.geometry import TiledGeometry, ceil_div
from toasterft.models.shape import ModelShape

# The processor never blows an image up beyond this, whatever `longest_edge` says.
MAX_EDGE_PX = 4096
SIGLIP_DEFAULTS = (12, 1152, 3072, 16, 224, 32)


def read_shape(config: Config, preprocessor: Config | None) -> ModelShape:
    text_config = section(config, "text_config")
    # transformers 5 reads the outer key alone; one inside text_config is without effect.
    tied = bool(config.get("tie_word_embeddings", False))
    text = decoder(text_config, text_config.get("model_type", "llama"), tied=tied)
    vision = siglip(section(config, "vision_config"), SIGLIP_DEFAULTS, head=False, masks_pixels=True)
    shuffle = config.get("scale_factor", 2)

    if preprocessor is None:
        tile_px = edge_px(vision.image_px)
        preprocessor = {"max_image_size": {"longest_edge": tile_px}, "size": {"longest_edge": 4 * tile_px}}
    tile_px = preprocessor.get("max_image_size", {"longest_edge": 364})["longest_edge"]
    geometry = IdeficsGeometry(
        tile_px=tile_px,
        patch_px=vision.patch_px,
        tile_tokens=(tile_px // vision.patch_px) ** 2 // shuffle**2,
        longest_edge_px=preprocessor.get("size", {"longest_edge": 4 * 364})["longest_edge"],
        splits=preprocessor.get("do_image_splitting", True),
        resizes=preprocessor.get("do_resize", True),
    )
    connector_params = vision.hidden * shuffle**2 * text.hidden
    return ModelShape(config["model_type"], text, vision, connector_params, geometry)


IDEFICS3 = Architecture(
    model_type="idefics3",
    read_shape=read_shape,
    vision="model.vision_model",
    connector="model.connector",
    text="model.text_model",
    processor="idefics3.processing_idefics3:Idefics3Processor",
    pil_processor="idefics3.image_processing_pil_idefics3:Idefics3ImageProcessorPil",
    image_options={"return_row_col_info": True},
    connector_linear="model.connector.modality_projection.proj",
)
SMOLVLM = replace(
    IDEFICS3,
    model_type="smolvlm",
    processor="smolvlm.processing_smolvlm:SmolVLMProcessor",
    pil_processor="smolvlm.image_processing_pil_smolvlm:SmolVLMImageProcessorPil",
)
ARCHITECTURES = (IDEFICS3, SMOLVLM)


@dataclass(frozen=True, kw_only=True)
class IdeficsGeometry(TiledGeometry):
    """Scale the long edge to `longest_edge_px` (up as well), then cut into squares.

    The grid is followed by a global tile, unless the whole image is one tile. Every tile is announced
    by a fake-image token and a tag; each row ends in a newline, and another one precedes the global tile.

    Attributes:
        tile_tokens: features per tile after pixel shuffling (64 for SmolVLM-256M).
        splits: the processor's `do_image_splitting`; without it every image is one tile.
        resizes: the processor's `do_resize`; without it the image is cut at its own size.
        double_newline_tokens: tokens of two newlines in a row: 1 in SmolVLM's tokenizer, 2 where they do not merge.
        tagged_grid: `<row_R_col_C>` is one token for R and C up to this; longest edges above 6 tiles go beyond.
        spelled_tag_tokens: tokens of a tag outside that grid, its digits not counted (one token each in SmolVLM's
            tokenizer).
    """

    longest_edge_px: int
    tile_tokens: int
    splits: bool = True
    resizes: bool = True
    double_newline_tokens: int = 1
    tagged_grid: int = 6
    spelled_tag_tokens: int = 7

    def grid(self, width_px: int, height_px: int) -> tuple[int, int]:
        """(rows, columns) of tiles besides the global one; (0, 0) where one tile is the whole image."""
        if not self.splits:
            return 0, 0
        width, height = width_px, height_px
        if self.resizes:
            width, height = _along_longest(width, height, self.longest_edge_px)
            # Only the edge that was derived is made even, so an odd setting can flip a square's orientation.
            if width_px >= height_px:
                height = max(1, height + height % 2)
            else:
                width = max(1, width + width % 2)
            if max(width, height) > MAX_EDGE_PX:
                width, height = _along_longest(width, height, MAX_EDGE_PX)
                width, height = max(1, width), max(1, height)
        width, height = _along_longest(
            width, height, ceil_div(max(width, height), self.tile_px) * self.tile_px
        )
        rows, columns = ceil_div(height, self.tile_px), ceil_div(width, self.tile_px)
        return (rows, columns) if rows * columns > 1 else (0, 0)

    def tiles(self, width_px: int, height_px: int) -> int:
        rows, columns = self.grid(width_px, height_px)
        return rows * columns + 1

    def feature_tokens(self, width_px: int, height_px: int) -> int:
        return self.tiles(width_px, height_px) * self.tile_tokens

    def image_tokens(self, width_px: int, height_px: int) -> int:
        rows, columns = self.grid(width_px, height_px)
        features = self.feature_tokens(width_px, height_px)
        fakes = rows * columns + 2
        cells = [(row, column) for row in range(1, rows + 1) for column in range(1, columns + 1)]
        tags = 1 + sum(self._tag_tokens(row, column) for row, column in cells)
        newlines = rows - 1 + self.double_newline_tokens if rows else 0
        return features + fakes + tags + newlines

    def smaller_edges_px(self) -> list[int]:
        edge, found = self.longest_edge_px // 2, []
        while edge >= self.tile_px:
            found.append(edge)
            edge //= 2
        return found

    def _tag_tokens(self, row: int, column: int) -> int:
        if max(row, column) <= self.tagged_grid:
            return 1
        return self.spelled_tag_tokens + len(str(row)) + len(str(column))


def _along_longest(width: int, height: int, longest: int) -> tuple[int, int]:
    """The size with its longest edge set to `longest` and the other one truncated to a whole pixel."""
    aspect = width / height
    if width >= height:
        return longest, int(longest / aspect)
    return int(longest * aspect), longest
