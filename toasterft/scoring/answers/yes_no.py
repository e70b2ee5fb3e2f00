"""Yes or no, and short answers without a fixed set: medical questions as in SLAKE and VQA-RAD."""

from __future__ import annotations

import re
from collections import Counter

from toasterft.scoring.answers.values import gold_number, same_amount, stated, tidy

_PARTS = re.compile(r"[,;&]|\band\b", re.IGNORECASE)


def is_closed(gold: str) -> bool:
    """Whether the gold answer is yes or no."""
    return tidy(gold) in ("yes", "no")


def yes_or_no(text: str) -> str | None:
    """`yes` or `no` where `text` is one of them or opens with it and does not hold the other, else None."""
    words = tidy(stated(text)).split()
    if not words or words[0] not in ("yes", "no"):
        return None
    other = "no" if words[0] == "yes" else "yes"
    return None if other in words or words[1:2] == ["or"] else words[0]


def short_answer(prediction: str, gold: str) -> bool:
    """Equal once made comparable: case, articles, punctuation, spacing, number words, the order of a list.

    A number must be the same number, without tolerance; its unit may be left out but not changed.
    """
    if prediction.strip() == gold.strip():
        return True
    answer = stated(prediction)
    if (number := gold_number(gold)) is not None:
        return same_amount(answer, number)
    wanted = _parts(gold)
    return bool(wanted) and _parts(answer) == wanted


def _parts(text: str) -> Counter[str]:
    # Without spaces: "x-ray", "x ray" and "xray" are one word.
    found = (tidy(part).replace(" ", "") for part in _PARTS.split(text))
    return Counter(part for part in found if part)


def yes_no_or_short(prediction: str, gold: str) -> bool:
    """Yes and no where the gold is one of them, a short answer elsewhere."""
    return yes_or_no(prediction) == tidy(gold) if is_closed(gold) else short_answer(prediction, gold)


def token_recall(prediction: str, gold: str) -> float:
    """Share of the gold's words that the prediction holds, each as often as the gold has it.

    The figure that LLaVA-Med (Li et al. 2023, arXiv 2306.00890) and its followers report for open questions; both
    texts are made comparable first. It forgives any further words, so it is reported, never rewarded.
    """
    wanted = Counter(tidy(gold).split())
    if not wanted:
        return 0.0
    return (wanted & Counter(tidy(prediction).split())).total() / wanted.total()
