"""Losses on pairs of completions, as functions of log-probabilities alone.

Shapes: B pairs; the last axis is (chosen, rejected). Definitions are TRL 1.14's DPOTrainer's, which the tests hold
these against; papers are named with each.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import logsigmoid


@dataclass(frozen=True)
class Pairs:
    """What is known of some pairs.

    Attributes:
        policy: [B, 2], log-probability of each completion, its tokens summed, under the model as it is.
        reference: [B, 2], the same under the model as it was found.
        lengths: [B, 2], tokens of each completion.
    """

    policy: torch.Tensor
    reference: torch.Tensor
    lengths: torch.Tensor

    @property
    def ratios(self) -> torch.Tensor:
        """[B, 2], log of policy over reference."""
        return self.policy - self.reference

    @property
    def margins(self) -> torch.Tensor:
        """[B], how much more the chosen completion has gained than the rejected one."""
        chosen, rejected = self.ratios.unbind(-1)
        return chosen - rejected


def loss(kind: str, pairs: Pairs, beta: float, label_smoothing: float = 0.0) -> torch.Tensor:
    """The mean over pairs of one loss.

    Args:
        kind: a value of the recipe's `loss_type`.
    """
    if kind == "sft":
        # The chosen completion's own likelihood, over all tokens of the batch (as in MPO, arXiv 2411.10442).
        return -pairs.policy[:, 0].sum() / pairs.lengths[:, 0].sum()
    return _each(kind, pairs, beta, label_smoothing).mean()


def _each(kind: str, pairs: Pairs, beta: float, smoothing: float) -> torch.Tensor:
    """[B]"""
    chosen, rejected = (beta * pairs.ratios).unbind(-1)
    margin = beta * pairs.margins
    if kind == "sigmoid":  # DPO, arXiv 2305.18290, equation 7
        return -logsigmoid(margin)
    if kind == "hinge":  # SLiC, arXiv 2305.10425
        return torch.relu(1 - margin)
    if kind == "ipo":  # arXiv 2310.12036, equation 17, per token: TRL asked its authors
        per_token = pairs.ratios / pairs.lengths
        return (per_token[:, 0] - per_token[:, 1] - 1 / (2 * beta)) ** 2
    if kind == "robust":  # arXiv 2403.00409, equation 12: a share of the pairs is the wrong way round
        clean, flipped = -logsigmoid(margin), -logsigmoid(-margin)
        return ((1 - smoothing) * clean - smoothing * flipped) / (1 - 2 * smoothing)
    if kind == "bco_pair":  # arXiv 2404.04656, without its moving threshold
        return -logsigmoid(chosen) - logsigmoid(-rejected)
    if kind == "apo_zero":  # APO, arXiv 2408.06266, equation 7: the chosen up, the rejected down
        return 1 - torch.sigmoid(chosen) + torch.sigmoid(rejected)
    raise ValueError(kind)
