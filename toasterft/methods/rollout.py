"""Groups of completions: sampled, read back as text, and rewarded."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from toasterft.data.example import Example
from toasterft.data.prompt import parse
from toasterft.engines.generate import generate, sample_groups
from toasterft.methods.opening import Opened
from toasterft.recipe import Policy
from toasterft.rewards import Completion, Rewards


@dataclass
class Group:
    """One prompt with its G completions.

    Attributes:
        ids: G lists of token ids, end token included where there is one.
        earned: each reward by name for each completion, unweighted.
        total: [G], weighted and summed.
        advantage: [G], set when all groups of a step are known.
        counted: which completions count in the loss; a masked one is truncated.
        old, reference: log-probabilities per completion as lists of [length] tensors, where needed.
    """

    row: int
    example: Example
    ids: list[list[int]]
    completions: list[Completion]
    earned: list[dict[str, float]] = field(default_factory=list)
    total: torch.Tensor = field(default_factory=lambda: torch.zeros(0))
    advantage: torch.Tensor = field(default_factory=lambda: torch.zeros(0))
    counted: list[bool] = field(default_factory=list)
    old: list[torch.Tensor] | None = None
    reference: list[torch.Tensor] | None = None


@dataclass
class Rollout:
    """All groups of one optimizer step (reused in `num_iterations` of them)."""

    groups: list[Group]
    seconds: float
    tokens: int


def roll_out(
    opened: Opened, rows: Sequence[int], examples: Sequence[Example], recipe: Policy, rewards: Rewards
) -> Rollout:
    """Sample and reward one group per example."""
    began, groups = time.monotonic(), []
    prompts_at_once = max(1, recipe.rollout_batch_size // recipe.num_generations)
    for start in range(0, len(examples), prompts_at_once):
        batch = examples[start : start + prompts_at_once]
        for row, example, ids in zip(rows[start:], batch, sample(opened, batch, recipe)):
            completions = [read(opened, each, recipe.max_completion_length) for each in ids]
            group = Group(row, example, ids, completions)
            group.earned = [rewards(completion, example) for completion in completions]
            group.total = torch.tensor([rewards.total(each) for each in group.earned], dtype=torch.float32)
            group.counted = [
                each.finished or not recipe.mask_truncated_completions for each in group.completions
            ]
            groups.append(group)
    tokens = sum(len(ids) for group in groups for ids in group.ids)
    return Rollout(groups, time.monotonic() - began, tokens)


def sample(opened: Opened, examples: Sequence[Example], recipe: Policy) -> list[list[list[int]]]:
    """G completions per example; through one prefill per prompt where the model takes cached features."""
    options: dict[str, Any] = {
        "end_ids": opened.chat.end_token_ids,
        "max_completion_length": recipe.max_completion_length,
        "temperature": recipe.temperature,
        "top_p": recipe.top_p,
    }
    if opened.eyes is not None or not any(example.images for example in examples):
        inputs = opened.inputs.left_padded(opened.inputs.prompts(examples))
        return sample_groups(opened.loaded, inputs, num_generations=recipe.num_generations, **options)
    # Through pixels: some of these models count positions by image, which a shared prefill would lose.
    repeated = [example for example in examples for _ in range(recipe.num_generations)]
    inputs = opened.inputs.left_padded(opened.inputs.prompts(repeated))
    rows = generate(opened.loaded, inputs, **options)
    count = recipe.num_generations
    return [rows[start : start + count] for start in range(0, len(rows), count)]


def read(opened: Opened, ids: list[int], limit: int) -> Completion:
    """A completion as its rewards see it."""
    text = opened.chat.decode(ids)
    finished = bool(ids) and ids[-1] in opened.chat.end_token_ids
    return Completion(text, parse(text, opened.chat.prompt), len(ids), finished, limit)
