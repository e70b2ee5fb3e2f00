"""Measured over predicted time and memory of a machine: one file per machine, used by later estimates.

`toasterft estimate … --measure` writes one file per machine, under the cache folder, with one entry per method and
model. An entry holds, for each phase, measured over predicted seconds and bytes of the same small run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from toasterft import paths
from toasterft.errors import UserError

FOLDER = "calibrations"
# The likely value of a measured phase may be off by this factor either way. Assumed: another data set of the same
# lengths, another day on the same machine.
RANGE = 1.25


@dataclass(frozen=True)
class Calibration:
    """Ratios of one small run on one machine.

    Attributes:
        machine: the GPU's name, or `cpu`.
        seconds, bytes: measured over predicted, by phase.
        measured: the figures themselves, by phase: predicted and measured seconds and bytes.
    """

    machine: str
    method: str
    model: str
    date: str
    seconds: Mapping[str, float]
    bytes: Mapping[str, float]
    measured: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As an estimate cites it."""
        return f"{self.method} of {self.model} on {self.machine}, {self.date}"

    @classmethod
    def of_phases(
        cls,
        machine: str,
        method: str,
        model: str,
        date: str,
        phases: Mapping[str, Mapping[str, float | None]],
        versions: Mapping[str, str],
        shortest_seconds: float = 0.0,
    ) -> Calibration:
        """The ratios of a run's phases; a pair of which one side is missing or 0 gives none.

        Args:
            phases: name → predicted_seconds, measured_seconds, predicted_bytes, measured_bytes.
            shortest_seconds: a phase measured to take less gives no ratio of time.
        """

        def ratios(unit: str, least: float) -> dict[str, float]:
            pairs = {
                name: (row[f"measured_{unit}"], row[f"predicted_{unit}"]) for name, row in phases.items()
            }
            return {
                name: round(one / other, 4)
                for name, (one, other) in pairs.items()
                if one and other and one >= least
            }

        seconds, sizes = ratios("seconds", shortest_seconds), ratios("bytes", 0)
        return cls(machine, method, model, date, seconds, sizes, dict(phases), versions)

    def save(self) -> Path:
        """Replace the entry of the same method and model."""
        path = _path(self.machine)
        rows = [row for row in _rows(path) if (row["method"], row["model"]) != (self.method, self.model)]
        path.parent.mkdir(parents=True, exist_ok=True)
        paths.write_json(path, [*rows, asdict(self)])
        return path


def find(machine: str, method: str, model: str) -> Calibration | None:
    """The entry of this method and model, else the newest of this method on the machine, else None."""
    rows = [row for row in _rows(_path(machine)) if row["method"] == method]
    same = [row for row in rows if row["model"] == model]
    return Calibration(**(same or rows)[-1]) if rows else None


def _path(machine: str) -> Path:
    return paths.cache_dir() / FOLDER / (re.sub(r"[^A-Za-z0-9]+", "-", machine).strip("-").lower() + ".json")


def _rows(path: Path) -> list[dict[str, Any]]:
    found = paths.read_json(path)
    try:
        return [asdict(row) for row in TypeAdapter(list[Calibration]).validate_python(found or [])]
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        raise UserError(
            f"this calibration is damaged ({wrong['msg'].lower()})",
            where=str(path),
            next_step="remove it, and measure again: toasterft estimate … --measure",
        ) from None
