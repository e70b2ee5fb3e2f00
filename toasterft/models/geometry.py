"""From an image's size in pixels to what the model sees: tiles, patches, sequence positions.

One class per model family, all with the same methods. Sizes are always (width, height) in pixels.
The numbers are those of one image per sample, as transformers 5.17's PIL image processors and
processors really produce them; `tests/unit/test_geometry.py` holds every rule here against them.
Floating-point steps keep transformers' order of operations, because a truncation next door to an
integer decides whether an image gets one more row of tiles.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

from toasterft.errors import DataError

# Idefics3 and SmolVLM never blow an image up beyond this, whatever `longest_edge` says.
IDEFICS_MAX_EDGE_PX = 4096
# Qwen2-VL's image processor refuses anything narrower.
QWEN_MAX_ASPECT = 200
# LLaVA-OneVision only shrinks a feature map that exceeds its budget by more than this factor (per edge).
LLAVA_SHRINK_ABOVE = 1.1


def fit_within(width_px: int, height_px: int, longest_edge_px: int | None) -> tuple[int, int]:
    """The size after scaling down so that the longest edge is at most `longest_edge_px`; never up.

    Whoever resizes images before the processor must use this function: estimates assume its rounding
    (to the nearest pixel, halves up, at least 1).
    """
    longest = max(width_px, height_px)
    if longest_edge_px is None or longest <= longest_edge_px:
        return width_px, height_px

    def scaled(edge: int) -> int:
        return max(1, (2 * edge * longest_edge_px + longest) // (2 * longest))

    return scaled(width_px), scaled(height_px)


@dataclass(frozen=True)
class Geometry(ABC):
    """How one model family cuts up images."""

    @abstractmethod
    def tiles(self, width_px: int, height_px: int) -> int:
        """Images the vision tower runs on, the global or thumbnail one included."""

    @abstractmethod
    def tower_patches(self, width_px: int, height_px: int) -> int:
        """Patches the vision tower runs on, over all tiles (class tokens not counted)."""

    @abstractmethod
    def feature_tokens(self, width_px: int, height_px: int) -> int:
        """Positions in the language model that are filled with image features."""

    def image_tokens(self, width_px: int, height_px: int) -> int:
        """Positions that replace the prompt's one image placeholder, tags and newlines included."""
        return self.feature_tokens(width_px, height_px)

    @abstractmethod
    def with_longest_edge(self, px: int | None) -> Geometry:
        """The same family under the recipe's `image_longest_edge`; None leaves it as it is."""


