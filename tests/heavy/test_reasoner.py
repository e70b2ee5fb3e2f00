"""One model reasons and another answers; and the recipes of DyME's other tasks learn by their own scorers."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from fake_runs import folders, samples
from PIL import Image

from toasterft import recipe
from toasterft.evaluation import answer


@pytest.fixture
def planted(monkeypatch):
    """Let the models write these texts, question by question; what they were given to read is kept."""
    read: list[str] = []

    def plant(texts):
        left = iter(texts)

        def complete(inputs, items, prompts, writing, **_):
            tokenizer = inputs.loaded.processor.tokenizer
            read.extend(tokenizer.batch_decode(prompts(items).ids))
            for place in range(len(items)):
                yield place, [[*tokenizer(next(left))["input_ids"], writing.end_ids[0]]]

        monkeypatch.setattr(answer, "complete", complete)
        return read

    return plant


def test_one_model_answers_from_the_reasoning_of_another(
    tiny_model, questions, run_cli, homes, planted, tmp_path
):
    thoughts = [
        "<think>Bar 0 is flat.</think><answer>9</answer>",
        "I see that bar 1 is one high.",  # no tags: all of it is reasoning
        "<answer>2</answer>",  # none: the other model is on its own
        "<think>It ends in </answer> 3.</think><answer>3</answer>",
        "<think></think><answer>4</answer>",
        "<think>cut off",
    ]
    answers = ["0</answer>", "1</answer>", "<think>two</think><answer>2</answer>", "8</answer>", "<answer>4"]
    read = planted([*thoughts, *answers, "5</answer>"])
    a, b = tmp_path / "a", tmp_path / "b"
    for name in (a, b):
        name.symlink_to(tiny_model())
    done = run_cli("eval", b, "--reasoner", a, "--data", questions, "--json", "--quiet")
    assert done.code == 0, done.err
    found = done.json()
    by_a, by_b = folders(homes / "runs")
    record = json.loads((by_b / "run.json").read_text())
    assert record["reasoner"] == found["reasoner"]
    assert (record["reasoner"]["run"], record["reasoner"]["without_reasoning"]) == (str(by_a), 2)
    assert yaml.safe_load((by_b / "recipe.yaml").read_text())["reasoner"] == str(a)
    assert json.loads((by_a / "run.json").read_text())["eval"]["n"] == 6

    prompts = [re.sub(r".*Assistant:", "", text, flags=re.DOTALL) for text in read[6:]]
    assert [re.sub(r"\s+", " ", text).strip() for text in prompts] == [
        "<think>Bar 0 is flat.</think><answer>",
        "<think>I see that bar 1 is one high.</think><answer>",
        "",
        "<think>It ends in 3.</think><answer>",
        "",
        "<think>cut off</think><answer>",
    ]
    written = samples(by_b)
    assert [row["answer"] for row in written] == ["0", "1", "2", "8", "4", "5"]
    assert [row["well_formed"] for row in written] == [True, True, True, True, False, True]
    assert written[1]["reasoning"] == "I see that bar 1 is one high."
    assert found["scores"]["robust"]["value"] == pytest.approx(5 / 6)
    assert [row["reasoner_tokens"] for row in written] == [row["completion_tokens"] for row in samples(by_a)]
    assert all(row["completion_tokens"] > row["reasoner_tokens"] for row in written)

    # A's answers are stored: a second pipeline takes them from there.
    planted([*answers, "5</answer>"])
    shown = run_cli("eval", b, "--reasoner", a, "--data", questions, "--quiet")
    assert shown.code == 0, shown.err
    assert f"reasoningfrom{by_a};2of6hadnone" in "".join(shown.out.split())
    assert len(folders(homes / "runs")) == 3


@pytest.mark.parametrize("model_type", ["idefics3", "qwen2_5_vl"])
def test_the_pipeline_runs_on_features_and_on_pixels(model_type, tiny_model, questions, run_cli, homes):
    words = ["--data", questions, "--limit", 3, "max_completion_length=6", "--json"]
    done = run_cli("eval", tiny_model(model_type), "--reasoner", tiny_model(), *words)
    assert done.code == 0, done.err
    texts = [row["text"].strip() for row in samples(folders(homes / "runs")[-1])]
    assert all(text.startswith("<think>") and "</think><answer>" in text for text in texts), texts


def test_a_reasoner_that_is_not_there_leaves_nothing_behind(tiny_model, questions, run_cli, homes):
    done = run_cli("eval", tiny_model(), "--reasoner", "nobody", "--data", questions)
    assert done.code == 2
    assert "nobody: no such model" in done.err
    assert not folders(homes / "runs")


@pytest.mark.parametrize(
    ("name", "task", "asked", "right"),
    [
        ("dyme-medical", "yesno-open", {"question": "Is it a lung?", "answer": "yes"}, "Yes, it is."),
        (
            "dyme-geometry",
            "math",
            {
                "question": "How long? Choices: A: 1 B: 2",
                "answer": "B",
                "task": "choice",
                "choices": ["1", "2"],
            },
            "2",
        ),
    ],
)
def test_dyme_s_other_tasks_learn_by_their_own_scorer(
    name, task, asked, right, tiny_model, tmp_path, run_cli, quick, monkeypatch
):
    from toasterft.scoring import rewards

    folder = tmp_path / "task"
    folder.mkdir()
    Image.new("RGB", (32, 32), "red").save(folder / "x.png")
    row = {"image": "x.png", "reasoning": "One sees it at once.", **asked}
    (folder / "train.jsonl").write_text("\n".join(json.dumps({"id": n, **row}) for n in range(4)))
    (folder / "card.json").write_text(json.dumps({"task": task}))
    earned = []
    honest = rewards.accuracy

    def accuracy(completion, example):
        said = rewards.Completion("", answer.parse(f"<answer>{right}</answer>", recipe.Prompt()), 1, True, 9)
        earned.append((example.extra["task"], honest(said, example)))
        return honest(completion, example)

    monkeypatch.setitem(rewards.REWARDS, "accuracy", accuracy)
    done = run_cli("dyme", name, "--model", tiny_model(), "--data", folder, *quick, "--json", "max_steps=1")
    assert done.code == 0, done.err
    assert set(earned) == {(asked.get("task", task), 1.0)}
