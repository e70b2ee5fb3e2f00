"""From a recipe to a frozen `Job`: what will run, on what, and what it will take. Light.

`toasterft sft … --dry-run` ends with what is made here.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from toasterft import catalog
from toasterft.catalog import hardware
from toasterft.catalog.hardware import Target
from toasterft.data import sources, token_stats
from toasterft.data.selection import (
    TrainingRows,
    catalog_row_elsewhere,
    evaluation_rows,
    select_rows,
    too_many_dropped,
)
from toasterft.data.token_stats import RawSizes, TokenStats
from toasterft.errors import MissingExtra, ModelError
from toasterft.estimation import Estimate, Plan, calibration
from toasterft.estimation.fit import Fit
from toasterft.estimation.fit import apply as apply_changes
from toasterft.models import adapter_files, lookup
from toasterft.models.adapter_files import FACTOR_FILE
from toasterft.models.architectures import Architecture, architecture
from toasterft.models.lookup import ModelRef
from toasterft.models.settings import ModelSettings
from toasterft.recipe import Dpo, Dyme, Eval, Prompt, Recipe, Trained
from toasterft.runs import distributed
from toasterft.runs.meter import Meter
from toasterft.runs.run_folder import Run

# Tokens of a text by the model's own tokenizer; None where that is not here.
Counter = Callable[[str], int] | None
# What the plan shows beside the chosen size: SmolVLM at one tile, five tiles, and its default.
SHOWN_LONGEST_EDGES_PX = (512, 1024, 2048)


@dataclass(frozen=True)
class Job:
    """A run that is ready to start.

    Attributes:
        settings: the model, and how it is opened.
        engine: `plain` or `unsloth`.
        data_name: short name of the training or evaluation data.
        plan: the run as estimates see it, for other GPUs and other settings; None for commands without one.
        estimate: what it takes on `target`; None for commands without one.
        usd_per_hour: what the meter counts with; None where nobody named a price for this machine.
        budget_usd, max_seconds: caps of the run, over all its processes.
        resume: the run to go on with, or None for a new one.
        meter: its meter where that runs already, from before the plan was made.
        fitted: settings that `--fit` changed.
        rows: rows of a training; None for other commands, and until a process of several has read its own.
    """

    recipe: Recipe
    settings: ModelSettings
    engine: str
    target: Target
    runs_dir: Path
    data_name: str = ""
    stats: TokenStats | None = None
    plan: Plan | None = None
    estimate: Estimate | None = None
    usd_per_hour: float | None = None
    out: Path | None = None
    budget_usd: float | None = None
    max_seconds: float | None = None
    resume: Run | None = None
    meter: Meter | None = field(default=None, repr=False)
    fitted: dict[str, Any] | None = None
    rows: TrainingRows | None = field(default=None, repr=False)

    @property
    def model(self) -> ModelRef:
        return self.settings.model


def prepare_training(recipe: Trained, runs_dir: Path, *, out: Path | None = None) -> Job:
    """Resolve model, rows, engine, GPU and estimate of a training run.

    Raises:
        UserError: anything of it cannot be had, or does not go together.
    """
    settings = ModelSettings.resolve(recipe, lookup.resolve(recipe.model, runs_dir))
    _require_trainable(recipe, settings.model)
    target = hardware.choose_gpu(recipe.gpu)
    rows = select_rows(recipe, fetch=False)
    count = None if rows.train is None else counter(settings.model)
    plan = Plan(
        replace(settings.model.shape, geometry=settings.geometry),
        recipe,
        _train_sizes(recipe, rows, count),
        _held_out_sizes(recipe, rows, count),
        swappable=settings.model.adapter is None,
        live_teachers=_live_teacher_prices(recipe),
        processes=distributed.world_size(),
    )
    stats = plan.stats
    if plan.drops_too_many:
        raise too_many_dropped(stats.over_max_length, stats.rows, stats.longest_tokens, recipe)
    return replace(_planned(recipe, settings, target, plan, runs_dir), out=out, rows=rows)


def prepare_evaluation(recipe: Eval, runs_dir: Path) -> Job:
    """Resolve an evaluation with its estimate, for `toasterft estimate eval`.

    Raises:
        UserError: model or data cannot be had.
    """
    settings = ModelSettings.resolve(recipe, lookup.resolve(recipe.model, runs_dir))
    recipe = recipe.model_copy(update={"load_in_4bit": settings.load_in_4bit})
    row = catalog_row_elsewhere(recipe.data)
    if row is not None:
        rows = row.test_rows or row.rows
        sizes = token_stats.from_catalog(row, min(rows, recipe.limit or rows))
    else:
        data = evaluation_rows(recipe)
        sizes = token_stats.measure(data.examples, recipe.prompt or Prompt(), counter(settings.model))
    shape = replace(settings.model.shape, geometry=settings.geometry)
    plan = Plan(shape, recipe, sizes, swappable=False)
    return _planned(recipe, settings, hardware.choose_gpu(recipe.gpu), plan, runs_dir)


def _planned(
    recipe: Trained | Eval, settings: ModelSettings, target: Target, plan: Plan, runs_dir: Path
) -> Job:
    """Estimate a plan on its target."""
    if target.present:
        known = calibration.find(target.gpu.name, recipe.method, settings.model.name)
        plan = replace(plan, calibration=known)
    return Job(
        recipe=recipe,
        settings=settings,
        engine=choose_engine(recipe.engine),
        target=target,
        runs_dir=runs_dir,
        data_name=Path(recipe.data).stem,
        stats=plan.stats,
        plan=plan,
        estimate=plan.on(target.gpu, price=recipe.price, today=datetime.date.today()),
        usd_per_hour=_meter_price(recipe, target),
    )


def prepare_use(recipe: Recipe, runs_dir: Path, *, data_name: str = "", out: Path | None = None) -> Job:
    """Resolve a job that only reads a model: eval, ask, pairs."""
    target = hardware.choose_gpu(recipe.gpu)
    return Job(
        recipe=recipe,
        settings=ModelSettings.resolve(recipe, lookup.resolve(recipe.model, runs_dir)),
        engine=choose_engine(recipe.engine),
        target=target,
        runs_dir=runs_dir,
        data_name=data_name or Path(getattr(recipe, "data", "")).stem,
        usd_per_hour=_meter_price(recipe, target),
        out=out,
    )


def measure(data: str, images: Path | None = None) -> RawSizes:
    """Measure rows of some data, whatever the model: for a teacher that is to write their reasoning.

    Raises:
        DataError: the data cannot be had.
    """
    row = catalog_row_elsewhere(data)
    if row is not None:
        return token_stats.from_catalog(row, row.rows)
    return token_stats.measure(sources.load(data, purpose="train", images=images).examples, Prompt(), None)


def choose_engine(asked: str) -> str:
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


def fit_to_gpu(job: Job, fit: Fit) -> Job:
    """The job with what `--fit` allows changed so that it fits its GPU; as it is where it fits already."""
    if fit == "off" or job.plan is None:
        return job
    changed, changes = apply_changes(job.plan, job.target.gpu, fit)
    if not changes:
        return job
    assert isinstance(changed, Trained)
    again = prepare_training(changed, job.runs_dir, out=job.out)
    return replace(again, fitted=changes)


def _require_trainable(recipe: Trained, model: ModelRef) -> None:
    if recipe.lora is None and model.adapter is not None:
        raise ModelError(
            "full tuning cannot start from a LoRA adapter",
            where=recipe.model,
            next_step="merge the adapter first, or keep lora",
        )
    if recipe.train_connector and recipe.lora is not None and model.adapter is not None:
        _require_connector(recipe, model.adapter, architecture(model.shape.model_type))
    if recipe.train_vision and recipe.lora is not None:
        raise ModelError(
            "train_vision needs full tuning; nothing was run",
            why="a LoRA adapter has no place for a tower that was trained: it would be lost at the end",
            next_step="lora=null load_in_4bit=false saves every weight; train_connector=true goes with a LoRA",
        )


def _require_connector(recipe: Trained, adapter: Path, family: Architecture) -> None:
    """
    Raises:
        ModelError: an adapter that is to go on has nothing of the connector that could train.
    """
    why = None
    if family.takes_features and family.connector_linear is not None:
        if not (adapter / FACTOR_FILE).is_file():
            why = f"there is no {FACTOR_FILE} in it, which holds what the connector has learned"
    elif not any(layer.startswith(f"{family.connector}.") for layer in adapter_files.check(adapter)):
        why = "it was trained without"
    if why:
        raise ModelError(
            "this adapter cannot go on with train_connector=true; nothing was run",
            where=str(adapter),
            why=why,
            next_step="train_connector=false, or merge it (toasterft export) and start a new adapter from that",
        )


def _train_sizes(recipe: Trained, rows: TrainingRows, count: Counter) -> RawSizes:
    """Sizes of the rows to learn from: measured, or the catalog's where they are elsewhere."""
    if rows.train is not None:
        return token_stats.measure(rows.train.examples, recipe.prompt, count, pairs=isinstance(recipe, Dpo))
    row = catalog.datasets()[recipe.data]
    return token_stats.from_catalog(row, min(row.rows, recipe.limit or row.rows))


