"""Estimate one run on any GPU, with any changes to its recipe or model.

A `Plan` holds what was read once (the data's sizes, the model's shape) and the recipe. `changed` gives the
same run with other settings, `on` what it takes on one GPU. Memory, time, dollars, the changes of `--fit` and the
suggestions for a budget all go through these two.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from toasterft import catalog
from toasterft.catalog import Gpu, Teacher
from toasterft.data.token_stats import MAX_DROPPED, RawSizes, TokenStats
from toasterft.estimation import memory, passes, phases, prices, seconds, teachers
from toasterft.estimation.calibration import RANGE, Calibration
from toasterft.models.architectures import ModelShape, shape_from_config
from toasterft.models.geometry import Geometry
from toasterft.recipe import Dpo, Dyme, Eval, Policy, Trained
from toasterft.units import Range


@dataclass(frozen=True)
class Estimate:
    """Expected memory, time and cost of one run on one GPU.

    Attributes:
        vram_bytes: items of the peak phase, and `peak`.
        phase: the peak phase.
        phase_bytes: the same for every phase; `cuda_and_slack` is what no tensor asks for.
        phase_seconds: parts of `seconds`.
        pace: the bottleneck of a phase: `gpu`, `cpu` or `launches`.
        compute_units: Colab's currency on its paid plans; None elsewhere.
        price_flag: `undated` or `N days old` where the price should be checked.
        teachers_usd: cost of the API models that the run calls; part of `usd`.
    """

    gpu: str
    fits: bool
    vram_bytes: dict[str, int]
    phase: str
    phase_bytes: dict[str, dict[str, int]]
    seconds: Range
    phase_seconds: dict[str, Range]
    pace: dict[str, str]
    optimizer_steps: int
    disk_bytes: dict[str, int]
    usd: Range | None
    price: dict[str, Any] | None
    price_flag: str | None = None
    compute_units: Range | None = None
    teachers_usd: Range | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def peak_bytes(self) -> int:
        return self.vram_bytes["peak"]

    def as_json(self) -> dict[str, Any]:
        row = asdict(self)
        phase = row.pop("phase")
        return {**row, "vram_bytes": {**row["vram_bytes"], "phase": phase}, "notes": list(self.notes)}


@dataclass(frozen=True)
class Plan:
    """A training or an evaluation before it is one.

    Attributes:
        shape: of the model, its geometry as the model (or the adapter on it) sets it.
        recipe: an `Eval` states `load_in_4bit` here, whatever the weights' own default is.
        sizes: of the rows to train on, or to answer.
        held_out: of the rows that are answered after a training; None where there are none.
        swappable: whether another catalog model could take the model's place (not under an adapter).
        live_teachers: prices of the API models that the run calls while it trains, by role (DyME's judge, refiner).
        calibration: measurements on the machine at hand; used for that machine alone.
        processes: how many train together, each on a GPU of its own; batch sizes are per process.
    """

    shape: ModelShape
    recipe: Trained | Eval
    sizes: RawSizes
    held_out: RawSizes | None = None
    swappable: bool = True
    live_teachers: Mapping[str, Teacher] = field(default_factory=dict)
    calibration: Calibration | None = None
    processes: int = 1

    def changed(self, changes: dict[str, Any]) -> Plan:
        """The same run with other values for some keys of the recipe; `model` takes a catalog name.

        The values are not validated again: `fit.apply` does that for what is really run.
        """
        shape = self.shape
        if "model" in changes:
            row = catalog.models()[changes["model"]]
            shape = shape_from_config(row.config, row.preprocessor)
        return replace(self, shape=shape, recipe=self.recipe.model_copy(update=changes))

    @property
    def stats(self) -> TokenStats:
        """Token statistics of the rows under the model's image geometry."""
        found = self._at(self.sizes)
        return found.first(self.recipe.limit or found.rows)

    @property
    def held_out_stats(self) -> TokenStats | None:
        return self._at(self.held_out) if self.held_out else None

    def _at(self, sizes: RawSizes) -> TokenStats:
        longest = self.recipe.max_length if isinstance(self.recipe, Trained) else self.shape.text.max_position
        return sizes.at(self.geometry, longest)

    @property
    def geometry(self) -> Geometry:
        """How images are cut at the recipe's size."""
        return self.shape.geometry.with_longest_edge(self.recipe.image_longest_edge)

    @property
    def drops_too_many(self) -> bool:
        """Whether more samples exceed `max_length` than a run may leave out."""
        stats = self.stats
        return stats.over_max_length > MAX_DROPPED * stats.rows

    def peak_bytes(self, gpu: Gpu) -> int:
        """Memory of the GPU at its highest."""
        return max(sum(items.values()) for items in self.phase_bytes(gpu).values())

    def phase_bytes(self, gpu: Gpu) -> dict[str, dict[str, int]]:
        """Itemised memory of the GPU in every phase, context and allocator slack included; of the process on a CPU."""
        found = phases.of_run(self.shape, self.stats, self.held_out_stats, self.recipe, gpu)
        known = self._calibration_of(gpu)
        for phase, ratio in (known.bytes if known else {}).items():
            if phase in found:
                more = round(sum(found[phase].values()) * (ratio - 1))
                found[phase]["cuda_and_slack"] = max(0, found[phase]["cuda_and_slack"] + more)
        return found

    def _phase_seconds(self, gpu: Gpu) -> dict[str, Range]:
        recipe, stats, held_out = self._of_each_process()
        found = seconds.of_run(self.shape, stats, recipe, gpu, held_out=held_out)
        known = self._calibration_of(gpu)
        for phase, ratio in (known.seconds if known else {}).items():
            if phase in found:
                likely = found[phase].likely * ratio
                found[phase] = Range(likely / RANGE, likely, likely * RANGE)
        return found

    def _calibration_of(self, gpu: Gpu) -> Calibration | None:
        known = self.calibration
        return known if known is not None and known.machine == gpu.name else None

    def on(self, gpu: Gpu, *, price: float | None, today: datetime.date) -> Estimate:
        """Estimate the run on one GPU, or on one for each process: memory is that of each.

        Args:
            price: dollars per hour, of all of them together, instead of the catalog's.
            today: what the age of a price is counted from.
        """
        shape = self.shape
        both = [stats for stats in (self.stats, self.held_out_stats) if stats is not None]
        features = sum(seconds.feature_bytes(shape, stats) for stats in both)
        disk = {"feature_cache": int(features * passes.cached_share(shape, self.recipe, features))}
        recipe, stats, _ = self._of_each_process()
        steps, teachers_usd = 0, None
        if isinstance(recipe, Trained):
            work = passes.of(shape, stats, recipe)
            steps = work.optimizer_steps
            disk["checkpoints"] = memory.checkpoint_bytes(shape, recipe)
            if isinstance(recipe, Dyme) and self.live_teachers:
                teachers_usd = teachers.of_live_teachers(stats, recipe, work, self.live_teachers)
        phase_bytes = {
            name: {**items, "peak": sum(items.values())} for name, items in self.phase_bytes(gpu).items()
        }
        phase = max(phase_bytes, key=lambda name: phase_bytes[name]["peak"])
        phase_seconds = self._phase_seconds(gpu)
        taken = Range.sum(phase_seconds.values())
        hour = prices.of_hour(gpu, price, today, gpus=self.processes)
        units = hour.compute_units_per_hour if hour is not None else None
        return Estimate(
            gpu=gpu.name,
            fits=phase_bytes[phase]["peak"] <= gpu.vram_bytes,
            vram_bytes=phase_bytes[phase],
            phase=phase,
            phase_bytes=phase_bytes,
            seconds=taken,
            phase_seconds=phase_seconds,
            pace=seconds.pace(shape, stats, recipe, gpu),
            optimizer_steps=steps,
            disk_bytes=disk,
            usd=prices.of_run(taken, hour, teachers_usd),
            teachers_usd=teachers_usd,
            price=hour.as_json() if hour is not None else None,
            price_flag=hour.flag if hour is not None else None,
            compute_units=None if units is None else taken.times(units / 3600),
            notes=tuple(self._notes(gpu, hour, teachers_usd)),
        )

    def _of_each_process(self) -> tuple[Trained | Eval, TokenStats, TokenStats | None]:
        """One rank's share of images, rows and answers, in as many optimizer steps as all of them."""
        n, recipe, stats, held_out = self.processes, self.recipe, self.stats, self.held_out_stats
        if n == 1:
            return recipe, stats, held_out
        # A policy's steps are all full; the last one of an epoch may be short elsewhere.
        kept = stats.kept // n if isinstance(recipe, Policy) else math.ceil(stats.kept / n)
        stats = replace(stats, rows=kept, over_max_length=0, images=math.ceil(stats.images / n))
        if held_out is not None:
            held_out = replace(
                held_out, rows=math.ceil(held_out.rows / n), images=math.ceil(held_out.images / n)
            )
        if recipe.cache_limit_gb is not None:
            recipe = recipe.model_copy(update={"cache_limit_gb": recipe.cache_limit_gb / n})
        return recipe, stats, held_out

    def _notes(self, gpu: Gpu, hour: prices.HourPrice | None, teachers_usd: Range | None) -> Iterator[str]:
        n, recipe = self.processes, self.recipe
        if n > 1 and isinstance(recipe, Trained):
            size, accumulated = recipe.per_device_train_batch_size, recipe.gradient_accumulation_steps
            what = (
                "completions"
                if isinstance(recipe, Policy)
                else "pairs"
                if isinstance(recipe, Dpo)
                else "rows"
            )
            yield (
                f"planned for {n} processes: a step takes {n} × {size} × {accumulated} = {n * size * accumulated} "
                f"{what}; memory is that of each, and what exchanging gradients takes is not counted"
            )
        if isinstance(recipe, Trained):
            yield from self._sharing(recipe)
        if gpu.is_cpu:
            yield "memory is the process's own; glibc's heap may hold up to as much again"
        elif not gpu.bf16 and recipe.dtype == "bfloat16":
            yield f"{gpu.name} has no bfloat16 and would emulate it, slowly: dtype=auto takes float16"
        elif not gpu.bf16 and recipe.dtype == "auto":
            scaler = " with a gradient scaler" if isinstance(recipe, Trained) else ""
            yield f"{gpu.name} has no bfloat16: this runs in float16{scaler}"
        if teachers_usd is not None:
            who = " and ".join(f"{role} {price.name}" for role, price in self.live_teachers.items())
            usd = teachers_usd
            yield f"{who}: ${usd.likely:.2f} of it (${usd.low:.2f} to ${usd.high:.2f})"
        known = self._calibration_of(gpu)
        if known is not None:
            ratios = ", ".join(f"{phase} ×{ratio:.2g}" for phase, ratio in known.seconds.items())
            yield f"calibrated by {known.name}: {ratios} of the formulas' time"
        if hour is not None and hour.flag is not None:
            yield f"the price of {gpu.name} is {hour.flag}: check it, or give --price"
        if hour is not None and hour.compute_units_per_hour is not None:
            yield f"{gpu.name} costs nothing within the free limits, compute units on a paid plan"

    def _sharing(self, recipe: Trained) -> Iterator[str]:
        """How many rows read an image together, and what that saves."""
        stats = self.stats
        mean, most = passes.rows_per_tree(self.shape, stats, recipe)
        if most == 1:
            return
        rows = sum(size * count for size, count in stats.sharing)
        share = sum(size * count for size, count in stats.sharing if size > 1) / rows
        apart = passes.tokens_of_row(stats, recipe, 1.0)
        yield (
            f"{share:.0%} of the rows share their images with others: each is read by {mean:.1f} rows at once, "
            f"{apart / passes.tokens_of_row(stats, recipe, mean):.1f} times fewer tokens than row by row "
            "(branches_per_forward=1)"
        )


def sum_stages(stages: Mapping[str, Estimate]) -> Estimate:
    """One estimate of a pipeline on one GPU, its stages in the place of phases: the highest peak, all else summed.

    Stages of one model on one data set share their feature cache.
    """
    rows = list(stages.values())
    highest = max(stages, key=lambda name: stages[name].peak_bytes)
    disk = {name: [row.disk_bytes.get(name, 0) for row in rows] for name in ("feature_cache", "checkpoints")}
    return replace(
        rows[0],
        fits=all(row.fits for row in rows),
        vram_bytes=stages[highest].vram_bytes,
        phase=highest,
        phase_bytes={name: row.vram_bytes for name, row in stages.items()},
        seconds=Range.sum(row.seconds for row in rows),
        phase_seconds={name: row.seconds for name, row in stages.items()},
        pace={},
        optimizer_steps=sum(row.optimizer_steps for row in rows),
        disk_bytes={"feature_cache": max(disk["feature_cache"]), "checkpoints": sum(disk["checkpoints"])},
        usd=_summed(row.usd for row in rows),
        compute_units=_summed(row.compute_units for row in rows),
        teachers_usd=_summed(row.teachers_usd for row in rows),
        notes=tuple(dict.fromkeys(note for row in rows for note in row.notes)),
    )


def _summed(parts: Iterable[Range | None]) -> Range | None:
    known = [part for part in parts if part is not None]
    return Range.sum(known) if known else None


def ranked(estimates: Iterable[Estimate]) -> list[Estimate]:
    """Cheapest first, then fastest; those without a price last."""
    return sorted(
        estimates,
        key=lambda row: (row.usd is None, row.usd.likely if row.usd else 0.0, row.seconds.likely),
    )


def cheapest(estimates: Iterable[Estimate], *, rented: bool = False) -> Estimate | None:
    """The cheapest GPU that the run fits; with `rented`, among those that are not free."""
    for row in ranked(estimates):
        if row.fits and row.usd is not None and (row.usd.likely > 0 or not rented):
            return row
    return None
