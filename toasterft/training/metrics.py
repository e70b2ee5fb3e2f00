"""Figures of the steps between two log rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from accelerate.utils import gather_object


class MetricLog:
    """Collects figures by name; a log row holds their means over all that was noted, in all steps and processes.

    Attributes:
        values: what was noted since the last row.
    """

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = defaultdict(list)
        self._sums: dict[str, tuple[float, int]] = {}

    def note(self, *rows: Mapping[str, float]) -> None:
        """Add figures to average."""
        for name, value in ((name, value) for figures in rows for name, value in figures.items()):
            self.values[name].append(value)

    def add(self, name: str, total: float, count: int) -> None:
        """Add a sum over `count` tokens: each of them weighs the same in the mean, whatever batch it was in."""
        before = self._sums.get(name, (0.0, 0))
        self._sums[name] = before[0] + total, before[1] + count

    def replace(self, name: str, value: float) -> None:
        """Keep the newest value alone: for totals, where others are means."""
        self.values[name] = [value]

    def drain(self, prefix: str = "") -> dict[str, float]:
        """Means over what all processes noted, under prefixed names; the log is empty afterwards."""
        merged: dict[str, list[tuple[float, int]]] = defaultdict(list)
        noted = {name: (sum(values), len(values)) for name, values in self.values.items()}
        for sums in gather_object([noted | self._sums]):
            for name, found in sums.items():
                merged[name].append(found)
        self.values.clear()
        self._sums.clear()
        parts = {name: list(map(sum, zip(*found))) for name, found in merged.items()}
        return {prefix + name: total / count for name, (total, count) in parts.items() if count}
