"""Words as cached masks: one font, laid out without kerning or shaping so that every platform agrees."""

from __future__ import annotations

from functools import lru_cache
from math import ceil
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

FONT_FILE = Path(__file__).parent / "DejaVuSans-ascii.ttf"
FONT_LICENCE_FILE = Path(__file__).parent / "DejaVuSans-LICENSE.txt"
MIN_FONT_PX = 7  # below this the digits run together


@lru_cache(maxsize=64)
def font(size_px: int) -> ImageFont.FreeTypeFont:
    """The font at a nominal height in pixels."""
    return ImageFont.truetype(FONT_FILE, size_px, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=4096)
def width_px(text: str, size_px: int) -> int:
    """How wide `text` is, in pixels."""
    return ceil(font(size_px).getlength(text))


@lru_cache(maxsize=64)
def digit_rows(size_px: int) -> tuple[int, int]:
    """First and last row (px from the top of a word's mask) that digits and capitals cover."""
    _, top, _, bottom = font(size_px).getbbox("0")
    return int(top), int(bottom) - 1


@lru_cache(maxsize=4096)
def mask(text: str, size_px: int, upright: bool = False) -> Image.Image:
    """`text` as a grey mask; `upright` turns it to read from bottom to top."""
    ascent, descent = font(size_px).getmetrics()
    image = Image.new("L", (width_px(text, size_px) + 1, ascent + descent), 0)
    ImageDraw.Draw(image).text((0, 0), text, fill=255, font=font(size_px))
    return image.transpose(Image.Transpose.ROTATE_90) if upright else image
