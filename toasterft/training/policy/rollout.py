"""Groups of completions: sampled, read back as text, and rewarded."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from toasterft.data.chat import parse
from toasterft.data.example import Example
from toasterft.engine.generate import Writing, complete
from toasterft.engine.open_model import ModelSession
from toasterft.recipe import Pairs, Policy
from toasterft.scoring.rewards import Completion, Rewards


@dataclass
class Group:
    """One prompt with its G completions.

    Attributes:
        ids: G lists of token ids, end token included where there is one.
        earned: each reward by name for each completion, unweighted.
        total: [G], weighted and summed.
        advantage: [G], set when all groups of a step are known.
        weight: [G], what each token of a completion counts in the loss of the step.
        counted: which completions count in the loss; a masked one is truncated.
        target: the completion that a reference has taken the place of, where one has (DyME).
        old, reference: log-probabilities per completion as lists of [length] tensors, where needed.
    """

    row: int
    example: Example
    ids: list[list[int]]
    completions: list[Completion]
    earned: list[dict[str, float]] = field(default_factory=list)
    total: torch.Tensor = field(default_factory=lambda: torch.zeros(0))
    advantage: torch.Tensor = field(default_factory=lambda: torch.zeros(0))
    weight: torch.Tensor = field(default_factory=lambda: torch.zeros(0))
    counted: list[bool] = field(default_factory=list)
    target: int | None = None
    old: list[torch.Tensor] | None = None
    reference: list[torch.Tensor] | None = None


@dataclass
class Rollout:
    """All groups of one optimizer step (reused in `num_iterations` of them)."""

    groups: list[Group]
    seconds: float
    tokens: int


def roll_out(
    session: ModelSession, rows: Sequence[int], examples: Sequence[Example], recipe: Policy, rewards: Rewards
) -> Rollout:
    """Sample and reward one group per example."""
    began, found = time.monotonic(), {}
    for place, ids in sample(session, examples, recipe, recipe.rollout_batch_size):
        completions = [read(session, each, recipe.max_completion_length) for each in ids]
        for completion in completions:
            rewards.start(completion, examples[place])
        found[place] = Group(rows[place], examples[place], ids, completions)
    groups = [found[place] for place in range(len(examples))]
    for group in groups:
        group.earned = [rewards(completion, group.example) for completion in group.completions]
        group.total = torch.tensor([rewards.total(each) for each in group.earned], dtype=torch.float32)
        group.counted = [each.finished or not recipe.mask_truncated_completions for each in group.completions]
    tokens = sum(len(ids) for group in groups for ids in group.ids)
    return Rollout(groups, time.monotonic() - began, tokens)


def sample(
    session: ModelSession, examples: Sequence[Example], recipe: Policy | Pairs, rows_at_once: int
) -> Iterator[tuple[int, list[list[int]]]]:
    """G completions of each example with its number, as they come to an end.

    What they are sampled by is drawn here, for every token that there might be: the random state afterwards does
    not depend on what was sampled, nor what a row samples on the others.
    """
    limit = recipe.max_completion_length
    drawn = torch.rand(len(examples), recipe.num_generations, limit, dtype=torch.float64)
    return complete(
        session.inputs,
        examples,
        session.inputs.prompts,
        Writing(session.chat.end_token_ids, limit, recipe.temperature, recipe.top_p),
        rows_at_once=rows_at_once,
        num_generations=recipe.num_generations,
        drawn=drawn,
    )


def read(session: ModelSession, ids: list[int], limit: int) -> Completion:
    """A completion as its rewards see it."""
    text = session.chat.decode(ids)
    finished = bool(ids) and ids[-1] in session.chat.end_token_ids
    return Completion(text, parse(text, session.chat.prompt), len(ids), finished, limit)
