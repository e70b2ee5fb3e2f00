"""Drawing a chart at random, for each difficulty.

Only the `random.Random` handed in decides: no clock, no set order, no `hash()`. A value that is not
written on the chart always lies on a step of the axis that is several pixels long at the default
size, so it can be read off exactly; any other value is only used where it is written out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from random import Random

from toasterft.data.charts import style, vocabulary
from toasterft.data.charts.layout import ROUND
from toasterft.data.charts.spec import (
    CHART_KINDS,
    DEFAULT_SIZE_PX,
    Axis,
    Chart,
    checked_difficulty,
    checked_size,
)

CORE_AXIS = Axis(top=20, major=5, step=1)

# Axes whose every step can be told apart by eye, and axes for charts with the values written out.
READABLE = (
    Axis(10, 2, 1),
    Axis(20, 5, 1),
    Axis(50, 10, 2),
    Axis(100, 20, 5),
    Axis(50, 10, 5, decimals=1),
    Axis(100, 20, 5, decimals=1),
)
WRITTEN = (
    Axis(20, 5, 1),
    Axis(50, 10, 1),
    Axis(100, 20, 1),
    Axis(100, 20, 1, decimals=1),
    Axis(200, 50, 1, decimals=1),
)
# Lines and dots of several series need room to keep apart.
FINE = tuple(axis for axis in READABLE if axis.top // axis.step >= 20)

_PIE_MIN_SHARE_PC = 9  # a thinner slice has no room for its number
_STACK_MIN, _STACK_MAX = 12, 33  # so that a number fits in each segment and three fit under 100


def make_chart(rng: Random, difficulty: str, size_px: tuple[int, int] | None = None) -> Chart:
    """A chart drawn at random; `size_px` is (width, height), the difficulty's own where None.

    Raises:
        DataError: no such difficulty, or a side outside 64 to 768 px.
    """
    size = checked_size(size_px or DEFAULT_SIZE_PX[checked_difficulty(difficulty)])
    kind = rng.choice(CHART_KINDS[difficulty])
    make = _pie if kind in ROUND else {"core": _core, "full": _full, "hard": _hard}[difficulty]
    return make(rng, kind, partial(Chart, kind=kind, difficulty=difficulty, size_px=size))


def _core(rng: Random, kind: str, chart: Callable[..., Chart]) -> Chart:
    count = rng.randint(2, 5)
    labels = tuple(rng.sample(list(style.CORE_COLOURS), count))
    return chart(
        labels=labels,
        series=(),
        values=(tuple(rng.randint(1, CORE_AXIS.top) for _ in labels),),
        axis=CORE_AXIS,
        colours=tuple(style.CORE_COLOURS[label] for label in labels),
        labels_in="legend",
        # Beside upright bars and under lying ones, so that the axis keeps 5 px per unit.
        legend="right" if kind == "bar" else "bottom",
        legend_order=tuple(range(count)),
        # Five upright bars stand closer together than two digits are wide.
        value_labels=rng.randrange(8) == 0 and (kind == "hbar" or count < 5),
    )


def _full(rng: Random, kind: str, chart: Callable[..., Chart]) -> Chart:
    several = kind == "grouped" or (kind == "line" and rng.randrange(2) == 0)
    pool = rng.choice([pool for pool in vocabulary.FULL_POOLS if pool.ordered or kind != "line"])
    if several:
        series_count = rng.randint(2, 3)
        count = rng.randint(3, 6) if kind == "line" else rng.randint(2, 4 if series_count == 2 else 3)
    else:
        series_count = 1
        count = rng.randint(3, 6)
    # Numbers beside crossing lines could belong to either, and ten bars are too thin to carry them.
    crowded = several and (kind == "line" or series_count * count > 6)
    written = not crowded and rng.randrange(5) < 2
    axis = rng.choice(WRITTEN if written else FINE if several and kind == "line" else READABLE)
    labels = _labels(rng, pool, count)
    series = rng.choice(vocabulary.FULL_SERIES)[:series_count] if several else ()
    values = _values(rng, axis, series_count, count, pool.ordered, apart=several and kind == "line")
    palette = rng.sample(rng.choice(style.FULL_PALETTES), 6)
    in_legend = not several and kind in ("bar", "hbar") and rng.randrange(3) == 0
    one_each = in_legend or rng.randrange(3) == 0
    names = series_count if several else count if in_legend else 0
    return chart(
        labels=labels,
        series=series,
        values=values,
        axis=axis,
        colours=tuple(palette[: series_count if several else count])
        if several or (one_each and kind != "line")
        else (palette[0],) * count,
        ordered=pool.ordered,
        labels_in="legend" if in_legend else "axis",
        legend="" if not names else "bottom" if several or rng.randrange(2) else "right",
        legend_order=tuple(range(names)),
        title=_title(rng, vocabulary.FULL_QUANTITIES, pool),
        value_labels=written,
        theme=rng.choice(style.FULL_THEMES),
    )


def _pie(rng: Random, kind: str, chart: Callable[..., Chart]) -> Chart:
    """A pie's numbers are always written: an angle cannot be read off exactly."""
    pool = rng.choice([pool for pool in vocabulary.FULL_POOLS if not pool.ordered])
    count = rng.randint(3, 5)
    while True:
        if rng.randrange(2):  # shares of a hundred
            cuts = [0, *sorted(rng.sample(range(1, 100), count - 1)), 100]
            values = [high - low for low, high in pairwise(cuts)]
        else:
            values = [rng.randint(4, 60) for _ in range(count)]
        if min(values) * 100 >= _PIE_MIN_SHARE_PC * sum(values):
            break
    return chart(
        labels=_labels(rng, pool, count),
        series=(),
        values=(tuple(values),),
        axis=Axis(100, 20, 1),
        colours=tuple(rng.sample(rng.choice(style.FULL_PALETTES), count)),
        labels_in="legend",
        legend=rng.choice(("right", "bottom")),
        legend_order=tuple(range(count)),
        title=_title(rng, vocabulary.FULL_QUANTITIES, pool),
        value_labels=True,
        theme=rng.choice(style.FULL_THEMES),
    )


