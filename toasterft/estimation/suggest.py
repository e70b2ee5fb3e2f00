"""Changes that bring a run within a budget: the same run with less of one thing."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from toasterft.catalog import Gpu
from toasterft.estimation import fit
from toasterft.estimation.plan import Estimate, Plan
from toasterft.recipe import Trained
from toasterft.units import dollars, duration

# Shares of an epoch that are offered; finer ones would promise more than an estimate knows.
EPOCH_STEP = 0.05


@dataclass(frozen=True)
class Suggestion:
    """One change with which the likely cost is within the budget.

    Attributes:
        what: `samples`, `epochs`, `steps`, `images`, or `model`.
        changes: keys of the recipe and their new values.
    """

    what: str
    changes: dict[str, Any]
    estimate: Estimate

    def words(self) -> str:
        """As it is typed."""
        return " ".join(f"{key}={value}" for key, value in self.changes.items())

    def cost(self) -> str:
        """What the run then likely takes."""
        usd = f"{dollars(self.estimate.usd.likely)}, " if self.estimate.usd else ""
        return usd + duration(self.estimate.seconds.likely)

    def as_json(self) -> dict[str, Any]:
        return {"what": self.what, "changes": self.changes, "estimate": self.estimate.as_json()}


def within(
    plan: Plan,
    gpu: Gpu,
    usd: float | None,
    *,
    price: float | None,
    today: datetime.date,
    seconds: float | None = None,
) -> list[Suggestion]:
    """Changes of one kind each, as small as money and time allow; a kind that cannot do it is left out.

    The likely cost is held against the budget: the range of an estimate is wide, and a run that turns out
    slow can still be stopped.
    """

    def on(changes: dict[str, Any]) -> Estimate:
        return plan.changed(changes).on(gpu, price=price, today=today)

    found: list[Suggestion] = []

    def offer(what: str, key: str, values: Sequence[Any], *, rising: bool) -> None:
        def affordable(value: Any) -> bool:
            found = on({key: value})
            cheap = usd is None or (found.usd is not None and found.usd.likely <= usd)
            return cheap and (seconds is None or found.seconds.likely <= seconds)

        first = _last(values, affordable) if rising else next(filter(affordable, values), None)
        if first is not None:
            found.append(Suggestion(what, {key: first}, on({key: first})))

    recipe = plan.recipe
    offer("samples", "limit", range(1, plan.stats.rows), rising=True)
    if isinstance(recipe, Trained) and recipe.max_steps > 0:
        offer("steps", "max_steps", range(1, recipe.max_steps), rising=True)
    elif isinstance(recipe, Trained):
        parts = range(1, math.ceil(recipe.num_train_epochs / EPOCH_STEP))
        offer("epochs", "num_train_epochs", [round(EPOCH_STEP * part, 2) for part in parts], rising=True)
    # The largest first: a smaller model is not always a cheaper one.
    offer("images", "image_longest_edge", fit.smaller_edges(plan), rising=False)
    offer("model", "model", fit.smaller_models(plan), rising=False)
    return found


def _last(values: Sequence[Any], good: Callable[[Any], bool]) -> Any:
    """The last good value of a sequence that turns from good to bad at most once; None where none is."""
    low, high = 0, len(values)
    while low < high:
        middle = (low + high) // 2
        if good(values[middle]):
            low = middle + 1
        else:
            high = middle
    return values[low - 1] if low else None
