"""The arithmetic of group-relative policy optimisation, as pure functions on tensors.

Tokens of all completions lie flat, one after the other, without padding. Names and semantics are TRL's `GRPOTrainer`; the
tests named `referee` hold loss and gradients against it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

# Added to a standard deviation before dividing by it, as TRL does.
STD_FLOOR = 1e-4


@dataclass(frozen=True)
class Clip:
    """The range in which a token's ratio new/old still carries gradient.

    Attributes:
        low: lower bound is 1 - low.
        high: upper bound is 1 + high; ClipLow makes it smaller than `low`.
        delta: cap of the unclipped ratio, or None.
    """

    low: float
    high: float
    delta: float | None = None


@dataclass(frozen=True)
class Terms:
    """Per-token loss [N], and figures for the log."""

    loss: torch.Tensor
    kl: torch.Tensor | None
    clipped_low: torch.Tensor
    clipped_high: torch.Tensor


def advantages(rewards: torch.Tensor, scale_rewards: str) -> torch.Tensor:
    """How much better each completion is than its group.

    Args:
        rewards: [groups, G], already weighted and summed.
        scale_rewards: `group` or `batch` divides by that standard deviation; `none` does not divide.

    Returns:
        [groups, G]; exactly zero where a group's rewards are all alike.
    """
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    alike = rewards.max(dim=1, keepdim=True).values == rewards.min(dim=1, keepdim=True).values
    centred = centred.masked_fill(alike, 0.0)
    if scale_rewards == "none":
        return centred
    if scale_rewards == "batch":
        std = rewards.std() if rewards.numel() > 1 else torch.zeros(())
    else:
        std = rewards.std(dim=1, keepdim=True) if rewards.shape[1] > 1 else torch.zeros(())
    return centred / (std + STD_FLOOR)


def token_loss(
    new: torch.Tensor,
    old: torch.Tensor,
    reference: torch.Tensor | None,
    advantage: torch.Tensor,
    clip: Clip,
    beta: float,
    *,
    use_bias_correction_kl: bool = False,
) -> Terms:
    """-min(r·A, clip(r)·A) + beta·KL per token, with the KL estimate exp(d) - d - 1, d = reference - new.

    Args:
        use_bias_correction_kl: the estimate is multiplied by the ratio, through which gradient flows.
        new, old, reference: log-probabilities of N tokens; only `new` carries gradient.
        advantage: each token's completion's, [N].
    """
    ratio = torch.exp(new - old)
    held = ratio.clamp(1 - clip.low, 1 + clip.high)
    free = ratio if clip.delta is None else ratio.clamp(max=clip.delta)
    loss = -torch.min(free * advantage, held * advantage)
    kl = None
    if reference is not None:
        distance = reference - new
        kl = torch.exp(distance) - distance - 1
        if use_bias_correction_kl:
            kl = kl * ratio
        loss = loss + beta * kl
    low = (ratio < 1 - clip.low) & (advantage < 0)
    high = (ratio > 1 + clip.high) & (advantage > 0)
    return Terms(loss, None if kl is None else kl.detach(), low, high)


def token_weights(
    lengths: torch.Tensor,
    loss_type: str,
    *,
    max_completion_length: int,
    all_tokens: float | None = None,
    processes: int = 1,
) -> torch.Tensor:
    """What each token of a completion counts in the loss of a whole optimizer step.

    Fixed for the step before it is split, so that any split into micro-batches adds up to the same loss.

    Args:
        lengths: tokens that count of each completion, [R]: 0 for one that was cut off and is masked.
        loss_type: `grpo` averages over tokens of a completion, then over completions; `bnpo` over this
            process's tokens; `dapo` over those of all processes; `dr_grpo` divides by completions times the
            length limit.
        all_tokens: tokens of all processes (dapo).
        processes: gradients are averaged over this many.

    Returns:
        [R].
    """
    rows = lengths.numel()
    if loss_type == "grpo":
        return 1 / (rows * lengths.clamp(min=1).float())
    if loss_type == "dr_grpo":
        share = 1 / (rows * max_completion_length)
    elif loss_type == "bnpo":
        share = 1 / max(1.0, float(lengths.sum()))
    elif loss_type == "dapo":
        share = processes / max(1.0, float(lengths.sum()) if all_tokens is None else all_tokens)
    else:
        raise ValueError(f"unknown loss_type {loss_type!r}")
    return torch.full((rows,), share)
