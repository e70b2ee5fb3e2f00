"""The next comparison of each voter, and their votes. Knows nothing of HTTP.

Nothing that goes out tells which run wrote what: a comparison has an id, a left and a right.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from toasterft.data.example import Example
from toasterft.errors import DataError
from toasterft.evaluation.arena import pairing
from toasterft.evaluation.arena.contenders import Contender
from toasterft.evaluation.arena.pairing import Battle
from toasterft.evaluation.arena.votes import CHOICES, Vote, Votes, clean_name

LONGEST_VOTE_SECONDS = 24 * 3600.0


class Stale(Exception):
    """The comparison is not what this voter would be shown now: another tab, or another start of the server."""


class VotingSession:
    """Contenders, questions, and the comparisons between them.

    Args:
        contenders: each with an output for every item.
        n: comparisons per voter; fewer where there are not so many, or where both answers are the same.
        seed: of pairing, order and sides.

    Attributes:
        identical: comparisons that are left out because nobody could tell the answers apart.
    """

    def __init__(
        self, contenders: Sequence[Contender], items: Sequence[Example], votes: Votes, *, n: int, seed: int
    ) -> None:
        self.votes, self.seed = votes, seed
        self.contenders = {contender.id: contender for contender in contenders}
        self.items = {item.key: item for item in items}
        self.planned = pairing.battles(list(self.items), list(self.contenders), n)
        everything = len(self.planned)
        self.planned = [battle for battle in self.planned if not self._identical(battle)]
        self.identical = everything - len(self.planned)
        votes.remember({contender.id: contender.label for contender in contenders})

    def state(self) -> dict[str, Any]:
        """Who has voted, and how far they are."""
        return {
            "total": len(self.planned),
            "identical": self.identical,
            "questions": len(self.items),
            "models": len(self.contenders),
            "voters": [{"name": name, "done": self._done(name)} for name in self.votes.voters()],
        }

    def show(self, name: str, first: Battle | None = None) -> dict[str, Any]:
        """A voter's progress, and the next comparison; None for it at the end.

        Args:
            first: this one, where it is still open, before the order's next.

        Raises:
            votes.BadName: that is no name.
        """
        voter = self.voter(name)
        cast = self.votes.of(voter)
        left = [battle for battle in pairing.order(self.planned, voter, self.seed) if battle.done not in cast]
        if first in left:
            left.sort(key=lambda battle: battle != first)
        return {
            "voter": voter,
            "done": len(self.planned) - len(left),
            "total": len(self.planned),
            "last_vote": self.votes.last_id(voter),
            "battle": self._shown(left[0], voter) if left else None,
            # So that a phone can fetch the next pictures while its owner reads.
            "ahead": self._images(left[1]) if len(left) > 1 else [],
        }

    def vote(self, name: str, battle_id: str, choice: str, seconds: float) -> None:
        """Write a vote.

        Raises:
            Stale: the comparison is not open to this voter in this form.
            votes.AlreadyCast: they have voted on it, otherwise.
            ValueError: no such choice.
        """
        if choice not in CHOICES:
            raise ValueError(f"a vote is one of {', '.join(CHOICES)}")
        voter = self.voter(name)
        for battle in self.planned:
            left, right = pairing.sides(battle, voter, self.seed)
            if _battle_id(battle.item, left, right) == battle_id:
                break
        else:
            raise Stale
        question = self.items[battle.item].question
        self.votes.cast(Vote(voter, battle.item, question, left, right, choice, seconds))

    def undo(self, name: str, vote_id: int) -> Battle | None:
        """Take a voter's vote back; the comparison it was about, None where it is gone already."""
        vote = self.votes.undo(self.voter(name), vote_id)
        if vote is None:
            return None
        first, second = sorted((vote.left, vote.right))
        return Battle(vote.item, (first, second))

    def voter(self, name: str) -> str:
        """A name tidied, in the spelling it voted under before."""
        return self.votes.known_as(clean_name(name))

    def image(self, key: str, place: int) -> tuple[bytes, str] | None:
        """Encoded picture and media type; None where the questions have no such picture.

        Raises:
            DataError: it cannot be read.
        """
        item = self.items.get(key)
        if item is None or not 0 <= place < len(item.images):
            return None
        return item.images[place].encoded()

    def _identical(self, battle: Battle) -> bool:
        first, second = (self.contenders[run].outputs[battle.item].words for run in battle.runs)
        return first == second

    def _done(self, voter: str) -> int:
        cast = self.votes.of(voter)
        return sum(battle.done in cast for battle in self.planned)

    def _shown(self, battle: Battle, voter: str) -> dict[str, Any]:
        left, right = pairing.sides(battle, voter, self.seed)
        outputs = [self.contenders[run].outputs[battle.item] for run in (left, right)]
        return {
            "id": _battle_id(battle.item, left, right),
            "question": self.items[battle.item].question_in_context,
            "images": self._images(battle),
            "left": asdict(outputs[0]),
            "right": asdict(outputs[1]),
        }

    def _images(self, battle: Battle) -> list[dict[str, Any]]:
        found = []
        for place, image in enumerate(self.items[battle.item].images):
            try:
                width, height = image.size_px
            except DataError:
                width = height = 0  # the page says that it cannot be shown
            found.append({"src": f"/image/{battle.item}/{place}", "width": width, "height": height})
        return found


def _battle_id(item: str, left: str, right: str) -> str:
    return hashlib.sha256(json.dumps([item, left, right]).encode()).hexdigest()[:20]
