"""The marks of each chart kind: bars, slices, lines, dots."""

from __future__ import annotations

from collections.abc import Callable
from math import cos, radians, sin

from toasterft.data.charts.canvas import Canvas
from toasterft.data.charts.style import ink_on

# Thousandths, rounded once: positions on a circle are whole-number arithmetic from here on.
_COS = tuple(round(1000 * cos(radians(degree))) for degree in range(360))
_SIN = tuple(round(1000 * sin(radians(degree))) for degree in range(360))


def _thickness(slot_px: int, span_px: int) -> int:
    """A bar's width in a slot: most of it, but a lone bar does not become a wall."""
    return max(1, min(slot_px * 7 // 10, span_px // 6))


def _upright_bars(canvas: Canvas) -> None:
    chart, layout = canvas.chart, canvas.layout
    rows = len(chart.values)
    for column in range(len(chart.labels)):
        start, end = layout.slots[column]
        thick = _thickness(
            (end - start) // rows if rows == 1 else (end - start) * 11 // 10 // rows, layout.plot.width
        )
        first = (start + end) // 2 - thick * rows // 2
        gap = 1 if rows > 1 and thick > 2 else 0
        for row in range(rows):
            value = chart.values[row][column]
            left, top = first + thick * row, layout.scale.at(value)
            corners = (left, top, left + thick - 1 - gap, layout.scale.base)
            if chart.kind == "hatched":
                canvas.hatch(corners, chart.colour(row, column), row)
            else:
                canvas.pen.rectangle(corners, fill=chart.colour(row, column))
            if chart.value_labels:
                canvas.beside(value, left + (thick - gap) // 2, top)


def _lying_bars(canvas: Canvas) -> None:
    chart, layout, scale = canvas.chart, canvas.layout, canvas.layout.scale
    for column, value in enumerate(chart.values[0]):
        start, end = layout.slots[column]
        thick = _thickness(end - start, layout.plot.height)
        top = (start + end - thick) // 2
        tip = scale.at(value)
        left, right = sorted((scale.base, tip))
        canvas.pen.rectangle((left, top, right, top + thick - 1), fill=chart.colour(0, column))
        if chart.value_labels:
            anchor = "start" if scale.sign > 0 else "end"
            canvas.centred(canvas.written(value), tip + 4 * scale.sign, top + thick // 2, anchor, halo=True)


def _stacked(canvas: Canvas) -> None:
    chart, layout = canvas.chart, canvas.layout
    for column in range(len(chart.labels)):
        start, end = layout.slots[column]
        thick = _thickness(end - start, layout.plot.width)
        left = (start + end - thick) // 2
        below = 0
        for row, values in enumerate(chart.values):
            colour = chart.colour(row, column)
            foot, top = layout.scale.at(below), layout.scale.at(below + values[column])
            canvas.pen.rectangle((left, top, left + thick - 1, max(top, foot - 1)), fill=colour)
            canvas.centred(
                canvas.written(values[column]), left + thick // 2, (top + foot) // 2, "middle", ink_on(colour)
            )
            below += values[column]


def _lines(canvas: Canvas) -> None:
    chart, layout = canvas.chart, canvas.layout
    for row, values in enumerate(chart.values):
        points = [(layout.middle(column), layout.scale.at(value)) for column, value in enumerate(values)]
        colour = chart.colour(row, 0)
        canvas.pen.line(points, fill=colour, width=max(1, layout.font_px // 5))
        for x, y in points:
            canvas.disc(x, y, max(1, layout.font_px // 4), colour)
    _numbers_above(canvas)


def _area(canvas: Canvas) -> None:
    chart, layout = canvas.chart, canvas.layout
    base, colour = layout.scale.base, chart.colour(0, 0)
    points = [(layout.middle(column), layout.scale.at(value)) for column, value in enumerate(chart.values[0])]
    canvas.pen.polygon([(points[0][0], base), *points, (points[-1][0], base)], fill=colour)
    for x, y in points:
        # A post in the page's colour marks where the edge is to be read.
        canvas.pen.line((x, y, x, base), fill=canvas.theme.page)
        canvas.pen.line((x - 2, y, x + 2, y), fill=canvas.theme.ink)
    _numbers_above(canvas)


def _lollipops(canvas: Canvas) -> None:
    chart, layout = canvas.chart, canvas.layout
    for column, value in enumerate(chart.values[0]):
        x, y, colour = layout.middle(column), layout.scale.at(value), chart.colour(0, column)
        canvas.pen.line((x, y, x, layout.scale.base), fill=colour, width=2)
        canvas.disc(x, y, max(2, layout.font_px // 3), colour)
    _numbers_above(canvas)


def _numbers_above(canvas: Canvas) -> None:
    if not canvas.chart.value_labels:
        return
    values, layout = canvas.chart.values[0], canvas.layout
    lift = max(2, layout.font_px // 3)
    for column, value in enumerate(values):
        x, y = layout.middle(column), layout.scale.at(value)
        beside = values[max(0, column - 1) : column + 2]
        # In the trough of a line the number goes under it, where there is room above the axis.
        trough = canvas.chart.kind == "line" and value == min(beside)
        below = trough and y + lift + layout.font_px < layout.scale.base
        canvas.beside(value, x, y + lift if below else y - lift, below)


def _dots(canvas: Canvas) -> None:
    """One line of dots per label, the value to the right."""
    chart, layout = canvas.chart, canvas.layout
    radius = max(2, layout.font_px // 3)
    for column in range(len(chart.labels)):
        y = layout.middle(column)
        for x in range(layout.plot.left, layout.scale.at(layout.scale.top), 3):
            canvas.pen.point((x, y), fill=canvas.theme.grid)
        for row, values in enumerate(chart.values):
            x = layout.scale.at(values[column])
            canvas.disc(x, y, radius, chart.colour(row, column))
            if chart.value_labels:
                canvas.centred(canvas.written(values[column]), x + radius + 2, y, "start", halo=True)


def _slices(canvas: Canvas) -> None:
    chart, plot = canvas.chart, canvas.layout.plot
    values = chart.values[0]
    total = sum(values)
    radius = max(4, min(plot.width, plot.height) // 2 - 1)
    x, y = (plot.left + plot.right) // 2, (plot.top + plot.bottom) // 2
    box = (x - radius, y - radius, x + radius, y + radius)
    edges = [360 * sum(values[:place]) // total for place in range(len(values) + 1)]
    for column in range(len(values)):
        # Clockwise from twelve o'clock, which Pillow calls -90 degrees.
        start, end, colour = edges[column] - 90, edges[column + 1] - 90, chart.colour(0, column)
        canvas.pen.pieslice(box, start, end, fill=colour, outline=canvas.theme.page)
    if chart.kind == "donut":
        canvas.disc(x, y, radius * 9 // 20, canvas.theme.page)
    # Numbers sit further out on a donut, in the middle of its ring.
    reach = radius * (72 if chart.kind == "donut" else 66) // 100
    for column, value in enumerate(values):
        degree = ((edges[column] + edges[column + 1]) // 2 - 90) % 360
        at = x + reach * _COS[degree] // 1000, y + reach * _SIN[degree] // 1000
        canvas.centred(canvas.written(value), *at, "middle", ink_on(chart.colour(0, column)))


DRAWERS: dict[str, Callable[[Canvas], None]] = {
    **dict.fromkeys(("bar", "grouped", "hatched"), _upright_bars),
    **dict.fromkeys(("hbar", "mirrored"), _lying_bars),
    **dict.fromkeys(("pie", "donut"), _slices),
    "stacked": _stacked,
    "line": _lines,
    "area": _area,
    "lollipop": _lollipops,
    "dots": _dots,
}
