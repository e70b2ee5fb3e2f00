"""Measure a model's reasoning, beside its accuracy: facts, arithmetic, length, repetition, no reasoning at all."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from toasterft.data.chat import Parsed
from toasterft.data.example import Example
from toasterft.scoring import share
from toasterft.scoring.traces.check import Checked, check, wrong_steps

REPEATED_WORDS = 8
"""A text repeats itself where so many words stand in it twice in the same order (a repeated 8-gram)."""


@dataclass(frozen=True)
class Trace:
    """One completion's reasoning, measured.

    Attributes:
        tokens: length of the reasoning; None where there is none.
        unreasoned: an answer is given without any reasoning before it.
        repeats: the text repeats itself (`repeats`).
        miscalculates: some calculation in the reasoning does not hold.
        checked: the reasoning held against the facts; None without either.
    """

    tokens: int | None
    unreasoned: bool
    repeats: bool
    miscalculates: bool = False
    checked: Checked | None = None


def measure(text: str, parsed: Parsed, tokens: int, example: Example) -> Trace:
    """One completion to `example`; `tokens` is the length of `parsed.reasoning`."""
    reasoning = (parsed.reasoning or "").strip()
    if not reasoning:
        return Trace(None, bool(parsed.answer), repeats(text))
    found = check(reasoning, example.facts, example.question_in_context, example.answer)
    return Trace(
        tokens,
        unreasoned=False,
        repeats=repeats(text),
        miscalculates=bool(wrong_steps(reasoning)),
        checked=None if found.coverage is None else found,
    )


def repeats(text: str) -> bool:
    """Whether some eight words stand in `text` twice in the same order, case and punctuation aside."""
    words = re.findall(r"\w+", text.lower())
    runs = [tuple(words[start : start + REPEATED_WORDS]) for start in range(len(words) - REPEATED_WORDS + 1)]
    return len(set(runs)) < len(runs)


def summarise(traces: Sequence[Trace]) -> dict[str, Any]:
    """The JSON-ready figures; every share with its Wilson interval.

    `without_reasoning` and `repeating` are shares of all completions; `tokens` and `arithmetic_right` are of
    the `n` that reason. `checked` counts those that reason about an image whose table is known:

        facts_right   every fact the question needs is read, and every reading is right
        faultless     no wrong reading, no wrong step, no conclusion that is wrong or comes from nowhere
        valid         both
    """
    lengths = [trace.tokens for trace in traces if trace.tokens is not None]
    return {
        "n": len(lengths),
        "without_reasoning": share(sum(trace.unreasoned for trace in traces), len(traces)),
        "repeating": share(sum(trace.repeats for trace in traces), len(traces)),
        "tokens": {"median": statistics.median(lengths), "p90": _p90(lengths)} if lengths else None,
        "arithmetic_right": share(
            sum(not trace.miscalculates for trace in traces if trace.tokens is not None), len(lengths)
        ),
        "checked": _against_facts([trace.checked for trace in traces if trace.checked is not None]),
    }


def _against_facts(found: Sequence[Checked]) -> dict[str, Any] | None:
    if not found:
        return None
    read = [each.coverage is not None and each.coverage > 1 - 1e-9 for each in found]
    clean = [not each.faults for each in found]
    return {
        "n": len(found),
        "facts_right": share(sum(read), len(found)),
        "faultless": share(sum(clean), len(found)),
        "valid": share(sum(map(all, zip(read, clean))), len(found)),
    }


def _p90(lengths: Sequence[int]) -> int:
    """The shortest length that nine in ten do not exceed."""
    return sorted(lengths)[-(-9 * len(lengths) // 10) - 1]
