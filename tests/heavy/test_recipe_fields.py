"""Every recipe field is read by the code: a field that changes nothing would be a lie."""

from __future__ import annotations

import pytest

from toasterft import recipe
from toasterft.recipe import Section


@pytest.fixture
def read(monkeypatch):
    """Records which fields of which schema are read, outside pydantic's own machinery."""
    import sys

    seen: dict[str, set[str]] = {}
    plain = Section.__getattribute__

    def watching(self, name):
        if not name.startswith("_") and name in type(self).model_fields:
            caller = sys._getframe(1).f_globals.get("__name__", "")
            if caller.startswith("toasterft.") and not caller.startswith("toasterft.recipe."):
                seen.setdefault(type(self).__name__, set()).add(name)
        return plain(self, name)

    monkeypatch.setattr(Section, "__getattribute__", watching)
    return seen


def test_sft_eval_and_ask_read_all_their_fields(read, tiny_model, charts_folder, run_cli, quick, homes):
    done = run_cli("sft", "--model", tiny_model(), "--data", charts_folder, "--json", *quick)
    assert done.code == 0, done.err
    run = homes / "runs" / done.json()["id"]
    assert run_cli("eval", run, "--data", charts_folder, "--limit", 2, "max_completion_length=4").code == 0
    picture = next((charts_folder / "images").glob("*.png"))
    assert run_cli("ask", run, picture, "Which bar is high?", "max_completion_length=4").code == 0
    expected = {
        name: set(getattr(recipe, name).model_fields) for name in ("Sft", "Eval", "Ask", "Lora", "Prompt")
    }
    unread = {name: fields - read.get(name, set()) for name, fields in expected.items()}
    # `ask` has one question about one picture that is named: no rows to limit, nor folders to find theirs in.
    unread["Ask"] -= {"limit", "images"}
    assert not any(unread.values()), unread


def test_policy_methods_read_all_their_fields(read, tiny_model, charts_folder, run_cli, quick):
    for method in ("grpo", "dyme"):
        done = run_cli(
            method, "--model", tiny_model(), "--data", charts_folder, "--json", *quick, "num_generations=4",
            "num_iterations=2", "beta=0.04", "until=reward >= 100",
        )  # fmt: skip
        assert done.code == 0, done.err
    for name in ("Grpo", "Dyme"):
        unread = set(getattr(recipe, name).model_fields) - read.get(name, set())
        assert not unread, (name, unread)


def test_pairs_and_dpo_read_all_their_fields(read, charts_folder, run_cli, quick):
    words = (
        "--from",
        charts_folder,
        "--model",
        "toast-tiny",
        "max_completion_length=24",
        "limit=6",
        "--quiet",
    )
    done = run_cli("cot", "pairs", "wrong", *words)
    assert done.code == 0, done.err
    assert not set(recipe.Pairs.model_fields) - read["Pairs"]
    done = run_cli("dpo", "--model", "toast-tiny", "--data", "wrong", "--quiet", *quick, "max_steps=1")
    assert done.code == 0, done.err
    assert not set(recipe.Dpo.model_fields) - read["Dpo"]
