"""From a recipe to a frozen `Job`: what will run, on what, and what it will take. Light.

`toasterft sft … --dry-run` ends with what is made here.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from toasterft import catalog, paths
from toasterft.catalog import Gpu, hardware
from toasterft.data import sources, token_stats
from toasterft.data.example import Example
from toasterft.data.pairs import paired
from toasterft.data.token_stats import RawSizes, TokenStats
from toasterft.errors import BudgetError, DataError, MissingExtra, ModelError, UserError
from toasterft.estimation import Estimate, Plan, calibration
from toasterft.estimation import fit as ladder
from toasterft.models import lookup
from toasterft.models.geometry import Geometry
from toasterft.models.lookup import ModelRef
from toasterft.recipe import Dpo, Dyme, Eval, Prompt, Recipe, Trained
from toasterft.runs import distributed, meter
from toasterft.runs.run_folder import Run

# Above this share of dropped samples a run would teach something else than its data.
MAX_DROPPED = token_stats.MAX_DROPPED
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
        plan: the run as estimates see it, for other GPUs and other settings; None for commands without one.
        estimate: what it takes on `target`; None for commands without one.
        usd_per_hour: what the meter counts with; None where nobody named a price for this machine.
        budget_usd, max_seconds: caps of the run, over all its processes.
        resume: the run to go on with, or None for a new one.
        fitted: settings that `--fit` changed.
    """

    recipe: Recipe
    model: ModelRef
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
    fitted: dict[str, Any] | None = None


def prepare_training(recipe: Trained, runs_dir: Path, *, out: Path | None = None) -> Job:
    """Model, data, engine, GPU and estimate of a training run.

    Raises:
        UserError: anything of it cannot be had, or does not go together.
    """
    model = lookup.resolve(recipe.model, runs_dir)
    _check_training(recipe, model)
    target = choose_gpu(recipe.gpu)
    plan = _plan(recipe, model)
    counted = plan.stats
    if plan.drops_too_many:
        raise too_many_dropped(counted.over_max_length, counted.rows, counted.longest_tokens, recipe)
    return _planned(recipe, model, target, plan, runs_dir, out)


def _planned(
    recipe: Trained | Eval, model: ModelRef, target: Target, plan: Plan, runs_dir: Path, out: Path | None
) -> Job:
    """A job with its plan held against its target."""
    if target.present:
        known = calibration.find(target.gpu.name, recipe.method, model.name)
        plan = replace(plan, calibration=known)
    return Job(
        recipe=recipe,
        model=model,
        engine=choose_engine(recipe.engine, model),
        target=target,
        runs_dir=runs_dir,
        data_name=Path(recipe.data).stem,
        stats=plan.stats,
        plan=plan,
        estimate=plan.on(target.gpu, price=recipe.price, today=datetime.date.today()),
        usd_per_hour=_meter_price(recipe, target),
        out=out,
    )


def prepare_evaluation(recipe: Eval, runs_dir: Path) -> Job:
    """An evaluation with its estimate, for `toasterft estimate eval`.

    Raises:
        UserError: model or data cannot be had.
    """
    model = lookup.resolve(recipe.model, runs_dir)
    target = choose_gpu(recipe.gpu)
    notes = model.notes or {}
    held = recipe.load_in_4bit if recipe.load_in_4bit is not None else bool(notes.get("load_in_4bit"))
    recipe = recipe.model_copy(update={"load_in_4bit": held})
    row = _not_here(recipe.data)
    if row is not None:
        rows = row.test_rows or row.rows
        sizes = token_stats.of_row(row, min(rows, recipe.limit or rows))
    else:
        data = sources.load(recipe.data, purpose="evaluate", split=recipe.split, limit=recipe.limit)
        sizes = token_stats.measure(data.examples, recipe.prompt or Prompt(), counter(model))
    plan = Plan(replace(model.shape, geometry=_geometry(recipe, model)), recipe, sizes, swappable=False)
    return _planned(recipe, model, target, plan, runs_dir, None)


def measure(data: str) -> RawSizes:
    """What rows of some data measure, whatever the model: for a teacher that is to write their reasoning.

    Raises:
        DataError: the data cannot be had.
    """
    row = _not_here(data)
    if row is not None:
        return token_stats.of_row(row, row.rows)
    return token_stats.measure(sources.load(data, purpose="train").examples, Prompt(), None)