def _held_out_sizes(recipe: Trained, rows: TrainingRows, count: Counter) -> RawSizes | None:
    """Sizes of the rows that are answered at the end; those elsewhere are as many as `eval_limit` allows."""
    if rows.held_out is not None:
        return token_stats.measure(rows.held_out, recipe.prompt, count) if rows.held_out else None
    row = catalog.datasets()[recipe.eval_data or recipe.data]
    number = row.validation_rows or row.test_rows or row.rows
    return token_stats.from_catalog(row, min(number, recipe.eval_limit or number))


def _live_teacher_prices(recipe: Trained) -> dict[str, catalog.Teacher]:
    """Prices of the models that a run queries while it trains, by role."""
    if not isinstance(recipe, Dyme):
        return {}
    from toasterft.teachers import directory  # with it asyncio, which other commands can do without

    services = directory.of_run(recipe, datetime.date.today())
    return {role: service.price for role, service in services.items()}


def counter(model: ModelRef) -> Counter:
    """Tokens of a text by the model's own tokenizer; None where its file is not here."""
    folder = tokenizer_folder(model)
    return None if folder is None else token_stats.token_counter(folder)


def tokenizer_folder(model: ModelRef) -> Path | None:
    """Where a model's tokenizer.json lies: its folder, or that of the hub's files if they are cached."""
    if model.local:
        return Path(model.base)
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(model.base, "tokenizer.json")
    return Path(cached).parent if isinstance(cached, str) else None


def _meter_price(recipe: Recipe, target: Target) -> float | None:
    """Dollars per hour of the machine that runs: given, or the catalog's for the GPUs that are here, one a process."""
    if recipe.price is not None:
        return recipe.price
    if target.present and target.gpu.default_offer is not None:
        return target.gpu.default_offer.usd_per_hour * distributed.world_size()
    return None


def edges(job: Job) -> list[dict[str, Any]]:
    """The same run at other image sizes: tiles per image, tokens per row, seconds and dollars."""
    assert job.plan is not None
    if job.model.shape.geometry.smaller_edges_px() is None:
        return []
    rows = []
    for longest_px in SHOWN_LONGEST_EDGES_PX:
        plan = job.plan.changed({"image_longest_edge": longest_px, "max_length": 10**6})
        planned = plan.on(job.target.gpu, price=job.recipe.price, today=datetime.date.today())
        counted = plan.stats
        rows.append(
            {
                "image_longest_edge": longest_px,
                "tiles": counted.tiles,
                "row_tokens": counted.row_tokens,
                "longest_tokens": counted.longest_tokens,
                "peak_bytes": planned.peak_bytes,
                "seconds": planned.seconds.likely,
                "usd": planned.usd.likely if planned.usd else None,
            }
        )
    return rows
