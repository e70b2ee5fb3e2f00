"""A model as the refiner, as in DyME (arXiv 2506.23061v2): it rewrites references from facts and template.

What it writes is read by the checker like any trace: one that ends in another answer than the gold one, has a
fault, or reads none of the facts is dropped.
"""

from __future__ import annotations

import re
from typing import Literal

from toasterft.data.example import Example
from toasterft.data.token_stats import CHARACTERS_PER_TOKEN
from toasterft.estimation.teachers import REFINER_TOKENS
from toasterft.scoring import traces
from toasterft.scoring.tables import as_text
from toasterft.teachers.api import BackgroundRequests, Request
from toasterft.teachers.refine.template import Template
from toasterft.teachers.replies import after_thinking
from toasterft.teachers.styles import fill

# A longer trace is no target for a small model; structured ones of charts take about 180.
MOST_TRACE_TOKENS = 360
PROMPT = """\
Rewrite the reasoning about a picture so that it rests on the facts, in the given shape.

Facts:
{facts}
Question: {question}
Answer: {answer}
Reasoning so far: {reference}

Shape: {shape}
Take every number from the facts, or work it out in a calculation that you write down, like 7 - 3 = 4. End in \
the answer {answer}. Write the reasoning alone, without tags, and never say that facts or an answer were given."""
_TAGS = re.compile(r"</?think>|<answer>.*?(?:</answer>|$)|^```\w*$", re.DOTALL | re.MULTILINE)


class Writer:
    """Rewrite references by requests to a model."""

    def __init__(self, requests: BackgroundRequests) -> None:
        self.requests = requests

    def start(self, example: Example, template: Template) -> None:
        """Send the request, without waiting for the answer."""
        if _has_ground(example):
            self.requests.start(request(example, template))

    def __call__(
        self, example: Example, template: Template
    ) -> tuple[Literal["refined", "kept", "dropped", "failed"], str | None]:
        """Outcome for one reference, and the new trace where it is good."""
        if not _has_ground(example):
            return "kept", None
        reply = self.requests.reply(request(example, template))
        if reply is None:
            return "failed", None
        trace = _TAGS.sub("", after_thinking(reply.text)).strip() or _TAGS.sub("", reply.text).strip()
        if not trace or len(trace) > MOST_TRACE_TOKENS * CHARACTERS_PER_TOKEN:
            return "dropped", None
        found = traces.check(trace, example.facts, example.question_in_context, example.answer)
        # "So 4." ends in the answer too, but there would be nothing to learn from it.
        good = found.conclusion == 1.0 and not found.faults and (found.coverage is None or found.coverage > 0)
        return ("refined", trace) if good else ("dropped", None)


def request(example: Example, template: Template) -> Request:
    """The request to the model for one example."""
    text = fill(
        PROMPT,
        facts=as_text(example.facts) or "none recorded",
        question=example.question_in_context,
        answer=example.answer,
        reference=example.reasoning or "none",
        shape=template.instruction(),
    )
    return Request(text, max_tokens=REFINER_TOKENS, temperature=0.0)


def _has_ground(example: Example) -> bool:
    """Whether there is something to rewrite from: a model that sees no picture would invent the rest."""
    return bool(example.facts or example.reasoning)