def prepare_use(recipe: Recipe, runs_dir: Path, *, data_name: str = "", out: Path | None = None) -> Job:
    """A job that only reads a model: eval, ask."""
    model = lookup.resolve(recipe.model, runs_dir)
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
    """The named GPU (or `cpu`), else the one in this machine, else an A40."""
    present = hardware.gpu()
    if name is not None and name.lower() == hardware.CPU:
        return Target(hardware.cpu(), "this machine's processor", present is None)
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


def fitted(job: Job, fit: ladder.Fit) -> Job:
    """The job with what `--fit` allows changed so that it fits its GPU; as it is where it fits already."""
    if fit == "off" or job.plan is None:
        return job
    changed, changes = ladder.apply(job.plan, job.target.gpu, fit)
    if not changes:
        return job
    assert isinstance(changed, Trained)
    again = prepare_training(changed, job.runs_dir, out=job.out)
    return replace(again, fitted=changes)


def require_ready(job: Job) -> None:
    """Whatever a plan can do without and a launch cannot.

    Raises:
        DataError: the data is a catalog row that is neither here nor on the hub.
        FitError: the GPU in this machine, or the one that was named, is too small; with ways to make it fit.
    """
    recipe = job.recipe
    row = _not_here(recipe.data) if isinstance(recipe, Trained) else None
    if row is not None and row.hub_id is None:
        raise DataError(f"{row.name} is not on this machine; nothing was run", next_step=row.get)
    if job.plan is None:
        return
    here = choose_gpu(None)
    # Without a GPU here, one that is only planned for may be any.
    held_to = [target for target in (here, job.target) if here.present or target.present]
    for gpu in {target.gpu.name: target.gpu for target in held_to}.values():
        if job.plan.peak_bytes(gpu) > gpu.vram_bytes:
            raise ladder.refusal(job.plan, gpu)


def require_within_caps(job: Job, *, over: bool) -> None:
    """Refuse a run whose likely dollars or hours exceed its cap.

    Args:
        over: start all the same; the cap still holds.

    Raises:
        BudgetError: more is likely, or there is a budget and nothing to count dollars with.
    """
    if job.budget_usd is not None and job.usd_per_hour is None:
        raise BudgetError(
            "a budget needs a price: nobody said what an hour of this machine costs; nothing was run",
            next_step=f"--price DOLLARS_PER_HOUR, or --max-hours instead of --budget {job.budget_usd:g}",
        )
    # The estimate is for a GPU; on a machine without that GPU it says nothing about this run.
    if over or job.estimate is None or not job.target.present:
        return
    spent = paths.read_json(job.resume.path / meter.SPEND_FILE) or {} if job.resume else {}
    hours = job.estimate.seconds.likely / 3600
    if job.budget_usd is not None and job.usd_per_hour is not None:
        asked = job.estimate.teachers_usd
        likely = hours * job.usd_per_hour + (asked.likely if asked is not None else 0.0)
        left = job.budget_usd - float(spent.get("usd") or 0)
        if likely > left:
            raise BudgetError(
                f"likely to cost ${likely:.2f}, more than the ${left:.2f} left of the budget; nothing was run",
                next_step="--yes starts all the same; `toasterft estimate … --budget` says what would fit",
            )
    if job.max_seconds is not None and hours * 3600 > job.max_seconds - float(spent.get("seconds") or 0):
        raise BudgetError(
            f"likely to take {hours:.1f} h, more than --max-hours; nothing was run",
            next_step="--yes starts all the same and stops at the cap",
        )


def _check_training(recipe: Trained, model: ModelRef) -> None:
    if recipe.lora is None and model.adapter is not None:
        raise ModelError(
            "full tuning cannot start from a LoRA adapter",
            where=recipe.model,
            next_step="merge the adapter first, or keep lora",
        )
    if recipe.train_vision and recipe.lora is not None:
        raise ModelError(
            "train_vision needs full tuning; nothing was run",
            why="a LoRA adapter has no place for a tower that was trained: it would be lost at the end",
            next_step="lora=null load_in_4bit=false saves every weight; train_connector=true goes with a LoRA",
        )


