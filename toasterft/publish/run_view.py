"""One view of a run: settings, predicted and measured figures, and scores. Light.

`toasterft show` and `runs`, the report's page and the model card all read it, so that all show the same facts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml

from toasterft import catalog
from toasterft.data import sources
from toasterft.data.write import read_card
from toasterft.errors import UserError
from toasterft.runs import meter, run_folder
from toasterft.runs.run_folder import Run
from toasterft.units import NOTHING, Range, dollars, duration, ranged_time, ranged_usd, size, time_like, when

# What of a data set's own card says how it was made; the counts and hashes stay there.
DATA_CARD_KEYS = ("task", "style", "difficulty", "seed", "generator_version", "licence")
# A longer text is no path, and the system would refuse to look for it.
LONGEST_PATH = 1000

Facts = list[tuple[str, str]]


@dataclass(frozen=True)
class Quantity:
    """A figure that was predicted, beside the measured one.

    Attributes:
        comparable: both are of the same machine, and of a run that ended.
    """

    name: str
    unit: Literal["seconds", "usd", "bytes"]
    predicted: Range | None
    measured: float | None
    comparable: bool = False

    @classmethod
    def of(cls, name: str, unit: Any, row: dict[str, Any], comparable: bool) -> Quantity:
        """From a row of `run_folder.predicted_and_measured`: a range as a dict, one figure, or nothing."""
        found = row["predicted"] or None
        predicted = (
            Range(**found) if isinstance(found, dict) else Range(found, found, found) if found else None
        )
        return cls(name, unit, predicted, row["measured"], comparable)

    @property
    def predicted_text(self) -> str:
        if self.predicted is None:
            return NOTHING
        if self.unit == "bytes":
            return size(self.predicted.likely)
        return ranged_time(self.predicted) if self.unit == "seconds" else ranged_usd(self.predicted)

    @property
    def measured_text(self) -> str:
        if self.unit == "seconds" and self.predicted is not None:
            return time_like(self.predicted, self.measured)
        return self.write(self.measured)

    def write(self, value: float | None) -> str:
        return {"seconds": duration, "usd": dollars, "bytes": size}[self.unit](value)

    @property
    def known(self) -> bool:
        return self.predicted is not None or self.measured is not None

    @property
    def test(self) -> tuple[Range, float] | None:
        """Both figures where the measured one says whether the predicted one was right."""
        if not self.comparable or self.predicted is None or self.measured is None:
            return None
        return self.predicted, self.measured

    @property
    def ratio(self) -> float | None:
        """Measured over likely, where they test each other."""
        return self.test[1] / self.test[0].likely if self.test and self.test[0].likely else None

    @property
    def verdict(self) -> str:
        """How they compare; empty where they do not test each other."""
        if self.test is None or not max(self.test[0].high, self.test[1]):
            return ""
        predicted, measured = self.test
        if predicted.low <= measured <= predicted.high:
            return "inside the range"
        return "not foreseen" if self.ratio is None else f"×{self.ratio:.2f}"


@dataclass(frozen=True)
class RunView:
    """A run as text and figures, for terminal, report and model card."""

    run: Run

    @property
    def id(self) -> str:
        return str(self.run.record.get("id") or self.run.id)

    @property
    def record(self) -> dict[str, Any]:
        return self.run.record

    @property
    def method(self) -> str:
        return str(self.record.get("method"))

    @property
    def recipe(self) -> dict[str, Any]:
        return self.run.recipe

    @property
    def ending(self) -> str:
        """How it ended, and why."""
        reason = self.record.get("stop_reason")
        return str(self.record.get("status", "unknown")) + (f": {reason}" if reason else "")

    @property
    def scores(self) -> dict[str, Any] | None:
        """What `scoring.summary` found of its answers; None where it was not evaluated."""
        return self.record.get("eval") or None

    # --- what it took

    @property
    def ran_on(self) -> str:
        return _machine(self.record.get("gpu") or "CPU")

    @property
    def planned_for(self) -> str:
        """The machine that was planned for; empty where there was no plan."""
        return _machine(self._held["planned_for"])

    @property
    def comparable(self) -> bool:
        """It ended, on the machine it was planned for."""
        return bool(self._held["comparable"])

    @cached_property
    def took(self) -> list[Quantity]:
        """Time, dollars and peak memory."""
        held = self._held
        return [
            Quantity.of("time", "seconds", held["seconds"], self.comparable),
            Quantity.of("dollars", "usd", held["usd"], self.comparable),
            Quantity.of("peak memory", "bytes", held["peak_bytes"], self.comparable),
        ]

    @cached_property
    def phases(self) -> list[tuple[Quantity, Quantity]]:
        """Time and peak memory of each phase."""
        return [
            (
                Quantity.of(name, "seconds", row["seconds"], self.comparable),
                Quantity.of(name, "bytes", row["peak_bytes"], self.comparable),
            )
            for name, row in self._held["phases"].items()
        ]

    @cached_property
    def _held(self) -> dict[str, Any]:
        """Predicted beside measured; of a run without a plan, or one that did not end, what it took so far."""
        found = run_folder.predicted_and_measured(self.record)
        if found is not None:
            return found
        planned, measured = self.record.get("estimate") or {}, self.record.get("measured") or {}
        seconds, usd = spent(self.run)
        peak = (planned.get("vram_bytes") or {}).get("peak")
        return {
            "planned_for": planned.get("gpu") or "",
            "comparable": False,
            "seconds": {"predicted": planned.get("seconds"), "measured": seconds},
            "usd": {"predicted": planned.get("usd"), "measured": usd},
            "peak_bytes": {"predicted": peak, "measured": measured.get("peak_memory_bytes")},
            "phases": {
                name: {
                    key: {"predicted": None, "measured": row.get(key)} for key in ("seconds", "peak_bytes")
                }
                for name, row in (measured.get("phases") or {}).items()
            },
        }

    # --- what was run

    @property
    def facts(self) -> Facts:
        """What was run, and on what machine."""
        record, machine = self.record, self.record.get("machine") or {}
        price, resumed = record.get("usd_per_hour"), len(record.get("resumed_at") or ())
        model = short_path(record.get("model_base") or self.recipe.get("model") or "")
        origin = record.get("model_run") or (
            Path(found).name if (found := record.get("model_adapter")) else None
        )
        teachers = meter.read_spend(self.run.path).get("teachers_usd")
        return _known(
            ("model", f"{model}, from {origin}" if origin else model),
            ("trained", self._trained()),
            ("machine", _listed(
                self.ran_on, (cores := machine.get("cpus")) and f"{cores} cores",
                "no price was named" if price is None else f"{dollars(price)} an hour",
            )),
            ("system", _listed(
                machine.get("platform"), (python := machine.get("python")) and f"Python {python}",
                (engine := record.get("engine")) and f"engine {engine}",
            )),
            ("code", _listed(
                (version := record.get("toasterft")) and f"toasterft {version}",
                (commit := record.get("git_commit")) and f"commit {commit}",
            )),
            ("teachers", f"{dollars(teachers)} of its dollars" if teachers else ""),
            ("started", _listed(when(record.get("started_at")), resumed and f"resumed {resumed} times")),
            ("ended", self.ending),
        )  # fmt: skip

    def _trained(self) -> str:
        if self.method == "eval" or "lora" not in self.recipe:
            return ""
        adapter, four_bit = self.recipe["lora"], self.recipe.get("load_in_4bit")
        if not isinstance(adapter, dict) or "r" not in adapter:
            return "the whole language model"
        weights = f"{weights_text(four_bit)} weights" if isinstance(four_bit, bool) else "weights"
        return f"LoRA of rank {adapter['r']} on {weights}"

    @property
    def data(self) -> Facts:
        """The rows that were trained on, or evaluated on."""
        record, name = self.record, str(self.recipe.get("data") or "")
        if not name:
            return []
        count, used, limit = record.get("data_count"), record.get("train_count"), self.recipe.get("limit")
        split = record.get("data_split")
        return _known(
            ("data", short_path(name)),
            (
                "rows",
                " of ".join(
                    [*([f"{count:,}"] if count is not None else []), *([f"split {split}"] if split else [])]
                ),
            ),
            ("trained on", f"{used:,} of them" if used is not None and used != count else ""),
            ("evaluated on", self._held_out()),
            ("limit", f"the first {limit:,}" if limit else ""),
            ("SHA-256", record.get("data_sha256")),
            *_data_card(name),
        )

    def _held_out(self) -> str:
        if "eval_limit" not in self.recipe:
            return ""
        named, limit = self.recipe.get("eval_data"), self.recipe["eval_limit"]
        where = short_path(named) if named else "the same data"
        most = f", at most {limit:,} row{'' if limit == 1 else 's'}" if limit else ""
        return f"{where}, split {self.recipe.get('eval_split') or 'validation'}{most}"


def _machine(name: str) -> str:
    return name.upper() if name.lower() == "cpu" else name


def _listed(*parts: Any) -> str:
    return ", ".join(str(part) for part in parts if part)


def _known(*rows: tuple[str, Any]) -> Facts:
    return [(name, value) for name, value in rows if value]


def _data_card(name: str) -> Iterator[tuple[str, str]]:
    row = catalog.datasets().get(Path(name).name)
    if row is not None and row.licence:
        yield "licence", row.licence
    here = sources.path_here(name)
    try:
        own = read_card(here)
    except UserError as error:
        yield "its card", error.what
        return
    made = [f"{key.replace('_', ' ')} {own[key]}" for key in DATA_CARD_KEYS if own.get(key) is not None]
    yield "its card says", ", ".join(made)
    if isinstance(own.get("build"), dict):
        teachers = own["build"].get("teachers")
        yield "reasoning by", ", ".join(map(str, teachers)) if isinstance(teachers, list) else ""


# --- recipes and paths -----------------------------------------------------------------------


def recipe_text(settings: dict[str, Any]) -> str:
    """A resolved recipe as YAML, paths cut to their last part."""
    return yaml.safe_dump(shortened(settings), sort_keys=False, allow_unicode=True) if settings else ""


def shortened(value: Any) -> Any:
    """Paths of this machine cut to their last part, because pages and cards travel."""
    if isinstance(value, dict):
        return {key: shortened(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shortened(each) for each in value]
    return Path(value).name if isinstance(value, str) and _is_path(value) else value


def short_path(value: Any) -> str:
    return str(shortened(str(value)))


def _is_path(text: str) -> bool:
    """`owner/name` is a hub id, unless there is a file or folder of that name."""
    if "\n" in text or len(text) > LONGEST_PATH:
        return False
    return text.startswith(("/", "~", "./", "../")) or ("/" in text and Path(text).exists())


# --- what it cost ----------------------------------------------------------------------------


def spent(run: Run) -> tuple[float | None, float | None]:
    """Seconds and dollars of a run so far, also of one that was killed; None where they are not known."""
    bill = run.record.get("measured") or meter.read_spend(run.path)
    return bill.get("seconds"), bill.get("usd")


def total(runs: Iterable[Run]) -> tuple[float | None, float | None]:
    """Seconds and dollars of all these runs; None where those of any are unknown, or there is no run."""
    bills = [spent(run) for run in runs]
    seconds, usd = ([bill[place] for bill in bills] for place in (0, 1))
    known = [sum(filter(None, parts)) if parts and None not in parts else None for parts in (seconds, usd)]
    return known[0], known[1]


def weights_text(four_bit: Any) -> str:
    return "4-bit" if four_bit else "16-bit"
