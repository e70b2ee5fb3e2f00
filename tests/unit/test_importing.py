"""Public data sets in their own layouts, each written small by the test, come in as folders `--data` reads."""

from __future__ import annotations

import csv
import json

import pytest
from PIL import Image

from toasterft.data import sources
from toasterft.data.importers.discover import Table
from toasterft.scoring import tables as cot_tables


def picture(path, colour="red", size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def as_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def as_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def taken(run_cli):
    """Import a folder and read it back: the card, and the examples of a split."""

    def call(source, *words):
        done = run_cli("data", "import", source, "mine", "--json", "--quiet", *words)
        assert done.code == 0, done.err
        card = done.json()
        assert sorted(card["sha256"]) == sorted(f"{split}.jsonl" for split in card["splits"])
        return card, {split: sources.load("mine", split=split).examples for split in card["splits"]}

    return call


def test_chartqa_official_folders(taken, tmp_path):
    root = tmp_path / "ChartQA Dataset"
    for split in ("train", "val", "test"):
        as_json(
            root / split / f"{split}_human.json", [{"imgname": "1.png", "query": "How many? ", "label": "4"}]
        )
        as_json(
            root / split / f"{split}_augmented.json", [{"imgname": "1.png", "query": "Who?", "label": "Ann"}]
        )
        picture(root / split / "png" / "1.png")
        for number in range(60):  # one a picture, and none of them a table
            as_json(
                root / split / "annotations" / f"{number}.json", {"imgname": "1.png", "query": 1, "label": 2}
            )
        (root / split / "tables").mkdir()
        (root / split / "tables" / "1.csv").write_text("Characteristic,Men,Women\n2019,4,5.5\n2020,7\n")
    card, splits = taken(tmp_path)  # the folder around it will do
    assert (card["layout"], card["task"], card["licence"]) == ("chartqa", "chart", "GPL-3.0")
    assert card["splits"] == {"train": 2, "validation": 2, "test": 2}
    human = next(one for one in splits["train"] if one.kind == "human")
    assert (human.question, human.answer, human.id) == ("How many?", "4", "train_human.json[0]")
    table = cot_tables.read(human.facts)
    assert table is not None
    assert [(cell.name, float(cell.value)) for cell in table.cells] == [
        ("Men 2019", 4.0),
        ("Women 2019", 5.5),
        ("Men 2020", 7.0),
    ]
    assert human.images[0].size_px == (40, 30)


def test_chartqa_of_the_hub(taken, tmp_path):
    from datasets import Dataset, Features, List, Value
    from datasets import Image as Picture

    rows = {
        "image": [str(picture(tmp_path / "a.png")), str(picture(tmp_path / "b.png", "blue"))],
        "query": ["How many?", "Who?"],
        "label": [["4"], ["Ann"]],
        "human_or_machine": [0, 1],
    }
    kinds = Features(
        {
            "image": Picture(),
            "query": Value("string"),
            "label": List(Value("string")),
            "human_or_machine": Value("int64"),
        }
    )
    (tmp_path / "repo" / "data").mkdir(parents=True)
    table = Dataset.from_dict(rows, features=kinds)
    for split in ("train", "val", "test"):
        table.to_parquet(str(tmp_path / "repo" / "data" / f"{split}-00000-of-00001-abc.parquet"))
    card, splits = taken(tmp_path / "repo", "--images", tmp_path)
    assert (card["layout"], card["task"]) == ("chartqa-hub", "chart")
    assert set(card["splits"]) == {"train", "validation", "test"}
    assert [(one.question, one.answer, one.kind) for one in splits["test"]] == [
        ("How many?", "4", "human"),
        ("Who?", "Ann", "augmented"),
    ]
    assert splits["test"][1].images[0].open().getpixel((1, 1)) == (0, 0, 255)


def test_slake_in_english(taken, tmp_path):
    row = {
        "img_id": 0, "img_name": "xmlab0/source.jpg", "question": "What modality is used?", "answer": "MRI",
        "q_lang": "en", "location": "Abdomen", "modality": "MRI", "answer_type": "OPEN", "base_type": "vqa",
        "content_type": "Modality", "triple": ["vhead", "_", "_"], "qid": 9,
    }  # fmt: skip
    closed = {**row, "question": "Is the lung healthy?", "answer": "No", "answer_type": "CLOSED", "qid": 10}
    chinese = {**row, "question": "这是什么？", "answer": "核磁共振", "q_lang": "zh", "qid": 11}
    for name in ("train", "validate", "test"):
        as_json(tmp_path / f"{name}.json", [row, closed, chinese])
        for one in (row, closed, chinese):
            one["qid"] += 100
    picture(tmp_path / "imgs" / "xmlab0" / "source.jpg")
    as_json(tmp_path / "imgs" / "xmlab0" / "question.json", [row])
    card, splits = taken(tmp_path)
    assert (card["layout"], card["task"]) == ("slake", "yesno-open")
    assert card["splits"] == {"test": 2, "train": 2, "validation": 2}
    assert card["left_out"] == {"not in English": 3}
    assert [(one.id, one.kind, one.answer) for one in splits["train"]] == [
        ("slake-9", "open", "MRI"),
        ("slake-10", "closed", "No"),
    ]
    assert splits["train"][0].extra["task"] == "yesno-open"


def test_geo170k(taken, tmp_path):
    asked = (
        "<image>\nFirst perform reasoning, then finally select the question from the choices in the following "
        "format: Answer: xxx.\nQuestion: Angle 1 is 32°. What is angle 2?\nChoices:\nA: 32°\nB: 68°\nC: 58°\nD: 34°"
    )
    said = "Since a is parallel to b, angle 2 = 90° - 32° = 58°. So the answer is C.\nAnswer:C"
    turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": said}]
    as_json(tmp_path / "qa_tuning.json", [{"image": "geo3k/1.png", "conversations": turns}])
    caption = [
        {"from": "human", "value": "<image>\nDescribe it."},
        {"from": "gpt", "value": "Two lines."},
    ]
    as_json(tmp_path / "alignment.json", [{"image": "geo3k/1.png", "conversations": caption}])
    picture(tmp_path / "images" / "geo3k" / "1.png")
    card, splits = taken(tmp_path)
    assert (card["layout"], card["task"], card["unread_files"]) == ("geo170k", "math", ["alignment.json"])
    (one,) = splits["train"]
    assert one.question.startswith("Angle 1 is 32°.")
    assert one.question.endswith("D: 34°")
    assert (one.answer, one.reasoning) == ("C", said.removesuffix("\nAnswer:C"))
    assert one.extra == {"task": "choice", "choices": ["32°", "68°", "58°", "34°"]}


def test_mathverse(taken, tmp_path):
    row = {
        "sample_index": "1", "problem_index": "1", "problem_version": "Text Dominant",
        "question": "The size of angle CED is ()\nChoices:\nA:40°\nB:60°\nC:120°\nD:140°",
        "image": "images_version_1-4/image_1.png", "answer": "D", "question_type": "multi-choice",
        "metadata": {"split": "testmini", "subject": "Plane Geometry"}, "query_wo": "…", "query_cot": "…",
    }  # fmt: skip
    free = {
        **row,
        "sample_index": "2",
        "question": "What is 2 + 3?",
        "answer": "5",
        "question_type": "free-form",
    }
    seen = {**row, "sample_index": "3", "problem_version": "Vision Only", "question": ""}
    seen["query_wo"] = "According to the question shown in the image, give the option letter."
    as_json(tmp_path / "testmini.json", [row, free, seen])
    picture(tmp_path / "images" / "images_version_1-4" / "image_1.png")
    card, splits = taken(tmp_path)
    assert (card["layout"], card["task"], card["splits"]) == ("mathverse", "math", {"test": 3})
    choice, number, vision = splits["test"]
    assert choice.extra == {"task": "choice", "choices": ["40°", "60°", "120°", "140°"]}
    assert (number.answer, number.extra) == ("5", {"task": "math"})
    assert (vision.question, vision.kind) == (seen["query_wo"], "Vision Only")


def test_aokvqa_with_coco(taken, tmp_path):
    row = {
        "split": "train", "image_id": 461751, "question_id": "22jb", "question": "What is in his mouth?",
        "choices": ["toothpick", "food", "popsicle stick", "cigarette"], "correct_choice_idx": 3,
        "direct_answers": ["cigarette"] * 10, "difficult_direct_answer": False,
        "rationales": ["He holds a lit cigarette.", "Smoke."],
    }  # fmt: skip
    as_json(tmp_path / "aokvqa_v1p0_train.json", [row])
    as_json(tmp_path / "aokvqa_v1p0_val.json", [{**row, "split": "val", "image_id": 7, "question_id": "v"}])
    hidden = {key: row[key] for key in ("image_id", "question_id", "question", "choices")}
    as_json(tmp_path / "aokvqa_v1p0_test.json", [hidden])
    picture(tmp_path / "coco" / "train2017" / "000000461751.jpg")
    picture(tmp_path / "coco" / "val2017" / "000000000007.jpg")
    card, splits = taken(tmp_path, "--images", tmp_path / "coco")
    assert (card["layout"], card["task"]) == ("a-okvqa", "choice")
    assert card["splits"] == {"train": 1, "validation": 1}
    assert card["unread_files"] == ["aokvqa_v1p0_test.json"]
    (one,) = splits["train"]
    assert (
        one.question
        == "What is in his mouth?\nChoices:\nA: toothpick\nB: food\nC: popsicle stick\nD: cigarette"
    )
    assert (one.answer, one.reasoning, one.extra["choices"]) == (
        "cigarette",
        "He holds a lit cigarette.",
        row["choices"],
    )


def test_aokvqa_of_the_hub_has_answers_as_text_and_none_for_its_test(taken, tmp_path):
    from datasets import Dataset, Features, List, Value
    from datasets import Image as Picture

    kinds = Features(
        {
            "image": Picture(), "question_id": Value("string"), "question": Value("string"),
            "choices": List(Value("string")), "correct_choice_idx": Value("int8"),
            "direct_answers": Value("string"), "rationales": List(Value("string")),
        }
    )  # fmt: skip
    row = {
        "image": [str(picture(tmp_path / "a.png"))], "question_id": ["q"], "question": ["What?"],
        "choices": [["a", "b"]], "direct_answers": ["['b', 'b']"], "rationales": [["It is b."]],
    }  # fmt: skip
    (tmp_path / "repo").mkdir()
    for split, place in (("train", 1), ("test", None)):
        Dataset.from_dict({**row, "correct_choice_idx": [place]}, features=kinds).to_parquet(
            str(tmp_path / "repo" / f"{split}-00000-of-00001.parquet")
        )
    card, splits = taken(tmp_path / "repo", "--images", tmp_path)
    assert (card["layout"], card["left_out"]) == ("a-okvqa", {"no answer published": 1})
    assert splits["train"][0].answer == "b"


def test_gsm8k_has_no_images(taken, tmp_path):
    row = {
        "question": "She sold 48 clips in April and half as many in May. How many in all?",
        "answer": "In May she sold 48/2 = <<48/2=24>>24 clips.\nIn all 48+24 = <<48+24=72>>72.\n#### 72",
    }
    as_jsonl(tmp_path / "train.jsonl", [row])
    as_jsonl(tmp_path / "test.jsonl", [row])
    card, splits = taken(tmp_path)
    assert (card["layout"], card["task"]) == ("gsm8k", "math")
    (one,) = splits["train"]
    assert (one.images, one.answer) == ((), "72")
    assert one.reasoning == "In May she sold 48/2 = 24 clips.\nIn all 48+24 = 72."


def test_emoset_and_plain_class_folders(taken, run_cli, tmp_path):
    for label in ("awe", "sadness"):
        picture(tmp_path / "emoset" / "image" / label / f"{label}_1.jpg")
    for split, label in (("train", "awe"), ("val", "sadness"), ("test", "awe")):
        row = [label, f"image/{label}/{label}_1.jpg", f"annotation/{label}/{label}_1.json"]
        as_json(tmp_path / "emoset" / f"{split}.json", [row])
    as_json(tmp_path / "emoset" / "info.json", {"emotion": {"label2idx": {"awe": 0, "sadness": 1}}})
    card, splits = taken(tmp_path / "emoset")
    assert (card["layout"], card["task"]) == ("emoset", "class")
    assert splits["validation"][0].answer == "sadness"
    assert splits["train"][0].question == "Which of these is it: awe, sadness?"
    assert splits["train"][0].extra == {"task": "class", "choices": ["awe", "sadness"]}

    for split, label in (("train", "awe"), ("train", "joy"), ("test", "joy")):
        picture(tmp_path / "folders" / split / label / "1.png")
    done = run_cli("data", "import", tmp_path / "folders", "other", "--json", "--quiet")
    assert done.json()["layout"] == "class-folders"
    assert done.json()["splits"] == {"test": 1, "train": 2}
    (test,) = sources.load("other", split="test").examples
    assert (test.answer, test.extra["task"]) == ("joy", "class")


@pytest.mark.parametrize("form", ["llava", "trl", "trl-prompt", "rows"])
def test_what_toasterft_reads_anyway(form, taken, tmp_path):
    picture(tmp_path / "images" / "a.png")
    said = "<think>red = 7.</think><answer>7</answer>"
    rows = {
        "llava": {
            "image": "a.png",
            "conversations": [
                {"from": "human", "value": "<image>\nHow many?"},
                {"from": "gpt", "value": said},
            ],
        },
        "trl": {
            "images": ["a.png"],
            "messages": [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": said}],
        },
        "trl-prompt": {
            "images": ["a.png"],
            "prompt": [{"role": "user", "content": "How many?"}],
            "completion": [{"role": "assistant", "content": said}],
        },
        "rows": {"image": "a.png", "question": "How many?", "answer": "7", "reasoning": "red = 7."},
    }
    as_jsonl(tmp_path / "train.jsonl", [rows[form]])
    card, splits = taken(tmp_path)
    assert card["layout"] == form
    (one,) = splits["train"]
    assert (one.question, one.reasoning, one.answer) == ("How many?", "red = 7.", "7")
    assert one.images[0].size_px == (40, 30)


def test_columns_named_by_hand_of_a_csv(taken, run_cli, tmp_path):
    picture(tmp_path / "pics" / "a.png")
    with (tmp_path / "table.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow(["nr", "file", "frage", "antwort", "weg"])
        writer.writerow(["17", "a.png", 'Which "bar", then?', "the red\none", ""])
        writer.writerow(["18", "", "What is 1+1?", "2", "1+1 = 2."])
    words = ("--question-column", "frage", "--answer-column", "antwort", "--image-column", "file")
    words += (
        "--reasoning-column",
        "weg",
        "--id-column",
        "nr",
        "--images",
        tmp_path / "pics",
        "--task",
        "math",
    )
    card, splits = taken(tmp_path / "table.csv", *words)
    assert (card["task"], card["splits"]) == ("math", {"train": 2})
    shown, bare = splits["train"]
    assert (shown.id, shown.question, shown.answer, shown.reasoning) == (
        "17",
        'Which "bar", then?',
        "the red\none",
        None,
    )
    assert len(shown.images) == 1
    assert (bare.images, bare.reasoning) == ((), "1+1 = 2.")

    done = run_cli(
        "data", "import", tmp_path / "table.csv", "x", "--question-column", "q", "--answer-column", "a"
    )
    assert done.code == 2
    assert "nr, file, frage, antwort, weg" in done.err
    done = run_cli("data", "import", tmp_path / "table.csv", "x", "--question-column", "q")
    assert "--answer-column" in done.err


# --- what goes wrong -------------------------------------------------------------------------


def test_a_few_bad_rows_are_left_out_and_listed(taken, tmp_path):
    picture(tmp_path / "a.png")
    good = {"image": "a.png", "question": "Which?", "answer": "red"}
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:20])
    bad = [
        {**good, "id": "gone", "image": "gone.png"},
        {**good, "id": "cut", "image": "cut.png"},
        {**good, "id": "far", "image": "https://example.com/a.png"},
    ]
    as_jsonl(tmp_path / "train.jsonl", [{**good, "id": f"q{n}"} for n in range(97)] + bad)
    card, splits = taken(tmp_path)
    assert len(splits["train"]) == 97
    assert {row["id"] or row["where"] for row in card["unreadable"]} == {"gone", "cut", "far"}
    assert any("not fetched from URLs" in row["what"] for row in card["unreadable"])


@pytest.mark.parametrize(("bad", "code"), [(10, 0), (11, 2)])
def test_a_twentieth_of_the_rows_may_be_bad(bad, code, run_cli, tmp_path):
    rows = [{"question": f"{n}+1?", "answer": str(n + 1)} for n in range(200 - bad)]
    rows += [{"image": f"{n}.png", "question": "Which?", "answer": "red"} for n in range(bad)]
    as_jsonl(tmp_path / "train.jsonl", rows)
    assert run_cli("data", "import", tmp_path / "train.jsonl", "mine").code == code


def test_too_many_bad_rows_mean_that_nothing_is_written(run_cli, homes, tmp_path):
    rows = [{"image": f"{n}.png", "question": "Which?", "answer": "red"} for n in range(10)]
    as_jsonl(tmp_path / "train.jsonl", rows)
    done = run_cli("data", "import", tmp_path / "train.jsonl", "mine")
    assert done.code == 2
    assert "10 of 10 rows cannot be used" in done.err
    assert "train.jsonl:1: no picture 0.png" in done.err
    assert "--images DIR" in done.err
    assert not list((homes / "data").rglob("*")), "something was left behind"


def test_ids_that_repeat_are_told_apart(taken, tmp_path):
    as_jsonl(
        tmp_path / "train.jsonl", [{"id": "x", "question": f"{n}+1?", "answer": str(n + 1)} for n in range(3)]
    )
    _, splits = taken(tmp_path)
    assert [one.id for one in splits["train"]] == ["x", "x#2", "x#3"]


def test_what_lies_beside_the_splits_is_not_read(taken, tmp_path):
    row = {"question": "1+1?", "answer": "2"}
    as_jsonl(tmp_path / "train.jsonl", [row])
    as_jsonl(tmp_path / "rejects.jsonl", [{**row, "reason": "answer"}])
    card, _ = taken(tmp_path)
    assert (card["splits"], card["unread_files"]) == ({"train": 1}, ["rejects.jsonl"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere"], ["nowhere", "no file or folder here"]),
        (["empty"], ["the layout is not known", "--question-column"]),
        (["rows.jsonl", "--format", "slaek"], ["no layout 'slaek'", "did you mean slake"]),
        (["rows.jsonl", "--format", "slake"], ["has the columns", "img_name"]),
        (["rows.jsonl", "--task", "charts"], ["no task 'charts'", "did you mean chart"]),
        (["rows.jsonl", "--split", "dev"], ["no split 'dev'", "train"]),
    ],
)
def test_mistakes_are_explained(words, says, run_cli, homes, tmp_path):
    (tmp_path / "empty").mkdir()
    as_jsonl(tmp_path / "rows.jsonl", [{"question": "1+1?", "answer": "2"}])
    source = words[0] if words[0] == "nowhere" else tmp_path / words[0]
    done = run_cli("data", "import", source, "mine", *words[1:])
    assert done.code == 2, done.out
    assert "Traceback" not in done.err
    for expected in says:
        assert expected in done.err, done.err
    assert not (homes / "data" / "mine").exists()


def test_nothing_is_overwritten(run_cli, homes, tmp_path):
    as_jsonl(tmp_path / "rows.jsonl", [{"question": "1+1?", "answer": "2"}])
    assert run_cli("data", "import", tmp_path / "rows.jsonl", "mine").code == 0
    before = (homes / "data" / "mine" / "card.json").read_bytes()
    done = run_cli("data", "import", tmp_path / "rows.jsonl", "mine")
    assert (done.code, (homes / "data" / "mine" / "card.json").read_bytes()) == (2, before)
    assert "not an empty folder" in done.err
    assert run_cli("data", "import", tmp_path / "rows.jsonl", "../mine").code == 2


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train_human.json", "train"),
        ("aokvqa_v1p0_val.json", "validation"),
        ("val/annotations.json", "validation"),
        ("testmini.json", "test"),
        ("qa_tuning.json", "train"),
        ("constraints.json", ""),
        ("info.json", ""),
    ],
)
def test_splits_by_name(name, split, tmp_path):
    assert Table(name, tmp_path, tmp_path, lambda: iter(())).split == split
