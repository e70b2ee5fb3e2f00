"""Faults of a reasoning trace: it misses its answer, gives up, mentions the given answer, or miscalculates."""

from __future__ import annotations

import re
from collections.abc import Iterator

from toasterft import scoring
from toasterft.audit.kinds import Finding
from toasterft.data.example import Example
from toasterft.scoring import traces
from toasterft.scoring.numbers import DIGITS, MAX_CHARACTERS, cleaned
from toasterft.scoring.traces.prose import contrary, holds, leaked

_CONCLUDES = re.compile(r"\W*(?:therefore|thus|hence|so|in (?:summary|conclusion))\b", re.IGNORECASE)
_GIVES_UP = re.compile(
    r"\b(?:can ?not|cannot be|could not be|impossible to|not possible to|unable to)\s+(?:be\s+)?"
    r"(?:answer|determin|tell|infer|find|conclud|calculat)\w*|\bdoes not contain the data needed\b",
    re.IGNORECASE,
)
_NUMBER = re.compile(rf"(?<![\w.]){DIGITS}")
_YEAR = re.compile(r"(?:19|20)\d\d")
_CLOSED = ("yes", "no", "true", "false")
LAST_SENTENCES = 3


def faults(example: Example, tokens: int, most_tokens: int) -> Iterator[Finding]:
    """What is wrong with the row's trace; nothing where it has none.

    Args:
        tokens: the trace's length.
        most_tokens: above it a trace counts as very long.
    """
    trace = example.reasoning
    if not trace:
        return

    def found(kind: str, what: str) -> Finding:
        return Finding(kind, what, example.id, where=example.where)

    if leak := leaked(trace):
        yield found("trace-mentions-answer", f"“{leak}”")
    if missed := misses(example):
        yield found(*missed)
    if wrong := traces.wrong_steps(trace):
        yield found("trace-arithmetic", wrong[0])
    if tokens > most_tokens:
        yield found("trace-long", f"{tokens:,} tokens")


def misses(example: Example) -> tuple[str, str] | None:
    """(kind, what) where the trace does not come to the row's answer.

    Said outright ("the answer is 5", "Therefore, the difference is 5"), another value contradicts it. Where the
    answer stands nowhere in the trace it is unfinished; yes and no may be said in other words.
    """
    # A long trace is told by its end.
    trace, gold = _plain((example.reasoning or "")[-MAX_CHARACTERS:]), _plain(example.answer)
    found = [each for each in traces.sentences(trace) if re.search(r"\w\w", each.text)]
    if not found:
        return "trace-unfinished", "it is empty"
    sentences, last = [each.text for each in found], found[-1].text
    other = contrary(trace, gold)
    if other and not _fits(other, example) and not _says(last, gold, example):
        return "trace-contradicts", f"“{other.strip()}”, the answer is {example.answer}"
    if (
        (found[-1].heading.endswith(("answer", "conclusion")) or _CONCLUDES.match(last))
        and not _says(last, gold, example)
        and _other_number(last, gold, example.question)
    ):
        return "trace-contradicts", f"“{_short(last)}”, the answer is {example.answer}"
    if any(_says(sentence, gold, example) for sentence in sentences[-LAST_SENTENCES:]):
        return None
    if given_up := next((one for one in sentences[-2:] if _GIVES_UP.search(one)), None):
        return "trace-gives-up", f"“{_short(given_up)}”"
    if gold.lower() in _CLOSED or _says(trace, gold, example):
        return None
    return "trace-unfinished", f"{example.answer} stands nowhere in it"


def _plain(text: str) -> str:
    return scoring.digits_for_words(cleaned(text))


def _says(text: str, gold: str, example: Example) -> bool:
    """Whether the answer stands in a text: as a value, as its option, or letter for letter without its marks."""
    if holds(text, gold) or _fits(text, example):
        return True
    words, wanted = (" ".join(re.findall(r"\w+", part.lower())) for part in (text, gold))
    return bool(wanted) and f" {wanted} " in f" {words} "


def _fits(text: str, example: Example) -> bool:
    """Whether a text names the row's option; other tasks are told by `holds`."""
    options = scoring.options_of(example)
    if not options or not scoring.right(text, example):
        return any(option for option in options if option == example.answer and option in text)
    return True


def _other_number(sentence: str, gold: str, question: str) -> bool:
    """A conclusion in numbers about an answer that is one, and none of its numbers is it or was asked about."""
    if not _NUMBER.fullmatch(gold.rstrip("%")):
        return False
    asked = set(_NUMBER.findall(_plain(question)))
    return any(
        number not in asked and not _YEAR.fullmatch(number) for number in _NUMBER.findall(sentence)
    ) and not any(scoring.robust(number, gold) for number in _NUMBER.findall(sentence))


def _short(sentence: str, most: int = 120) -> str:
    return sentence if len(sentence) <= most else f"{sentence[: most - 1].rstrip()}…"
