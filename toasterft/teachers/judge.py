"""API judge of thinking: low, medium or high for 0, 0.5 and 1, as DyME's own checker (arXiv 2506.23061v2).

The reward `thinking_judge`. Where the model gives no verdict, the local checker's score takes its place, counted.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from toasterft.estimation.teachers import JUDGE_TOKENS
from toasterft.scoring.rewards import thinking
from toasterft.scoring.tables import as_text
from toasterft.teachers.api import BackgroundRequests, Request
from toasterft.teachers.replies import after_thinking
from toasterft.teachers.styles import fill

if TYPE_CHECKING:
    from toasterft.data.example import Example
    from toasterft.scoring.rewards import Completion

LEVELS = {"low": 0.0, "medium": 0.5, "high": 1.0}
PROMPT = """\
Judge how well somebody reasons about a picture that you cannot see. What is in it stands under Facts.

Facts:
{facts}
Question: {question}
Correct answer: {answer}
Reasoning to judge:
<<<
{trace}
>>>

low: it uses no facts, gets them wrong, is not fluent, or does not lead to the correct answer.
medium: it uses the facts and leads to the correct answer, but is too brief, unclear or skips a step.
high: it is in order and complete, every fact and every step is right, and it ends in the correct answer.

Reply with exactly one word: low, medium or high."""


class Judge:
    """The reward `thinking_judge` of one run.

    Attributes:
        asked: traces that a verdict was wanted for.
        failed: those of them that the local checker had to judge.
    """

    def __init__(self, requests: BackgroundRequests) -> None:
        self.requests = requests
        self.asked = self.failed = 0

    def start(self, completion: Completion, example: Example) -> None:
        """Ask, without waiting; a completion without a trace is low without asking."""
        if trace := _trace(completion):
            self.requests.start(request(trace, example))

    def __call__(self, completion: Completion, example: Example) -> float:
        """0, 0.5 or 1; the local checker's score where there is no verdict."""
        trace = _trace(completion)
        if not trace:
            return 0.0
        self.asked += 1
        reply = self.requests.reply(request(trace, example))
        level = None if reply is None else level_of(reply.text)
        if level is None:
            self.failed += 1
            return thinking(completion, example)
        return level


def request(trace: str, example: Example) -> Request:
    """The request about one trace. Data without facts shows its reference trace instead."""
    given = as_text(example.facts) or f"none recorded; a reference says: {example.reasoning or 'nothing'}"
    text = fill(PROMPT, facts=given, question=example.question_in_context, answer=example.answer, trace=trace)
    return Request(text, max_tokens=JUDGE_TOKENS, temperature=0.0)


def level_of(reply: str) -> float | None:
    """The verdict in a reply; None where there is none, or more than one."""
    said = set(re.findall(r"\b(low|medium|high)\b", after_thinking(reply).lower()))
    return LEVELS[said.pop()] if len(said) == 1 else None


def _trace(completion: Completion) -> str:
    return (completion.parsed.reasoning or "").strip()
