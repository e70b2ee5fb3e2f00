"""How a model is opened, resolved once: 4-bit weights, image size and prompt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toasterft.models import lookup
from toasterft.models.geometry import Geometry
from toasterft.models.lookup import ModelRef
from toasterft.recipe import Prompt, Recipe


@dataclass(frozen=True)
class ModelSettings:
    """A model with the settings it is opened with: the recipe's, else those its adapter was trained with.

    Attributes:
        image_longest_edge: px; None is the model's own size.
    """

    model: ModelRef
    load_in_4bit: bool
    image_longest_edge: int | None
    prompt: Prompt

    @classmethod
    def resolve(cls, recipe: Recipe, model: ModelRef) -> ModelSettings:
        """Settings of a recipe's model; one that states none takes the adapter's, then the defaults."""
        saved = model.notes or {}
        load_in_4bit: bool | None = getattr(recipe, "load_in_4bit", None)
        prompt: Prompt | None = getattr(recipe, "prompt", None)
        if saved.get("prompt") and prompt in (None, Prompt()):
            prompt = Prompt(**saved["prompt"])
        return cls(
            model,
            bool(saved.get("load_in_4bit")) if load_in_4bit is None else load_in_4bit,
            recipe.image_longest_edge or saved.get("image_longest_edge"),
            prompt or Prompt(),
        )

    @property
    def geometry(self) -> Geometry:
        """How images are cut into tiles at this size."""
        return self.model.shape.geometry.with_longest_edge(self.image_longest_edge)

    def adapter_notes(self, base: Path) -> dict[str, Any]:
        """What later commands on a trained adapter need; kept beside it.

        Args:
            base: the folder or hub id that the weights were loaded from.
        """
        return {
            "prompt": self.prompt.model_dump(),
            "image_longest_edge": self.image_longest_edge,
            "load_in_4bit": self.load_in_4bit,
            "base": self.model.base_name,
            "base_fingerprint": lookup.fingerprint(base) if base.is_dir() else None,
        }
