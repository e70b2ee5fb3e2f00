"""Evaluations crossed: models x prompt conditions, each cell a recipe of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from toasterft.recipe.base import Section
from toasterft.recipe.inference import Eval
from toasterft.recipe.validation import validate


class Axes(Section):
    """What a matrix of evaluations crosses."""

    models: dict[str, str | dict[str, Any]] = Field(min_length=1)
    """Name in the table: run, folder, catalog name or hub id; or `model` with further keys of eval."""
    prompts: dict[str, dict[str, Any]] = Field({"plain": {}}, min_length=1)
    """Name in the table: keys of eval such as step, suffix, prompt, max_completion_length."""
    load_in_4bit: tuple[bool, ...] = ()
    """[false, true] evaluates 16-bit and 4-bit weights beside each other; as trained when unset."""

    @model_validator(mode="before")
    @classmethod
    def _a_list_names_itself(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("models"), list):
            return {**data, "models": {Path(str(name)).name: str(name) for name in data["models"]}}
        return data


class Matrix(Eval):
    """Models x prompt conditions, each cell an evaluation; keys beside `matrix` are those of every cell."""

    matrix: Axes
    """What is crossed."""

    @model_validator(mode="after")
    def _cells_are_evaluations(self) -> Matrix:
        if "model" in self.model_fields_set:
            raise ValueError("model: a matrix names its models under matrix.models")
        for name, own in self.matrix.models.items():
            if isinstance(own, dict) and not own.get("model"):
                raise ValueError(f"matrix.models.{name} names no model")
        shared = {"data", "split", "limit"} | ({"seed"} if self.limit else set())  # the seed draws the rows
        for name, keys in [*self.matrix.models.items(), *self.matrix.prompts.items()]:
            other = sorted(shared & set(keys)) if isinstance(keys, dict) else []
            if other:
                raise ValueError(f"{name}: every cell answers the same questions; {other[0]} is set for all")
        for model in self.matrix.models:
            for prompt in self.matrix.prompts:
                self.cell(model, prompt, None)
        return self

    def cell(self, model: str, prompt: str, load_in_4bit: bool | None) -> Eval:
        """One cell as a recipe of its own.

        Args:
            load_in_4bit: None leaves it to the cell's keys.

        Raises:
            RecipeError: with the cell's names.
        """
        named = self.matrix.models[model]
        keys = self.model_dump(exclude={"matrix"}, exclude_unset=True) | {"method": "eval"}
        keys |= {"model": named} if isinstance(named, str) else named
        keys |= self.matrix.prompts[prompt]
        keys |= {} if load_in_4bit is None else {"load_in_4bit": load_in_4bit}
        found: Eval = validate(Eval, keys, f"matrix cell {model}, {prompt}")
        return found

    def with_suffixes(self, texts: Sequence[str]) -> Matrix:
        """With a further prompt condition for each text, which is appended to every question."""
        swept = {f"+ {text!r}": {"suffix": text} for text in texts}
        axes = self.matrix.model_copy(update={"prompts": {**self.matrix.prompts, **swept}})
        return self.model_copy(update={"matrix": axes})
