"""DyME's decision: memorise or explore, per group of completions. Pure functions; nothing is random.

Source: DyME (arXiv 2506.23061v2), section 3.2 and equation 8; the soft form is what its reviewers asked for.
"""

from __future__ import annotations

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
) -> Decision:
    """Decide by accuracy alone.

    Binary (`soft_power` unset): a group without a right answer memorises its reference in row 0, as the
    official code does. Soft: every unsolved group does, with weight sft_weight · (1 - c/G)^soft_power for c
    right answers of G, in its worst wrong row; for a large power only c = 0 is left, which is the binary form.

    Args:
        correct: which of the G completions are right.
        rewards: their total rewards; the lowest names the worst.
        sft_weight: 1 gives a memorised prompt 1/G of the weight of an explored one (official code), G gives
            it as much (the paper's equation 8).

    Cases for G = 4, binary:
        c = 0 → memorise, row 0, others 0;  c = 1, 2, 3 → explore;  c = 4 → solved, nothing to learn.
    """
    count, size = sum(map(bool, correct)), len(correct)
    if count == size:
        return Decision("solved", None, 0.0, explores=False)
    if count == 0:
        return Decision("memorise", 0, sft_weight, explores=False)
    weight = 0.0 if soft_power is None else sft_weight * (1 - count / size) ** soft_power
    if weight == 0.0:
        return Decision("explore", None, 0.0, explores=True)
    wrong = [row for row, right in enumerate(correct) if not right]
    worst = min(wrong, key=lambda row: (rewards[row], row))
    return Decision("explore", worst, weight, explores=True)
