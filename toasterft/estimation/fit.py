"""Changes that make a run fit a GPU: first those that keep the mathematics, then those that do not.

Exact changes give the same gradients up to the order of sums: smaller batches with more accumulation,
recomputed activations, fewer tiles, questions or completions at a time. Lossy ones change what is learned:
smaller images, a lower `max_length` (drops samples), 4-bit weights, a smaller model.

    ways(plan, gpu)           every change or group of changes, in that order
    apply(plan, gpu, fit)     the recipe that fits, and its changes
    refusal(plan, gpu)        the error of a launch that must not start
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal

from pydantic import ValidationError

from toasterft import catalog
from toasterft.catalog import Gpu
from toasterft.data.token_stats import MAX_DROPPED
from toasterft.errors import FitError
from toasterft.estimation import passes
from toasterft.estimation.plan import Plan
from toasterft.models.architectures import shape_from_config
from toasterft.recipe import Dpo, Eval, Policy, Sft, Trained

Fit = Literal["off", "exact", "lossy"]
Changes = dict[str, Any]

# Which setting says how much one phase does at a time.
AT_ONCE = {
    "encode": "encode_batch_size",
    "evaluate": "per_device_eval_batch_size",
    "rollout": "rollout_batch_size",
}
# Longest edges to try where the model does not cut images into tiles of its own: half and a quarter of the
# usual 2048 px.
SMALLER_EDGES_PX = (1024, 512)
# Rows about one image in a pass: with two, steps hold the rows that they hold anyway; with one they would not.
FEW_BRANCHES: Changes = {"branches_per_forward": 2}
SHOWN_WAYS = 6
PEAK = attrgetter("peak_bytes")


@dataclass(frozen=True)
class Change:
    """One way to make a run smaller.

    Attributes:
        kind: `exact` keeps the mathematics, `lossy` does not.
        changes: keys of the recipe and their new values.
        peak_bytes: highest memory of the changed run.
        fits: whether that is within the GPU.
    """

    kind: Literal["exact", "lossy"]
    changes: Changes
    peak_bytes: int
    fits: bool

    def words(self) -> str:
        """The changes as they are typed behind a command."""
        typed = {key: json.dumps(value).strip('"') for key, value in self.changes.items()}
        return " ".join(f"{key}={value}" for key, value in typed.items())


def ways(plan: Plan, gpu: Gpu) -> list[Change]:
    """Every way to make a plan fit, smallest change first within its kind; [] where it fits already.

    A lossy change is tried alone, and where that is not enough, with the exact ones it still needs; each
    kind of it ends with the first that fits. Ways that do not reach the GPU's memory are listed too, with
    their peaks.
    """
    if plan.peak_bytes(gpu) <= gpu.vram_bytes:
        return []

    def change(kind: Literal["exact", "lossy"], changes: Changes) -> Change:
        peak = plan.changed(changes).peak_bytes(gpu)
        return Change(kind, changes, peak, peak <= gpu.vram_bytes)

    found = [change("exact", changes) for changes in _exact(plan, gpu)]
    for group in _lossy(plan):
        for changes in group:
            way = change("lossy", changes)
            if not way.fits:
                also = [change("lossy", {**changes, **more}) for more in _exact(plan.changed(changes), gpu)]
                way = next((each for each in also if each.fits), min([way, *also], key=PEAK))
            found.append(way)
            if way.fits:
                break
    return found


def apply(plan: Plan, gpu: Gpu, fit: Fit) -> tuple[Trained | Eval, Changes]:
    """The recipe with the first way that fits and is allowed, and its changes.

    Args:
        fit: `off` changes nothing, `exact` takes exact ways alone, `lossy` either.

    Returns:
        The plan's own recipe and no changes where it fits as it is, or where no allowed way does.
    """
    for way in ways(plan, gpu) if fit != "off" else []:
        if way.fits and way.kind in ("exact", fit):
            return _valid(plan.recipe, way.changes) or plan.recipe, way.changes
    return plan.recipe, {}


def smaller(recipe: Trained) -> Changes:
    """The next exact step down for a run whose memory did not suffice although its plan fits.

    Returns:
        No changes where every exact setting is at its smallest.
    """
    if not recipe.gradient_checkpointing:
        return {"gradient_checkpointing": True}
    changes = next(_splits(recipe), {})
    if not changes and isinstance(recipe, Sft | Dpo) and recipe.branches_per_forward not in (1, 2):
        changes = dict(FEW_BRANCHES)
    for key in AT_ONCE.values():
        changes |= next(iter(_halves(recipe, key)), {})
    return changes


def refusal(plan: Plan, gpu: Gpu) -> FitError:
    """Why a run does not start, and the smallest changes with which it would."""
    phases = {name: sum(items.values()) for name, items in plan.phase_bytes(gpu).items()}
    phase = max(phases, key=lambda name: phases[name])
    every = ways(plan, gpu)
    fitting = [way for way in every if way.fits]
    # Where nothing is enough, the nearest miss of each kind still says how far off the run is.
    shown = fitting[:SHOWN_WAYS] or sorted(every, key=PEAK)[:2]
    width = max((len(way.words()) for way in shown), default=0)
    return FitError(
        f"needs about {phases[phase] / 1e9:.1f} GB ({phase}); {gpu.name} has {gpu.vram_gb:.0f} GB",
        details=[
            f"{way.kind}  {way.words():<{width}}  {way.peak_bytes / 1e9:.1f} GB"
            + ("" if way.fits else ", still too much")
            for way in shown
        ],
        why="exact changes keep the mathematics, lossy ones do not" if fitting else None,
        next_step=f"add {fitting[0].words()}" if fitting else "a larger GPU: toasterft estimate … --gpu all",
    )


# --- exact -----------------------------------------------------------------------------------


def _exact(plan: Plan, gpu: Gpu) -> list[Changes]:
    """Each way to make the training pass smaller, together with what other phases need."""
    others: Changes = {}
    for phase, key in AT_ONCE.items():
        others |= _enough(plan, gpu, phase, _halves(plan.recipe, key))
    training = list(_training_ways(plan, gpu))
    if not training:
        return [others] if others else []
    return [{**way, **others} for way in training]


def _training_ways(plan: Plan, gpu: Gpu) -> Iterator[Changes]:
    """Smaller batches, recomputation, and both; nothing where training fits already."""
    recipe = plan.recipe
    if isinstance(recipe, Eval) or _fits(plan, gpu, "train"):
        return
    batches = list(_splits(recipe))
    if passes.rows_per_tree(plan.shape, plan.stats, recipe)[1] > 1:
        batches.append({**(batches[-1] if batches else {}), **FEW_BRANCHES})
    if by_batch := _enough(plan, gpu, "train", batches):
        yield by_batch
    if not recipe.gradient_checkpointing:
        again: Changes = {"gradient_checkpointing": True}
        yield again
        if both := _enough(plan.changed(again), gpu, "train", batches):
            yield {**again, **both}


def _enough(plan: Plan, gpu: Gpu, phase: str, falling: list[Changes]) -> Changes:
    """The first of some ever smaller settings with which a phase fits, else the smallest; {} if it fits."""
    if _fits(plan, gpu, phase) or not falling:
        return {}
    return next((way for way in falling if _fits(plan.changed(way), gpu, phase)), falling[-1])


def _splits(recipe: Trained) -> Iterator[Changes]:
    """Smaller batches, largest first, with accumulation that keeps their product."""
    size, accumulation = recipe.per_device_train_batch_size, recipe.gradient_accumulation_steps
    for smaller in range(size - 1, 0, -1):
        changes: Changes = {
            "per_device_train_batch_size": smaller,
            "gradient_accumulation_steps": size * accumulation // smaller,
        }
        if size * accumulation % smaller == 0 and _valid(recipe, changes):
            yield changes


def _halves(recipe: Trained | Eval, key: str) -> list[Changes]:
    value = getattr(recipe, key, 1)
    # A group of completions is never sampled in parts.
    least = recipe.num_generations if isinstance(recipe, Policy) and key == "rollout_batch_size" else 1
    found: list[Changes] = []
    while (value := value // 2) >= least:
        found.append({key: value})
    return found


# --- lossy -----------------------------------------------------------------------------------


def _lossy(plan: Plan) -> Iterator[list[Changes]]:
    """Kinds of lossy changes, each from the smallest to the largest."""
    recipe = plan.recipe
    yield [{"image_longest_edge": edge} for edge in smaller_edges(plan)]
    if isinstance(recipe, Trained):
        # The lowest `max_length` that leaves out no more than a run may.
        length = plan.sizes.length_of_share(plan.geometry, 1 - MAX_DROPPED)
        if length < min(plan.stats.longest_tokens, recipe.max_length):
            yield [{"max_length": length}]
    if not recipe.load_in_4bit and (isinstance(recipe, Eval) or recipe.lora is not None):
        yield [{"load_in_4bit": True}]
    yield [{"model": name} for name in smaller_models(plan)]


def smaller_edges(plan: Plan) -> list[int]:
    """Longest image edges below the plan's, in px: halves down to one tile where the model cuts tiles."""
    own = plan.geometry.smaller_edges_px()
    if own is not None:
        return own
    longest = max(max(size) for size in plan.sizes.images_px) if plan.sizes.images_px else 0
    now = min(longest, plan.recipe.image_longest_edge or longest)
    return [edge for edge in SMALLER_EDGES_PX if edge < now]


def smaller_models(plan: Plan) -> list[str]:
    """Catalog models with fewer parameters, largest first; none for a run that continues an adapter.

    One that turns these images into more tokens than `max_length` holds is left out.
    """
    if not plan.swappable:
        return []
    sizes = {
        row.name: shape_from_config(row.config, row.preprocessor).total_params
        for row in catalog.models().values()
    }
    fewer = [
        name
        for name, params in sizes.items()
        if params < plan.shape.total_params and not plan.changed({"model": name}).drops_too_many
    ]
    return sorted(fewer, key=lambda name: -sizes[name])


# --- inside ----------------------------------------------------------------------------------


def _fits(plan: Plan, gpu: Gpu, phase: str) -> bool:
    return sum(plan.phase_bytes(gpu).get(phase, {}).values()) <= gpu.vram_bytes


def _valid(recipe: Trained | Eval, changes: Changes) -> Trained | Eval | None:
    """The changed recipe as if it had been written that way, or None where it contradicts itself."""
    try:
        return type(recipe).model_validate({**recipe.model_dump(), **changes})
    except ValidationError:
        return None
