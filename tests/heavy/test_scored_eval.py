"""What eval records: the official number, the scorers of each task, the quality of the traces."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from PIL import Image

from toasterft import recipe
from toasterft.evaluation import answer
from toasterft.jobs import execute, prepare
from toasterft.progress import Silent
from toasterft.runs import run_folder
from toasterft.scoring import wilson


@pytest.fixture
def planted(monkeypatch):
    """Let the model write these texts, in the order of the questions."""

    def plant(texts):
        left = iter(texts)

        def complete(inputs, items, prompts, writing, **_):
            for place in range(len(items)):
                ids = inputs.loaded.processor.tokenizer(next(left))["input_ids"]
                yield place, [[*ids, writing.end_ids[0]]]

        monkeypatch.setattr(answer, "complete", complete)

    return plant


@pytest.fixture
def dataset(tmp_path):
    """A folder of questions about one small picture."""

    def write(rows, **card):
        folder = tmp_path / "set"
        folder.mkdir()
        Image.new("RGB", (32, 32), "red").save(folder / "x.png")
        lines = [json.dumps({"id": f"q{n}", "image": "x.png", **row}) for n, row in enumerate(rows)]
        (folder / "test.jsonl").write_text("\n".join(lines))
        if card:
            (folder / "card.json").write_text(json.dumps(card))
        return folder

    return write


def evaluated(run_cli, model, data, out):
    done = run_cli(
        "eval", model, "--data", data, "--out", out, "--json", "--quiet", "per_device_eval_batch_size=16"
    )
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    return done.json(), rows


# Written answers with their golds: numbers near and far, the formats that the official script does not forgive.
ANSWERS = [
    ("12", "12"), ("12.5", "12"), ("12.7", "12"), ("11.5", "12"), ("1,200", "1200"), ("1200", "1200"), ("12%", "12"),
    ("12%", "0.12"), ("0.12", "12%"), ("12 %", "12%"), ("$5", "5"), ("5.2", "5"), ("0", "0"), ("0.0", "0"), ("-5", "-5.2"),
    ("2017", "2010"), ("2,017", "2017"), ("Yes", "yes"), ("yes.", "Yes"), ("No", "Yes"), ("Blue", "blue"),
    ("the blue", "blue"),
    ("[1, 2]", "[1, 2]"), ("[2, 1]", "[1, 2]"), ("twelve", "12"), ("1/2", "0.5"), ("0.5", "1/2"), ("", "12"), ("nan", "12"),
    ("1e3", "1000"), ("12.", "12"), ("The answer is 12", "12"),
]  # fmt: skip


def official_relaxed_accuracy(folder):
    """The published measure over a stored prediction file, written from its definition alone.

    Masry et al. 2022 (arXiv 2203.10244), end of section 5.1, as in google-research/pix2struct's metrics.py,
    from which the evaluation harnesses took it: within 5 % of a gold number that is not zero, where a
    trailing % divides by 100; else equal apart from case.
    """
    right = []
    for line in (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        numbers = []
        for text in (row["answer"], row["gold"]):
            try:
                numbers.append(float(text[:-1]) / 100 if text[-1:] == "%" else float(text))
            except ValueError:
                numbers.append(None)
        said, gold = numbers
        if said is None or gold is None or gold == 0:
            right.append(row["answer"].lower() == row["gold"].lower())
        else:
            right.append(abs(said - gold) / abs(gold) <= 0.05)
    return sum(right) / len(right)


@pytest.mark.parametrize("form", ["{}", "<think>So it is.</think><answer>{}</answer>", "<answer>{}"])
def test_the_official_definition_finds_the_number_that_eval_reports(
    tiny_model, run_cli, planted, dataset, tmp_path, form
):
    planted(form.format(said) for said, _ in ANSWERS)
    data = dataset(
        [{"question": f"How much is bar {n}?", "answer": gold} for n, (_, gold) in enumerate(ANSWERS)]
    )
    found, rows = evaluated(run_cli, tiny_model(), data, tmp_path / "run")
    assert [row["answer"] for row in rows] == [said for said, _ in ANSWERS]
    official = official_relaxed_accuracy(tmp_path / "run")
    assert found["scores"]["relaxed"]["value"] == official
    assert 0.3 < official < 0.7
    low, high = wilson(round(official * len(ANSWERS)), len(ANSWERS))
    assert (found["scores"]["relaxed"]["low"], found["scores"]["relaxed"]["high"]) == (low, high)


def test_the_card_chooses_the_scorers(tiny_model, run_cli, planted, dataset, tmp_path):
    planted(["(B)", "<think>hm</think><answer>blue</answer>", "C"])
    choices = {"question": "Which? A. red B. blue", "choices": ["red", "blue"]}
    data = dataset([{**choices, "answer": "B"}] * 3, task="choice")
    found, rows = evaluated(run_cli, tiny_model(), data, tmp_path / "run")
    assert (found["task"], found["scores"].keys()) == ("choice", {"robust"})
    assert found["scores"]["robust"]["value"] == pytest.approx(2 / 3)
    assert found["parse_failures"]["value"] == pytest.approx(1 / 3)
    assert [row["picked"] for row in rows] == ["blue", "blue", None]


def test_a_card_with_an_unknown_task_is_refused(tiny_model, run_cli, dataset, tmp_path):
    data = dataset([{"question": "Which?", "answer": "B"}], task="choices")
    done = run_cli("eval", tiny_model(), "--data", data, "--out", tmp_path / "run")
    assert done.code == 2
    assert "did you mean choice?" in done.err
    assert not (tmp_path / "run").exists()


def test_class_folders_get_recalls_and_a_confusion_matrix(tiny_model, run_cli, planted, tmp_path):
    for label, colour in (("awe", "red"), ("calm", "blue")):
        folder = tmp_path / "emo" / "test" / label
        folder.mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (30 + number, 32), colour).save(folder / f"{number}.png")
    texts = ["awe", "Awe.", "calm", "<answer>It is calm</answer>", "happy", "awe and calm"]
    planted(texts)
    found, _ = evaluated(run_cli, tiny_model(), tmp_path / "emo", tmp_path / "run")
    assert found["task"] == "class"
    assert found["macro_recall"] == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert found["confusion"] == {"labels": ["awe", "calm"], "counts": [[2, 1, 0], [0, 1, 2]]}
    planted(texts)
    shown = run_cli("eval", tiny_model(), "--data", tmp_path / "emo", "--quiet").out
    for expected in ("task class", "macro recall", "50.0 %", "gold ╲ predicted", "no option read"):
        assert expected in shown


FACTS = [{"label": "red", "value": 7}, {"label": "blue", "value": 3}]
TRACES = [
    "<think>red = 7, blue = 3. 7 - 3 = 4. So the answer is 4.</think><answer>4</answer>",
    "<think>red = 7, blue = 5. 7 - 5 = 2. So the answer is 2.</think><answer>2</answer>",  # a fact is wrong
    "<think>red = 7, blue = 3. 7 - 3 = 5. So the answer is 5.</think><answer>5</answer>",  # a step is wrong
    "<answer>4</answer>",
    "4",
    "<think>" + "the bar is red and the bar is blue " * 3 + "</think><answer>4</answer>",
]


def test_the_quality_of_traces_is_recorded_and_shown(tiny_model, run_cli, planted, dataset, tmp_path):
    planted(TRACES)
    asked = {"question": "How much higher is red than blue?", "answer": "4", "facts": FACTS}
    data = dataset([asked] * len(TRACES))
    found, rows = evaluated(run_cli, tiny_model(), data, tmp_path / "run")
    traces = found["traces"]
    assert traces["n"] == 4
    assert traces["without_reasoning"]["value"] == pytest.approx(2 / 6)
    assert traces["repeating"]["value"] == pytest.approx(1 / 6)
    assert (traces["repeating"]["low"], traces["repeating"]["high"]) == wilson(1, 6)
    assert traces["arithmetic_right"]["value"] == 0.75
    assert traces["checked"]["n"] == 4
    assert traces["checked"]["facts_right"]["value"] == 0.5
    assert traces["checked"]["valid"]["value"] == 0.25
    lengths = sorted(row["reasoning_tokens"] for row in rows if row["reasoning"])
    assert traces["tokens"] == {"median": sum(lengths[1:3]) / 2, "p90": lengths[3]}
    assert all(0 < row["reasoning_tokens"] < row["completion_tokens"] for row in rows if row["reasoning"])
    assert [row["faults"] is None for row in rows] == [False, False, False, True, True, False]
    assert any("7 - 3 = 5" in fault for fault in rows[2]["faults"])
    planted(TRACES)
    shown = run_cli("eval", tiny_model(), "--data", data, "--quiet").out
    for expected in (
        "answered without reasoning",
        "33.3 %",
        "repeats itself",
        "length, median",
        "valid: both",
    ):
        assert expected in shown


def test_items_are_known_again_in_a_copy_of_the_data(tiny_model, run_cli, planted, dataset, tmp_path):
    data = dataset([{"question": f"Bar {n}?", "answer": str(n)} for n in range(6)])
    planted(["0", "1", "2", "3", "9", "9"])
    evaluated(run_cli, tiny_model(), data, tmp_path / "a")
    moved = tmp_path / "moved"
    moved.mkdir()
    (moved / "renamed.png").write_bytes((data / "x.png").read_bytes())
    rows = [json.loads(line) for line in (data / "test.jsonl").read_text().splitlines()]
    (moved / "test.jsonl").write_text(
        "\n".join(
            json.dumps({**row, "id": f"new{n}", "image": "renamed.png"}) for n, row in enumerate(rows[2:])
        )
    )
    planted(["2", "3", "4", "9"])
    evaluated(run_cli, tiny_model(), moved, tmp_path / "b")
    found = run_cli("compare", tmp_path / "a", tmp_path / "b", "--json").json()
    assert (found["n"], found["pairs"][0]["only_first_right"], found["pairs"][0]["only_second_right"]) == (
        4,
        0,
        1,
    )
    assert found["differing"]["items"][0]["question"] == "Bar 4?"


def test_sampled_answers_follow_the_seed_pass_by_pass(tiny_model, run_cli, dataset, tmp_path):
    data = dataset([{"question": f"How much is bar {n}?", "answer": "1"} for n in range(6)])

    def texts(name, *words):
        out = tmp_path / name
        settings = ("per_device_eval_batch_size=2", "max_completion_length=8", "--quiet")
        done = run_cli("eval", tiny_model(), "--data", data, "--out", out, *settings, *words)
        assert done.code == 0, done.err
        return [json.loads(line)["text"] for line in (out / "samples.jsonl").read_text().splitlines()]

    greedy, sampled = texts("greedy"), texts("sampled", "temperature=1", "seed=7")
    assert texts("greedy-too", "seed=7") == greedy
    assert sampled != greedy
    assert texts("again", "temperature=1", "seed=7") == sampled
    assert texts("other", "temperature=1", "seed=8") != sampled

    # Cut in the second pass: it and what follows are asked anew, and say what they said.
    folder = tmp_path / "sampled"
    kept = (folder / "samples.jsonl").read_text().splitlines(keepends=True)[:3]
    (folder / "samples.jsonl").write_text("".join(kept))
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"status": "interrupted"}))
    session = prepare.prepare_use(
        recipe.load("eval", str(folder / "recipe.yaml"), [], {}), tmp_path, data_name="set"
    )
    execute.launch(replace(session, resume=run_folder.open_run(str(folder), tmp_path)), Silent())
    assert [
        json.loads(line)["text"] for line in (folder / "samples.jsonl").read_text().splitlines()
    ] == sampled
