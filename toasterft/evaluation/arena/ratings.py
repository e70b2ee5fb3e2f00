"""Strengths of models from pairwise votes: online Elo, Bradley–Terry with bootstrap intervals, agreement.

A tie, and a vote that finds both bad, is half a win for each. Ratings are on Elo's scale: 1500 is the
average of the models, and 400 points are odds of ten to one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from toasterft.data.split import DisjointSets

ELO_START = 1500.0
ELO_K = 32.0
POINTS_PER_LOGIT = 400 / np.log(10)
# Without a prior a model that won everything would be infinitely strong. Each model has tied this many
# virtual votes, shared out among its opponents: for two models that is Jeffreys' prior.
PRIOR_TIES = 1.0
RESAMPLES = 1000
CONVERGED_LOGITS = 1e-6
MAX_NEWTON_STEPS = 100

Floats = NDArray[np.float64]


class Duel(NamedTuple):
    """One vote: the item, the two models, and `first`'s score (1, ½ or 0)."""

    item: str
    first: str
    second: str
    score: float


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Ratings:
    """Bradley–Terry's view of the votes.

    Attributes:
        models: rating in Elo points, strongest first; their mean is 1500.
        preferred: (a, b) → probability that a vote prefers `a` to `b`, for a before b in `models`.
        groups: models that were compared, directly or through others; ratings of different groups
            are not comparable.
    """

    models: dict[str, Interval]
    preferred: dict[tuple[str, str], Interval]
    groups: tuple[tuple[str, ...], ...]


def elo(duels: Iterable[Duel]) -> dict[str, float]:
    """Elo's online ratings, in the order the votes were cast; another order gives other ratings."""
    found: dict[str, float] = {}
    for _, first, second, score in duels:
        a, b = found.get(first, ELO_START), found.get(second, ELO_START)
        surprise = score - 1 / (1 + 10 ** ((b - a) / 400))
        found[first], found[second] = a + ELO_K * surprise, b - ELO_K * surprise
    return found


def bradley_terry(duels: Iterable[Duel], *, resamples: int = RESAMPLES, seed: int = 0) -> Ratings:
    """Maximum likelihood under P(a beats b) = 1 / (1 + exp(b − a)) (Bradley & Terry 1952), with `PRIOR_TIES`.

    Intervals are the middle 95 % of `resamples` bootstrap fits. Items are resampled, each with all its
    votes, since votes of several people on one item are not independent. The order of the votes plays
    no part.
    """
    names, items = tallies(duels)
    if len(names) < 2:
        return Ratings({}, {}, ())
    prior = virtual_ties(len(names))
    fitted = strengths(items.sum(axis=0) + prior)
    drawn = strengths(_resampled(items, prior, resamples, np.random.default_rng(seed)) + prior, fitted)
    order = sorted(range(len(names)), key=lambda k: (-fitted[k], names[k]))
    models = {
        names[k]: _interval(
            ELO_START + POINTS_PER_LOGIT * fitted[k], ELO_START + POINTS_PER_LOGIT * drawn[:, k]
        )
        for k in order
    }
    preferred = {
        (names[a], names[b]): _interval(_chance(fitted[a] - fitted[b]), _chance(drawn[:, a] - drawn[:, b]))
        for place, a in enumerate(order)
        for b in order[place + 1 :]
    }
    return Ratings(models, preferred, _groups(names, items.sum(axis=0)))


def tallies(duels: Iterable[Duel]) -> tuple[list[str], Floats]:
    """Sorted model names, and wins [item, winner, loser] with ties as halves."""
    cast = list(duels)
    names = sorted({name for duel in cast for name in (duel.first, duel.second)})
    place = {name: k for k, name in enumerate(names)}
    row = {item: k for k, item in enumerate(sorted({duel.item for duel in cast}))}
    wins = np.zeros((len(row), len(names), len(names)))
    for item, first, second, score in cast:
        wins[row[item], place[first], place[second]] += score
        wins[row[item], place[second], place[first]] += 1 - score
    return names, wins


def virtual_ties(models: int) -> Floats:
    """The prior as wins [winner, loser]."""
    wins = np.full((models, models), PRIOR_TIES / 2 / max(1, models - 1))
    np.fill_diagonal(wins, 0)
    return wins


