"""A trace as sentences: signs, quotes and separators written one way, bullets and headings taken off."""

from __future__ import annotations

import re
from dataclasses import dataclass

# A trace's length in characters beyond which nothing is read; 300 tokens are about 1,500.
MAX_CHARACTERS = 4000


_SIGNS = str.maketrans(
    {
        **dict.fromkeys("\u2212\u2010\u2011\u2012\u2013\uff0d", "-"),
        **dict.fromkeys("×✕⋅·∙", "*"),
        **dict.fromkeys("‘’´", "'"),
        **dict.fromkeys('“”"`', ""),
        **dict.fromkeys("→⇒⟹", "="),
        **dict.fromkeys("\u00a0\u2009\u202f", " "),
        **{"÷": "/", "—": ", ", "~": "≈", "≃": "≈", "＝": "="},
        **dict.fromkeys("$€£¥₹", ""),
    }
)
_CLEANING = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"[\ue000-\uf8ff]", " "),  # stands for names below
        (r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"(\1) / (\2)"),
        (r"\\(?:times|cdot)\b", "*"),
        (r"\\div\b", "/"),
        (r"\\approx\b", "≈"),
        (r"\\text\s*\{([^{}]*)\}", r"\1"),
        (r"\\[()\[\]]?|\*\*|__", ""),
        (r"(?<!\w)'|'(?!\w)", ""),
        (r"(?<=\d)[, ](?=\d{3}(?!\d))(?<!\d{4}[, ])", ""),  # 1,200 and 13 879
        (r"(?<=\d)\s*(?:%|percent\b|per cent\b)", "%"),
        (r"(?<=\d)\s*[xX]\s*(?=\d)", " * "),
        (r"\s*(?:=>|->|==)\s*", " = "),
        (r"(?<=\()\s+|\s+(?=\))|(?<=[ \t])[ \t]+", ""),  # so that the patterns below match in one way only
    )
)
_HEADING = re.compile(
    r"\s*(?:[-*•#]+\s*|\d{1,2}[.)]\s+)*(?:(goal|requirements?|observations?|reasoning|extraction|calculations?|"
    r"facts|transcription|steps?(?: \d+)?|conclusion|recheck|check|(?:final )?answer)\s*:)?\s*",
    re.IGNORECASE,
)
_ENDS = re.compile(  # not in "U.S. dollars"
    r"(?<![A-Z]\.)(?<=[.!])\s+|(?<=;)\s+(?!its?\b)|(?<=[A-Z]\.)\s+(?![a-z(])|(?<=\?)\s*"
)
UNCHECKED = ("goal", "requirement", "requirements")  # what is asked and needed states nothing


def cleaned(text: str) -> str:
    """`text` with signs, quotes and thousands separators written one way."""
    text = text[:MAX_CHARACTERS].translate(_SIGNS)
    for pattern, replacement in _CLEANING:
        text = pattern.sub(replacement, text)
    return text


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
