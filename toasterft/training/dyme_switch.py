"""DyME's decision: memorise or explore, per group of completions. Pure functions; nothing is random.

Source: DyME (arXiv 2506.23061v2), section 3.2 and equation 8; the soft form is what its reviewers asked for, the
other settings are the paper's ablations of the switch.

What a group of G completions learns, by how many of them are right (c):

    setting            c = 0                     0 < c < G                          c = G
    (binary)           reference in row 0        advantages                         nothing
    soft_power=p       reference in row 0        advantages, reference in the       nothing
                                                 worst wrong row: (1 - c/G)^p
    anneal             advantages, and the reference in the last row: (1 + cos pi t)/2, t the share that is done
    memorise=false     nothing                   advantages                         nothing
    explore=false      reference in row 0        nothing                            nothing
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["memorise", "explore", "solved"]


@dataclass(frozen=True)
class Decision:
    """What becomes of one group.

    Attributes:
        outcome: `memorise` none right, `explore` some right, `solved` all right.
        target_row: the row that the reference trace and answer replace, or None.
        target_weight: that row's advantage.
        explores: whether the other rows keep their group-relative advantages; else they have none.
    """

    outcome: Outcome
    target_row: int | None
    target_weight: float
    explores: bool


def choose(
    correct: Sequence[bool],
    rewards: Sequence[float],
    *,
    sft_weight: float = 1.0,
    soft_power: float | None = None,
    annealed: float | None = None,
    memorise: bool = True,
    explore: bool = True,
) -> Decision:
    """Decide by correctness alone.

    Binary (nothing else set): a group without a right answer memorises its reference in row 0, as the
    official code does. Soft: every unsolved group does, with weight sft_weight · (1 - c/G)^soft_power for c
    right answers of G, in its worst wrong row; for a large power only c = 0 is left, which is the binary form.
    Annealed: every group does, in its last row, with weight sft_weight · annealed, and explores beside it.

    Args:
        correct: which of the G completions are right.
        rewards: their total rewards; the lowest names the worst.
        sft_weight: 1 gives a memorised prompt 1/G of the weight of an explored one (official code), G gives
            it as much (the paper's equation 8).
        annealed: from `cosine`; None decides by group.
        memorise, explore: False leaves that part out.

    Cases for G = 4, binary:
        c = 0 → memorise, row 0, others 0;  c = 1, 2, 3 → explore;  c = 4 → solved, nothing to learn.
    """
    count, size = sum(map(bool, correct)), len(correct)
    outcome: Outcome = "memorise" if count == 0 else "solved" if count == size else "explore"
    row, weight = None, 0.0
    if annealed is not None:
        row, weight = size - 1, sft_weight * annealed
    elif count == 0:
        row, weight = 0, sft_weight
    elif count < size and soft_power is not None:
        wrong = [place for place, right in enumerate(correct) if not right]
        row = min(wrong, key=lambda place: (rewards[place], place))
        weight = sft_weight * (1 - count / size) ** soft_power
    if not memorise or weight == 0.0:
        row, weight = None, 0.0
    return Decision(outcome, row, weight, explore and (annealed is not None or outcome == "explore"))


def above(rewards: Sequence[float], weights: Sequence[float], threshold: float) -> list[bool]:
    """Which completions count as right by their rewards: those whose weighted mean is above a threshold.

    Args:
        rewards: weighted sums, one per completion.
        weights: of the reward functions.
    """
    return [reward / sum(weights) > threshold for reward in rewards]


def cosine(done: float) -> float:
    """The weight of an always-on reference: 1 at the start, 0 once all is done (`done` in [0, 1])."""
    return 0.5 * (1 + math.cos(math.pi * done))
