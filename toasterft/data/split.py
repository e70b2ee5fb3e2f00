"""Divide rows into train, validation and test by image: no picture is on two sides."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Generic, TypeVar

from toasterft.data.example import Example
from toasterft.errors import DataError

Key = TypeVar("Key", str, int)


def divide(examples: list[Example], shares: Mapping[str, float], seed: int) -> dict[str, list[Example]]:
    """Rows by split, in their old order; what no share takes stays in train.

    Rows that show the same picture (by its bytes) stay together, and so do rows without one that ask the
    same. Which pictures go where depends on their content and the seed alone, not on the order of rows.

    Args:
        shares: of the pictures, by split; at least one picture each.

    Raises:
        DataError: the shares leave nothing for train, or there are fewer pictures than splits.
    """
    shares = {split: share for split, share in shares.items() if share > 0}
    if not shares or any(share < 0 for share in shares.values()) or sum(shares.values()) >= 1:
        raise DataError(
            f"the shares {dict(shares)} leave nothing to divide",
            why="each is a part of the pictures, and the rest is train",
            next_step="use for example --validation 0.1 --test 0.1",
        )
    group_of = _groups(examples)
    groups = sorted(set(group_of), key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).digest())
    if len(groups) <= len(shares):
        raise DataError(f"{len(groups)} different pictures cannot fill {len(shares) + 1} splits")
    side: dict[str, str] = {}
    start = 0
    for split, share in shares.items():
        end = min(start + max(1, round(share * len(groups))), len(groups) - 1)
        side.update(dict.fromkeys(groups[start:end], split))
        start = end
    found: dict[str, list[Example]] = {split: [] for split in ("train", *shares)}
    for example, group in zip(examples, group_of):
        found[side.get(group, "train")].append(example)
    return found


def _groups(examples: list[Example]) -> list[str]:
    """For each row the name of its group: rows that share a picture, also by way of others, have the same."""
    sets: DisjointSets[str] = DisjointSets()
    keys = [
        [image.sha256 for image in example.images] or [" ".join(_first_question(example).lower().split())]
        for example in examples
    ]
    for first, *others in keys:
        for other in others:
            sets.join(first, other)
    return [sets.root(row[0]) for row in keys]


def _first_question(example: Example) -> str:
    """What the conversation of a row began with, so that all its turns are on one side."""
    return next((turn.text for turn in example.history if turn.role == "user"), example.question)


class DisjointSets(Generic[Key]):
    """Groups of things that belong together, also by way of others; the smallest of a group is its name."""

    def __init__(self) -> None:
        self._parent: dict[Key, Key] = {}

    def root(self, key: Key) -> Key:
        """The name of the group."""
        while self._parent.setdefault(key, key) != key:
            self._parent[key] = self._parent[self._parent[key]]
            key = self._parent[key]
        return key

    def join(self, one: Key, other: Key) -> None:
        """Make one group of two; the smaller name leads, so that the order of calls decides nothing."""
        low, high = sorted((self.root(one), self.root(other)))
        self._parent[high] = low
