"""Pipelines: stages that start from one another, class-folder data, stop rules, resuming at the right stage."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from toasterft import recipe
from toasterft.errors import RecipeError

QUICK = (
    "max_completion_length: 6, eval_limit: 6, lora: {r: 4}, per_device_train_batch_size: 4, "
    "gradient_accumulation_steps: 1, max_length: 4000"
)


@pytest.fixture
def classes(tmp_path):
    """Image folders named by their label, as EmoSet."""
    for split, count in (("train", 4), ("test", 2)):
        for label, colour in (("calm", "blue"), ("awe", "red"), ("fear", "green")):
            folder = tmp_path / "emo" / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (40 + number, 32), colour).save(folder / f"{number}.png")
    return tmp_path / "emo"


def test_two_stages_on_class_folders(tiny_model, classes, run_cli, tmp_path):
    base = tiny_model()
    file = tmp_path / "two.yaml"
    file.write_text(
        f"method: train\nmodel: {base}\ndata: {classes}\nstages:\n"
        f"  - {{method: sft, max_steps: 2, {QUICK}}}\n"
        f"  - {{method: grpo, max_steps: 40, num_generations: 4, beta: 0.04, rewards: {{length: 1.0}}, "
        f"until: completions/mean_length <= 100, {QUICK}}}\n"
    )
    out = tmp_path / "pipe"
    done = run_cli("train", file, "--out", out, "--quiet", "--price", 3600, "--budget", 600)
    assert done.code == 0, done.err
    first, second = (json.loads((out / name / "run.json").read_text()) for name in ("1-sft", "2-grpo"))
    assert second["model_adapter"] == str(out / "1-sft")
    # The rule holds from the first batch on; it is asked once ten batches are there to average.
    steps = [json.loads(line)["step"] for line in (out / "2-grpo" / "metrics.jsonl").read_text().splitlines()]
    assert max(steps) == 10
    for record in (first, second):
        assert set(record["eval"]["by_kind"]) <= {"calm", "awe", "fear"}
        assert 0 <= record["eval"]["macro_recall"] <= 1
        assert record["measured"]["usd"] > 0
    assert not run_cli("runs", "--runs-dir", out.parent, "--json").json()["runs"]
    # Taken up again: a stage that is done is left alone, one that is not goes on.
    (out / "2-grpo" / "run.json").write_text(json.dumps(second | {"status": "interrupted"}))
    before = (out / "1-sft" / "run.json").read_text()
    assert run_cli("train", "--resume", out, "--quiet").code == 0
    assert (out / "1-sft" / "run.json").read_text() == before
    assert json.loads((out / "2-grpo" / "run.json").read_text())["status"] == "done"


def test_a_wrong_stage_is_refused_with_its_number(tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text("method: train\nstages:\n  - {method: sft}\n  - {method: grpo, learning_rat: 1}\n")
    with pytest.raises(RecipeError) as caught:
        recipe.load("train", str(file))
    assert "stage 2" in str(caught.value)
    assert "learning_rate" in str(caught.value)


def test_budget_shares_add_up():
    wanted = recipe.load("train", "clgrpo-4stage")
    assert [wanted.share(number) for number in range(4)] == pytest.approx([0.3, 0.1, 0.4, 0.2])
    assert [wanted.stage(number).method for number in range(4)] == ["sft", "grpo", "grpo", "grpo"]
    assert wanted.stage(3).epsilon_high < wanted.stage(3).epsilon


def test_a_pipeline_is_planned_without_weights(run_cli):
    done = run_cli("train", "clgrpo-4stage", "--dry-run", "--json")
    assert done.code == 0, done.err
    assert [stage["method"] for stage in done.json()["stages"]] == ["sft", "grpo", "grpo", "grpo"]
