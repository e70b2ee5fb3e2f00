"""Where everything on a chart goes, in whole pixels.

Parts claim strips from the edges inward (title, legend, axis numbers, labels) and the plot gets
what is left. Its length along the value axis is cut to a whole number of pixels per step.
"""

from __future__ import annotations

from dataclasses import dataclass

from toasterft.data.charts.spec import Chart, format_value
from toasterft.data.charts.style import CORE_COLOURS
from toasterft.data.charts.text import MIN_FONT_PX, width_px

ROUND = ("pie", "donut")
LYING = ("hbar", "mirrored", "dots")  # kinds whose values run sideways

_MIN_PLOT_PX = 8
_MIN_STEP_PX = 2  # finer steps are not worth cutting the plot for


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels; `right` and `bottom` lie outside it."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top

    def without(self, left: int = 0, top: int = 0, right: int = 0, bottom: int = 0) -> Box:
        """The box with strips of these widths cut off."""
        return Box(self.left + left, self.top + top, self.right - right, self.bottom - bottom)


@dataclass(frozen=True)
class Scale:
    """Maps a scaled value to a pixel: `base` is where 0 lies, `sign` the way values grow."""

    base: int
    length: int
    sign: int
    top: int

    def at(self, value: int) -> int:
        """The pixel of `value`, for 0 to `top`."""
        return self.base + self.sign * (value * self.length // self.top)


@dataclass(frozen=True)
class Layout:
    """The parts' places in pixels.

    `legend` holds the top left corner of each entry, in the order in which they are written;
    `slots` the start and end of each label's share of the label axis.
    """

    font_px: int
    title_px: int
    title_top: int
    legend: tuple[tuple[int, int], ...]
    swatch_px: int
    plot: Box
    scale: Scale
    slots: tuple[tuple[int, int], ...]
    label_px: int
    labels_upright: bool

    def middle(self, column: int) -> int:
        """The pixel of a label's centre on the label axis."""
        start, end = self.slots[column]
        return (start + end) // 2


def lay_out(chart: Chart) -> Layout:
    """Place the parts of `chart`."""
    width, height = chart.size_px
    font_px = max(MIN_FONT_PX, 6 + min(width, height) // 40)
    pad = max(2, font_px // 4)
    row = font_px + 3  # one line of words
    free = Box(pad, pad, width - pad, height - pad)

    title_px = fitting_px((chart.title,), font_px + 1, free.width)
    title_top = 0
    if chart.title:
        at_top = chart.title_at == "top"
        title_top = free.top if at_top else free.bottom - row
        free = free.without(top=row + 2) if at_top else free.without(bottom=row + 2)

    swatch_px = font_px - 1
    legend, free = _legend(chart, free, font_px, swatch_px)

    lying = chart.kind in LYING
    labelled = chart.labels_in == "axis"
    label_px, upright = font_px, False
    if chart.kind in ROUND:
        plot = _at_least(free)
    elif lying:
        widest = max(width_px(label, font_px) for label in chart.labels) + 4 if labelled else 0
        # The end of the axis needs room for half a number, or for a whole one beside its bar.
        end = width_px(_widest_number(chart), font_px) + 4
        end = end if chart.value_labels else end // 2
        near = max(widest, width_px("0", font_px))
        left, right = (end, near) if chart.kind == "mirrored" else (near, end)
        plot = _at_least(free.without(left=left, right=right, bottom=row + 2))
    else:
        left = free.left + max(width_px(format_value(chart.axis.top, chart.axis.decimals), font_px), 1) + 5
        bottom = free.bottom - font_px // 2
        if labelled:
            slot = max(1, (free.right - left) // len(chart.labels))
            label_px = fitting_px(chart.labels, font_px, slot - 2)
            widest = max(width_px(label, label_px) for label in chart.labels)
            upright = widest > slot
            bottom = free.bottom - (min(widest + 4, height // 3) if upright else row)
        head = row if chart.value_labels else font_px // 2 + 1
        plot = _at_least(Box(left, free.top + head, free.right, bottom))

    along = plot.width if lying else plot.height
    step_px = along // (chart.axis.top // chart.axis.step)
    if step_px >= _MIN_STEP_PX:
        along = step_px * (chart.axis.top // chart.axis.step)
    if chart.kind == "mirrored":
        scale = Scale(plot.right, along, -1, chart.axis.top)
    elif lying:
        scale = Scale(plot.left, along, 1, chart.axis.top)
    else:
        scale = Scale(plot.bottom, along, -1, chart.axis.top)

    start, across = (plot.top, plot.height) if lying else (plot.left, plot.width)
    count = len(chart.labels)
    slots = tuple((start + across * i // count, start + across * (i + 1) // count) for i in range(count))
    return Layout(font_px, title_px, title_top, legend, swatch_px, plot, scale, slots, label_px, upright)


def fitting_px(texts: tuple[str, ...], size_px: int, room_px: int) -> int:
    """The largest font height up to `size_px` at which every text is at most `room_px` wide."""
    while size_px > MIN_FONT_PX and any(width_px(text, size_px) > room_px for text in texts):
        size_px -= 1
    return size_px


def _legend(chart: Chart, free: Box, font_px: int, swatch_px: int) -> tuple[tuple[tuple[int, int], ...], Box]:
    """Corners of the legend's entries, and the box that the legend leaves free."""
    names = chart.legend_names
    if not names:
        return (), free
    row = font_px + 3
    # Core legends are all as wide as the widest colour word, so that bars always start at one place.
    sized = tuple(CORE_COLOURS) if chart.difficulty == "core" else names
    cell = swatch_px + 4 + max(width_px(name, font_px) for name in sized)
    if chart.legend in ("left", "right"):
        # Loose rows, so that a swatch and its word share patches with no other entry.
        pitch = min(font_px + 7, free.height // len(names))
        x = free.left if chart.legend == "left" else free.right - cell
        top = (
            free.top + 2 if chart.difficulty == "core" else free.top + (free.height - pitch * len(names)) // 3
        )
        corners = tuple((x, top + pitch * i) for i in range(len(names)))
        if chart.legend == "left":
            return corners, free.without(left=cell + 6)
        return corners, free.without(right=cell + 5)
    per_row = max(1, min(len(names), free.width // (cell + 4)))
    rows = -(-len(names) // per_row)
    spread = free.width // per_row
    below = chart.legend == "bottom"
    top = free.bottom - rows * row if below else free.top
    corners = tuple(
        (free.left + (spread - cell) // 2 + spread * (i % per_row), top + row * (i // per_row))
        for i in range(len(names))
    )
    taken = rows * row + 3
    return corners, free.without(bottom=taken) if below else free.without(top=taken)


def _at_least(box: Box) -> Box:
    """`box`, grown where the parts around it left next to nothing (tiny images only)."""
    return Box(
        box.left, box.top, max(box.right, box.left + _MIN_PLOT_PX), max(box.bottom, box.top + _MIN_PLOT_PX)
    )


def _widest_number(chart: Chart) -> str:
    """The longest number on the axis or, where values are written, beside a mark."""
    values = [value for row in chart.values for value in row] if chart.value_labels else []
    return max((format_value(value, chart.axis.decimals) for value in [*values, chart.axis.top]), key=len)
