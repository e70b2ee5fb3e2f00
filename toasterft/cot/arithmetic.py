"""Finds the calculations in a text, `47 - 42 = 5`, and works them out again.

What stands left of an equals sign is read backwards as far as it is arithmetic. Text that is no calculation,
a date, a range, an equation with a name in it, is passed over: the filter is for sums that are wrong.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

_SIGNS = str.maketrans({"×": "*", "·": "*", "∗": "*", "÷": "/", "−": "-", "–": "-", "—": "-"})
# `x` between digits multiplies, TeX does so in two ways, and neither changes what a sum is.
_TEX = (
    (r"\\times|\\cdot|(?<=\d)\s*[xX]\s*(?=\d)", "*"),
    (r"\\div", "/"),
    (r"\\[(),\[\]]|\\%|[$€£¥*_`]{2,}", ""),
)
_MONEY = re.compile(r"[$€£¥]\s*(?=[\d.(])")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_EQUALS = re.compile(r"(=|≈|≅)")
_LEFT = re.compile(r"[-+*/().\d\s%]+$")
_RIGHT = re.compile(r"\s*(?:about |approximately |roughly )?(-?\d+(?:\.\d+)?)(\s*%)?(?![\d.]*[/*+])")
_RANGE = re.compile(r"\s*(?:19|20)\d\d-(?:19|20)?\d\d\s*")
_OPERATIONS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
LONGEST = 200  # characters of one calculation; nobody sums up more in a trace


@dataclass(frozen=True)
class Calculation:
    """One calculation as it was written, and whether it holds."""

    text: str
    holds: bool


def calculations(text: str) -> Iterator[Calculation]:
    """Every calculation in a text.

    A result may be rounded to the places it is written with; behind `≈` it may be off by one per cent.
    """
    plain = text.translate(_SIGNS)
    for pattern, replacement in _TEX:
        plain = re.sub(pattern, replacement, plain)
    plain = _THOUSANDS.sub("", _MONEY.sub("", plain))
    for line in plain.split("\n"):
        parts = _EQUALS.split(line)
        for place in range(0, len(parts) - 2, 2):
            found = _calculation(parts[place], parts[place + 1], parts[place + 2])
            if found is not None:
                yield found


def wrong(text: str) -> list[str]:
    """The calculations that do not hold."""
    return [found.text for found in calculations(text) if not found.holds]


def _calculation(before: str, sign: str, after: str) -> Calculation | None:
    left, right = _LEFT.search(before[-LONGEST:]), _RIGHT.match(after)
    if left is None or right is None:
        return None
    expression = _balanced(left[0])
    value = None if _RANGE.fullmatch(expression) else _value(expression.replace("%", ""))
    if value is None:
        return None
    said = Fraction(right[1])
    decimals = len(right[1].partition(".")[2])
    slack = Fraction(1, 2 * 10**decimals)
    if sign != "=" or "about" in right[0] or "approx" in right[0] or "rough" in right[0]:
        slack = max(slack, abs(value) / 100)
    # 38 / 50 = 76 %: a share written as a percentage.
    readings = (value, 100 * value) if right[2] and "%" not in expression else (value,)
    holds = any(abs(reading - said) <= slack for reading in readings)
    return Calculation(f"{expression.strip()} {sign} {right[0].strip()}", holds)


def _balanced(text: str) -> str:
    """Without a full stop or bracket that belongs to the sentence before: `(… see above). 3 + 4`."""
    text = re.split(r"\.\s", text)[-1]
    while text.count(")") > text.count("("):
        text = text.partition(")")[2]
    while text.count("(") > text.count(")"):
        text = text.rpartition("(")[2]
    return text.lstrip(" +*/.")


def _value(expression: str) -> Fraction | None:
    """The value of `3 + 4 * (2 - 1)`; None for anything that is no calculation."""
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    try:
        return _worked_out(tree) if isinstance(tree, ast.BinOp) else None
    except (ZeroDivisionError, TypeError):
        return None


def _worked_out(node: ast.expr) -> Fraction:
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        return _OPERATIONS[type(node.op)](_worked_out(node.left), _worked_out(node.right))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_worked_out(node.operand)
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        # Through its text, so that 0.1 is a tenth.
        return Fraction(str(node.value))
    raise TypeError("no number")
