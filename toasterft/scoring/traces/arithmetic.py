"""Calculations, in signs and in words, worked out again. Each reader gives back the text without what it has read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import islice, product
from math import prod
from typing import Any

from toasterft.scoring.numbers import HEDGED, NUM, Number, number, same_result
from toasterft.scoring.tables import NAME, Folded
from toasterft.scoring.traces.sentences import EQUALS, FEWER, MORE, OPERAND, POINTS, USED, TraceState

_UNIT_WORDS = r"(?:\s+(?!(?:is|are|was|and|equals?|gives?|makes?|than|to|by|or|in|for|from|of)\b)[a-z]+){0,2}"
_ITEM = rf"(?>\(*{OPERAND}{_UNIT_WORDS}\)*)"
_SIGN = r"(?>\s*[-+*/]\s*)"
# `16 - 10 = 6`, "red + blue is 10 units"
STEP = re.compile(
    rf"{_ITEM}(?:{_SIGN}{_ITEM}){{1,40}}+(?:{EQUALS}{_ITEM}(?:{_SIGN}{_ITEM}){{0,40}})+", re.IGNORECASE
)
_EQUALS_SIGN = re.compile(EQUALS, re.IGNORECASE)
_TOKEN = re.compile(rf"{OPERAND}|[-+*/()]", re.IGNORECASE)
_TIGHT = re.compile(r"\d[-/]\d|(?:19|20)\d\d\s?-\s?(?:19|20)\d\d")  # the season 2019/20, the years 2010-2015

# "7, 12 and 3"
_SEVERAL = rf"{OPERAND}(?:\s*(?:,\s*and|,|and|&|\+)\s*{OPERAND}){{1,20}}+"
_SAYS_STEP = re.compile(
    r"\b(?:sum|total|add|combin|together|differ|gap|subtract|taking|deduct|ratio|divid|average|mean|product|multipl)",
    re.IGNORECASE,
)
# "is about 19"
_RESULT = rf"{EQUALS}(?P<result>{NUM})"


def _ratio(numbers: Sequence[Fraction]) -> Fraction | None:
    return numbers[0] / numbers[1] if numbers[1] else None


# Calculations in words: the pattern, and what the operands come to.
_IN_WORDS = tuple(
    (re.compile(pattern.replace("RESULT", _RESULT), re.IGNORECASE), work_out)
    for pattern, work_out in (
        (rf"\b(?:sum|total)\s+(?:of|for)\s+(?P<list>{_SEVERAL})RESULT", sum),
        (rf"\b(?:adding|add|combining|summing)\s+(?:up\s+)?(?P<list>{_SEVERAL})(?:\s+together)?RESULT", sum),
        (rf"(?P<list>{_SEVERAL})\s+(?:together|combined|in\s+total)RESULT", sum),
        (
            rf"(?P<list>{_SEVERAL})\s+(?:together\s+)?(?:adds?\s+up\s+to|sums?\s+(?:up\s+)?to|total)\s+(?P<result>{NUM})",
            sum,
        ),
        (
            rf"\b(?:differences?|gap)\s+(?:between|of)\s+(?P<list>{OPERAND}\s+and\s+{OPERAND})RESULT",
            lambda numbers: abs(numbers[0] - numbers[1]),
        ),
        (
            rf"\b(?:subtract(?:ing)?|taking|deducting)\s+(?P<list>{OPERAND}\s+(?:away\s+)?from\s+{OPERAND})RESULT",
            lambda numbers: numbers[1] - numbers[0],
        ),
        (rf"\bratio\s+of\s+(?P<list>{OPERAND}\s+to\s+{OPERAND})RESULT", _ratio),
        (rf"\bdivid(?:e|ing)\s+(?P<list>{OPERAND}\s+by\s+{OPERAND})RESULT", _ratio),
        (
            rf"\b(?:average|mean)\s+of\s+(?P<list>{_SEVERAL})RESULT",
            lambda numbers: Fraction(sum(numbers), len(numbers)),
        ),
        (rf"\b(?:product\s+of|multiplying)\s+(?P<list>{_SEVERAL})RESULT", prod),
    )
)
# "red is 5 more than blue", "red is 2 times blue", "red exceeds blue by 5"
_BY = re.compile(
    rf"(?P<a>{OPERAND})\s+(?:is|are|was|exceeds|has)\s+(?:by\s+)?(?P<result>{NUM}){POINTS}\s+"
    rf"(?:(?P<more>{MORE})|(?P<fewer>{FEWER})|(?P<times>times|\*))(?:\s+(?:than|as\s+\w+\s+as))?\s+(?P<b>{OPERAND})|"
    rf"(?P<a2>{OPERAND})\s+exceeds\s+(?P<b2>{OPERAND})\s+by\s+(?P<result2>{NUM})",
    re.IGNORECASE,
)
# "their sum is 480"
_SUM_IS = re.compile(
    rf"\b(?:sum|total)\b[^.,;\d]{{0,40}}?(?:\bis|\bare|=|\bto)\s+(?P<result>{NUM})(?!\s*[-+*/=])",
    re.IGNORECASE,
)


def read_calculations(state: TraceState, text: str, folded: Folded) -> str:
    """Calculations in signs: `16 - 10 = 6`, `red + blue = 10`, every operand from a fact or an earlier step."""

    def judge(found: re.Match[str]) -> str:
        if "=" not in found[0] and _TIGHT.search(found[0]):
            return found[0]
        signs = [sign[0] for sign in _EQUALS_SIGN.finditer(found[0])]
        sides = [_TOKEN.findall(side) for side in _EQUALS_SIGN.split(found[0])]
        right = _equal(state, sides, ["≈" in sign or bool(HEDGED.search(sign)) for sign in signs], folded)
        step = folded.plain(found[0]).strip()
        result = number(sides[-1][-1]).value if re.fullmatch(NUM, sides[-1][-1]) else None
        if right and (stray := _stray(state, sides[0])):
            right, step = False, f"{step} ({stray} is in no fact or step)"
        state.add_step(right, step, result)
        state.last = step
        return USED

    return STEP.sub(judge, text)


def _stray(state: TraceState, tokens: list[str]) -> str:
    """The first operand that comes from nowhere, or "". Factors may be round numbers or counts."""
    terms = 1 + sum(token in ("+", "-") for token in tokens)
    for position, token in enumerate(tokens):
        if re.fullmatch(NUM, token):
            operand = number(token)
            factor = {"*", "/"} & {*tokens[max(0, position - 1) : position + 2]}
            shares = tokens[position - 1 : position] == ["/"] and _is_sum(state, tokens[position - 2])
            if factor and (operand.value in state.constants or operand.value == terms):
                continue
            if shares and operand.value.denominator == 1 and 1 < operand.value <= len(state.table.cells):
                continue  # an average over some of the rows
            if not state.is_known(operand):
                return token
    return ""


def _is_sum(state: TraceState, token: str) -> bool:
    """Whether a token is a bracket's end or an earlier result."""
    return token == ")" or (re.fullmatch(NUM, token) is not None and number(token).value in state.results)


