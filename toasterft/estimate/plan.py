"""One run under every condition worth asking about: other GPUs, other settings, other models.

A `Plan` holds what was read once (the data's sizes, the model's shape) and the recipe. `changed` gives the
same run with other settings, `on` what it takes on one GPU. Memory, time, dollars, the ladder and the
suggestions for a budget all go through these two.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from toasterft import catalog
from toasterft.catalog import Gpu
from toasterft.data.survey import MAX_DROPPED, Sizes, Survey
from toasterft.estimate import memory, money, seconds, work
from toasterft.estimate.spread import Spread
from toasterft.geometry import Geometry
from toasterft.recipe import Eval, Policy, Recipe, Sft, Trained
from toasterft.shapes import ModelShape, shape_from_config

# What stays on the GPU while the model writes.
RESIDENT = ("weights", "adapter", "optimizer")


@dataclass(frozen=True)
class Estimate:
    """What one run is expected to take on one GPU.

    Attributes:
        vram_bytes: items of the peak phase, and `peak`.
        phase: the peak phase.
        phase_bytes: the same for every phase; `cuda_and_slack` is what no tensor asks for.
        phase_seconds: parts of `seconds`.
        compute_units: Colab's currency on its paid plans; None elsewhere.
        price_flag: `undated` or `N days old` where the price should be checked.
    """

    gpu: str
    fits: bool
    vram_bytes: dict[str, int]
    phase: str
    phase_bytes: dict[str, dict[str, int]]
    seconds: Spread
    phase_seconds: dict[str, Spread]
    optimizer_steps: int
    disk_bytes: dict[str, int]
    usd: Spread | None
    price: dict[str, Any] | None
    price_flag: str | None = None
    compute_units: Spread | None = None
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
    """

    shape: ModelShape
    recipe: Trained | Eval
    sizes: Sizes
    held_out: Sizes | None = None
    swappable: bool = True

    def changed(self, changes: dict[str, Any]) -> Plan:
        """The same run with other values for some keys of the recipe; `model` takes a catalog name.

        The values are not validated again: `ladder.apply` does that for what is really run.
        """
        shape = self.shape
        if "model" in changes:
            row = catalog.models()[changes["model"]]
            shape = shape_from_config(row.config, row.preprocessor)
        return replace(self, shape=shape, recipe=self.recipe.model_copy(update=changes))

    @property
    def survey(self) -> Survey:
        """The rows as the model cuts them up."""
        found = self._at(self.sizes)
        return found.first(self.recipe.limit or found.rows)

    @property
    def held_out_survey(self) -> Survey | None:
        return self._at(self.held_out) if self.held_out else None

    def _at(self, sizes: Sizes) -> Survey:
        longest = self.recipe.max_length if isinstance(self.recipe, Trained) else self.shape.text.max_position
        return sizes.at(self.geometry, longest)

    @property
    def geometry(self) -> Geometry:
        """How images are cut at the recipe's size."""
        return self.shape.geometry.with_longest_edge(self.recipe.image_longest_edge)

    @property
    def drops_too_many(self) -> bool:
        """Whether more samples exceed `max_length` than a run may leave out."""
        survey = self.survey
        return survey.over_max_length > MAX_DROPPED * survey.rows

    def peak_bytes(self) -> int:
        """Device memory at its highest; the same on every GPU."""
        return max(sum(items.values()) for items in self.phase_bytes().values())

    def phase_bytes(self) -> dict[str, dict[str, int]]:
        """Itemised device memory of every phase, context and allocator slack included."""
        if isinstance(self.recipe, Eval):
            return _with_slack(_evaluation_bytes(self.shape, self.survey, self.recipe))
        return _with_slack(_training_bytes(self.shape, self.survey, self.held_out_survey, self.recipe))

    def on(self, gpu: Gpu, *, price: float | None, today: datetime.date) -> Estimate:
        """What the run takes on one GPU.

        Args:
            price: dollars per hour instead of the catalog's.
            today: what the age of a price is counted from.
        """
        shape, recipe, survey, held_out = self.shape, self.recipe, self.survey, self.held_out_survey
        features = sum(seconds.feature_bytes(shape, each) for each in (survey, held_out) if each is not None)
        disk = {"feature_cache": int(features * work.cached_share(shape, recipe, features))}
        steps = 0
        if isinstance(recipe, Eval):
            phase_seconds = seconds.of_evaluation(shape, survey, recipe, gpu)
        else:
            phase_seconds = seconds.of_training(shape, survey, recipe, gpu, held_out=held_out)
            steps = work.of(shape, survey, recipe).optimizer_steps
            disk["checkpoints"] = memory.checkpoint_bytes(shape, recipe)
        return _estimate(
            gpu,
            self.phase_bytes(),
            phase_seconds,
            money.of_hour(gpu, price, today),
            optimizer_steps=steps,
            disk_bytes=disk,
            notes=_notes(gpu, recipe),
        )


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


# --- bytes by phase --------------------------------------------------------------------------