def _plan(recipe: Trained, model: ModelRef) -> Plan:
    """What the data measures and the model is, read once."""
    shape = replace(model.shape, geometry=_geometry(recipe, model))
    count = None
    row = _not_here(recipe.data)
    if row is not None:
        sizes = token_stats.of_row(row, min(row.rows, recipe.limit or row.rows))
    else:
        count = counter(model)
        sizes = token_stats.measure(
            _training_rows(recipe), recipe.prompt, count, pairs=isinstance(recipe, Dpo)
        )
    held_out = _held_out(recipe, count)
    return Plan(
        shape,
        recipe,
        sizes,
        held_out,
        swappable=model.adapter is None,
        live_teachers=_aides(recipe),
        processes=distributed.count(),
    )


def _aides(recipe: Trained) -> dict[str, catalog.Teacher]:
    """Prices of the models that a run asks while it trains, by role."""
    if not isinstance(recipe, Dyme):
        return {}
    from toasterft.teachers import directory  # with it asyncio, which other commands can do without

    asked = directory.of_run(recipe, datetime.date.today())
    return {role: service.price for role, service in asked.items()}


def _not_here(name: str) -> catalog.DatasetRow | None:
    """The catalog row of data that is planned for without being on this machine."""
    return None if sources.on_this_machine(name) else catalog.datasets().get(name)


def _training_rows(recipe: Trained) -> list[Example]:
    data = sources.load(recipe.data, purpose="train", split=recipe.split, limit=recipe.limit)
    rows = paired(data.examples, recipe.data) if isinstance(recipe, Dpo) else data.examples
    if recipe.rows_without_reasoning == "keep":
        return rows
    examples = [example for example in rows if example.reasoning is not None]
    if not examples:
        raise DataError(
            "no row carries reasoning", where=recipe.data, next_step="rows_without_reasoning=keep"
        )
    return examples


def _held_out(recipe: Trained, count: Callable[[str], int] | None) -> RawSizes | None:
    """Rows that are answered at the end: counted, or taken to be as many as `eval_limit` allows."""
    name = recipe.eval_data or recipe.data
    row = _not_here(name)
    if row is not None:
        rows = row.validation_rows or row.test_rows or row.rows
        return token_stats.of_row(row, min(rows, recipe.eval_limit or rows))
    named = recipe.eval_data is not None or recipe.eval_split is not None
    if not named and not sources.has_split(name, "validate"):
        return None
    data = sources.load(
        name, purpose="validate", split=recipe.eval_split, limit=recipe.eval_limit, seed=recipe.seed
    )
    return token_stats.measure(data.examples, recipe.prompt, count)


def _geometry(recipe: Recipe, model: ModelRef) -> Geometry:
    """The model's tiles at the recipe's image size, else at the one its adapter was trained with."""
    saved: int | None = (model.notes or {}).get("image_longest_edge")
    return model.shape.geometry.with_longest_edge(recipe.image_longest_edge or saved)


def counter(model: ModelRef) -> Callable[[str], int] | None:
    """Tokens of a text by the model's own tokenizer: from its folder, or from the hub's files if cached."""
    if model.local:
        return token_stats.counter(Path(model.base))
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(model.base, "tokenizer.json")
    return token_stats.counter(Path(cached).parent) if isinstance(cached, str) else None


def too_many_dropped(dropped: int, rows: int, longest_tokens: int, recipe: Trained) -> UserError:
    """The refusal of a run that would leave out more than 5 % of its samples."""
    return DataError(
        f"{dropped} of {rows} samples are longer than max_length={recipe.max_length} tokens; nothing was run",
        where=recipe.data,
        why="a sample is never cut through its image; more than 5 % would be left out",
        next_step=f"max_length={-(-longest_tokens // 64) * 64} holds the longest, or a smaller image_longest_edge",
    )


def _meter_price(recipe: Recipe, target: Target) -> float | None:
    """Dollars per hour of the machine that runs: given, or the catalog's for the GPUs that are here, one a process."""
    if recipe.price is not None:
        return recipe.price
    if target.present and target.gpu.default_offer is not None:
        return target.gpu.default_offer.usd_per_hour * distributed.count()
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