def _equal(state: TraceState, sides: list[list[str]], hedged: list[bool], folded: Folded) -> bool | None:
    """Whether all sides come to the same; None where that cannot be worked out."""
    if not all(sides):
        return None
    names = sorted({token for side in sides for token in side if re.fullmatch(NAME, token)})
    options = [state.options(name, folded) for name in names]
    tried = False
    for choice in islice(product(*options), 16):
        given = dict(zip(names, choice))
        for hundredths in (False, True):
            values = [_evaluate(side, given, hundredths) for side in sides]
            if any(value is None for value in values):
                continue
            tried = True
            if all(
                _matches(side, value, values[0], about) or _matches(side, value, before, about)
                for side, value, before, about in zip(sides[1:], values[1:], values, hedged)
            ):
                return True
    return False if tried else None


def _matches(side: list[str], value: Fraction | None, true: Fraction | None, about: bool) -> bool:
    assert value is not None
    assert true is not None
    operands = [token for token in side if token not in "()"]
    if len(operands) != 1 or not re.fullmatch(NUM, operands[0]):
        return same_result(Number(value, hedged=about), true) or abs(value - true) * 1000 <= abs(true)
    result = number(operands[0], about)
    return same_result(result, true) or (result.percent and same_result(result, true * 100))


def read_words(state: TraceState, text: str, folded: Folded) -> str:
    """The same in words: "the sum of 7 and 12 is 19", "red is 5 more than blue"."""
    for pattern, work_out in _IN_WORDS if _SAYS_STEP.search(text) else ():

        def judge(found: re.Match[str], work_out: Any = work_out) -> str:
            result = number(found["result"], bool(HEDGED.search(found[0][: -len(found["result"])])))
            choices = product(*(state.options(each, folded) for each in re.findall(OPERAND, found["list"])))
            true = [work_out([each.value for each in choice]) for choice in islice(choices, 16)]
            _word_step(state, true, result, found, folded)
            return USED

        text = pattern.sub(judge, text)

    def by(found: re.Match[str]) -> str:
        result = number(found["result"] or found["result2"])
        operands = found["a"] or found["a2"], found["b"] or found["b2"]
        pairs = product(*(state.options(each, folded) for each in operands))
        true = [
            _ratio([a.value, b.value])
            if found["times"]
            else (b.value - a.value if found["fewer"] else a.value - b.value)
            for a, b in islice(pairs, 16)
        ]
        _word_step(state, true, result, found, folded)
        return USED

    return _BY.sub(by, text)


