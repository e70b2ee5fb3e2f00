"""`robust` against a fixed table of answers, each labelled by a careful reader: `python tests/unit/test_scorer_cases.py`
prints false accepts and false rejects by class."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from toasterft.scoring import robust

CASES = [
    json.loads(line)
    for line in (Path(__file__).parent / "scorer_cases.jsonl").read_text(encoding="utf-8").split("\n")
    if line
]
MOST_FALSE_ACCEPTS, MOST_FALSE_REJECTS = 0.005, 0.03  # shares of the wrong and of the right answers


def mistakes():
    return [case for case in CASES if robust(case["prediction"], case["gold"]) is not case["right"]]


def test_few_answers_are_judged_wrongly():
    wrong = mistakes()
    named = "\n".join(f"{each['class']}: {each['prediction']!r} for {each['gold']!r}" for each in wrong)
    labels, missed = Counter(case["right"] for case in CASES), Counter(case["right"] for case in wrong)
    assert min(labels.values()) > 150
    assert missed[False] <= MOST_FALSE_ACCEPTS * labels[False], named
    assert missed[True] <= MOST_FALSE_REJECTS * labels[True], named


if __name__ == "__main__":
    labels, missed = (
        Counter((case["class"], case["right"]) for case in cases) for cases in (CASES, mistakes())
    )
    print(f"{'class':32} {'false accepts':>14} {'false rejects':>14}")
    for name in dict.fromkeys(case["class"] for case in CASES):
        accepts, rejects = (f"{missed[name, right]} of {labels[name, right]}" for right in (False, True))
        print(f"{name:32} {accepts:>14} {rejects:>14}")
