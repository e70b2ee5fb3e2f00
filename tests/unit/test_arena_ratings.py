"""Ratings from votes: strengths come back, intervals cover, order plays no part, nothing is ever infinite."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest

from toasterft.evaluation.arena import ratings
from toasterft.evaluation.arena.ratings import Duel

MODELS = [f"m{k}" for k in range(6)]
TRUE = 1500 + np.array([-160, -95, -30, 35, 90, 160])


def simulated(rng, per_pair=100, ties=0.15, true=TRUE):
    """Votes whose odds are Bradley–Terry's; a share of them are ties, taken evenly from both sides."""
    duels = []
    for a, b in itertools.combinations(range(len(true)), 2):
        chance = 1 / (1 + 10 ** ((true[b] - true[a]) / 400))
        tied = 2 * ties * min(chance, 1 - chance)
        drawn = rng.random(per_pair)
        scores = np.where(drawn < chance - tied / 2, 1.0, np.where(drawn < chance + tied / 2, 0.5, 0.0))
        duels += [Duel(f"{a}{b}{k}", MODELS[a], MODELS[b], score) for k, score in enumerate(scores.tolist())]
    return duels


def covered(simulations, resamples):
    hits = 0
    for seed in range(simulations):
        found = ratings.bradley_terry(
            simulated(np.random.default_rng(seed)), resamples=resamples, seed=seed
        ).models
        hits += sum(found[name].low <= true <= found[name].high for name, true in zip(MODELS, TRUE))
    return hits / simulations / len(MODELS)


def test_strengths_come_back():
    found = ratings.bradley_terry(simulated(np.random.default_rng(1), per_pair=2_000), resamples=20).models
    assert list(found) == MODELS[::-1]
    assert [found[name].value for name in MODELS] == pytest.approx(TRUE, abs=12)
    assert np.mean([rating.value for rating in found.values()]) == pytest.approx(1500)


def test_intervals_cover_in_a_quick_look():
    assert 0.93 <= covered(simulations=100, resamples=200) <= 0.97


@pytest.mark.soak
def test_intervals_cover_in_500_simulations():
    assert 0.93 <= covered(simulations=500, resamples=1000) <= 0.97


def test_the_estimate_is_the_maximum_of_the_likelihood():
    duels = simulated(np.random.default_rng(2), per_pair=15)
    names, items = ratings.tallies(duels)
    wins = items.sum(axis=0) + ratings.virtual_ties(len(names))
    found = ratings.strengths(wins)

    def likelihood(strengths):
        return -(wins * np.log1p(np.exp(strengths[None, :] - strengths[:, None]))).sum()

    rng = np.random.default_rng(0)
    best = likelihood(found)
    assert all(likelihood(found + rng.normal(0, 0.01, len(names))) < best for _ in range(200))


def test_two_models_are_the_log_odds():
    duels = [Duel(str(k), "a", "b", 1.0) for k in range(30)] + [
        Duel(str(k), "b", "a", 1.0) for k in range(30, 40)
    ]
    found = ratings.bradley_terry(duels)
    points = 400 * math.log10(30.5 / 10.5)  # one virtual tie
    assert found.models["a"].value - found.models["b"].value == pytest.approx(points)
    assert found.preferred["a", "b"].value == pytest.approx(30.5 / 41)
    assert found.preferred["a", "b"].low < 0.65 < 0.8 < found.preferred["a", "b"].high


def test_order_plays_no_part_for_bradley_terry_and_does_for_elo():
    duels = simulated(np.random.default_rng(3), per_pair=10)
    shuffled = random.Random(0).sample(duels, len(duels))
    turned = [Duel(item, second, first, 1 - score) for item, first, second, score in shuffled]
    assert ratings.bradley_terry(duels) == ratings.bradley_terry(turned)
    assert ratings.elo(duels) != ratings.elo(shuffled)


def test_elo_as_published():
    assert ratings.elo([Duel("1", "a", "b", 1.0)]) == {"a": 1516, "b": 1484}
    assert ratings.elo([Duel("1", "a", "b", 0.5)]) == {"a": 1500, "b": 1500}
    second = ratings.elo([Duel("1", "a", "b", 1.0), Duel("2", "b", "a", 1.0)])
    expected = 1 / (1 + 10 ** ((1516 - 1484) / 400))
    assert second["b"] == pytest.approx(1484 + 32 * (1 - expected))
    assert sum(second.values()) == pytest.approx(3000)


@pytest.mark.parametrize("count", [1, 3, 1000])
def test_a_model_that_wins_everything_stays_finite_and_uncertain(count):
    duels = [Duel(str(k), "a", "b", 1.0) for k in range(count)]
    found = ratings.bradley_terry(duels)
    rating = found.models["a"]
    assert 1500 < rating.value < 3000
    # Resamples of unanimous votes are unanimous: without the prior in the urn this would be no interval.
    assert rating.high - rating.low > 40
    # A few unanimous votes do not rule out a coin; many do.
    assert (found.preferred["a", "b"].low < 0.5) == (count < 6)


def test_a_strict_order_of_many_models_converges():
    duels = [
        Duel(f"{a}{b}{k}", f"m{a:02}", f"m{b:02}", 1.0)
        for a in range(12)
        for b in range(a)
        for k in range(300)
    ]
    found = ratings.bradley_terry(duels, resamples=20).models
    assert list(found) == sorted(found, reverse=True)
    assert all(math.isfinite(rating.low) and math.isfinite(rating.high) for rating in found.values())


def test_votes_on_one_item_are_resampled_together():
    alone = [Duel(str(k), "a", "b", float(k % 10 < 6)) for k in range(100)]
    crowd = [duel for duel in alone for _ in range(9)]  # nine people who always agree know no more than one
    apart = [Duel(f"{duel.item}/{k}", *duel[1:]) for k, duel in enumerate(crowd)]

    def width(duels):
        rating = ratings.bradley_terry(duels).models["a"]
        return rating.high - rating.low

    assert width(crowd) == pytest.approx(width(alone), rel=0.15)
    assert width(apart) == pytest.approx(width(alone) / 3, rel=0.15)


def test_nothing_and_groups_that_never_met():
    assert ratings.bradley_terry([]) == ratings.Ratings({}, {}, ())
    found = ratings.bradley_terry([Duel("1", "a", "b", 1), Duel("2", "c", "d", 1), Duel("3", "b", "e", 0.5)])
    assert found.groups == (("a", "b", "e"), ("c", "d"))


@pytest.mark.parametrize(
    ("first", "second", "alpha"),
    [("0100000010", "1110010000", 0.095), ("aabbdcccedda", "babbbccceddd", 0.692)],
)
def test_alpha_is_krippendorffs(first, second, alpha):
    # Computing Krippendorff's Alpha-Reliability (2011), sections A and B.
    found = ratings.agreement([{"a": x, "b": y} for x, y in zip(first, second)])
    assert found.alpha == pytest.approx(alpha, abs=5e-4)
    assert (found.agreed, found.pairs) == (sum(x == y for x, y in zip(first, second)), len(first))


def test_agreement_of_few_and_many():
    assert ratings.agreement([{"a": "x"}, {}]) == ratings.Agreement(0, 0, None)
    assert ratings.agreement([{"a": "x", "b": "x", "c": "x"}]) == ratings.Agreement(3, 3, None)
    assert ratings.agreement([{"a": "x", "b": "x"}, {"a": "y", "b": "y"}]).alpha == 1
    assert ratings.agreement([{"a": "x", "b": "y"}, {"a": "y", "b": "x"}]).alpha < 0
