"""What a chart is: a table of exact numbers and how it is shown.

Values are whole numbers in units of 10 ** -decimals (37 with one decimal is 3.7), so that nothing
about an answer ever depends on floating point.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toasterft.data.charts.style import Colour
from toasterft.errors import DataError, did_you_mean

DIFFICULTIES = ("core", "full", "hard")

# Chart kinds by difficulty: a hard chart is of a kind that no other difficulty shows.
CHART_KINDS: dict[str, tuple[str, ...]] = {
    "core": ("bar", "hbar"),
    "full": ("bar", "hbar", "grouped", "line", "pie", "donut"),
    "hard": ("stacked", "dots", "area", "lollipop", "hatched", "mirrored"),
}

# Image sizes in pixels, (width, height); all are whole numbers of 8 px patches.
DEFAULT_SIZE_PX: dict[str, tuple[int, int]] = {"core": (128, 128), "full": (256, 192), "hard": (256, 192)}
MIN_SIDE_PX, MAX_SIDE_PX = 64, 768

Fact = dict[str, Any]  # {"label": str, "value": int or float} and, with several series, "series": str


@dataclass(frozen=True)
class Axis:
    """A value axis from 0 to `top`: numbers every `major`, values in whole `step`s (scaled units)."""

    top: int
    major: int
    step: int
    decimals: int = 0


@dataclass(frozen=True)
class Chart:
    """A chart, fully determined.

    Attributes:
        labels: the categories in display order (left to right, or top to bottom).
        series: names where there are several series, else empty.
        values: one row per series, one scaled whole number per label.
        axis: the value axis; a pie only uses its `decimals`.
        ordered: the labels run in time, so that a trend has a meaning.
        colours: one per series where there are several, else one per label.
        labels_in: "axis" (beside the marks) or "legend".
        legend: "right", "bottom", "left", "top", or "" for none.
        legend_order: positions of the legend's names, in the order in which they are written.
        title_at: "top" or "bottom"; no title where `title` is empty.
        size_px: (width, height).
    """

    kind: str
    difficulty: str
    labels: tuple[str, ...]
    series: tuple[str, ...]
    values: tuple[tuple[int, ...], ...]
    axis: Axis
    colours: tuple[Colour, ...]
    ordered: bool = False
    labels_in: str = "axis"
    legend: str = ""
    legend_order: tuple[int, ...] = ()
    title: str = ""
    title_at: str = "top"
    value_labels: bool = False
    theme: str = "plain"
    size_px: tuple[int, int] = (128, 128)

    @property
    def legend_names(self) -> tuple[str, ...]:
        """The names that the legend explains, in display order."""
        if not self.legend:
            return ()
        return self.series or self.labels

    @property
    def facts(self) -> list[Fact]:
        """The table, one row per mark in display order: label by label, and within it by series."""
        rows: list[Fact] = []
        for column, label in enumerate(self.labels):
            for row, numbers in enumerate(self.values):
                fact: Fact = {"label": label}
                if self.series:
                    fact["series"] = self.series[row]
                fact["value"] = numbers[column] / 10 if self.axis.decimals else numbers[column]
                rows.append(fact)
        return rows

    @property
    def key(self) -> str:
        """The address of the chart's content; see `facts_key`."""
        return facts_key(self.facts)

    def colour(self, row: int, column: int) -> Colour:
        """The colour of the mark of series `row` at label `column`."""
        return self.colours[row if self.series else column]


def format_value(value: int, decimals: int) -> str:
    """A scaled number as charts, questions and traces write it: 37 is `37`, or `3.7` in tenths."""
    return f"{value // 10}.{value % 10}" if decimals else str(value)


def fact_name(fact: Mapping[str, Any]) -> str:
    """What a row is called: its label, after its series where there are several."""
    return f"{fact['series']} {fact['label']}" if "series" in fact else str(fact["label"])


def facts_table(facts: Sequence[Mapping[str, Any]]) -> str:
    """`red = 7, blue = 3`: rows as text, in the order given."""
    return ", ".join(f"{fact_name(fact)} = {fact['value']}" for fact in facts)


def text_table(chart: Chart) -> str:
    """The chart as text, in display order, for asking the same questions without an image."""
    return facts_table(chart.facts)


def facts_key(facts: Sequence[Mapping[str, Any]]) -> str:
    """Hex digest of a table, whatever the order of its rows.

    Kind and colours are left out on purpose: two charts that share a key would give away each
    other's numbers however differently they are drawn, so they may not sit in two splits.
    """
    rows = sorted(f"{fact_name(fact)} = {fact['value']}" for fact in facts)
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def checked_difficulty(difficulty: str) -> str:
    """`difficulty`, if there is one of that name."""
    if difficulty not in DIFFICULTIES:
        raise DataError(
            f"there is no chart difficulty {difficulty!r}{did_you_mean(difficulty, list(DIFFICULTIES))}",
            next_step=f"use one of {', '.join(DIFFICULTIES)}",
        )
    return difficulty


def checked_size(size_px: tuple[int, int]) -> tuple[int, int]:
    """`size_px`, if charts can be drawn at it."""
    if not all(MIN_SIDE_PX <= side <= MAX_SIDE_PX for side in size_px):
        raise DataError(
            f"charts cannot be drawn at {size_px[0]} x {size_px[1]} px",
            next_step=f"choose sides from {MIN_SIDE_PX} to {MAX_SIDE_PX} px",
        )
    return size_px
