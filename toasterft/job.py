"""From a recipe to a frozen `Job`: what will run, on what, and what it will take. Light.

`toasterft sft … --dry-run` ends with what is made here.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toasterft import catalog, estimate, hardware, models
from toasterft.catalog import Gpu
from toasterft.data import sources, survey
from toasterft.data.survey import Survey
from toasterft.errors import DataError, FitError, MissingExtra, ModelError, UserError
from toasterft.estimate import Estimate
from toasterft.models import ModelRef
from toasterft.recipe import Recipe, Trained

# Above this share of dropped samples a run would teach something else than its data.
MAX_DROPPED = 0.05
# What the plan shows beside the chosen size: SmolVLM at one tile, five tiles, and its default.
SHOWN_LONGEST_EDGES_PX = (512, 1024, 2048)


@dataclass(frozen=True)
class Target:
    """The GPU a plan is for, and why this one."""

    gpu: Gpu
    reason: str
    present: bool


@dataclass(frozen=True)
class Job:
    """A run that is ready to start.

    Attributes:
        engine: `plain` or `unsloth`.
        data_name: short name of the training or evaluation data.
        estimate: the plan for `target`; None for commands without one.
        usd_per_hour: what the meter counts with; None where nobody named a price for this machine.
    """

    recipe: Recipe
    model: ModelRef
    engine: str
    target: Target
    runs_dir: Path
    data_name: str = ""
    survey: Survey | None = None
    estimate: Estimate | None = None
    usd_per_hour: float | None = None
    out: Path | None = None


def prepare_training(recipe: Trained, runs_dir: Path, *, out: Path | None = None) -> Job:
    """Model, data, engine, GPU and estimate of a training run.

    Raises:
        UserError: anything of it cannot be had, or does not go together.
    """
    model = models.resolve(recipe.model, runs_dir)
    _check_training(recipe, model)
    target = choose_gpu(recipe.gpu)
    counted = _survey(recipe, model)
    planned = estimate.of_training(
        model.shape,
        counted,
        recipe,
        target.gpu,
        price=recipe.price,
        today=datetime.date.today(),
    )
    return Job(
        recipe=recipe,
        model=model,
        engine=choose_engine(recipe.engine, model),
        target=target,
        runs_dir=runs_dir,
        data_name=Path(recipe.data).stem,
        survey=counted,
        estimate=planned,
        usd_per_hour=_meter_price(recipe, target),
        out=out,
    )


def prepare_use(recipe: Recipe, runs_dir: Path, *, data_name: str = "", out: Path | None = None) -> Job:
    """A job that only reads a model: eval, ask."""
    model = models.resolve(recipe.model, runs_dir)
    target = choose_gpu(recipe.gpu)
    return Job(
        recipe=recipe,
        model=model,
        engine=choose_engine(recipe.engine, model),
        target=target,
        runs_dir=runs_dir,
        data_name=data_name,
        usd_per_hour=_meter_price(recipe, target),
        out=out,
    )


def choose_gpu(name: str | None) -> Target:
    """The named GPU, else the one in this machine, else an A40."""
    present = hardware.gpu()
    if name is not None:
        row = catalog.gpu(name)
        return Target(row, "as asked", present is not None and present.row is row)
    if present is None:
        return Target(catalog.gpu(catalog.DEFAULT_GPU), "no GPU here: planned for the default", False)
    if present.row is not None:
        return Target(present.row, "the GPU in this machine", True)
    # Peak rates of a card that is not in the catalog are unknown; the slowest known card of its
    # generation is a guess that errs on the slow side.
    capable = [row for row in catalog.gpus().values() if row.compute_capability <= present.compute_capability]
    slowest = min(capable or catalog.gpus().values(), key=lambda row: row.half_tflops)
    row = Gpu(
        name=present.name,
        vram_gb=present.total_bytes / 1e9,
        bf16=present.compute_capability >= 8.0,
        compute_capability=present.compute_capability,
        half_tflops=slowest.half_tflops,
        bandwidth_gb_s=slowest.bandwidth_gb_s,
        source=f"memory from nvidia-smi; speed assumed to be the {slowest.name}'s",
    )
    return Target(row, "the GPU in this machine; not in the catalog, speed assumed", True)


def choose_engine(asked: str, model: ModelRef) -> str:
    """`unsloth` where CUDA and the package are present, `plain` elsewhere."""
    if asked == "plain":
        return "plain"
    possible = hardware.gpu() is not None and hardware.has_unsloth()
    if asked == "unsloth" and not possible:
        raise MissingExtra(
            "the unsloth engine needs a CUDA GPU and the package unsloth",
            why="no GPU was found" if hardware.gpu() is None else "unsloth is not installed",
            next_step="pip install 'toasterft[cuda]'   or engine=plain",
        )
    return "unsloth" if possible else "plain"


def require_ready(job: Job) -> None:
    """Whatever a plan can do without and a launch cannot.

    Raises:
        DataError: the data is a catalog row that is neither here nor on the hub.
        FitError: the GPU in this machine is too small.
    """
    recipe = job.recipe
    if isinstance(recipe, Trained) and not sources.on_this_machine(recipe.data):
        row = catalog.datasets().get(recipe.data)
        if row is not None and row.hub_id is None:
            raise DataError(f"{row.name} is not on this machine; nothing was run", next_step=row.get)
    if job.estimate is not None and job.target.present and not job.estimate.fits:
        need, have = job.estimate.vram_bytes["peak"] / 1e9, job.target.gpu.vram_gb
        raise FitError(
            f"needs about {need:.1f} GB; {job.target.gpu.name} has {have:.0f} GB",
            next_step="try per_device_train_batch_size=1, gradient_checkpointing=true, or a smaller image_longest_edge",
        )


def _check_training(recipe: Trained, model: ModelRef) -> None:
    if recipe.lora is None and model.adapter is not None:
        raise ModelError(
            "full tuning cannot start from a LoRA adapter",
            where=recipe.model,
            next_step="merge the adapter first, or keep lora",
        )
    if recipe.train_vision and recipe.lora is not None and model.adapter is not None:
        raise ModelError("train_vision cannot continue from a LoRA adapter", where=recipe.model)


def _survey(recipe: Trained, model: ModelRef) -> Survey:
    geometry = model.shape.geometry.with_longest_edge(recipe.image_longest_edge)
    row = catalog.datasets().get(recipe.data)
    if not sources.on_this_machine(recipe.data) and row is not None:
        return survey.of_row(row, geometry, recipe.max_length, recipe.limit)
    data = sources.load(recipe.data, purpose="train", split=recipe.split, limit=recipe.limit)
    examples = data.examples
    if recipe.rows_without_reasoning == "drop":
        examples = [example for example in examples if example.reasoning is not None]
        if not examples:
            raise DataError(
                "no row carries reasoning", where=recipe.data, next_step="rows_without_reasoning=keep"
            )
    count = survey.counter(Path(model.base)) if model.local else None
    found = survey.of_examples(examples, geometry, recipe.prompt, recipe.max_length, count)
    if found.over_max_length > MAX_DROPPED * found.rows:
        raise too_many_dropped(found.over_max_length, found.rows, found.longest_tokens, recipe)
    return found


def too_many_dropped(dropped: int, rows: int, longest_tokens: int, recipe: Trained) -> UserError:
    """The refusal of a run that would leave out more than 5 % of its samples."""
    return DataError(
        f"{dropped} of {rows} samples are longer than max_length={recipe.max_length} tokens; nothing was run",
        where=recipe.data,
        why="a sample is never cut through its image; more than 5 % would be left out",
        next_step=f"max_length={-(-longest_tokens // 64) * 64} holds the longest, or a smaller image_longest_edge",
    )


def _meter_price(recipe: Recipe, target: Target) -> float | None:
    """Dollars per hour of the machine that runs: given, or the catalog's for the GPU that is here."""
    if recipe.price is not None:
        return recipe.price
    if target.present and target.gpu.default_offer is not None:
        return target.gpu.default_offer.usd_per_hour
    return None


def edges(job: Job) -> list[dict[str, Any]]:
    """The same run at other image sizes: tiles per image, tokens per row, seconds and dollars."""
    assert isinstance(job.recipe, Trained)
    if job.model.shape.model_type not in ("idefics3", "smolvlm"):
        return []
    rows = []
    for longest_px in SHOWN_LONGEST_EDGES_PX:
        recipe = job.recipe.model_copy(update={"image_longest_edge": longest_px, "max_length": 10**6})
        counted = _survey(recipe, job.model)
        planned = estimate.of_training(
            job.model.shape,
            counted,
            recipe,
            job.target.gpu,
            price=recipe.price,
            today=datetime.date.today(),
        )
        rows.append(
            {
                "image_longest_edge": longest_px,
                "tiles": counted.tiles,
                "row_tokens": counted.row_tokens,
                "longest_tokens": counted.longest_tokens,
                "peak_bytes": planned.vram_bytes["peak"],
                "seconds": planned.seconds.likely,
                "usd": planned.usd.likely if planned.usd else None,
            }
        )
    return rows