def _hard(rng: Random, kind: str, chart: Callable[..., Chart]) -> Chart:
    several = kind == "stacked" or (kind in ("dots", "hatched") and rng.randrange(2) == 0)
    pool = rng.choice([pool for pool in vocabulary.HARD_POOLS if pool.ordered or kind != "area"])
    if several:
        series_count = rng.randint(2, 3) if kind == "stacked" else 2
        count = rng.randint(2, 4)
    else:
        series_count = 1
        count = rng.randint(3, 5)
    written = kind == "stacked" or (not (several and kind == "dots") and rng.randrange(5) < 2)
    if kind == "stacked":
        axis = Axis(100, 20, 1)
        values = tuple(
            tuple(rng.randint(_STACK_MIN, _STACK_MAX) for _ in range(count)) for _ in range(series_count)
        )
    else:
        axis = rng.choice(WRITTEN if written else FINE if several else READABLE)
        values = _values(rng, axis, series_count, count, pool.ordered, apart=several and kind == "dots")
    theme = rng.choice(style.HARD_THEMES)
    palette = rng.sample(rng.choice(style.HARD_PALETTES[theme]), 5)
    # The legend never follows the marks' order here, nor sits where full charts have it.
    turn = rng.randrange(1, series_count) if several else 0
    order = tuple((place + turn) % series_count for place in range(series_count)) if several else ()
    return chart(
        labels=_labels(rng, pool, count),
        series=rng.choice(vocabulary.HARD_SERIES)[:series_count] if several else (),
        values=values,
        axis=axis,
        colours=tuple(palette[:series_count]) if several else (palette[0],) * count,
        ordered=pool.ordered,
        legend=rng.choice(("left", "top")) if several else "",
        legend_order=order,
        title=_title(rng, vocabulary.HARD_QUANTITIES, pool),
        title_at="bottom",
        value_labels=written,
        theme=theme,
    )


def _labels(rng: Random, pool: vocabulary.Pool, count: int) -> tuple[str, ...]:
    if pool.ordered:
        start = rng.randrange(len(pool.words) - count + 1)
        return pool.words[start : start + count]
    return tuple(rng.sample(pool.words, count))


def _title(rng: Random, quantities: tuple[str, ...], pool: vocabulary.Pool) -> str:
    """A title on every second chart."""
    return f"{rng.choice(quantities)} by {pool.noun}" if rng.randrange(2) else ""


def _values(
    rng: Random, axis: Axis, series_count: int, count: int, ordered: bool, apart: bool
) -> tuple[tuple[int, ...], ...]:
    """Rows of values on the axis's steps; `apart` keeps two series' marks at a label from touching."""
    while True:
        rows = [_row(rng, axis, count, ordered) for _ in range(series_count)]
        columns = [sorted(column) for column in zip(*rows, strict=True)]
        gaps = [high - low for column in columns for low, high in pairwise(column)]
        if not apart or all(gap >= 2 * axis.step for gap in gaps):
            return tuple(rows)


def _row(rng: Random, axis: Axis, count: int, ordered: bool) -> tuple[int, ...]:
    """One series. Monotonic runs hardly ever come up by chance, so ordered labels get their share."""
    levels = range(1, axis.top // axis.step + 1)
    shape = rng.choice(("rising", "falling", "free")) if ordered else "free"
    if shape == "free":
        return tuple(axis.step * rng.choice(levels) for _ in range(count))
    run = sorted(rng.sample(levels, count), reverse=shape == "falling")
    return tuple(axis.step * level for level in run)
