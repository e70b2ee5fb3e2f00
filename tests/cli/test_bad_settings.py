"""Every recipe field with values that nobody means: a message or a plan, never a traceback, and nothing is left behind."""

from __future__ import annotations

import json
from itertools import product

import pytest

from toasterft import recipe
from toasterft.data import charts
from toasterft.recipe.validation import fields

VALUES = (
    "", "nan", ".inf", "-1", "0", "1e38", "1e-320", "9" * 25, "true", "null", "[]", "{}", "[nope]", "{a: 1}", "nope",
    "x" * 300, "\x00", "../..", "!!python/object:os.system {}", "&a [*a]", "[[[[", "2026-01-01", "1_0", "0x10",
)  # fmt: skip
METHODS = ("sft", "dpo", "grpo", "dyme", "eval")
CASES = [
    (method, name, value)
    for method in METHODS
    for name, value in product(fields(recipe.RECIPES[method]), VALUES)
]


@pytest.fixture
def words(tmp_path):
    """What is typed before the setting, by method; none of them trains."""
    drawn = charts.write_dataset(tmp_path / "charts", n=4, seed=1, per_chart=1, size_px=(64, 64))
    pair = {"question": "Which?", "answer": "red", "rejected": "blue", "reasoning": "a > b."}
    (tmp_path / "pairs.jsonl").write_text(f"{json.dumps(pair)}\n" * 4)
    found = {method: (method, "--data", drawn, "--dry-run") for method in METHODS}
    found["dpo"] = ("dpo", "--data", tmp_path / "pairs.jsonl", "--dry-run")
    found["eval"] = ("estimate", "eval", "--data", drawn)
    return {method: (*each, "--model", "toast-tiny") for method, each in found.items()}


@pytest.mark.parametrize(
    "cases",
    [
        pytest.param(CASES[::151], id="some"),
        *(pytest.param(CASES[part::8], id=f"all-{part}", marks=pytest.mark.soak) for part in range(8)),
    ],
)
@pytest.mark.timeout(1800)
def test_bad_settings(cases, words, run_cli, tmp_path, homes):
    wrong = []
    before = sorted(path for path in tmp_path.rglob("*") if "cache" not in path.parts)
    for method, name, value in cases:
        try:
            done = run_cli(*words[method], f"{name}={value}")
        except Exception as error:
            wrong.append(f"{method} {name}={value[:30]!r}: {type(error).__name__}: {str(error)[:200]}")
            continue
        if done.code not in (0, 2) or (done.code == 2 and "✗ " not in done.err):
            wrong.append(f"{method} {name}={value[:30]!r}: exit {done.code}: {done.err[:200]}")
    assert not wrong, "\n".join(wrong)
    assert sorted(path for path in tmp_path.rglob("*") if "cache" not in path.parts) == before