def strengths(wins: Floats, start: Floats | None = None) -> Floats:
    """Bradley–Terry's log-strengths, summing to zero, of one table of wins or of a stack of them.

    Args:
        wins: [..., winner, loser]; every model must be connected to every other by wins both ways.
        start: [model] where to begin; zeros by default, and the nearer the faster.

    Returns:
        [..., model] in logits.
    """
    models = wins.shape[-1]
    games = wins + np.swapaxes(wins, -1, -2)
    found = np.zeros(wins.shape[:-1]) + (0.0 if start is None else start)
    for _ in range(MAX_NEWTON_STEPS):
        chance = _chance(found[..., :, None] - found[..., None, :])
        slope = (wins - games * chance).sum(axis=-1)
        weight = games * chance * (1 - chance)
        curve = -weight
        curve[..., range(models), range(models)] = (
            weight.sum(axis=-1) - weight[..., range(models), range(models)]
        )
        # Adding one to every entry pins the sum of the strengths, which the votes leave open.
        step = np.linalg.solve(curve + 1.0, slope[..., None])[..., 0]
        # Damped Newton: with this length the likelihood rises at every step (Sun & Tran-Dinh 2019).
        reach = np.ptp(step, axis=-1, keepdims=True)
        found += step * np.where(reach > 0, np.log1p(reach) / np.maximum(reach, 1e-300), 1.0)
        if reach.max() < CONVERGED_LOGITS:
            break
    return np.asarray(found - found.mean(axis=-1, keepdims=True))


def _resampled(items: Floats, prior: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """Tables of wins [resample, winner, loser] of items drawn with replacement.

    Votes of the prior are in the urn too: three votes for A must not look like certainty only because
    every resample of them prefers A.
    """
    models = prior.shape[0]
    # Items with the same votes are drawn together: the same distribution, many times faster.
    kinds, counts = np.unique(items.reshape(len(items), -1), axis=0, return_counts=True)
    singles = np.eye(models * models)[prior.ravel() > 0]
    urn = np.concatenate([counts.astype(float), prior[prior > 0]])
    drawn = rng.multinomial(len(items), urn / urn.sum(), size=resamples)
    return np.asarray((drawn @ np.concatenate([kinds, singles])).reshape(resamples, models, models))


def _chance(logits: Any) -> Any:
    return 1 / (1 + np.exp(-logits))


def _interval(value: float, drawn: Floats) -> Interval:
    low, high = np.quantile(drawn, (0.025, 0.975))
    # A resample's rounding must not put the estimate outside its own interval.
    return Interval(float(value), float(min(low, value)), float(max(high, value)))


def _groups(names: Sequence[str], wins: Floats) -> tuple[tuple[str, ...], ...]:
    """Models connected by votes, largest group first."""
    sets, groups = DisjointSets[int](), defaultdict(list)
    for one, other in np.argwhere(wins + wins.T > 0).tolist():
        sets.join(one, other)
    for place, name in enumerate(names):
        groups[sets.root(place)].append(name)
    return tuple(sorted(map(tuple, groups.values()), key=len, reverse=True))


@dataclass(frozen=True)
class Agreement:
    """Inter-rater agreement on the same pairs of answers.

    Attributes:
        agreed, pairs: pairs of votes by different people on one comparison, and how many were the same.
        alpha: Krippendorff's alpha for categories: 1 is full agreement, 0 what chance would give; None
            where nobody disagreed about anything and nothing varied, or no two people voted on one thing.
    """

    agreed: int
    pairs: int
    alpha: float | None


def agreement(units: Iterable[Mapping[str, str]]) -> Agreement:
    """Agreement over comparisons, each a mapping of voter to verdict (Krippendorff 2004, ch. 11).

    Comparisons that one person judged are left out.
    """
    agreed = pairs = 0
    coincident: dict[tuple[str, str], float] = defaultdict(float)
    for verdicts in units:
        given = Counter(verdicts.values())
        count = sum(given.values())
        if count < 2:
            continue
        agreed += sum(k * (k - 1) // 2 for k in given.values())
        pairs += count * (count - 1) // 2
        for a, many in given.items():
            for b, others in given.items():
                coincident[a, b] += many * (others - (a == b)) / (count - 1)
    total = sum(coincident.values())
    margin: dict[str, float] = defaultdict(float)
    for (a, _), weight in coincident.items():
        margin[a] += weight
    by_chance = sum(margin[a] * margin[b] for a in margin for b in margin if a != b)
    if not by_chance:
        return Agreement(agreed, pairs, None)
    apart = sum(weight for (a, b), weight in coincident.items() if a != b)
    return Agreement(agreed, pairs, 1 - (total - 1) * apart / by_chance)
