"""Shares with intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass


def wilson(correct: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval (1927) of `correct` in `n`, as fractions; z = 1.96 gives 95 %.

    Raises:
        ValueError: `correct` is not between 0 and `n`.
    """
    if not 0 <= correct <= n:
        raise ValueError(f"{correct} correct of {n} is no count")
    if n == 0:
        return 0.0, 1.0
    share, extra = correct / n, z * z / n
    middle = (share + extra / 2) / (1 + extra)
    half = math.sqrt(extra * (share * (1 - share) + extra / 4)) / (1 + extra)
    # Rounding must not put 4 right of 4 outside its own interval.
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))


@dataclass(frozen=True)
class Rate:
    """A share of `n` trials with its 95 % Wilson interval, all as fractions; 0 in [0, 1] for no trials."""

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, correct: int, n: int) -> Rate:
        low, high = wilson(correct, n)
        return cls(correct / n if n else 0.0, low, high, n)
