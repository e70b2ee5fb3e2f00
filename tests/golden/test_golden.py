"""Today's code against the goldens; `python tests/golden/record.py` says the same, and stores new ones."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import record


@pytest.mark.parametrize(
    "part", [pytest.param(name, marks=[pytest.mark.soak] * (name in record.SLOW)) for name in record.PARTS]
)
def test_nothing_differs(part):
    try:
        found = record.compare(part)
    except record.NotHere as missing:
        pytest.skip(str(missing))
    more = f"\n… {len(found) - record.SHOWN} more" if len(found) > record.SHOWN else ""
    assert not found, "\n".join([f"{len(found)} differences", *found[: record.SHOWN]]) + more


def test_a_difference_is_named():
    old = {"a": [1, 2.0, {"b": "x"}], "c": None, "d": True}
    assert list(record.differences(old, {"a": [1, 2.000001, {"b": "y"}], "d": 1, "e": 3})) == [
        'a[2] / b: "x" → "y"', "c: gone (null)", "d: true → 1", "e: new (3)",
    ]  # fmt: skip
