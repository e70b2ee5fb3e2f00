"""Goes through the sentences of a trace once, handing each to those who understand a part of it."""

from __future__ import annotations

import re
from dataclasses import replace

from toasterft.scoring.traces import arithmetic, claims, readings
from toasterft.scoring.traces.state import TraceState

_OPERATORS = tuple(
    (re.compile(rf"(?<=[\d%)\ue000-\uf8ff])\s+(?:{words})\s+(?=[-\d(.\ue000-\uf8ff])", re.IGNORECASE), sign)
    for words, sign in (
        ("plus", " + "),
        ("minus", " - "),
        ("times|multiplied by", " * "),
        ("divided by", " / "),
    )
)
_PERCENT_OF = re.compile(r"(?<=%)\s+of\s+(?=\d)", re.IGNORECASE)


def read(account: TraceState, sentence: str) -> None:
    """Judge every statement of one sentence."""
    for pattern, sign in _OPERATORS:
        sentence = pattern.sub(sign, sentence)
    folded = readings.beside(account, account.table.fold(_PERCENT_OF.sub(" * ", sentence)))
    for pattern, sign in _OPERATORS:  # again, for names are now single characters
        folded = replace(folded, text=pattern.sub(sign, folded.text))
    text = folded.text
    for understand in (
        arithmetic.sums,
        arithmetic.calculations,
        arithmetic.words,
        claims.counts,
        claims.order,
        claims.extremes,
        claims.trends,
    ):
        text = understand(account, text, folded)
    readings.readings(account, text, folded)
    readings.unknown_names(account, text, folded)
    readings.glimpses(account, folded)