def _training_bytes(
    shape: ModelShape, survey: Survey, held_out: Survey | None, recipe: Trained
) -> dict[str, dict[str, int]]:
    width = _width_bytes(recipe)
    found = work.of(shape, survey, recipe)
    # Memory is asked in the words of one row per sequence: a packed group is one long sequence.
    longest = found.longest
    training = recipe
    if isinstance(recipe, Policy):
        training = recipe.model_copy(
            update={
                "per_device_train_batch_size": longest.prompts,
                "max_length": round(longest.tokens / longest.prompts),
            }
        )
        survey_of_pass = replace(survey, longest_tokens=training.max_length)
    else:
        survey_of_pass = survey
    train = memory.of_training(shape, survey_of_pass, training, width)
    phases = {"encode": memory.of_encoding(shape, recipe, width)} if work.caches(shape, recipe) else {}
    resident = {name: train[name] for name in RESIDENT if name in train}
    if found.rollouts is not None:
        phases["rollout"] = resident | _generation(
            shape, survey, found.rollouts.at_once, recipe.max_completion_length, width
        )
    phases["train"] = train
    if held_out is not None:
        rows = min(held_out.rows, recipe.per_device_eval_batch_size)
        phases["evaluate"] = resident | _generation(
            shape, held_out, rows, recipe.max_completion_length, width
        )
    return phases


def _evaluation_bytes(shape: ModelShape, survey: Survey, recipe: Eval) -> dict[str, dict[str, int]]:
    width = _width_bytes(recipe)
    # The same words again: `memory` knows weights by how a training holds them.
    held = Sft(
        load_in_4bit=bool(recipe.load_in_4bit), encode_batch_size=recipe.encode_batch_size, dtype=recipe.dtype
    )
    encode = memory.of_encoding(shape, held, width)
    weights = {"weights": encode["weights"]}
    rows = min(survey.rows, recipe.per_device_eval_batch_size)
    phases = {"encode": encode} if work.caches(shape, recipe) else {}
    return phases | {
        "evaluate": weights | _generation(shape, survey, rows, recipe.max_completion_length, width)
    }


def _generation(shape: ModelShape, survey: Survey, rows: int, limit: int, width: int) -> dict[str, int]:
    if not hasattr(memory, "of_generation"):  # TEMPORARY
        text = shape.text
        cache = 2 * text.layers * text.kv_heads * text.head_dim * width
        positions = rows * (survey.longest_prompt_tokens + limit)
        return {"kv_cache": positions * cache, "logits": rows * text.vocab * 8}
    return memory.of_generation(
        shape,
        rows=rows,
        prompt_tokens=survey.longest_prompt_tokens,
        completion_tokens=limit,
        width_bytes=width,
    )


def _width_bytes(recipe: Recipe) -> int:
    return 4 if recipe.dtype == "float32" else 2


def _with_slack(phases: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """Each phase with what CUDA and its allocator take on top of the tensors."""
    found = {}
    for name, items in phases.items():
        held = sum(items.values())
        extra = int(held * memory.ALLOCATOR_SLACK) + memory.CUDA_CONTEXT_BYTES
        found[name] = {**items, "cuda_and_slack": extra}
    return found


# --- one estimate ----------------------------------------------------------------------------


def _estimate(
    gpu: Gpu,
    phase_bytes: dict[str, dict[str, int]],
    phase_seconds: dict[str, Spread],
    price: money.HourPrice | None,
    *,
    optimizer_steps: int,
    disk_bytes: dict[str, int],
    notes: Iterable[str],
) -> Estimate:
    phases = {name: {**items, "peak": sum(items.values())} for name, items in phase_bytes.items()}
    phase = max(phases, key=lambda name: phases[name]["peak"])
    taken = Spread.sum(phase_seconds.values())
    said = list(notes)
    units = None
    if price is not None and price.flag is not None:
        said.append(f"the price of {gpu.name} is {price.flag}: check it, or give --price")
    if price is not None and price.compute_units_per_hour is not None:
        per_hour = price.compute_units_per_hour
        units = taken.each(lambda value: value / 3600 * per_hour)
        said.append(f"{gpu.name} costs nothing within the free limits, compute units on a paid plan")
    return Estimate(
        gpu=gpu.name,
        fits=phases[phase]["peak"] <= gpu.vram_bytes,
        vram_bytes=phases[phase],
        phase=phase,
        phase_bytes=phases,
        seconds=taken,
        phase_seconds=phase_seconds,
        optimizer_steps=optimizer_steps,
        disk_bytes=disk_bytes,
        usd=money.of_run(taken, price),
        price=price.as_json() if price is not None else None,
        price_flag=price.flag if price is not None else None,
        compute_units=units,
        notes=tuple(said),
    )


def _notes(gpu: Gpu, recipe: Recipe) -> list[str]:
    if gpu.bf16 or recipe.dtype in ("float16", "float32"):
        return []
    if recipe.dtype == "bfloat16":
        return [f"{gpu.name} has no bfloat16 and would emulate it, slowly: dtype=auto takes float16"]
    scaler = " with a gradient scaler" if isinstance(recipe, Trained) else ""
    return [f"{gpu.name} has no bfloat16: this runs in float16{scaler}"]
