"""Tags of somebody's training format, taken off a completion."""

from __future__ import annotations

import re

# `<think>7 > 3.</think>`, at the beginning.
_THINK = re.compile(r"\s*<think(?:ing)?>(.*?)</think(?:ing)?>\s*", re.DOTALL | re.IGNORECASE)
# `<answer>red</answer>`
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
# LLaVA-CoT: `<SUMMARY>…</SUMMARY><CAPTION>…</CAPTION><REASONING>…</REASONING><CONCLUSION>red</CONCLUSION>`
_CONCLUSION = re.compile(r"<CONCLUSION>(.*?)(?:</CONCLUSION>|$)", re.DOTALL | re.IGNORECASE)
_REASONING = re.compile(r"<REASONING>(.*?)</REASONING>", re.DOTALL | re.IGNORECASE)
# `$\boxed{\frac{1}{2}}$`: braces up to two deep.
_BRACES = r"\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}"
_BOXED = re.compile(r"\\boxed\s*" + _BRACES)
_DOLLARS = re.compile(r"\$*\s*\\boxed\s*" + _BRACES + r"\s*\$*")
# What leads to an answer and is no reasoning: `So the final answer is:`
_LEAD = re.compile(
    r"\W*(?:so|thus|hence|therefore)?,?\s*(?:the\s+)?(?:(?:final|correct)\s+)?(?:answer|result)?(?:\s+is)?\W*",
    re.IGNORECASE,
)


def unwrap(text: str, changes: set[str] | None = None) -> tuple[str | None, str]:
    """(reasoning, answer) of a completion: `<think>`, `<answer>`, LLaVA-CoT's four tags and `\\boxed{}` taken off.

    Args:
        changes: where the kinds of tags that were taken off are added.
    """
    changes = set() if changes is None else changes
    reasoning: str | None = None
    if conclusion := _CONCLUSION.search(text):
        changes.add("<CONCLUSION> taken off")
        thought = _REASONING.search(text)
        reasoning = thought[1].strip() if thought else text[: conclusion.start()].strip() or None
        text = conclusion[1]
    if thought := _THINK.match(text):
        changes.add("<think> taken off")
        reasoning, text = thought[1].strip() or None, text[thought.end() :]
    answers = list(_ANSWER.finditer(text))
    if len(answers) == 1:
        changes.add("<answer> taken off")
        reasoning = reasoning or text[: answers[0].start()].strip() or None
        text = answers[0][1]
    if len(boxed := _BOXED.findall(text)) == 1:
        changes.add("\\boxed taken off")
        if reasoning is None and not _LEAD.fullmatch(_DOLLARS.sub("", text)):
            reasoning = _DOLLARS.sub(lambda found: found[1], text).strip()
        text = boxed[0]
    return reasoning, text.strip()
