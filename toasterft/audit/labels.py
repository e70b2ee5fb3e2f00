"""Answers that cannot be meant, and ones that do not fit their question; each rule names its fault.

The spreadsheet rules are those faults that data sets which passed through one really have: ChartQA's ratios
were typed as 5:4, read as the time of day 5:04, and stored as 0.211111111 of a day.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from toasterft.audit.kinds import Finding
from toasterft.data.example import Example
from toasterft.scoring.answers.choice import named

# A decimal with many places: `0.211111111`.
_DECIMAL = re.compile(r"\d+\.(\d{5,})")
_MINUTES = 24 * 60
# So many decimals are more than anybody types: the value was worked out or stored by a machine.
_LONG = 8
# `What is the ratio of …`, `radio` (ChartQA's slip), `A:B`, `proportion`.
_ASKS_RATIO = re.compile(r"\bra(?:t|d)i|\bA\s*:\s*B\b|\bproportion", re.IGNORECASE)
# `12`, `-3.5`
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
# `#DIV/0!`, `#REF!`, `####`
_SHEET_ERROR = re.compile(r"#(?:DIV/0!|REF!|NAME\?|VALUE!|NUM!|NULL!|N/A|#+)", re.IGNORECASE)
# `nan`, `n/a`, `-`, `?`
_NOTHING = re.compile(r"nan|null|n/a|undefined|[-–—?.]+", re.IGNORECASE)
# `Is the value …`, `Does Spain …`
_CLOSED = re.compile(r"(?:is|are|was|were|does|do|did|has|have)\b", re.IGNORECASE)
# What makes such a question open: `Is it red or blue?`, `… and which is it?`, `increasing or decreasing`.
_OPEN_PART = re.compile(
    r"\bor\b|/|\b(?:what|which|who|how|when|where)\b|\bincreas\w*.*\bdecreas", re.IGNORECASE
)
LOST_CHARACTER = "\ufffd"


def faults(example: Example) -> Iterator[Finding]:
    """What is suspect about one row's answer, and about its text; the question and table are all that is read."""

    def found(kind: str, what: str, answer: str | None = None) -> Finding:
        return Finding(kind, what, example.id, where=example.where, answer=answer)

    answer = example.answer.strip()
    if ratio := ratio_stored_as_time(example.question, answer, example.facts):
        yield found("label-time", f"{answer} of a day is {ratio[0]}:{ratio[1]:02}", f"{ratio[0]}:{ratio[1]}")
    elif _SHEET_ERROR.fullmatch(answer):
        yield found("label", f"{answer} is a spreadsheet's error")
    elif _NOTHING.fullmatch(answer):
        yield found("label", f"{answer!r} is no answer")
    elif re.match(r"'[\d=+-]", answer):
        yield found("label", f"{answer} has a spreadsheet's mark for text")
    elif missed := _no_option(example):
        yield found("label", missed)
    elif _expects_yes_or_no(example.question) and _NUMBER.fullmatch(answer.rstrip("%")):
        yield found("label-doubtful", f"a yes-or-no question is answered with {answer}")
    for part, text in (
        ("question", example.question),
        ("answer", answer),
        ("reasoning", example.reasoning or ""),
    ):
        if place := text.find(LOST_CHARACTER) + 1:
            yield found("text-damaged", f"in the {part}: …{text[max(0, place - 12) : place + 12]}…")
            break


def ratio_stored_as_time(question: str, answer: str, facts: Any = None) -> tuple[int, int] | None:
    """(5, 4) for an answer of 0.211111111: 5 h 4 min as a part of a day, where a ratio was meant.

    One value in 600 with five decimals, and next to none with nine, is such a part by chance. So the question
    must ask for a ratio, or the table have both numbers; and a table in which the value is a quotient speaks
    against it, unless both are there.
    """
    match = _DECIMAL.fullmatch(answer)
    if match is None:
        return None
    decimals, minutes = len(match[1]), float(answer) * _MINUTES
    hours, minute = divmod(round(minutes), 60)
    if minute == 0 or abs(minutes - round(minutes)) > _MINUTES * 0.5 * 10**-decimals + 1e-6:
        return None
    numbers = _numbers(facts)
    both = {float(hours), float(minute)} <= numbers
    if not both and (not _ASKS_RATIO.search(question) or _is_quotient(float(answer), decimals, numbers)):
        return None
    if not _ASKS_RATIO.search(question) and decimals < _LONG:
        return None
    return hours, minute


def _numbers(facts: Any) -> set[float]:
    return {float(number) for number in _NUMBER.findall(str(facts))} if facts else set()


def _is_quotient(value: float, decimals: int, numbers: set[float]) -> bool:
    slack = 10**-decimals
    return any(
        below and abs(above / below - value) <= slack
        for above in numbers
        for below in numbers
        if above != below
    )


def _expects_yes_or_no(question: str) -> bool:
    return bool(_CLOSED.match(question.strip())) and not _OPEN_PART.search(question)


def _no_option(example: Example) -> str | None:
    """Where the answer is none of the row's options or labels."""
    options, task = example.extra.get("choices") or [], example.extra.get("task")
    if not options or task not in ("choice", "class"):
        return None
    if named(example.answer, options, lettered=task == "choice") is not None:
        return None
    return f"{example.answer} is none of: {', '.join(map(str, options))}"
