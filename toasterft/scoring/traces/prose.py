"""Detect in a trace's prose that its writer had the answer, or that it ends in another one."""

from __future__ import annotations

import re

from toasterft.data.example import Example
from toasterft.scoring.answers.values import robust
from toasterft.scoring.numbers import DIGITS
from toasterft.scoring.tasks import right

_GIVEN = r"(?:provided|given|supplied|stated|specified)"
_IS = r"(?:is|was|has been|being|I(?:'m| am| was)?)"
_IN_PICTURE = r"(?:chart|graph|figure|image|picture|plot|table|legend|diagram|axis|data|title|bars?|above)"
_BY = r"(?:according to|based on|consistent with|match(?:es|ing)?|given|aligns? with|agrees? with)"
_TRUE = r"(?:correct|gold|ground[- ]truth|expected|reference|known|target|desired|intended)"
# Held against 603 published ChartQA traces, so that what only the chart gives ("the value given on the axis",
# "the provided chart") passes.
LEAKS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"\b{_GIVEN}\s+(?:correct\s+|final\s+|gold\s+)?(?:answer|solution)\b",
        rf"\b(?:answer|solution)\s+(?:that\s+)?{_IS}?\s*{_GIVEN}\b(?!\s+(?:in|by|on|at|as)\s+(?:the\s+)?{_IN_PICTURE})",
        rf"\bas\s+{_GIVEN}\b(?!\s+(?:in|by|on|at|above|under|below)\b)",
        rf"\b(?:{_BY}|from|with|per)\s+the\s+(?:\w+\s+)?(?:solution|result)\s+(?:given|provided|above|key)\b",
        rf"\b{_BY}\s+the\s+(?:\w+\s+)?answer\b",
        rf"\bthe\s+{_TRUE}\s+(?:\w+\s+)?answer\b",
        r"\banswer\s+key\b|\bground[- ]truth\b",
        r"\b(?:we|I)\s+(?:are|were|am|was|have been)\s+(?:told|given|provided)\b(?!\s+with\b)",
        r"\basked to (?:justify|explain)\b",
        r"\b(?:since|because|knowing(?: that)?)\s+the\s+(?:\w+\s+)?answer\s+(?:is|must|should|has)\b",
        r"\bthe\s+(?:prompt|instructions?|user|task)\s+(?:says?|states?|gives?|gave|provides?|provided|specif\w+)\b",
        r"\bas an AI\b|\blanguage model\b",
    )
)
_STATED = re.compile(
    r"\b(?:the\s+)?(?:final\s+|correct\s+)?answer\s*(?:is|:|would be|=)"
    r"(?!\s*(?:based|found|shown|derived|obtained|read)\b)\s*(?P<answer>[^\n]+?)\s*(?:[.;!](?=\s|$)|$)",
    re.IGNORECASE | re.MULTILINE,
)


def leaked(text: str) -> str:
    """The words that reveal a given answer; empty where there are none."""
    return next((found[0] for pattern in LEAKS if (found := pattern.search(text))), "")


def contrary(reasoning: str, gold: str, example: Example | None = None) -> str:
    """What the trace itself calls the answer, where that is another one than the gold; nor right for the example."""
    for found in _STATED.finditer(reasoning):
        answer = found["answer"]
        if not holds(answer, gold) and (example is None or not right(answer, example)):
            return found[0]
    return ""


def holds(statement: str, gold: str) -> bool:
    """Whether a statement is the gold or contains it as a whole: "the answer is 37.1 million" for 37.1."""
    if robust(statement.strip(" *\"'."), gold):
        return True
    numbers = re.findall(DIGITS, statement)
    return any(robust(number, gold) for number in numbers) or bool(
        re.search(rf"(?<!\w){re.escape(gold.strip())}(?!\w)", statement, re.IGNORECASE)
    )
