"""Recipes that read a model and do not train it: eval, ask, pairs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from toasterft.recipe.base import Prompt, Recipe


class Inference(Recipe):
    """What every command has in common that loads a model and leaves it as it is."""

    max_completion_length: int = Field(256, ge=1)
    """Longest generated answer in tokens."""
    prompt: Prompt | None = None
    """Prompt settings; those saved with the run when unset."""
    load_in_4bit: bool | None = None
    """4-bit weights; as the adapter was trained when unset, 16-bit for a base model."""


class Eval(Inference):
    """Accuracy with intervals of a run or model."""

    method: Literal["eval"] = "eval"
    data: str = "chartqa"
    """Folder, .jsonl/.json file, set built here, catalog name, or hub id."""
    split: str | None = None
    """Rows to score; `test`, else `validation`, where the data names splits, else all."""
    step: bool = False
    """Append "Let's think step by step." to every question."""
    suffix: str | None = None
    """Append this text to every question."""
    reasoner: str | None = None
    """Run or model that writes the reasoning, from which this one answers; its own when unset."""
    per_device_eval_batch_size: int = Field(8, ge=1)
    """Questions answered per forward pass."""
    temperature: float = Field(0.0, ge=0.0)
    """0 takes the likeliest token; 1 samples from the model as GRPO does, so that scores are of its samples."""


class Ask(Inference):
    """One question about one image."""

    method: Literal["ask"] = "ask"
    step: bool = False
    """Append "Let's think step by step." to the question."""
    suffix: str | None = None
    """Append this text to the question."""


class Pairs(Inference):
    """Preference pairs: the data's trace and answer beside the model's own wrong sample."""

    method: Literal["pairs"] = "pairs"
    data: str = "smolcot-7k"
    """Rows with reasoning: folder, .jsonl/.json file, set built here, catalog name, or hub id."""
    split: str | None = None
    """Rows to sample answers to; `train` where the data names splits, else all."""
    n: int | None = Field(None, ge=1)
    """Pairs wanted; one for each row that has a wrong sample when unset."""
    tries: int = Field(4, ge=1, le=256)
    """Samples per row."""
    temperature: float = Field(1.0, gt=0.0)
    """Sampling temperature."""
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    """Nucleus sampling."""
    max_completion_length: int = Field(256, ge=1)
    """Longest sample in tokens; one that is cut off there makes no pair."""
    per_device_eval_batch_size: int = Field(8, ge=1)
    """Rows sampled at once, `tries` completions of each."""

    @property
    def num_generations(self) -> int:
        """The policy methods' word for `tries`."""
        return self.tries
