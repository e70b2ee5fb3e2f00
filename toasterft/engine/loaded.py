"""A model in memory, its processor, and how it was loaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from toasterft.models.architectures import Architecture

# Largest difference of a logit between two ways to compute it, relative to the largest logit. They run the same
# arithmetic on the same numbers; what may differ is the order of sums in another batch shape.
AGREEMENT = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 4e-2}


@dataclass
class LoadedModel:
    """A model and its processor.

    Attributes:
        model: a PeftModel, or the `…ForConditionalGeneration` itself.
        dtype: what activations are computed in.
        base: folder or hub id of the full weights.
        image_longest_edge: px, where the recipe sets it.
        features: cached features gave the same logits as pixels on one sample.
        slots_agree: completions in slots got the logits of a plain pass on one sample; None while untried.
        notes: slower paths that were taken, and why; shown and kept in the run's record.
    """

    model: Any
    processor: Any
    family: Architecture
    dtype: torch.dtype
    device: torch.device
    engine: str
    base: str
    image_longest_edge: int | None = None
    features: bool = False
    slots_agree: bool | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def tokenizer(self) -> Any:
        return self.processor.tokenizer

    @cached_property
    def inner(self) -> Any:
        """The `…ForConditionalGeneration` below any adapter."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    @property
    def has_adapter(self) -> bool:
        return self.inner is not self.model

    def part(self, path: str) -> torch.nn.Module:
        """A submodule by its attribute path below `inner`."""
        return self.inner.get_submodule(path)

    @cached_property
    def image_token_id(self) -> int:
        """The id that stands for one image feature in a prompt."""
        found: int = self.tokenizer.convert_tokens_to_ids(self.processor.image_token)
        return found

    @cached_property
    def never_sampled(self) -> list[int]:
        """Ids that stand for images: one in a completion would claim features no image brings.

        A sampled `<image>` crashes the next forward pass (measured, transformers 5.17).
        """
        names = {self.processor.image_token, getattr(self.processor, "video_token", None)}
        names |= {getattr(self.processor, "fake_image_token", None)}
        ids = self.tokenizer.convert_tokens_to_ids([name for name in names if name])
        return sorted({token for token in ids if token is not None and token != self.tokenizer.unk_token_id})

    @contextmanager
    def evaluating(self) -> Iterator[Any]:
        """The model with dropout off, no gradients, and a key-value cache allowed."""
        was_training = self.model.training
        self.model.eval()
        try:
            # Not inference mode: what a library keeps of a pass in it (angles of positions, a cast bias) could
            # never be trained with.
            with torch.no_grad():
                yield self.model
        finally:
            self.model.train(was_training)
