"""The recipe of each command by its name, and `train`, which looks its stages up there."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from toasterft import units
from toasterft.recipe.base import Section
from toasterft.recipe.inference import Ask, Eval, Pairs
from toasterft.recipe.reinforcement import Dyme, Grpo
from toasterft.recipe.supervised import Dpo, Sft, Trained
from toasterft.recipe.validation import validate


class Train(Section):
    """Stages, each starting from the adapter of the one before."""

    method: Literal["train"] = "train"
    model: str = "SmolVLM-256M"
    """What the first stage starts from."""
    data: str = "smolcot-7k"
    """Data of every stage that names none of its own."""
    images: str | None = None
    """One more folder where rows' pictures may lie, for every stage that names none of its own."""
    seed: int = Field(42, ge=0, lt=2**32)
    """Seed of every stage that names none of its own."""
    stages: tuple[dict[str, Any], ...] = Field(min_length=1)
    """Recipes of training methods, in order; `budget_share` is a stage's part of --budget."""

    @model_validator(mode="after")
    def _stages_are_recipes(self) -> Train:
        self.recipes()
        named = [stage["budget_share"] for stage in self.stages if stage.get("budget_share") is not None]
        if sum(units.amount(share) for share in named) > 1:
            raise ValueError(f"budget_share: {' + '.join(map(str, named))} is more than the whole")
        return self

    def recipes(self) -> list[Trained]:
        """All stages, in order."""
        return [self.stage(number) for number in range(len(self.stages))]

    def stage(self, number: int) -> Trained:
        """One stage as the recipe of its own method.

        Raises:
            ValueError: with the stage's number.
        """
        given = {key: value for key, value in self.stages[number].items() if key != "budget_share"}
        schema = TRAININGS.get(str(given.get("method")))
        if schema is None:
            raise ValueError(
                f"stage {number + 1}: method {given.get('method')!r} is none of {', '.join(TRAININGS)}"
            )
        shared = {"model": self.model, "data": self.data, "images": self.images, "seed": self.seed}
        found: Trained = validate(schema, {**shared, **given}, f"stage {number + 1}")
        return found

    def share(self, number: int) -> float:
        """A stage's part of the budget; those that name none divide the rest evenly."""
        named = [stage.get("budget_share") for stage in self.stages]
        rest = 1 - sum(float(share) for share in named if share is not None)
        own = named[number]
        return float(own) if own is not None else max(0.0, rest) / named.count(None)


TRAININGS: dict[str, type[Trained]] = {"sft": Sft, "grpo": Grpo, "dyme": Dyme, "dpo": Dpo}
RECIPES: dict[str, type[Section]] = {
    **TRAININGS, "eval": Eval, "ask": Ask, "pairs": Pairs, "train": Train,
}  # fmt: skip

# The module that carries out each method, imported when a run starts: the heavy side of `RECIPES`.
MODULES = {
    "sft": "toasterft.training.sft",
    "grpo": "toasterft.training.grpo",
    "dyme": "toasterft.training.dyme",
    "dpo": "toasterft.training.dpo",
    "eval": "toasterft.evaluation.evaluate",
    "ask": "toasterft.evaluation.ask",
    "pairs": "toasterft.training.preference_pairs",
}
