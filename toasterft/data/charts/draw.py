"""Drawing a chart with Pillow: the page, the axes, the legend; the marks are in `marks.py`."""

from __future__ import annotations

from PIL import Image, ImageDraw

from toasterft.data.charts import marks
from toasterft.data.charts.canvas import Canvas
from toasterft.data.charts.layout import LYING, ROUND, lay_out
from toasterft.data.charts.spec import Chart, format_value
from toasterft.data.charts.style import THEMES

_MIN_TICK_GAP_PX = 3  # ticks for single steps are left out where they would run together


def draw(chart: Chart) -> Image.Image:
    """The chart as an RGB image of `chart.size_px`."""
    theme = THEMES[chart.theme]
    image = Image.new("RGB", chart.size_px, theme.page)
    canvas = Canvas(chart, lay_out(chart), theme, image, ImageDraw.Draw(image))
    if chart.kind not in ROUND:
        _value_axis(canvas)
    marks.DRAWERS[chart.kind](canvas)
    if chart.kind not in ROUND:
        _base_line(canvas)
        if chart.labels_in == "axis":
            _labels(canvas)
    _legend(canvas)
    if chart.title:
        width = chart.size_px[0]
        canvas.words(chart.title, width // 2, canvas.layout.title_top, "middle", canvas.layout.title_px)
    return image


def _value_axis(canvas: Canvas) -> None:
    """Numbers, ticks and gridlines: on the left and across, or below and upwards where values run sideways."""
    axis, plot, scale, lying = (
        canvas.chart.axis,
        canvas.layout.plot,
        canvas.layout.scale,
        canvas.chart.kind in LYING,
    )
    room, needed = scale.length * axis.major // axis.top, canvas.layout.font_px * (2 if lying else 1)
    # On tiny images every other number is left out; its gridline stays.
    every = axis.major if room > needed else 2 * axis.major
    for value in range(0, axis.top + 1, axis.major):
        at, number = scale.at(value), format_value(value, axis.decimals)
        foot = (at, plot.bottom + 3) if lying else (plot.left - 3, at)
        canvas.pen.line(
            (*foot, at, plot.top) if lying else (*foot, plot.right - 1, at), fill=canvas.theme.grid
        )
        canvas.pen.line((*foot, at, plot.bottom) if lying else (*foot, plot.left, at), fill=canvas.theme.ink)
        if value % every == 0 and lying:
            canvas.words(number, *foot, "middle")
        elif value % every == 0:
            canvas.centred(number, plot.left - 4, at, "end")
    if scale.length * axis.step // axis.top >= _MIN_TICK_GAP_PX:
        for at in map(scale.at, range(0, axis.top, axis.step)):
            canvas.pen.point((at, plot.bottom + 1) if lying else (plot.left - 1, at), fill=canvas.theme.ink)


def _base_line(canvas: Canvas) -> None:
    """Both axis lines, over the marks, so that a bar's foot is sharp."""
    plot, scale, ink = canvas.layout.plot, canvas.layout.scale, canvas.theme.ink
    far = scale.at(scale.top)
    if canvas.chart.kind in LYING:
        canvas.pen.line((scale.base, plot.top, scale.base, plot.bottom), fill=ink)
        canvas.pen.line((scale.base, plot.bottom, far, plot.bottom), fill=ink)
    else:
        canvas.pen.line((plot.left, far, plot.left, scale.base), fill=ink)
        canvas.pen.line((plot.left, scale.base, plot.right - 1, scale.base), fill=ink)


def _labels(canvas: Canvas) -> None:
    layout, chart = canvas.layout, canvas.chart
    for column, label in enumerate(chart.labels):
        middle = layout.middle(column)
        if chart.kind == "mirrored":
            canvas.centred(label, layout.plot.right + 4, middle, "start")
        elif chart.kind in LYING:
            canvas.centred(label, layout.plot.left - 4, middle, "end")
        elif layout.labels_upright:
            canvas.upright_words(label, middle, layout.plot.bottom + 2, layout.label_px)
        else:
            canvas.words(label, middle, layout.plot.bottom + 1, "middle", layout.label_px)


def _legend(canvas: Canvas) -> None:
    chart, side = canvas.chart, canvas.layout.swatch_px
    for (x, y), place in zip(canvas.layout.legend, chart.legend_order, strict=True):
        colour = chart.colours[place]
        if chart.kind == "hatched":
            canvas.hatch((x, y + 1, x + side - 1, y + side), colour, place)
        else:
            canvas.pen.rectangle((x, y + 1, x + side - 1, y + side), fill=colour)
        canvas.centred(chart.legend_names[place], x + side + 3, y + 1 + side // 2, "start")
