"""A trace as sentences: signs, quotes and separators written one way, bullets and headings taken off."""

from __future__ import annotations

import re
from dataclasses import dataclass

from toasterft.scoring.numbers import cleaned

_HEADING = re.compile(
    r"\s*(?:[-*•#]+\s*|\d{1,2}[.)]\s+)*(?:(goal|requirements?|observations?|reasoning|extraction|calculations?|"
    r"facts|transcription|steps?(?: \d+)?|conclusion|recheck|check|(?:final )?answer)\s*:)?\s*",
    re.IGNORECASE,
)
_ENDS = re.compile(  # not in "U.S. dollars"
    r"(?<![A-Z]\.)(?<=[.!])\s+|(?<=;)\s+(?!its?\b)|(?<=[A-Z]\.)\s+(?![a-z(])|(?<=\?)\s*"
)
UNCHECKED = ("goal", "requirement", "requirements")  # what is asked and needed states nothing


@dataclass(frozen=True)
class Sentence:
    """One sentence without its full stop, and the heading (lower-case, or "") of its line."""

    text: str
    heading: str = ""


def sentences(trace: str) -> list[Sentence]:
    """The trace's sentences in order; bullets, numbering and headings taken off."""
    found = []
    for line in cleaned(trace).splitlines():
        opening = _HEADING.match(line)
        heading = (opening[1] or "").lower() if opening else ""
        for part in _ENDS.split(line[opening.end() if opening else 0 :]):
            if text := part.strip().rstrip(".;! "):
                found.append(Sentence(text, heading))
    return found
