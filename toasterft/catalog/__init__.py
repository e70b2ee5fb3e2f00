"""Facts with a source and a date: models, GPUs and their prices, data sets.

The rows are YAML files beside this one. To add a model, a GPU or a price, add a row.
"""

from __future__ import annotations

import datetime
import functools
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from toasterft.errors import UserError, did_you_mean

HERE = Path(__file__).parent
# A rented card's price moves within weeks (RunPod's H100 rose 3.29 → 3.99 $/h from August to
# November 2026), so an older figure is shown with a mark.
STALE_AFTER_DAYS = 90
DEFAULT_GPU = "A40"


@dataclass(frozen=True)
class Offer:
    """One provider's price for one GPU."""

    provider: str
    usd_per_hour: float
    as_of: datetime.date | None
    source: str
    spot_usd_per_hour: float | None = None
    compute_units_per_hour: float | None = None

    def flag(self, today: datetime.date) -> str | None:
        """`undated`, `N days old`, or None where the price is fresh."""
        if self.as_of is None:
            return "undated"
        days = (today - self.as_of).days
        return f"{days} days old" if days > STALE_AFTER_DAYS else None


@dataclass(frozen=True)
class Gpu:
    """A GPU: memory in GB (1e9 bytes), dense half-precision TFLOP/s, bandwidth in GB/s."""

    name: str
    vram_gb: float
    bf16: bool
    compute_capability: float
    half_tflops: float
    bandwidth_gb_s: float
    source: str
    offers: tuple[Offer, ...] = ()
    smi: str | None = None

    @property
    def vram_bytes(self) -> int:
        return int(self.vram_gb * 1e9)

    @property
    def default_offer(self) -> Offer | None:
        return self.offers[0] if self.offers else None


@dataclass(frozen=True)
class Model:
    """A model by its catalog name; `config` and `preprocessor` hold what a plan reads of the hub files."""

    name: str
    hub_id: str
    config: dict[str, Any]
    preprocessor: dict[str, Any]
    licence: str
    source: str
    as_of: datetime.date | None
    verified: str = "no"
    note: str = ""
    published_params: int | None = None


@dataclass(frozen=True)
class DatasetRow:
    """Statistics of a data set that need not be on this machine; token counts are means."""

    name: str
    rows: int
    image_px: tuple[int, int]
    question_tokens: int
    reasoning_tokens: int
    answer_tokens: int
    provenance: str
    get: str
    licence: str = ""
    hub_id: str | None = field(default=None)


def _rows(name: str) -> list[dict[str, Any]]:
    # The C loader reads the catalog in a few milliseconds; `estimate` promises half a second.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    with open(HERE / f"{name}.yaml", encoding="utf-8") as handle:
        rows: list[dict[str, Any]] = yaml.load(handle, Loader=loader)
    return rows


@functools.cache
def gpus() -> dict[str, Gpu]:
    return {
        row["name"]: Gpu(**{**row, "offers": tuple(Offer(**offer) for offer in row["offers"])})
        for row in _rows("gpus")
    }


@functools.cache
def models() -> dict[str, Model]:
    return {row["name"]: Model(**row) for row in _rows("models")}


@functools.cache
def datasets() -> dict[str, DatasetRow]:
    return {
        row["name"]: DatasetRow(**{**row, "image_px": tuple(row["image_px"])}) for row in _rows("datasets")
    }


def gpu(name: str) -> Gpu:
    """The row of a GPU, by its name or a vendor's spelling of it.

    Raises:
        UserError: with the nearest known name.
    """
    rows = gpus()
    plain = {_plain(key): key for key in rows}
    wanted = _plain(name)
    if wanted in plain:
        return rows[plain[wanted]]
    raise UserError(
        f"unknown GPU {name!r}{did_you_mean(name, list(rows))}",
        next_step="toasterft gpus   lists the known ones",
    )


def recognise_gpu(name: str, memory_mib: int) -> Gpu | None:
    """The row for a card as `nvidia-smi` names it, or None.

    A laptop or a cut-down card of the same name has other memory, so the size must agree as well.
    """
    for row in gpus().values():
        if row.smi and re.search(row.smi, name) and abs(row.vram_bytes / (memory_mib * 2**20) - 1) < 0.12:
            return row
    return None


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
