"""Takes the answer out of a rationale, so that a judge who reads it must still find the answer itself.

Sentences that only state the answer go; wherever else it stands, literally, as the same number written
another way, or nearly so, a blank takes its place.
"""

from __future__ import annotations

import difflib
import re

from toasterft.scoring import digits_for_words, robust

BLANK = "___"
NEAR = 0.85  # similarity of two spellings of one name
# What is left must say something: a rationale that was nothing but the answer teaches nothing.
LEAST_WORDS = 4

_SENTENCES = re.compile(r"(?<=[.!?])\s+|\n+")
_STATES = re.compile(
    r"^\W*(?:(?:so|thus|therefore|hence|then|in conclusion)\b[\s,]*)?"
    r"(?:(?:the|my|our)\s+)?(?:final\s+|correct\s+)?(?:answer|conclusion|result)\b[\s*]*(?:is|was|:|=|would be)",
    re.IGNORECASE,
)
_CONCLUDES = re.compile(r"^\W*(?:so|thus|therefore|hence)\b[\s,:]*", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?[$€£]?\d[\d,]*(?:\.\d+)?(?:\s*%)?")
_WORD = re.compile(r"\w+(?:[-'.&/]\w+)*")


def without(rationale: str, answer: str) -> str:
    """The rationale with the answer and its near-literal restatements taken out; empty where too little is left."""
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
