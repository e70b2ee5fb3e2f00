"""Self-supervised construction: a rationale is kept when others can tell the answer from it.

    generator a    sees picture and label, writes rationale and answer
    filters        drop what does not parse, misses the label, or runs long
    strip          takes the label and its near-literal restatements out
    judges b ≠ a   see picture and stripped rationale, and predict
    kept           when at least half of the judges recover the label; the shortest survivor wins
    hard           when none survives: no trace, but a record of every vote

The construction is CLGRPO's in its roles (arXiv 2506.18048); its exact rule was not published, this one is ours.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from toasterft import scoring
from toasterft.data.chat import parse
from toasterft.data.example import Example
from toasterft.teachers import filters, strip
from toasterft.teachers.api import Endpoint, EndpointError, EndpointRefused, Request, SpendCapReached
from toasterft.teachers.filters import TAGS
from toasterft.teachers.styles import Style

# A judge's answer: the tags and a few words. Thinking comes on top, as the caller allows.
VERDICT_TOKENS = 64
PROMPT = (
    "Look at the picture. Someone has begun to reason about the question; what they concluded is blanked out "
    "as ___. Use their reasoning where it helps, and answer the question.\n\n"
    "Question: {question}\nReasoning: {rationale}\n\n"
    "Write exactly this and nothing else:\n<answer>the answer alone, as short as possible</answer>"
)


@dataclass(frozen=True)
class Vote:
    """What one judge predicted; `right` is None where it gave no answer at all."""

    judge: str
    answer: str
    right: bool | None


@dataclass(frozen=True)
class Candidate:
    """One generator's rationale and what became of it; `reason` is None for a survivor."""

    teacher: str
    reasoning: str
    answer: str
    reason: str | None
    detail: str = ""
    stripped: str = ""
    votes: tuple[Vote, ...] = field(default=())

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Panel:
    """Who writes, who judges, and how long an answer may get, thinking included."""

    generators: tuple[Endpoint, ...]
    judges: tuple[Endpoint, ...]
    style: Style
    temperature: float
    max_tokens: int

    def judges_of(self, generator: Endpoint) -> list[Endpoint]:
        """All judges that are another model than the one that wrote."""
        own = generator.service.model_id
        return [judge for judge in self.judges if judge.service.model_id != own]


async def candidates(panel: Panel, example: Example) -> list[Candidate]:
    """Every generator's rationale for one example, filtered and voted on; survivors shortest first.

    Raises:
        EndpointError: an endpoint refuses every request, or the cap is reached.
    """
    found = await asyncio.gather(*(_candidate(panel, generator, example) for generator in panel.generators))
    return sorted(found, key=lambda one: (one.reason is not None, filters.trace_tokens(one.reasoning)))


async def _candidate(panel: Panel, generator: Endpoint, example: Example) -> Candidate:
    name = generator.service.name
    request = Request(
        panel.style.ask(example, blind=False),
        example.images,
        max_tokens=panel.max_tokens,
        temperature=panel.temperature,
    )
    try:
        said = await generator.ask(request)
    except (EndpointRefused, SpendCapReached):
        raise
    except EndpointError as problem:
        return Candidate(name, "", "", "endpoint", problem.kind)
    verdict = filters.judge(said.text, example, panel.style)
    if verdict.reason is not None:
        return Candidate(name, verdict.reasoning, verdict.answer, verdict.reason, verdict.detail)
    stripped = strip.without(verdict.reasoning, example.answer)
    if option := scoring.judge(example.answer, example).picked:  # a letter's words give it away too
        stripped = strip.without(stripped, option)
    if not stripped:
        return Candidate(
            name, verdict.reasoning, verdict.answer, "empty", "nothing was left without the answer"
        )
    judges = panel.judges_of(generator)
    votes = await asyncio.gather(*(_vote(panel, judge, example, stripped) for judge in judges))
    right = sum(vote.right is True for vote in votes)
    needed = math.ceil(len(judges) / 2)
    short = right < needed
    # A judge that could not be reached has not said no: the item stays open, and is asked again.
    open_votes = short and right + sum(vote.right is None for vote in votes) >= needed
    return Candidate(
        name,
        verdict.reasoning,
        verdict.answer,
        "endpoint" if open_votes else "votes" if short else None,
        f"{right} of {len(judges)} judges found the answer",
        stripped,
        tuple(votes),
    )


async def _vote(panel: Panel, judge: Endpoint, example: Example, stripped: str) -> Vote:
    text = PROMPT.replace("{question}", example.question).replace("{rationale}", stripped)
    thinking = panel.max_tokens - panel.style.max_trace_tokens
    request = Request(text, example.images, max_tokens=VERDICT_TOKENS + max(0, thinking), temperature=0.0)
    try:
        said = await judge.ask(request)
    except (EndpointRefused, SpendCapReached):
        raise
    except EndpointError as problem:
        return Vote(judge.service.name, problem.kind, None)
    answer = parse(said.text, TAGS).answer
    return Vote(judge.service.name, answer[:200], scoring.right(answer, example))


def survivor(found: Sequence[Candidate]) -> Candidate | None:
    """The shortest rationale that was kept."""
    return next((one for one in found if one.reason is None), None)
