"""Self-supervised construction: a rationale is kept when other models can find the answer from it.

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
import difflib
import math
import re
from dataclasses import dataclass, field, replace

from toasterft import scoring
from toasterft.data.chat import parse
from toasterft.data.example import Example
from toasterft.scoring import digits_for_words, robust
from toasterft.teachers import filters
from toasterft.teachers.api import Endpoint, Reply, Request
from toasterft.teachers.filters import TAGS
from toasterft.teachers.replies import formless, wanted_form
from toasterft.teachers.styles import Style, fill

# A judge's answer: the tags and a few words. Thinking comes on top, as the caller allows.
VERDICT_TOKENS = 64
PROMPT = (
    "Look at the picture. Someone has begun to reason about the question; what they concluded is blanked out "
    "as ___. Use their reasoning where it helps, and answer the question.\n\n"
    "Question: {question}\nReasoning: {rationale}\n\n"
    "Write exactly this and nothing else:\n<answer>the answer alone, as short as possible</answer>"
)

BLANK = "___"
NEAR = 0.85  # similarity of two spellings of one name
# What is left must say something: a rationale that was nothing but the answer teaches nothing.
LEAST_WORDS = 4
# Ends of sentences: "… is 43. 43 - 19", and of lines.
_SENTENCES = re.compile(r"(?<=[.!?])\s+|\n+")
# A sentence that only states the answer: "So the final answer is", "Therefore, our result:".
_STATES = re.compile(
    r"^\W*(?:(?:so|thus|therefore|hence|then|in conclusion)\b[\s,]*)?"
    r"(?:(?:the|my|our)\s+)?(?:final\s+|correct\s+)?(?:answer|conclusion|result)\b[\s*]*(?:is|was|:|=|would be)",
    re.IGNORECASE,
)
# How a conclusion begins: "So ", "Hence, ".
_CONCLUDES = re.compile(r"^\W*(?:so|thus|therefore|hence)\b[\s,:]*", re.IGNORECASE)
# "-1,200.5", "$7", "45 %".
_NUMBER = re.compile(r"[-+]?[$€£]?\d[\d,]*(?:\.\d+)?(?:\s*%)?")
# "United-States", "U.S", "don't".
_WORD = re.compile(r"\w+(?:[-'.&/]\w+)*")


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


@dataclass(frozen=True)
class Panel:
    """The generators, the judges, and the longest answer in tokens, thinking included."""

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
    said = await generator.try_to_ask(request)
    if not isinstance(said, Reply):
        return Candidate(name, "", "", "endpoint", said)
    verdict = filters.judge_reply(said, example, panel.style)
    await generator.judge(formless(verdict.reason, verdict.detail))
    written = Candidate(name, verdict.reasoning, verdict.answer, verdict.reason, verdict.detail)
    if written.reason is not None:
        return written
    stripped = without_answer(verdict.reasoning, example.answer)
    if option := scoring.judge(example.answer, example).picked:  # a letter's words give it away too
        stripped = without_answer(stripped, option)
    if not stripped:
        return replace(written, reason="empty", detail="nothing was left without the answer")
    judges = panel.judges_of(generator)
    votes = await asyncio.gather(*(_vote(panel, judge, example, stripped) for judge in judges))
    right = sum(vote.right is True for vote in votes)
    needed = math.ceil(len(judges) / 2)
    short = right < needed
    # A judge that could not be reached has not said no: the item stays open, and is asked again.
    open_votes = short and right + sum(vote.right is None for vote in votes) >= needed
    return replace(
        written,
        reason="endpoint" if open_votes else "votes" if short else None,
        detail=f"{right} of {len(judges)} judges found the answer",
        stripped=stripped,
        votes=tuple(votes),
    )


async def _vote(panel: Panel, judge: Endpoint, example: Example, stripped: str) -> Vote:
    text = fill(PROMPT, question=example.question_in_context, rationale=stripped)
    thinking = panel.max_tokens - panel.style.max_trace_tokens
    request = Request(text, example.images, max_tokens=VERDICT_TOKENS + max(0, thinking), temperature=0.0)
    said = await judge.try_to_ask(request)
    if not isinstance(said, Reply):
        return Vote(judge.service.name, said, None)
    answer = parse(wanted_form(said.text), TAGS).answer
    await judge.judge(None if answer else ": ".join(said.ending))
    return Vote(judge.service.name, answer[:200], scoring.right(answer, example))


# --- stripping -------------------------------------------------------------------------------


def without_answer(rationale: str, answer: str) -> str:
    """Take the answer out of a rationale, so that a judge must still find it; empty where too little is left.

    Sentences that only state the answer go; a blank replaces it wherever else it stands, literally, as the same number
    written another way, or nearly so.
    """
    kept = []
    for sentence in _SENTENCES.split(rationale):
        if not sentence.strip() or _STATES.match(sentence):
            continue
        blanked = _blanked(sentence, answer)
        # "So ___." says no more than "the answer is ___".
        rest = _CONCLUDES.sub("", blanked).replace(BLANK, "")
        if blanked != sentence and len(_WORD.findall(rest)) < 2:
            continue
        kept.append(blanked.strip())
    text = " ".join(kept)
    return text if len(_WORD.findall(text.replace(BLANK, ""))) >= LEAST_WORDS else ""


def _blanked(sentence: str, answer: str) -> str:
    answer = answer.strip()
    sentence = _literal(answer).sub(BLANK, sentence)
    if re.search(r"\d", digits_for_words(answer)):
        return _numbers(_words_as_digits(sentence, answer), answer)
    return _near(sentence, answer)


def _literal(answer: str) -> re.Pattern[str]:
    """The answer as it is written, whatever its case and spacing; a plural of it too."""
    words = r"\s+".join(re.escape(word) for word in answer.split())
    return re.compile(rf"(?<![\w.]){words}(?:e?s)?(?!\w|[.,]\d)", re.IGNORECASE)


def _numbers(sentence: str, answer: str) -> str:
    """Numbers of the same value: 1,200 for 1200, 45 for 45 %."""
    return _NUMBER.sub(lambda found: BLANK if _same(found[0], answer) else found[0], sentence)


def _same(number: str, answer: str) -> bool:
    """The same value, exactly: within the scorer's tolerance other readings of the chart would go too."""
    if not robust(number, answer):
        return False
    plain = [_NUMBER.search(digits_for_words(text)) for text in (number, answer)]
    if plain[0] is None or plain[1] is None:
        return True
    first, second = (float(re.sub(r"[^\d.-]", "", found[0])) for found in plain if found is not None)
    return any(abs(first * scale - second) <= 1e-9 * max(1.0, abs(second)) for scale in (1.0, 100.0, 0.01))


def _words_as_digits(sentence: str, answer: str) -> str:
    """`twelve` for 12: number words are only turned where the answer is among them."""
    turned = digits_for_words(sentence)
    return turned if turned.lower() != sentence.lower() and _numbers(turned, answer) != turned else sentence


def _near(sentence: str, answer: str) -> str:
    """Runs of words that spell the answer nearly: `Guatamala`, `United-States` for United States."""
    wanted = [word.lower() for word in _WORD.findall(answer)]
    if not wanted or len("".join(wanted)) < 4:
        return sentence
    words = list(_WORD.finditer(sentence))
    for size in (len(wanted), len(wanted) + 1, max(1, len(wanted) - 1)):
        for start in range(len(words) - size, -1, -1):
            run = words[start : start + size]
            said = sentence[run[0].start() : run[-1].end()].lower()
            if difflib.SequenceMatcher(None, said, " ".join(wanted)).ratio() >= NEAR:
                sentence = sentence[: run[0].start()] + BLANK + sentence[run[-1].end() :]
                words = list(_WORD.finditer(sentence))
    return sentence
