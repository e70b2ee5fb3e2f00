"""Rows about one image: how they meet in steps and passes, and what a plan expects of it."""

from __future__ import annotations

import random

import pytest

from toasterft.data import sharing
from toasterft.data.sharing import BRANCH_TOKENS, expected, rows_of, steps, trees


def shuffled(sizes, seed=0):
    """A key for each row of groups of these sizes, and a shuffled order."""
    keys = [f"image {number}" for number, size in enumerate(sizes) for _ in range(size)]
    return random.Random(seed).sample(range(len(keys)), len(keys)), keys


def test_every_row_comes_once_and_steps_are_full():
    rng = random.Random(1)
    order, keys = shuffled([rng.randint(8, 14) for _ in range(60)] + [1] * 20 + [70])
    found = steps(order, keys, 32)
    assert sorted(row for step in found for row in rows_of(step)) == sorted(order)
    assert [len(rows_of(step)) for step in found[:-1]] == [32] * (len(found) - 1)
    assert all(len({keys[row] for row in group}) == 1 for step in found for group in step)
    # Cut where nothing fits: the images are read little more often than there are images.
    assert 81 <= sum(map(len, found)) <= 81 * 1.2
    assert found == steps(order, keys, 32)
    assert found != steps(*shuffled([11] * 60), 32)


def test_rows_that_share_nothing_keep_their_order():
    order, _ = shuffled([1] * 10)
    assert steps(order, list(range(10)), 4) == [[[row] for row in order[at : at + 4]] for at in (0, 4, 8)]


def test_a_group_of_just_the_size_that_is_left_is_preferred():
    assert steps(range(8), "aaabbbbc", 4) == [[[0, 1, 2], [7]], [[3, 4, 5, 6]]]
    assert steps(range(6), "aaabbb", 4) == [[[0, 1, 2], [3]], [[4, 5]]]


def test_trees_hold_what_a_pass_holds():
    half = BRANCH_TOKENS // 2
    assert trees([[0, 1, 2], [3]], [half, half, 1, 9 * half], None) == [[0, 1], [2], [3]]
    assert trees([[0, 1, 2], [3]], [1, 1, 1, 1], 2) == [[0, 1], [2], [3]]


@pytest.mark.parametrize(("most_rows", "mean", "most"), [(None, 10, 10), (5, 5, 5)])
def test_what_a_plan_expects(most_rows, mean, most):
    assert expected(((10, 4),), 20, 50, most_rows) == (mean, most)
    assert sharing.expected(((1, 30),), 20, 50, most_rows) == (1, 1)
