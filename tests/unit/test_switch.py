"""DyME's decision, as a table of its cases."""

from __future__ import annotations

import itertools

import pytest

from toasterft import switch


@pytest.mark.parametrize("size", [4, 8])
def test_every_outcome_of_a_group(size):
    for correct in itertools.product((False, True), repeat=size):
        rewards = [0.5 + right for right in correct]
        decision = switch.choose(correct, rewards, sft_weight=3.0)
        right = sum(correct)
        if right == 0:
            assert decision == switch.Decision("memorise", 0, 3.0, explores=False)
        elif right == size:
            assert decision == switch.Decision("solved", None, 0.0, explores=False)
        else:
            assert decision == switch.Decision("explore", None, 0.0, explores=True)


@pytest.mark.parametrize(("right", "weight"), [(0, 2.0), (1, 1.125), (2, 0.5), (3, 0.125), (4, None)])
def test_the_soft_switch_fades_with_right_answers(right, weight):
    # 2 · (1 - c/4)²: 2, 9/8, 1/2, 1/8
    correct = [place < right for place in range(4)]
    decision = switch.choose(correct, [1.0, 2.0, 0.25, 0.5], sft_weight=2.0, soft_power=2.0)
    if weight is None:
        assert decision.outcome == "solved"
        assert decision.target_row is None
        return
    assert decision.target_weight == pytest.approx(weight)
    # The worst wrong row gives way, never a right one; with no right one row 0, as the official code.
    assert decision.target_row == {0: 0, 1: 2, 2: 2, 3: 3}[right]


def test_a_large_power_is_the_binary_switch():
    for right in range(1, 5):
        correct = [place < right for place in range(4)]
        soft = switch.choose(correct, [0.0] * 4, soft_power=500.0)
        assert soft.target_weight < 1e-60
