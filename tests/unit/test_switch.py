"""DyME's decision, as a table of its cases."""

from __future__ import annotations

import itertools

import pytest

from toasterft.training import dyme_switch


@pytest.mark.parametrize("size", [4, 8])
def test_every_outcome_of_a_group(size):
    for correct in itertools.product((False, True), repeat=size):
        rewards = [0.5 + right for right in correct]
        decision = dyme_switch.choose(correct, rewards, sft_weight=3.0)
        right = sum(correct)
        if right == 0:
            assert decision == dyme_switch.Decision("memorise", 0, 3.0, explores=False)
        elif right == size:
            assert decision == dyme_switch.Decision("solved", None, 0.0, explores=False)
        else:
            assert decision == dyme_switch.Decision("explore", None, 0.0, explores=True)


@pytest.mark.parametrize(("right", "weight"), [(0, 2.0), (1, 1.125), (2, 0.5), (3, 0.125), (4, None)])
def test_the_soft_switch_fades_with_right_answers(right, weight):
    # 2 · (1 - c/4)²: 2, 9/8, 1/2, 1/8
    correct = [place < right for place in range(4)]
    decision = dyme_switch.choose(correct, [1.0, 2.0, 0.25, 0.5], sft_weight=2.0, soft_power=2.0)
    if weight is None:
        assert decision.outcome == "solved"
        assert decision.target_row is None
        return
    assert decision.target_weight == pytest.approx(weight)
    # The worst wrong row gives way, never a right one; with no right one row 0, as the official code.
    assert decision.target_row == {0: 0, 1: 2, 2: 2, 3: 3}[right]


CASES = [  # settings, right answers of 4 → outcome, row, weight, explores
    ({}, 0, ("memorise", 0, 2.0, False)),
    ({}, 2, ("explore", None, 0.0, True)),
    ({}, 4, ("solved", None, 0.0, False)),
    ({"soft_power": 1.0}, 0, ("memorise", 0, 2.0, False)),
    ({"soft_power": 1.0}, 3, ("explore", 3, 0.5, True)),
    ({"soft_power": 1.0}, 4, ("solved", None, 0.0, False)),
    ({"annealed": 0.25}, 0, ("memorise", 3, 0.5, True)),
    ({"annealed": 0.25}, 2, ("explore", 3, 0.5, True)),
    ({"annealed": 0.25}, 4, ("solved", 3, 0.5, True)),
    ({"annealed": 0.0}, 2, ("explore", None, 0.0, True)),
    ({"memorise": False}, 0, ("memorise", None, 0.0, False)),
    ({"memorise": False}, 2, ("explore", None, 0.0, True)),
    ({"memorise": False, "soft_power": 1.0}, 2, ("explore", None, 0.0, True)),
    ({"memorise": False, "annealed": 0.25}, 4, ("solved", None, 0.0, True)),
    ({"explore": False}, 0, ("memorise", 0, 2.0, False)),
    ({"explore": False}, 2, ("explore", None, 0.0, False)),
    ({"explore": False, "soft_power": 1.0}, 2, ("explore", 2, 1.0, False)),
    ({"explore": False, "annealed": 0.25}, 2, ("explore", 3, 0.5, False)),
    ({"sft_weight": 0.0}, 0, ("memorise", None, 0.0, False)),
]


@pytest.mark.parametrize(("settings", "right", "expected"), CASES)
def test_settings_of_the_switch(settings, right, expected):
    correct = [place < right for place in range(4)]
    decision = dyme_switch.choose(correct, [2.0, 2.0, 0.0, 0.5], **{"sft_weight": 2.0, **settings})
    assert decision == dyme_switch.Decision(*expected)


def test_rewards_above_a_threshold():
    # Three rewards of weights 1, 1, 2: the weighted mean must be above the threshold, not at it.
    assert dyme_switch.above([4.0, 3.0, 2.0, 0.0], [1.0, 1.0, 2.0], 0.75) == [True, False, False, False]
    assert dyme_switch.above([4.0, 3.0, 2.0, 0.0], [1.0, 1.0, 2.0], 0.5) == [True, True, False, False]


def test_an_annealed_reference_fades_along_a_cosine():
    assert [round(dyme_switch.cosine(done), 4) for done in (0, 0.25, 0.5, 1)] == [1.0, 0.8536, 0.5, 0.0]


def test_a_large_power_is_the_binary_switch():
    for right in range(1, 5):
        correct = [place < right for place in range(4)]
        soft = dyme_switch.choose(correct, [0.0] * 4, soft_power=500.0)
        assert soft.target_weight < 1e-60
