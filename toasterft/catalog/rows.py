"""Rows of the catalog's YAML files as frozen records, found by name."""

from __future__ import annotations

import datetime
import functools
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from toasterft.errors import UserError, did_you_mean

HERE = Path(__file__).parent
# A rented card's price moves within weeks (RunPod's H100 rose 3.29 → 3.99 $/h from August to
# November 2026), so an older figure is shown with a mark.
STALE_AFTER_DAYS = 90
DEFAULT_GPU = "A40"
# Gemini 2 counts a picture up to this edge as one tile, a larger one in tiles of two thirds of its short
# edge (rule of ai.google.dev/gemini-api/docs/image-understanding, from memory).
TEACHER_ONE_TILE_PX = 384


def price_flag(as_of: datetime.date | None, today: datetime.date) -> str | None:
    """`undated`, `N days old`, or None where the price is fresh."""
    if as_of is None:
        return "undated"
    days = (today - as_of).days
    return f"{days} days old" if days > STALE_AFTER_DAYS else None


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
        """The price's age where it is a reason for doubt (`price_flag`)."""
        return price_flag(self.as_of, today)


@dataclass(frozen=True)
class Gpu:
    """A GPU: memory in GB (1e9 bytes), dense half-precision TFLOP/s, bandwidth in GB/s.

    A processor is one of compute capability 0 (`hardware.cpu`); its rate is that of float32.
    """

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
    def is_cpu(self) -> bool:
        return self.compute_capability == 0

    @property
    def vram_bytes(self) -> int:
        return int(self.vram_gb * 1e9)

    @property
    def default_offer(self) -> Offer | None:
        return self.offers[0] if self.offers else None


@dataclass(frozen=True)
class Model:
    """A model by its catalog name; `config` and `preprocessor` hold the parts of the hub files that plans read."""

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
    hub_id: str | None = None
    validation_rows: int | None = None
    test_rows: int | None = None


@dataclass(frozen=True)
class Teacher:
    """A model behind an API that writes reasoning, with its price in dollars per million tokens.

    Attributes:
        image_tokens: what one picture counts as; None where it is counted in tiles (`tile_tokens` each).
        batch_factor: price of the same request in a batch that may take a day; None where none is stated.
        gone: the day it was shut down, or may be from.
        later: prices that replace these from a day on.
    """

    name: str
    input_usd_per_mtok: float
    output_usd_per_mtok: float
    as_of: datetime.date | None
    source: str
    status: str
    image_tokens: int | None = None
    tile_tokens: int | None = None
    batch_factor: float | None = None
    gone: datetime.date | None = None
    later: dict[str, Any] | None = None

    def at(self, today: datetime.date) -> Teacher:
        """The row with the prices that hold on a day."""
        if self.later is None or today < self.later["from"]:
            return self
        prices = {key: value for key, value in self.later.items() if key != "from"}
        return replace(self, **prices, later=None)

    def flag(self, today: datetime.date) -> str | None:
        """`shut down`, `may be shut down`, `undated`, `N days old`, or None."""
        if self.gone is not None and today >= self.gone:
            return self.status
        return price_flag(self.as_of, today)

    def usd(self, input_tokens: float, output_tokens: float) -> float:
        """Dollars of one request."""
        read, written = self.input_usd_per_mtok, self.output_usd_per_mtok
        return (input_tokens * read + output_tokens * written) / 1e6

    def tokens_of_image(self, width_px: int, height_px: int) -> int:
        """Input tokens that one image is billed as."""
        if self.image_tokens is not None:
            return self.image_tokens
        assert self.tile_tokens is not None
        if max(width_px, height_px) <= TEACHER_ONE_TILE_PX:
            return self.tile_tokens
        unit = max(1, math.floor(min(width_px, height_px) / 1.5))
        return math.ceil(width_px / unit) * math.ceil(height_px / unit) * self.tile_tokens


def _read(name: str) -> dict[str, dict[str, Any]]:
    """Rows of one YAML file by their names."""
    # The C loader reads the catalog in a few milliseconds; `estimate` promises half a second.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    with open(HERE / f"{name}.yaml", encoding="utf-8") as handle:
        return {row["name"]: row for row in yaml.load(handle, Loader=loader)}


@functools.cache
def gpus() -> dict[str, Gpu]:
    return {
        name: Gpu(**{**row, "offers": tuple(Offer(**offer) for offer in row["offers"])})
        for name, row in _read("gpus").items()
    }


@functools.cache
def models() -> dict[str, Model]:
    return {name: Model(**row) for name, row in _read("models").items()}


@functools.cache
def datasets() -> dict[str, DatasetRow]:
    rows = _read("datasets").items()
    return {name: DatasetRow(**{**row, "image_px": tuple(row["image_px"])}) for name, row in rows}


@functools.cache
def teachers() -> dict[str, Teacher]:
    return {name: Teacher(**row) for name, row in _read("teachers").items()}


def find_teacher(name: str) -> Teacher | None:
    """The row of an API model; a family's name (`gemini`) means the first of its rows that is current."""
    rows = {key.lower(): row for key, row in teachers().items()}
    family = (
        row for key, row in rows.items() if key.startswith(f"{name.lower()}-") and row.status == "current"
    )
    return rows.get(name.lower()) or next(family, None)


def teacher(name: str) -> Teacher:
    """The row of an API model.

    Raises:
        UserError: with the nearest known name.
    """
    found = find_teacher(name)
    if found is None:
        known = list(teachers())
        raise UserError(
            f"no price known for the teacher {name!r}{did_you_mean(name, known)}",
            why=f"there are: {', '.join(known)}",
        )
    return found


def gpu(name: str) -> Gpu:
    """The row of a GPU, by its name or a vendor's spelling of it.

    Raises:
        UserError: with the nearest known name.
    """
    by_plain = {_plain(key): row for key, row in gpus().items()}
    if _plain(name) not in by_plain:
        raise UserError(
            f"unknown GPU {name!r}{did_you_mean(name, list(gpus()))}",
            next_step="toasterft gpus   lists the known ones",
        )
    return by_plain[_plain(name)]


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
