"""Strip an answer's wrapping: a finished think block, TeX, foreign digits, powers of ten."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_THOUGHT = re.compile(r"\s*<think>.*?</think>", re.DOTALL)  # `<think>the bar is 12</think>12`
BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")  # `\boxed{12}`, `\boxed{\text{Italy}}`
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_TEX = (
    (re.compile(r"\\(?:text|mathrm|mathbf|textbf)\s*\{([^{}]*)\}"), r"\1"),  # `\text{Italy}`
    (re.compile(r"\\[dt]?frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}"), r"\1/\2"),  # `\frac{1}{2}`
    (re.compile(r"\$([^$]*)\$|\\\((.*?)\\\)"), r"\1\2"),  # `$12$`, `\(12\)`; a lone $ is money
    (re.compile(r"\\(?:times|cdot)\b"), "×"),
    (re.compile(r"\\%"), "%"),
)
# `1.2 × 10^6`, `1.2*10^{6}`, `10^3`; the count before it is 1 where there is none
_POWER = re.compile(
    r"(?<![\w.,^])(?:(-?\d+(?:\.\d+)?)\s*[×x*·]\s*)?10\s*\^\s*\{?\s*([+-]?\d{1,2})\s*\}?(?![\d.])"
)
_RAISED = re.compile(r"(?<=10)[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+")  # `10⁶`


def without_thinking(text: str) -> str:
    """`text` behind its think block; nothing where the block was never finished: it earns nothing."""
    behind = _THOUGHT.sub("", text, count=1)
    return "" if "<think>" in behind else behind


def _ascii_digits(text: str) -> str:
    """Digits of other scripts and full-width signs as ASCII: `１２．５` and `٤٥` as 12.5 and 45."""
    if text.isascii():
        return text
    return "".join(
        chr(ord(each) - 0xFEE0)
        if "！" <= each <= "～"
        else str(unicodedata.decimal(each))
        if each.isdecimal()
        else each
        for each in text
    )


@lru_cache(maxsize=1024)
def unwrapped(text: str) -> str:
    """The answer without its wrapping; a text with several boxes keeps them all, so that none is chosen."""
    text = _RAISED.sub(lambda raised: "^" + raised[0].translate(_SUPERSCRIPTS), without_thinking(text))
    boxed = BOXED.findall(text)
    text = _ascii_digits(boxed[0] if len(boxed) == 1 else text)
    for pattern, replacement in _TEX:
        text = pattern.sub(replacement, text)
    return _POWER.sub(lambda power: f"{power[1] or 1}e{int(power[2])}", text)
