"""Filter written traces: keep one, or name the reason it is rejected for.

Reasons, in the order in which they are checked:

    tags        no `<think>…</think><answer>…</answer>`, or nothing in one of them; `cut off`, `refused` and `filtered`
                where that is why, by the endpoint's own `finish_reason`
    headings    a structured trace without its six headings in order
    answer      the answer is not right by its task's scorer, nor what the trace itself calls the answer
    length      longer than the style allows
    leak        it mentions an answer that was given, or the instructions
    arithmetic  a calculation in it does not hold
    language    not English, as far as letters and small words tell
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Literal

from toasterft.data.chat import parse
from toasterft.data.example import Example
from toasterft.data.token_stats import CHARACTERS_PER_TOKEN
from toasterft.recipe import Prompt
from toasterft.scoring import right, traces
from toasterft.scoring.traces.prose import contrary, leaked
from toasterft.teachers.api import Reply
from toasterft.teachers.replies import missing_form, wanted_form
from toasterft.teachers.styles import Style

Reason = Literal[
    "tags", "cut off", "refused", "filtered", "headings", "answer", "length", "leak", "arithmetic", "language"
]
TAGS = Prompt()  # the tags that prompts ask for are the recipe's own defaults

_HEADING_MARKS = re.compile(r"^[\s*#>-]*(?P<name>[A-Z][A-Za-z ]+?)[\s*]*:[\s*]*", re.MULTILINE)
# Words that hardly any English sentence of some length goes without, and other languages do.
_SMALL_WORDS = re.compile(
    "the|is|of|and|in|to|are|so|that|for|from|with|which|this|by|it|was|than|has|have|while|there|"
    "both|its|be|their|not|most|more|less|at|as|into|would|between"
)
_LEAST_LATIN, _LEAST_SMALL_WORDS, _WORDS_TO_TELL = 0.9, 0.05, 12
_SENTENCE = re.compile(r"[.!?](?=\s+[A-Z\d<]|\s*$)")
# "one or two sentences" has always been taken as two or three lines; readings and step count as one each.
MOST_SENTENCES = {"simplified": 4}


@dataclass(frozen=True)
class Verdict:
    """A filtered answer of a teacher; `reason` is None for a trace that is kept."""

    reasoning: str
    answer: str
    reason: Reason | None
    detail: str = ""

    @property
    def kept(self) -> bool:
        return self.reason is None


def trace_tokens(text: str) -> int:
    """Tokens of a text, estimated from its length."""
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)


def judge(completion: str, example: Example, style: Style) -> Verdict:
    """Filter a teacher's answer to `example`."""
    parsed = parse(wanted_form(completion), TAGS)
    reasoning, answer = (parsed.reasoning or "").strip(), parsed.answer

    def no(reason: Reason, detail: str = "") -> Verdict:
        return Verdict(reasoning, answer, reason, detail[:200])

    if not parsed.well_formed or not reasoning or not answer:
        return no("tags")
    if style.headings:
        reasoning = tidy_headings(reasoning, style.headings)
        if missing := _missing_headings(reasoning, style.headings):
            return no("headings", missing)
    if not right(answer, example):
        return no("answer", f"{answer} is not {example.answer}")
    tokens, sentences = trace_tokens(reasoning), len(_SENTENCE.findall(reasoning))
    if tokens > style.max_trace_tokens:
        return no("length", f"{tokens} tokens of {style.max_trace_tokens}")
    if sentences > MOST_SENTENCES.get(style.name, sentences):
        return no("length", f"{sentences} sentences")
    if leak := leaked(reasoning):
        return no("leak", leak)
    if other := contrary(reasoning, example.answer, example):
        return no("answer", other)
    if wrong := traces.wrong_steps(reasoning):
        return no("arithmetic", wrong[0])
    if not english(reasoning):
        return no("language")
    return Verdict(reasoning, answer, None)


def judge_reply(reply: Reply, example: Example, style: Style) -> Verdict:
    """Filter a reply; where it lacks the form, the endpoint's own words say why."""
    verdict = judge(reply.text, example, style)
    if verdict.reason != "tags":
        return verdict
    reason, detail = missing_form(reply)
    return replace(verdict, reason=reason, detail=detail[:200])


def english(text: str) -> bool:
    """Latin letters nearly throughout, and in a text of some length the small words of English."""
    letters = [letter for letter in text if letter.isalpha()]
    if letters and sum(letter.isascii() for letter in letters) / len(letters) < _LEAST_LATIN:
        return False
    words = re.findall(r"[a-z']+", text.lower())
    if len(words) < _WORDS_TO_TELL:
        return True
    return sum(bool(_SMALL_WORDS.fullmatch(word)) for word in words) / len(words) >= _LEAST_SMALL_WORDS


def tidy_headings(text: str, headings: tuple[str, ...]) -> str:
    """`**Goal:**` and `## Goal:` as `Goal:`, one heading a line, `Observation` as `Observations`."""
    names = {name.lower().rstrip("s"): name for name in headings}

    def plain(found: re.Match[str]) -> str:
        name = names.get(found["name"].strip().lower().rstrip("s"))
        return f"{name}: " if name else found[0]

    return "\n".join(line for line in _HEADING_MARKS.sub(plain, text).split("\n") if line.strip())


def _missing_headings(text: str, headings: tuple[str, ...]) -> str:
    found = re.findall(rf"^({'|'.join(headings)}): *\S", text, re.MULTILINE)
    return "" if found == list(headings) else f"found {', '.join(found) or 'none'}"
