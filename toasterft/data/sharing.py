"""Rows about one image meet: in one optimizer step, and there behind one reading of the image.

Without torch: a plan counts with the same trees that a training runs.
"""

from __future__ import annotations

import functools
import random
from collections import defaultdict, deque
from collections.abc import Hashable, Iterable, Sequence

# Tokens behind one image in a forward pass: about a dozen questions with traces. With SmolVLM-256M at 13 tiles its
# activations are less than what logits of 128 more tokens would take (`engine/logprobs.py` holds no more than those).
BRANCH_TOKENS = 1024

Group = list[int]


def rows_of(groups: Iterable[Group]) -> list[int]:
    """Their rows, one group after the other."""
    return [row for group in groups for row in group]


def steps(order: Iterable[int], keys: Sequence[Hashable], rows_per_step: int) -> list[list[Group]]:
    """Optimizer steps of `rows_per_step` rows: every row once, rows of one key in one group, as far as steps hold them.

    Groups come in the order of their first rows; one of just the size that is left of a step is preferred. Where the next
    one is too large for it, it is cut. Rows that share nothing keep their order.

    Args:
        order: numbers of all rows, shuffled.
        keys: of each row, what it shares with others.
    """
    gathered: dict[Hashable, Group] = {}
    for row in order:
        gathered.setdefault(keys[row], []).append(row)
    waiting: dict[int, deque[tuple[int, Group]]] = defaultdict(deque)
    for place, group in enumerate(gathered.values()):
        for start in range(0, len(group), rows_per_step):
            part = group[start : start + rows_per_step]
            waiting[len(part)].append((place, part))
    found: list[list[Group]] = []
    left = 0
    while sizes := [size for size, groups in waiting.items() if groups]:
        if not left:
            found.append([])
            left = rows_per_step
        fits = found[-1] and left in sizes
        size = left if fits else min(sizes, key=lambda size: waiting[size][0][0])
        place, group = waiting[size].popleft()
        if size > left:
            waiting[size - left].appendleft((place, group[left:]))
            group = group[:left]
        found[-1].append(group)
        left -= len(group)
    return found


def trees(groups: Iterable[Group], tokens: Sequence[int], most_rows: int | None) -> list[Group]:
    """Groups cut into what one forward pass holds: so many rows, and `BRANCH_TOKENS` of theirs where there are several.

    Args:
        tokens: of each row, behind what it shares.
    """
    found: list[Group] = []
    for group in groups:
        held = 0
        for place, row in enumerate(group):
            if not place or held + tokens[row] > BRANCH_TOKENS or len(found[-1]) == most_rows:
                found.append([])
                held = 0
            found[-1].append(row)
            held += tokens[row]
    return found


@functools.lru_cache(maxsize=256)
def expected(
    sharing: tuple[tuple[int, int], ...], rows_per_step: int, tokens: int, most_rows: int | None
) -> tuple[float, int]:
    """Rows of a tree: their mean over an epoch, and the most.

    Args:
        sharing: as in `TokenStats`.
        tokens: of every row, behind what it shares.
    """
    sizes = [size for size, count in sharing for _ in range(count)]
    keys = [number for number, size in enumerate(sizes) for _ in range(size)]
    order = random.Random(0).sample(range(len(keys)), len(keys))
    found = [
        len(tree)
        for groups in steps(order, keys, rows_per_step)
        for tree in trees(groups, [tokens] * len(keys), most_rows)
    ]
    return len(keys) / len(found), max(found)
