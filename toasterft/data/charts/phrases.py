"""Every sentence that questions and traces are made of, as tables.

Core charts only use the first `CORE_WORDINGS` wordings of each question, which keeps the words that
a tiny model must know to a short list (`core_vocabulary`). Traces are worded alike everywhere, so
that `scoring.traces.strict_faults` can read them back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import chain, pairwise
from typing import Any

from toasterft.data.charts.style import CORE_COLOURS

CORE_WORDINGS = 2

# {a} and {b} are rows; {more} the larger and {less} the smaller of two; {scope} is "" or " for x".
QUESTIONS: dict[str, tuple[str, ...]] = {
    "transcribe": (
        "List every label with its value.",
        "Write every label and value.",
        "Read out the whole chart.",
        "Turn the chart into a table.",
    ),
    "count": (
        "How many {noun} are there?",
        "Count the {noun}.",
        "What is the number of {noun}?",
    ),
    "lookup": (
        "What is the value of {a}?",
        "Give the value of {a}.",
        "Which value does {a} have?",
        "How much is {a}?",
    ),
    "highest": (
        "Which label is the highest{scope}?",
        "Which label has the largest value{scope}?",
        "Where is the maximum{scope}?",
        "Name the label with the greatest value{scope}.",
    ),
    "lowest": (
        "Which label is the lowest{scope}?",
        "Which label has the smallest value{scope}?",
        "Where is the minimum{scope}?",
        "Name the label with the least value{scope}.",
    ),
    "difference": (
        "What is the difference between {a} and {b}?",
        "How much higher is {more} than {less}?",
        "By how much does {more} exceed {less}?",
        "How far is {less} below {more}?",
    ),
    "sum": (
        "What is the sum of {a} and {b}?",
        "How much are {a} and {b} together?",
        "Add {a} and {b}.",
        "What do {a} and {b} come to?",
    ),
    "total": (
        "What is the sum of all values{scope}?",
        "How much are all values{scope} together?",
        "Add up all values{scope}.",
        "What is the total{scope}?",
    ),
    "ratio": (
        "What is {more} divided by {less}?",
        "How many times {less} is {more}?",
        "What is the ratio of {more} to {less}?",
        "Divide {more} by {less}.",
    ),
    "count_above": (
        "How many {noun} are above {t}{scope}?",
        "Count the {noun} above {t}{scope}.",
        "How many values{scope} are greater than {t}?",
    ),
    "trend": (
        "Is the trend{scope} rising, falling or neither?",
        "Do the values{scope} keep rising, keep falling or neither?",
        "From {a} to {b}, are the values{scope} always rising, always falling or neither?",
    ),
}
# Yes/no questions come with what makes them true: {a} being the larger or the smaller.
COMPARISONS: tuple[tuple[str, bool], ...] = (
    ("Is {a} higher than {b}?", True),
    ("Is {a} lower than {b}?", False),
    ("Is the value of {a} greater than the value of {b}?", True),
    ("Does {a} have a smaller value than {b}?", False),
)

STEPS: dict[str, str] = {
    "transcribe": "{table}.",
    "count": "There are {n} {noun}, so {n}.",
    "lookup": "{a} is {x}.",
    "highest": "The largest is {x}, so {answer}.",
    "lowest": "The smallest is {x}, so {answer}.",
    "difference": "{x} - {y} = {answer}.",
    "sum": "{terms} = {answer}.",
    "ratio": "{x} / {y} = {answer}.",
    "count_above": "Above {t}: {above}. So {answer}.",
    "compare": "{x} {sign} {y}, so {answer}.",
    "trend": "{chain}, so {answer}.",
}

# The structured trace: what is needed before the readings, and the step taken another way after it.
NEEDS: dict[str, str] = {
    "transcribe": "Read every label in order.",
    "count": "Read every label and count.",
    "lookup": "Find the label and read its value.",
    "highest": "Read every value and find the largest.",
    "lowest": "Read every value and find the smallest.",
    "difference": "Read both values and take the smaller from the larger.",
    "sum": "Read the values and add.",
    "ratio": "Read both values and divide.",
    "count_above": "Read every value and count the larger ones.",
    "compare": "Read both values and compare.",
    "trend": "Read every value in order and compare.",
}
RECHECKS: dict[str, str] = {
    "transcribe": "There are {n} values.",
    "count": "Counted: {names}.",
    "lookup": "{a} = {x}.",
    "highest": "{against}.",
    "lowest": "{against}.",
    "difference": "{y} + {answer} = {x}.",
    "sum": "{reversed_terms} = {answer}.",
    "ratio": "{y} * {answer} = {x}.",
    "count_above": "Not above {t}: {not_above}.",
    "compare": "{y} {other_sign} {x}.",
    "trend": "{reversed_chain}.",
}
HEADINGS = ("Goal", "Requirements", "Observations", "Conclusion", "Recheck", "Final Answer")
NONE = "none"

# What the marks of a chart kind are called.
NOUNS: dict[str, str] = {
    **dict.fromkeys(("bar", "hbar", "grouped", "hatched", "mirrored"), "bars"),
    **dict.fromkeys(("line", "area", "lollipop"), "points"),
    **dict.fromkeys(("pie", "donut"), "slices"),
    "dots": "dots",
    "stacked": "values",  # a part lying above another need not be the larger
}

# `red = 12.` is red, =, 12 and a full stop.
_TOKEN = re.compile(r"[A-Za-z]+|[0-9]+|[^A-Za-z0-9\s]")
CORE_LARGEST_NUMBER = 100  # five bars of twenty


def tokens(text: str) -> list[str]:
    """Whole words, whole numbers and single signs."""
    return _TOKEN.findall(text)


def trend(values: Sequence[Any]) -> str:
    """ "rising" if every value is larger than the one before, "falling" if every one is smaller, else "neither"."""
    steps = {(new > old) - (new < old) for old, new in pairwise(values)}
    return "rising" if steps == {1} else "falling" if steps == {-1} else "neither"


def order(values: Sequence[Any], written: Callable[[Any], str]) -> str:
    """`3 < 5 > 4`: neighbours compared.

    Args:
        written: how a value is written.
    """
    parts = [written(values[0])]
    for old, new in pairwise(values):
        parts += ["=" if new == old else "<" if new > old else ">", written(new)]
    return " ".join(parts)


def core_vocabulary() -> tuple[str, ...]:
    """Every token of core questions, answers, traces and text tables, each once and sorted."""
    asked = chain.from_iterable(
        wordings[:CORE_WORDINGS] for kind, wordings in QUESTIONS.items() if kind != "trend"
    )
    compared = (wording for wording, _ in COMPARISONS[:CORE_WORDINGS])
    told = (text for table in (STEPS, NEEDS, RECHECKS) for kind, text in table.items() if kind != "trend")
    signs = "a = 1, b. < > : yes no " + NONE
    plain = " ".join([*asked, *compared, *told, *HEADINGS, *CORE_COLOURS, "bars"])
    words = set(tokens(re.sub(r"\{\w+\}", " ", plain))) | set(tokens(signs)) - {"a", "b", "1"}
    # Signs of steps whose both sides are filled in later.
    words |= {"+", "-", "*", "/", "=", ",", "."}
    numbers = [str(number) for number in range(CORE_LARGEST_NUMBER + 1)]
    return (*numbers, *sorted(words))
