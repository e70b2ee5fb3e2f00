"""Micro-batching: prompts over optimizer steps, completions of a step over forward passes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property

import torch

from toasterft.engine.logprobs import Branches
from toasterft.recipe import Policy
from toasterft.training.policy.rollout import Group


class MicroBatch:
    """Completions of some groups, as many of each, that go through one forward pass.

    Attributes:
        parts: groups with the numbers of their completions.
    """

    def __init__(self, parts: list[tuple[Group, list[int]]]) -> None:
        self.parts = parts

    @cached_property
    def rows(self) -> list[tuple[Group, int]]:
        return [(group, branch) for group, branches in self.parts for branch in branches]

    @cached_property
    def branches(self) -> Branches:
        return Branches(
            [group.example for group, _ in self.parts],
            [[group.ids[branch] for branch in branches] for group, branches in self.parts],
        )

    def tokens(self, name: str, device: torch.device) -> torch.Tensor | None:
        """[N]: the log-probabilities that groups hold under a name, or None."""
        if getattr(self.rows[0][0], name) is None:
            return None
        return torch.cat([getattr(group, name)[branch] for group, branch in self.rows]).to(device)

    def per_token(self, name: str, device: torch.device) -> torch.Tensor:
        """[N]: a value per completion, repeated for each of its tokens."""
        values = torch.stack([getattr(group, name)[branch] for group, branch in self.rows]).to(device)
        return values.repeat_interleave(torch.tensor(self.branches.lengths, device=device))


def micro_batches(groups: Sequence[Group], chosen: list[list[int]], recipe: Policy) -> Iterator[MicroBatch]:
    """Split a step: whole groups where they fit into one forward pass, else some completions of one group.

    Args:
        chosen: numbers of the completions of each group that are needed.
    """
    width = min(recipe.per_device_train_batch_size, recipe.num_generations)
    width = min(width, recipe.branches_per_forward or width)
    at_once = max(1, recipe.per_device_train_batch_size // recipe.num_generations)
    # A packed batch has as many branches for every prompt, so groups of one size go together.
    by_size: dict[int, list[tuple[Group, list[int]]]] = defaultdict(list)
    for group, branches in zip(groups, chosen):
        for start in range(0, len(branches), width):
            cut = branches[start : start + width]
            by_size[len(cut)].append((group, cut))
    for parts in by_size.values():
        for start in range(0, len(parts), at_once):
            yield MicroBatch(parts[start : start + at_once])


def prompt_order(rows: int, recipe: Policy, processes: int = 1) -> list[int]:
    """Row numbers of every optimizer step, one after the other: epochs of a seeded shuffle, each batch
    repeated for every iteration on it. Processes take the prompts of a step in turn, so many at a time."""
    prompts = recipe.prompts_per_step * processes
    size = min(rows, prompts)
    per_epoch = max(1, rows // size)
    batches = math.ceil(per_epoch * recipe.num_train_epochs)
    if recipe.max_steps > 0:
        batches = math.ceil(recipe.max_steps / recipe.num_iterations)
    order: list[int] = []
    shuffled: list[int] = []
    for batch in range(batches):
        epoch, place = divmod(batch, per_epoch)
        if place == 0:
            generator = torch.Generator().manual_seed(recipe.seed + epoch)
            shuffled = torch.randperm(rows, generator=generator).tolist()
        # A data set smaller than one step's prompts fills it by going round.
        chosen = [shuffled[(place * size + number) % rows] for number in range(prompts)]
        order += chosen * recipe.num_iterations
    return order
