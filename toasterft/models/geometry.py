"""Tiles, patches and sequence positions of an image, from its size in pixels.

One class per family, beside the rest of its architecture (`models/architectures/`), all with the methods of
`Geometry`. Sizes are (width, height) in pixels. The numbers are those of one image per sample, as transformers 5.17's
PIL image processors and processors produce them; `tests/unit/test_geometry.py` holds every rule against them.
Floating-point steps keep transformers' order of operations, because a truncation next door to an integer decides
whether an image gets one more row of tiles.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Self


def fit_within(width_px: int, height_px: int, longest_edge_px: int | None) -> tuple[int, int]:
    """The size scaled down to a longest edge of at most `longest_edge_px`; never up.

    Whoever resizes images before the processor must use this function: estimates assume its rounding
    (to the nearest pixel, halves up, at least 1).
    """
    longest = max(width_px, height_px)
    if longest_edge_px is None or longest <= longest_edge_px:
        return width_px, height_px

    def scaled(edge: int) -> int:
        return max(1, (2 * edge * longest_edge_px + longest) // (2 * longest))

    return scaled(width_px), scaled(height_px)


def ceil_div(length: int, step: int) -> int:
    return -(-length // step)


@dataclass(frozen=True, kw_only=True)
class Geometry(ABC):
    """How one family cuts up images.

    Attributes:
        patch_px: edge of a patch of the vision tower.
        longest_edge_px: images are scaled down to it first; None leaves them as they are.
    """

    patch_px: int
    longest_edge_px: int | None = None

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

    def with_longest_edge(self, px: int | None) -> Self:
        """The same family under the recipe's `image_longest_edge`; None leaves it as it is."""
        return self if px is None else replace(self, longest_edge_px=px)

    def smaller_edges_px(self) -> list[int] | None:
        """Values of `image_longest_edge` that give fewer tiles, halving; None where the family scales to no edge."""
        return None


@dataclass(frozen=True, kw_only=True)
class TiledGeometry(Geometry):
    """A family that cuts images into squares of `tile_px`, each encoded on its own."""

    tile_px: int

    def tower_patches(self, width_px: int, height_px: int) -> int:
        return self.tiles(width_px, height_px) * (self.tile_px // self.patch_px) ** 2
