"""eval and ask: on a base model, on a run, with suffixes; the same answers every time."""

from __future__ import annotations

import json


def test_eval_reports_rates_with_intervals(tiny_model, charts_folder, run_cli, homes):
    done = run_cli("eval", tiny_model(), "--data", charts_folder, "--json", "max_completion_length=6")
    assert done.code == 0, done.err
    found = done.json()
    assert {"n", "scores", "by_kind", "format_rate", "mean_completion_tokens"} <= found.keys()
    assert found["scores"].keys() == {"robust", "relaxed", "contains"}
    assert all(rate["low"] <= rate["value"] <= rate["high"] for rate in found["scores"].values())
    assert found["n"] == 4  # the test split
    (folder,) = (homes / "runs").iterdir()
    record = json.loads((folder / "run.json").read_text())
    assert (record["method"], record["status"], record["data_split"]) == ("eval", "done", "test")


def test_batched_answers_equal_single_ones(tiny_model, charts_folder, run_cli, homes):
    texts = []
    for size in (1, 3):
        words = ["max_completion_length=12", f"per_device_eval_batch_size={size}"]
        done = run_cli(
            "eval", tiny_model(), "--data", charts_folder, "--json", "--out", homes / f"e{size}", *words
        )
        assert done.code == 0, done.err
        rows = map(json.loads, (homes / f"e{size}" / "samples.jsonl").read_text().splitlines())
        texts.append([row["text"] for row in rows])
    assert texts[0] == texts[1]


def test_step_and_suffix_reach_the_prompt(tiny_model, charts_folder, run_cli, monkeypatch):
    from toasterft.data.chat import Chat

    prompts = []
    honest = Chat.question
    monkeypatch.setattr(
        Chat, "question", lambda self, *a, **k: prompts.append(honest(self, *a, **k)) or prompts[-1]
    )
    words = ["--limit", 1, "--step", "--suffix", "Be quick.", "max_completion_length=2"]
    assert run_cli("eval", tiny_model(), "--data", charts_folder, *words).code == 0
    assert any("Be quick. Let's think step by step.<end_of_utterance>" in prompt for prompt in prompts)


def test_ask_answers_and_never_writes(tiny_model, charts_folder, run_cli, homes):
    picture = next((charts_folder / "images").glob("*.png"))
    done = run_cli("ask", tiny_model(), picture, "Which bar is high?", "--json", "max_completion_length=5")
    assert done.code == 0, done.err
    assert {"answer", "reasoning", "text", "completion_tokens"} <= done.json().keys()
    assert not (homes / "runs").exists()
    assert run_cli("ask", tiny_model(), picture, "Which?", "--quiet", "max_completion_length=5").out.strip()


def test_a_run_keeps_its_prompt_settings(tiny_model, charts_folder, run_cli, quick, homes):
    words = [*quick, "prompt.think_tag=why", "prompt.answer_tag=so", "image_longest_edge=32"]
    record = run_cli("sft", "--model", tiny_model(), "--data", charts_folder, "--json", *words).json()
    notes = json.loads((homes / "runs" / record["id"] / "toasterft.json").read_text())
    assert notes["prompt"]["think_tag"] == "why"
    assert notes["image_longest_edge"] == 32

    from toasterft import recipe
    from toasterft.engine import open_engine
    from toasterft.engine.open_model import open_model
    from toasterft.jobs import prepare
    from toasterft.progress import Silent

    wanted = recipe.load("ask", None, [], {"model": record["id"]})
    session = open_model(
        prepare.prepare_use(wanted, homes / "runs").settings,
        wanted,
        open_engine("plain"),
        Silent(),
        None,
        train=False,
    )
    assert session.chat.prompt.answer_tag == "so"
    assert session.loaded.processor.image_processor.size["longest_edge"] == 32
