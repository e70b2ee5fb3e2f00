"""Metrics of a batch of samples for the log, and some completions in full."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch

from toasterft.training.policy.rollout import Group, Rollout
from toasterft.training.trainer_base import TrainingContext

SHOWN_COMPLETIONS = 4


def reward_figures(groups: Sequence[Group], names: Iterable[str]) -> dict[str, float]:
    """Mean and standard deviation of each reward over the completions it applies to."""
    figures = {}
    for name in names:
        values = torch.tensor([earned[name] for group in groups for earned in group.earned])
        values = values[~values.isnan()]
        if len(values):
            figures[f"rewards/{name}/mean"] = float(values.mean())
            figures[f"rewards/{name}/std"] = float(values.std()) if len(values) > 1 else 0.0
    return figures


def rollout_figures(rollout: Rollout, *, accuracy: bool) -> dict[str, float]:
    """Rewards, lengths, form and pace of one batch of samples.

    Args:
        accuracy: the recipe rewards it, so that groups can be counted by how many are right.
    """
    groups = rollout.groups
    totals = torch.stack([group.total for group in groups])
    differ = totals.max(dim=1).values > totals.min(dim=1).values
    completions = [each for group in groups for each in group.completions]
    figures = {
        "reward": float(totals.mean()),
        "reward_std": float(totals.std(dim=1).mean()),
        "groups/alike": 1 - float(differ.float().mean()),
        "completions/mean_length": sum(each.tokens for each in completions) / len(completions),
        "completions/truncated": sum(not each.finished for each in completions) / len(completions),
        "format_rate": sum(each.parsed.well_formed for each in completions) / len(completions),
        "seconds/rollout": rollout.seconds,
        "rollout_tokens_per_second": rollout.tokens / max(1e-6, rollout.seconds),
    }
    if accuracy:
        correct = torch.tensor(
            [[float(each.get("accuracy", math.nan)) for each in group.earned] for group in groups]
        )
        none_right = figures["groups/none_right"] = float((correct.sum(1) == 0).float().mean())
        all_right = figures["groups/all_right"] = float((correct.mean(1) == 1).float().mean())
        figures["groups/some_right"] = 1 - none_right - all_right
    return figures


def log_completions(context: TrainingContext, step: int, group: Group) -> None:
    """Show some completions of a group, and keep them in samples.jsonl."""
    example = group.example
    shown = list(zip(group.completions, group.earned, group.total.tolist()))[:SHOWN_COMPLETIONS]
    context.report.completions(
        step, example.question, example.answer, [(completion.text, total) for completion, _, total in shown]
    )
    for completion, earned, total in shown:
        context.record.sample(
            {
                "step": step,
                "id": example.id,
                "question": example.question,
                "gold": example.answer,
                "text": completion.text,
                "rewards": earned,
                "reward": total,
            }
        )