@dataclass(frozen=True)
class IdeficsGeometry(Geometry):
    """Idefics3 and SmolVLM: scale the long edge to `longest_edge_px` (up as well), then cut into squares.

    The grid is followed by a global tile, unless the whole image is one tile. Every tile is announced
    by a fake-image token and a tag; each row ends in a newline, and another one precedes the global tile.
    """

    tile_px: int
    patch_px: int
    tile_tokens: int
    """Features per tile after pixel shuffling (64 for SmolVLM-256M)."""
    longest_edge_px: int
    splits: bool = True
    """The processor's `do_image_splitting`; without it every image is one tile."""
    resizes: bool = True
    """The processor's `do_resize`; without it the image is cut at its own size."""
    double_newline_tokens: int = 1
    """Tokens of two newlines in a row: 1 in SmolVLM's tokenizer, 2 where newlines do not merge."""
    tagged_grid: int = 6
    """`<row_R_col_C>` is one token for R and C up to this; longest edges above 6 tiles go beyond."""
    spelled_tag_tokens: int = 7
    """Tokens of a tag outside that grid, its digits not counted (one token each in SmolVLM's tokenizer)."""

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
            if max(width, height) > IDEFICS_MAX_EDGE_PX:
                width, height = _along_longest(width, height, IDEFICS_MAX_EDGE_PX)
                width, height = max(1, width), max(1, height)
        width, height = _along_longest(width, height, _ceil(max(width, height), self.tile_px) * self.tile_px)
        rows, columns = _ceil(height, self.tile_px), _ceil(width, self.tile_px)
        return (rows, columns) if rows * columns > 1 else (0, 0)

    def tiles(self, width_px: int, height_px: int) -> int:
        rows, columns = self.grid(width_px, height_px)
        return rows * columns + 1

    def tower_patches(self, width_px: int, height_px: int) -> int:
        return self.tiles(width_px, height_px) * (self.tile_px // self.patch_px) ** 2

    def feature_tokens(self, width_px: int, height_px: int) -> int:
        return self.tiles(width_px, height_px) * self.tile_tokens

    def image_tokens(self, width_px: int, height_px: int) -> int:
        rows, columns = self.grid(width_px, height_px)
        features = self.feature_tokens(width_px, height_px)
        fakes = rows * columns + 2
        cells = [(row, column) for row in range(1, rows + 1) for column in range(1, columns + 1)]
        tags = 1 + sum(self._tag(row, column) for row, column in cells)
        newlines = rows - 1 + self.double_newline_tokens if rows else 0
        return features + fakes + tags + newlines

    def with_longest_edge(self, px: int | None) -> IdeficsGeometry:
        return self if px is None else replace(self, longest_edge_px=px)

    def _tag(self, row: int, column: int) -> int:
        if max(row, column) <= self.tagged_grid:
            return 1
        return self.spelled_tag_tokens + len(str(row)) + len(str(column))


@dataclass(frozen=True)
class QwenGeometry(Geometry):
    """Qwen2.5-VL: one picture at nearly its own size, in multiples of `merge` patches.

    The vision-start and vision-end tokens stand in the chat template, not in what replaces the
    placeholder, so they are not counted here.
    """

    patch_px: int
    merge: int
    """Patches per edge that the merger joins into one feature."""
    min_pixels: int
    max_pixels: int
    longest_edge_px: int | None = None

    def patches(self, width_px: int, height_px: int) -> int:
        """Patches of the resized image.

        Raises:
            DataError: an aspect ratio above 200, which the image processor refuses.
        """
        width, height = fit_within(width_px, height_px, self.longest_edge_px)
        if max(width, height) / min(width, height) > QWEN_MAX_ASPECT:
            raise DataError(
                f"an image of {width} × {height} px is too narrow for Qwen2.5-VL",
                why=f"its image processor refuses aspect ratios above {QWEN_MAX_ASPECT}",
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

    def tiles(self, width_px: int, height_px: int) -> int:
        return 1

    def tower_patches(self, width_px: int, height_px: int) -> int:
        return self.patches(width_px, height_px)

    def feature_tokens(self, width_px: int, height_px: int) -> int:
        return self.patches(width_px, height_px) // self.merge**2

    def with_longest_edge(self, px: int | None) -> QwenGeometry:
        return self if px is None else replace(self, longest_edge_px=px)


@dataclass(frozen=True)
class InternVLGeometry(Geometry):
    """InternVL: stretch the image onto the grid of squares whose shape is nearest, and add a thumbnail.

    The thumbnail is left out where the grid is a single tile. An image-start and an image-end token
    stand around the features.
    """

    tile_px: int
    patch_px: int
    tile_tokens: int
    min_tiles: int = 1
    max_tiles: int = 12
    longest_edge_px: int | None = None

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

    def tower_patches(self, width_px: int, height_px: int) -> int:
        return self.tiles(width_px, height_px) * (self.tile_px // self.patch_px) ** 2

    def feature_tokens(self, width_px: int, height_px: int) -> int:
        return self.tiles(width_px, height_px) * self.tile_tokens

    def image_tokens(self, width_px: int, height_px: int) -> int:
        return self.feature_tokens(width_px, height_px) + 2

    def with_longest_edge(self, px: int | None) -> InternVLGeometry:
        return self if px is None else replace(self, longest_edge_px=px)


@dataclass(frozen=True)
class LlavaOnevisionGeometry(Geometry):
    """LLaVA-OneVision: fit the image into the best of a list of canvases, cut that, add the whole image.

    The features of the canvas' padding are dropped again, the rest is shrunk to a budget of
    `budget_tiles` tiles, and every row of features ends in a learned newline vector. Those newlines
    are image features to the model and count as such.
    """

    tile_px: int
    patch_px: int
    canvases_px: tuple[tuple[int, int], ...]
    """(height, width) of each canvas, multiples of `tile_px`."""
    budget_tiles: int = 9
    longest_edge_px: int | None = None

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
        return _ceil(height, self.tile_px) * _ceil(width, self.tile_px) + 1

    def tower_patches(self, width_px: int, height_px: int) -> int:
        return self.tiles(width_px, height_px) * (self.tile_px // self.patch_px) ** 2

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
        if excess > LLAVA_SHRINK_ABOVE:
            rows, columns = int(rows // excess), int(columns // excess)
        return side**2 + rows * (columns + 1)

    def with_longest_edge(self, px: int | None) -> LlavaOnevisionGeometry:
        return self if px is None else replace(self, longest_edge_px=px)


def _ceil(length: int, step: int) -> int:
    return -(-length // step)


def _along_longest(width: int, height: int, longest: int) -> tuple[int, int]:
    """The size with its longest edge set to `longest` and the other one truncated to a whole pixel."""
    aspect = width / height
    if width >= height:
        return longest, int(longest / aspect)
    return int(longest * aspect), longest


@functools.lru_cache
def _grids(fewest: int, most: int) -> tuple[tuple[int, int], ...]:
    """Every (rows, columns) of `fewest` to `most` tiles; by tile count, then narrow ones first."""
    edges = range(1, most + 1)
    grids = [(rows, columns) for columns in edges for rows in edges if fewest <= rows * columns <= most]
    return tuple(sorted(grids, key=lambda grid: grid[0] * grid[1]))
