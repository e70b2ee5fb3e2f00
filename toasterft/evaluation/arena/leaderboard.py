"""Votes as a leaderboard, and as CSV."""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

from toasterft import scoring
from toasterft.evaluation.arena import ratings
from toasterft.evaluation.arena.ratings import Duel
from toasterft.evaluation.arena.votes import Vote

# What voters must agree on: which of the two is better, or neither. Tie and "both bad" are one verdict.
NEITHER = "neither"


def duel(vote: Vote) -> Duel:
    """A vote as ratings take it."""
    return Duel(vote.item, vote.left, vote.right, {"left": 1.0, "right": 0.0}.get(vote.choice, 0.5))


def build(votes: Sequence[Vote], labels: Mapping[str, str]) -> dict[str, Any]:
    """The leaderboard, JSON-ready: models (strongest first), pairs, voters, agreement.

    Ratings are in Elo points with 95 % intervals; `preferred` is the probability, as a fraction, that a
    vote prefers `a` to `b`.
    """
    duels = [duel(vote) for vote in votes]
    online, fitted = ratings.elo(duels), ratings.bradley_terry(duels)
    names = {run: labels.get(run, run) for run in fitted.models}
    return {
        "votes": len(votes),
        "models": [
            {
                "run": run,
                "model": names[run],
                "rating": asdict(rating),
                "elo": online[run],
                **_tally((v for v in votes if run in (v.left, v.right)), wins=run.__eq__, losses=run.__ne__),
            }
            for run, rating in fitted.models.items()
        ],
        "pairs": [
            {
                "a": names[a],
                "b": names[b],
                **_tally((v for v in votes if {v.left, v.right} == {a, b}), a_wins=a.__eq__, b_wins=b.__eq__),
                "preferred": asdict(chance),
            }
            for (a, b), chance in fitted.preferred.items()
        ],
        "groups": [[names[run] for run in group] for group in fitted.groups],
        "voters": [
            {"voter": name, "votes": count} for name, count in Counter(v.voter for v in votes).most_common()
        ],
        "agreement": _agreement(votes),
    }


def _tally(votes: Iterable[Vote], **won: Callable[[str], bool]) -> dict[str, int]:
    """How many votes; of them those whose winner passes each test of `won`, ties, and ones for neither."""
    counted = list(votes)
    wins = {
        name: sum(vote.winner is not None and test(vote.winner) for vote in counted)
        for name, test in won.items()
    }
    ties, bad = (sum(vote.choice == choice for vote in counted) for choice in ("tie", "bad"))
    return {"votes": len(counted), **wins, "ties": ties, "both_bad": bad}


def _agreement(votes: Sequence[Vote]) -> dict[str, Any] | None:
    """How far voters agree; None where no comparison had two."""
    units: dict[tuple[str, frozenset[str]], dict[str, str]] = defaultdict(dict)
    for vote in votes:
        units[vote.item, frozenset((vote.left, vote.right))][vote.voter] = vote.winner or NEITHER
    whole = ratings.agreement(units.values())
    if not whole.pairs:
        return None
    couples = []
    for a, b in combinations(sorted({vote.voter for vote in votes}), 2):
        both = [{a: unit[a], b: unit[b]} for unit in units.values() if a in unit and b in unit]
        if both:
            couples.append({"voters": [a, b], **_share(ratings.agreement(both))})
    return {**_share(whole), "alpha": whole.alpha, "couples": couples}


def _share(found: ratings.Agreement) -> dict[str, Any]:
    return {"shared": found.pairs, "agreed": scoring.share(found.agreed, found.pairs)}


# --- CSV ---------------------------------------------------------------------------------------


def board_csv(board: Mapping[str, Any]) -> str:
    """One line per model."""
    counts = ("votes", "wins", "losses", "ties", "both_bad")
    head = ("rank", "model", "run", "rating", "rating_low", "rating_high", "elo", *counts)
    return _csv(
        head,
        (
            (
                place, row["model"], row["run"], *(f"{row['rating'][key]:.1f}" for key in ("value", "low", "high")),
                f"{row['elo']:.1f}", *(row[key] for key in counts),
            )
            for place, row in enumerate(board["models"], 1)
        ),
    )  # fmt: skip


def votes_csv(votes: Iterable[Vote], labels: Mapping[str, str]) -> str:
    """One line per vote, in the order they were cast."""
    head = ("cast_at", "voter", "item", "question", "left", "right", "choice", "winner", "seconds")

    def name(run: str | None) -> str:
        return "" if run is None else labels.get(run, run)

    return _csv(
        head,
        (
            (
                vote.cast_at, vote.voter, vote.item, vote.question, name(vote.left), name(vote.right),
                vote.choice, name(vote.winner), f"{vote.seconds:.1f}",
            )
            for vote in votes
        ),
    )  # fmt: skip


def _csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([_inert(cell) for cell in row] for row in rows)
    return text.getvalue()


def _inert(cell: Any) -> Any:
    """Text that a spreadsheet would take for a formula, as text (OWASP: CSV injection)."""
    if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r"):
        try:
            float(cell)
        except ValueError:
            return "'" + cell
    return cell
