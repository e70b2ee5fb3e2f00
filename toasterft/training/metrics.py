"""Figures of the steps between two log rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from accelerate.utils import gather_object


class MetricLog:
    """Collects figures by name; a log row holds their means over steps and processes.

    Attributes:
        values: what was noted since the last row.
    """

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = defaultdict(list)
        self._step: dict[str, float] = defaultdict(float)

    def note(self, figures: Mapping[str, float]) -> None:
        """Add figures to average."""
        for name, value in figures.items():
            self.values[name].append(value)

    def add(self, figures: Mapping[str, float]) -> None:
        """Add one micro-batch's parts of figures; their sums are noted at the end of the step."""
        for name, value in figures.items():
            self._step[name] += value

    def end_step(self) -> None:
        """Note the sums of a step's parts."""
        self.note(self._step)
        self._step.clear()

    def replace(self, name: str, value: float) -> None:
        """Keep the newest value alone: for totals, where others are means."""
        self.values[name] = [value]

    def drain(self, prefix: str = "") -> dict[str, float]:
        """Means over what all processes noted, under prefixed names; the log is empty afterwards."""
        merged: dict[str, list[float]] = defaultdict(list)
        for values in gather_object([dict(self.values)]):
            for name, found in values.items():
                merged[name] += found
        self.values.clear()
        return {prefix + name: sum(found) / len(found) for name, found in merged.items()}
