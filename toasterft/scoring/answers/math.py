"""Answers of mathematics: the same number without tolerance, however it is written."""

from __future__ import annotations

import ast
import math
import re
from fractions import Fraction

from toasterft.scoring.answers.unwrap import BOXED
from toasterft.scoring.answers.values import gold_number, same_amount, stated, tidy
from toasterft.scoring.numbers import Number

_TEX = (
    (re.compile(r"\$|\\[()\[\]!,;:]|\\(?:left|right|displaystyle)\b"), ""),
    (re.compile(r"\\(?:text|mathrm|mathbf)\s*\{([^{}]*)\}"), r"\1"),
    (re.compile(r"\^\s*\{?\s*(?:\\circ|°)\s*\}?|°|\bdegrees?\b"), ""),
    (re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"((\1)/(\2))"),
    (re.compile(r"(?:\\sqrt|√)\s*(?:\{([^{}]*)\}|\(([^()]*)\)|(\d+(?:\.\d+)?))"), r" sqrt(\1\2\3)"),
    (re.compile(r"\\pi\b|π"), " pi"),
    (re.compile(r"\\(?:times|cdot)\b|×|·"), "*"),
    (re.compile(r"\\div\b|÷"), "/"),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"−"), "-"),
)
_EXPRESSION = re.compile(r"(?:[\d.,+\-*/^()\s]|sqrt|pi)+")
_LARGEST_POWER = 64
_LONGEST = 200  # characters of an expression
_CLOSE = 1e-6  # relative: the same number, computed in another order


def _cleaned(text: str) -> str:
    """The answer in `text`: what is boxed, else what follows "answer is", else the right side of an equation."""
    boxed = BOXED.findall(text)
    text = boxed[0] if len(boxed) == 1 else stated(text)
    for pattern, replacement in _TEX:
        text = pattern.sub(replacement, text)
    return text.rpartition("=")[2].strip().rstrip(".")


def _value(text: str) -> float | None:
    """What an expression of numbers, + - * / ^, sqrt and pi comes to."""
    if len(text) > _LONGEST or not _EXPRESSION.fullmatch(text):
        return None
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text).replace("^", "**")
    text = re.sub(r"(?<=[\d)])\s*(?=sqrt|pi|\()|(?<=pi)\s*(?=[\d(]|sqrt)", "*", text)
    try:
        value = _evaluated(ast.parse(text.strip(), mode="eval").body)
        return value if math.isfinite(value) else None
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError, RecursionError, MemoryError):
        return None


def _evaluated(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.Name(id="pi"):
            return math.pi
        case ast.Call(func=ast.Name(id="sqrt"), args=[inner], keywords=[]):
            return math.sqrt(_evaluated(inner))
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_evaluated(inner)
        case ast.UnaryOp(op=ast.UAdd(), operand=inner):
            return _evaluated(inner)
        case ast.BinOp(left=left, op=op, right=right):
            return _combined(op, _evaluated(left), _evaluated(right))
    raise ValueError(f"{type(node).__name__} is no arithmetic")


def _combined(op: ast.operator, left: float, right: float) -> float:
    match op:
        case ast.Add():
            return left + right
        case ast.Sub():
            return left - right
        case ast.Mult():
            return left * right
        case ast.Div():
            return left / right
        case ast.Pow() if abs(right) <= _LARGEST_POWER:
            result = left**right
            if isinstance(result, float):  # a root of a negative number is complex
                return result
    raise ValueError("no arithmetic")


def same_result(prediction: str, gold: str) -> bool:
    """The same number, or the same text where the gold is none.

    A gold with decimals is one rounded to them: 3.4641 and 2√3 are 3.46. Nothing else is forgiven: 7.4 is
    not 7. A unit may be left out but not changed.
    """
    if prediction.strip() == gold.strip():
        return True
    answer, wanted = _cleaned(prediction), _cleaned(gold)
    value, result = _value(wanted), _value(answer)
    number = gold_number(wanted) if value is None else None
    if number is not None and same_amount(answer, number):
        return True
    if value is None and number is None:
        return bool(tidy(wanted)) and tidy(answer).replace(" ", "") == tidy(wanted).replace(" ", "")
    if value is None or result is None:
        # One of them has a unit, or words around it.
        return value is not None and same_amount(answer, Number(Fraction(str(value))))
    decimals = re.fullmatch(r"[+-]?[\d,]*\.(\d+)", wanted)
    slack = 0.5 * 10.0 ** -len(decimals[1]) if decimals else 0.0
    return abs(result - value) <= slack + _CLOSE * abs(value)
