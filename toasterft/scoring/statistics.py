"""Shares with intervals, and paired tests of two runs on the same items."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

ALPHA, POWER = 0.05, 0.8
RESAMPLES = 10_000
# Fewer discordant items cannot reach p < .05 in the exact test: 2 · (1/2)^5 = .0625, 2 · (1/2)^6 = .031.
LEAST_DISCORDANT = 6


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


def share(right: int, count: int) -> dict[str, float]:
    """A share of `count` trials with its 95 % Wilson interval, as fractions, JSON-ready; 0 in [0, 1] for none."""
    low, high = wilson(right, count)
    return {"value": right / count if count else 0.0, "low": low, "high": high}


def mcnemar(first_only: int, second_only: int) -> float:
    """Two-sided exact p value of McNemar's test (1947): the items that only one got right against a fair coin."""
    discordant = first_only + second_only
    # Integers throughout: a thousand coins have more outcomes than a float has numbers.
    tail = ways = 1
    for k in range(min(first_only, second_only)):
        ways = ways * (discordant - k) // (k + 1)
        tail += ways
    return min(1.0, 2 * tail / int(2**discordant))


def difference(first_only: int, second_only: int, n: int, seed: int) -> dict[str, float]:
    """Accuracy of the second minus the first, with the 95 % percentile interval of the paired bootstrap.

    Resampling items with replacement draws how many of them count -1, +1 and 0 from a multinomial; the
    interval is that of `RESAMPLES` such draws. Where all items count alike every draw is the same and the
    interval would be a point: there it allows for a share of 3/n of other items, the rule of three's bound
    on what was never seen in n (Hanley and Lippman-Hand 1983).
    """
    value, unseen = (second_only - first_only) / n, min(1.0, 3 / n)
    if n in (first_only, second_only, n - first_only - second_only):
        return {"value": value, "low": value - (value + 1) * unseen, "high": value + (1 - value) * unseen}
    import numpy

    shares = [first_only / n, second_only / n, (n - first_only - second_only) / n]
    drawn = numpy.random.default_rng(seed).multinomial(n, shares, size=RESAMPLES)
    low, high = numpy.percentile((drawn[:, 1] - drawn[:, 0]) / n, [100 * ALPHA / 2, 100 * (1 - ALPHA / 2)])
    return {"value": value, "low": float(low), "high": float(high)}


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979) of several p values, in their order."""
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = worst
    return adjusted


def items_needed(first_only: int, second_only: int, n: int) -> int | None:
    """How many items would show the observed difference with power .8 at two-sided alpha .05.

    Connor's formula (Biometrics 43:207-211, 1987), with discordant share s and difference d,

        n = [k / d]²,   k = z(1 - alpha/2) √s + z(power) √(s - d²)

    and the continuity correction |b - c| - 1 that brings the normal test to the exact one, which turns the
    condition n d = k √n into n d - 1 = k √n, so that √n = (k + √(k² + 4 d)) / 2d. It takes the observed
    shares for the true ones. In simulations the exact test's power at that n is .78 to .85, and more where
    all differing items fall to one side. None where there is no difference: no number would show it.
    """
    gap, discordant = abs(second_only - first_only) / n, (first_only + second_only) / n
    if gap == 0:
        return None
    z = NormalDist().inv_cdf
    k = z(1 - ALPHA / 2) * math.sqrt(discordant) + z(POWER) * math.sqrt(max(0.0, discordant - gap**2))
    root = (k + math.sqrt(k * k + 4 * gap)) / (2 * gap)
    return max(math.ceil(root**2), math.ceil(LEAST_DISCORDANT / discordant))
