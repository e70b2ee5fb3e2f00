"""The sheet a chart is drawn on, and the few strokes that the parts share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageDraw

from toasterft.data.charts import text
from toasterft.data.charts.layout import Layout
from toasterft.data.charts.spec import Chart, format_value
from toasterft.data.charts.style import HATCHES, Colour, Theme

Corners = tuple[int, int, int, int]  # left, top, right, bottom in pixels, all inside

_AROUND = tuple((dx, dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1) if dx or dy)
_TILE_PX = 6  # a hatch repeats after this many pixels


@dataclass(frozen=True)
class Canvas:
    """A chart, its layout and the image being drawn."""

    chart: Chart
    layout: Layout
    theme: Theme
    image: Image.Image
    pen: ImageDraw.ImageDraw

    def words(
        self,
        words: str,
        x: int,
        top: int,
        anchor: str,
        size_px: int = 0,
        ink: Colour | None = None,
        halo: bool = False,
    ) -> None:
        """Write with the line's top at `top`.

        `anchor` says what `x` is to the words: "start", "middle" or "end". A halo in the page's
        colour keeps gridlines and chart lines off them.
        """
        size = size_px or self.layout.font_px
        width = text.width_px(words, size)
        left = x - {"start": 0, "middle": width // 2, "end": width}[anchor]
        # Words at the rim are pushed back inside rather than cut off.
        left = max(0, min(left, self.image.width - width))
        mask = text.mask(words, size)
        if halo:
            for dx, dy in _AROUND:
                self.image.paste(self.theme.page, (left + dx, top + dy), mask)
        self.image.paste(ink or self.theme.ink, (left, top), mask)

    def centred(
        self, words: str, x: int, middle: int, anchor: str, ink: Colour | None = None, halo: bool = False
    ) -> None:
        """Write with the digits centred on the pixel row `middle`."""
        first, last = text.digit_rows(self.layout.font_px)
        self.words(words, x, middle - (first + last) // 2, anchor, ink=ink, halo=halo)

    def upright_words(self, words: str, middle: int, top: int, size_px: int) -> None:
        """Write upwards, the words' end at `top`, centred on the pixel column `middle`."""
        mask = text.mask(words, size_px, upright=True)
        self.image.paste(self.theme.ink, (middle - mask.width // 2, top), mask)

    def written(self, value: int) -> str:
        """A value as the chart writes it."""
        return format_value(value, self.chart.axis.decimals)

    def beside(self, value: int, x: int, y: int, below: bool = False) -> None:
        """Write `value` just above, or below, the pixel (x, y)."""
        first, last = text.digit_rows(self.layout.font_px)
        self.words(self.written(value), x, y + 2 - first if below else y - 2 - last, "middle", halo=True)

    def disc(self, x: int, y: int, radius: int, colour: Colour) -> None:
        """A filled circle around a pixel."""
        self.pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)

    def hatch(self, corners: Corners, colour: Colour, pattern: int) -> None:
        """A rectangle outlined in `colour` and filled with the series' pattern."""
        left, top, right, bottom = corners
        page = _hatch_mask(HATCHES[pattern % len(HATCHES)], self.image.size)
        part = page.crop((left, top, right + 1, bottom + 1))
        self.image.paste(colour, (left, top), part)
        self.pen.rectangle(corners, outline=colour)


@lru_cache(maxsize=16)
def _hatch_mask(pattern: str, size_px: tuple[int, int]) -> Image.Image:
    """The pattern over a whole page, as a mask to cut pieces from."""
    tile = Image.new("1", (_TILE_PX, _TILE_PX), 0)
    for y in range(_TILE_PX):
        for x in range(_TILE_PX):
            inked = {
                "slash": (x + y) % _TILE_PX < 2,
                "dots": x % 3 < 2 and y % 3 < 2 and (x // 3 + y // 3) % 2 == 0,
                "cross": x == 0 or y == 0,
            }[pattern]
            tile.putpixel((x, y), 1 if inked else 0)
    page = Image.new("1", size_px, 0)
    for top in range(0, size_px[1], _TILE_PX):
        for left in range(0, size_px[0], _TILE_PX):
            page.paste(tile, (left, top))
    return page
