"""Print the arena: the voting link and the leaderboard."""

from __future__ import annotations

from typing import Any

from toasterft.evaluation.arena.session import VotingSession
from toasterft.terminal.output import line, pairs, table
from toasterft.units import percent


def print_arena(session: VotingSession, link: str) -> None:
    """Models, questions and the link that opens the page."""
    models, questions = len(session.contenders), len(session.items)
    pairs([
        ("arena", f"{models} models, {questions:,} questions, {len(session.planned):,} comparisons a voter"),
        *([("left out", f"{session.identical:,} more, whose answers are identical")] if session.identical else []),
        ("votes", str(session.votes.path)),
        ("open", link),
    ])  # fmt: skip
    line("a link works once; the leaderboard page makes others. Ctrl-C ends, votes are kept", "dim")


def print_leaderboard(built: dict[str, Any]) -> None:
    """Ratings with intervals, preferences pair by pair, and how far voters agree."""
    table(
        ["model", ">rating", ">95 %", ">Elo", ">won", ">lost", ">tied", ">both bad"],
        [
            [
                row["model"],
                f"{row['rating']['value']:.0f}",
                f"{row['rating']['low']:.0f}–{row['rating']['high']:.0f}",
                f"{row['elo']:.0f}",
                *(f"{row[key]:,}" for key in ("wins", "losses", "ties", "both_bad")),
            ]
            for row in built["models"]
        ],
    )
    for row in built["pairs"]:
        if row["votes"]:
            line(f"{row['a']} preferred to {row['b']}: {percent(row['preferred'])}, {row['votes']:,} votes")
    agreement = built["agreement"]
    if agreement:
        alpha = "" if agreement["alpha"] is None else f", Krippendorff's alpha {agreement['alpha']:.2f}"
        line(f"voters agree on {percent(agreement['agreed'])} of {agreement['shared']:,} shared pairs{alpha}")
    if len(built["groups"]) > 1:
        groups = " | ".join(", ".join(group) for group in built["groups"])
        line(f"never compared, so not comparable: {groups}", "yellow")
    line("rating: Bradley–Terry, mean 1500; Elo depends on the order of the votes", "dim")
