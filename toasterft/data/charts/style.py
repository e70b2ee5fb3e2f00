"""Colours and themes, as tables. `HARD` shares no colour with `CORE` or `FULL`."""

from __future__ import annotations

from dataclasses import dataclass

Colour = tuple[int, int, int]  # red, green, blue, 0 to 255


@dataclass(frozen=True)
class Theme:
    """The page around the marks."""

    page: Colour
    ink: Colour  # words, axes
    grid: Colour


THEMES: dict[str, Theme] = {
    "plain": Theme(page=(255, 255, 255), ink=(20, 20, 20), grid=(214, 214, 214)),
    "soft": Theme(page=(247, 247, 250), ink=(45, 45, 60), grid=(219, 219, 229)),
    "night": Theme(page=(24, 26, 36), ink=(232, 232, 238), grid=(66, 70, 88)),
    "slate": Theme(page=(47, 58, 66), ink=(240, 238, 226), grid=(84, 98, 107)),
    "paper": Theme(page=(240, 228, 200), ink=(70, 45, 20), grid=(210, 194, 160)),
}
FULL_THEMES = ("plain", "soft")
HARD_THEMES = ("night", "slate", "paper")

# A core chart's labels are these words, and each bar wears the colour it is named after.
CORE_COLOURS: dict[str, Colour] = {
    "red": (222, 28, 36),
    "blue": (28, 92, 224),
    "green": (34, 158, 62),
    "orange": (255, 146, 0),
    "purple": (118, 42, 168),
    "brown": (118, 72, 32),
    "pink": (255, 138, 198),
    "gray": (132, 132, 132),
}

FULL_PALETTES: tuple[tuple[Colour, ...], ...] = (
    ((38, 84, 148), (236, 112, 64), (72, 164, 134), (208, 64, 98), (140, 106, 182), (240, 190, 60)),
    ((0, 120, 136), (232, 88, 80), (248, 180, 72), (92, 72, 140), (124, 176, 64), (96, 104, 116)),
    ((196, 60, 44), (64, 136, 200), (112, 168, 72), (232, 168, 40), (92, 60, 116), (60, 172, 176)),
    ((52, 60, 92), (216, 96, 152), (88, 184, 220), (232, 140, 56), (104, 144, 88), (164, 112, 72)),
)

# Bright on the dark pages, deep on the paper one.
HARD_PALETTES: dict[str, tuple[tuple[Colour, ...], ...]] = {
    "night": (
        ((120, 236, 255), (255, 120, 210), (210, 255, 110), (255, 206, 120), (176, 160, 255)),
        ((255, 99, 99), (255, 236, 139), (99, 255, 189), (140, 190, 255), (238, 170, 238)),
    ),
    "slate": (
        ((255, 179, 71), (119, 221, 119), (244, 154, 194), (174, 198, 255), (253, 253, 150)),
        ((230, 110, 90), (160, 220, 230), (245, 222, 130), (190, 160, 220), (150, 210, 130)),
    ),
    "paper": (
        ((139, 35, 35), (25, 90, 80), (190, 110, 10), (60, 40, 110), (90, 110, 30)),
        ((170, 20, 90), (10, 70, 120), (80, 130, 60), (200, 80, 20), (85, 65, 55)),
    ),
}

# What the bars of the "hatched" kind are filled with, in series order.
HATCHES = ("slash", "dots", "cross")


def ink_on(colour: Colour) -> Colour:
    """Black or white, whichever stands out on `colour` (luma in thousandths, so no rounding)."""
    luma = 299 * colour[0] + 587 * colour[1] + 114 * colour[2]
    return (0, 0, 0) if luma > 140_000 else (255, 255, 255)