def read_sums(state: TraceState, text: str, folded: Folded) -> str:
    """ "Their sum is 480", where the operands are not named."""
    return _SUM_IS.sub(lambda found: _sum_is(state, found, folded), text) if state.has_facts else text


def _sum_is(state: TraceState, found: re.Match[str], folded: Folded) -> str:
    """ "Their sum is 480": right if some group of rows has this sum, else not understood."""
    result = number(found["result"])
    groups = [*state.scopes(folded), frozenset(state.credit)]
    sums = (
        sum((value for row in group if (value := state.value(row)) is not None), Fraction())
        for group in groups
    )
    if not any(same_result(result, each) for each in sums):
        return found[0]
    state.add_step(True, found[0], result.value)
    return USED


def _word_step(
    state: TraceState, true: Sequence[Fraction | None], result: Number, found: re.Match[str], folded: Folded
) -> None:
    values = [value for value in true if value is not None]
    readings = [
        replace(result, value=each, unit=result.unit * each / result.value if result.value else result.unit)
        for each in result.readings
    ]
    right = any(same_result(reading, value) for reading in readings for value in values)
    state.last = folded.plain(found[0])
    state.add_step(right if values else None, state.last, result.value)


def _evaluate(tokens: list[str], names: Mapping[str, Number], hundredths: bool) -> Fraction | None:
    """The value of a calculation with the usual precedence; None where it is malformed or divides by 0."""
    position = 0

    def peek() -> str:
        return tokens[position] if position < len(tokens) else ""

    def take() -> str:
        nonlocal position
        position += 1
        return tokens[position - 1]

    def factor() -> Fraction:
        token = take() if peek() else ")"
        if token == "(":
            value = total()
            if peek() == ")":
                take()
            return value
        if token == "-":
            return -factor()
        if token in "+*/)":
            raise ValueError(token)
        operand = names[token] if token in names else number(token)
        return operand.value / 100 if operand.percent and hundredths else operand.value

    def term() -> Fraction:
        value = factor()
        while peek() in ("*", "/"):
            value = value * factor() if take() == "*" else value / factor()
        return value

    def total() -> Fraction:
        value = term()
        while peek() in ("+", "-"):
            value = value + term() if take() == "+" else value - term()
        return value

    try:
        value = total()
        while peek() == ")":  # a bracket of the sentence, not of the calculation
            take()
        return None if peek() else value
    except (ValueError, ZeroDivisionError, IndexError, RecursionError):
        return None


READERS = (read_sums, read_calculations, read_words)
