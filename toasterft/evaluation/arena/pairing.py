"""Pairing and order of comparisons: which two answers a voter sees next, and on which side.

Everybody judges the same comparisons, so that agreement can be measured; everybody gets them
in an order, and with sides, of their own, so that neither habit nor fatigue favours a model.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Battle:
    """Two runs' answers to one item; `runs` is sorted and says nothing about sides."""

    item: str
    runs: tuple[str, str]

    @property
    def done(self) -> tuple[str, frozenset[str]]:
        """How `votes.Votes.of` names it."""
        return self.item, frozenset(self.runs)


def battles(items: Sequence[str], runs: Sequence[str], n: int) -> list[Battle]:
    """`n` comparisons: all items once before any of them twice, all pairs of runs equally often, give or take one.

    Fewer where there are not so many different ones.
    """
    pairs = list(itertools.combinations(sorted(runs), 2))
    # Pairs take turns along the items. Where that would bring an item the pair it has had, all move on by one.
    cycle = len(pairs) // math.gcd(len(items), len(pairs))
    planned = (
        Battle(item, pairs[(turn * len(items) + place + turn // cycle) % len(pairs)])
        for turn in range(len(pairs))
        for place, item in enumerate(items)
    )
    return list(itertools.islice(planned, n))


def order(planned: Sequence[Battle], voter: str, seed: int) -> list[Battle]:
    """The comparisons in one voter's own order."""
    mine = list(planned)
    random.Random(f"{seed}/{voter.casefold()}").shuffle(mine)
    return mine


def sides(battle: Battle, voter: str, seed: int) -> tuple[str, str]:
    """The runs on the left and on the right, for one voter, the same each time it is shown."""
    first, second = battle.runs
    coin = random.Random(f"{seed}/{voter.casefold()}/{battle.item}/{first}/{second}")
    return (first, second) if coin.random() < 0.5 else (second, first)
