"""What models write around the form they were asked for: native thinking, code fences, control tokens, other capitals."""

from __future__ import annotations

import re
from typing import Literal

from toasterft.teachers.api import Reply

# `</Think>`, `< ANSWER >`
_TAG = re.compile(r"<\s*(/?)\s*(think|answer)\s*>", re.IGNORECASE)
# White space, "```xml", "<|im_end|>", "</s>", "<end_of_turn>", "[/INST]"
_EDGE = r"(?:\s|```\w*|<\|[^<>|]{1,40}\|>|</?s>|<(?:end_of_turn|start_of_turn|eos|bos|pad)>|\[/?INST\])+"


def wanted_form(text: str) -> str:
    """The `<think>…</think><answer>…</answer>` of a reply, without what models put before and after it."""
    text = _plain_tags(text)
    text = re.sub(rf"^{_EDGE}|{_EDGE}$", "", text)
    if "</think>" in text and "<think>" not in text:
        text = f"<think>{text}"  # some chat templates open the native thinking themselves
    start = text.rfind("<think>")
    native = re.sub(rf"{_EDGE}$", "", text[: max(start, 0)])
    return text[start:] if native.endswith("</think>") else text


def after_thinking(text: str) -> str:
    """A reply without its native thinking; all of it where nothing follows."""
    rest = _plain_tags(text).rpartition("</think>")[2]
    return rest if rest.strip() else text


def missing_form(reply: Reply) -> tuple[Literal["tags", "cut off", "refused", "filtered"], str]:
    """Why a reply lacks the form it should have: the reason rows are counted under, and the endpoint's own words."""
    ending, detail = reply.ending
    if ending == "" or ending == "empty":
        return "tags", detail or f"it wrote: {' '.join(reply.text.split())[:150]}"
    return ending, detail


def formless(reason: str | None, detail: str) -> str | None:
    """What is wrong with the form of a reply, in words; None where it has one, whatever else is wrong with it."""
    if reason in ("tags", "cut off", "refused", "filtered") or (reason == "no facts" and "JSON" in detail):
        return f"{reason}: {detail}"
    return None


def _plain_tags(text: str) -> str:
    return _TAG.sub(lambda tag: f"<{tag[1]}{tag[2].lower()}>", text)
