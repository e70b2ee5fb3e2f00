"""Layouts that people have: the same questions, answers and pictures from each, or a refusal with the reason.

The inputs of public reports lie outside the repository (`shared/cases/field`) and are skipped where they are missing;
the rows written here are of the same kinds.
"""

from __future__ import annotations

import base64
import io
import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from layouts import LAYOUTS, png
from PIL import Image
from transformers import AutoTokenizer

from toasterft.audit.check import Limits, check
from toasterft.data import hub, sources, write
from toasterft.data.chat import Chat
from toasterft.data.example import Example, Turn
from toasterft.data.importers import convert
from toasterft.data.layout.row import read_row
from toasterft.data.layout.tags import unwrap
from toasterft.data.parse_rows import parse_row
from toasterft.data.selection import select_rows
from toasterft.errors import DataError, ModelError
from toasterft.models.lookup import resolve
from toasterft.progress import Silent
from toasterft.recipe import Prompt, Sft
from toasterft.scoring import right

FIELD = (
    Path(os.environ.get("TOASTERFT_SHARED", Path(__file__).parents[2] / ".." / "shared")) / "cases" / "field"
)


def picture_bytes():
    file = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(file, "PNG")
    return file.getvalue()


PNG = picture_bytes()
TEXT = base64.b64encode(PNG).decode()
BAR = {"question": "How tall?", "answer": "12"}
TURNS = [{"from": "human", "value": "<image>\nHow tall?"}, {"from": "gpt", "value": "12"}]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "One.png").write_bytes(PNG)
    return tmp_path


SAME = {
    "image": {**BAR, "image": "images/One.png"},
    **{
        name: {**BAR, name: "images/One.png"}
        for name in (
            "image_path", "img", "img_path", "image_file", "file_name", "filename", "photo", "picture", "image_name",
            "Image", "images_paths", "image_0", "image_filename",
        )
    },
    "a list": {**BAR, "images": ["images/One.png"]},
    "beside empty cells": {**BAR, "images": [None, "images/One.png", ""], "image": None},
    "an object": {**BAR, "image": {"path": "images/One.png", "bytes": None}},
    "bytes": {**BAR, "image": PNG},
    "bytes in an object": {**BAR, "image": {"bytes": PNG, "path": None}},
    "bytes as text": {**BAR, "image": {"bytes": TEXT}},
    "base64": {**BAR, "image": TEXT},
    "data URL": {**BAR, "image": f"data:image/png;base64,{TEXT}"},
    "another machine": {**BAR, "image": "/home/me/set/images/One.png"},
    "a drive": {**BAR, "image": "C:\\Users\\me\\images\\One.png"},
    "back-slashes": {**BAR, "image": "images\\One.png"},
    "other capitals": {**BAR, "image": "images/one.PNG"},
    "its name alone": {**BAR, "image": "One.png"},
    "LLaVA": {"image": "images/One.png", "conversations": TURNS},
    "other spellings": {
        "image": "images/One.png",
        "conversations": [{"from": "USER", "value": "<image>How tall?"}, {"from": "Assistant", "value": "12"}],
    },
    "TRL": {
        "images": ["images/One.png"],
        "messages": [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How tall?"}]},
            {"role": "model", "content": [{"type": "text", "text": "12"}]},
        ],
    },
    "picture in a part": {
        "messages": [
            {
                "role": "user",
                "content": [{"type": "image", "image": "images/One.png"}, {"type": "text", "text": "How tall?"}],
            },
            {"role": "assistant", "content": "12"},
        ]
    },
    "OpenAI": {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{TEXT}"}},
                    {"type": "text", "text": "How tall?"},
                ],
            },
            {"role": "assistant", "content": "12"},
        ]
    },
    "prompt and completion": {
        "image": "images/One.png",
        "prompt": [{"role": "user", "content": "How tall?"}],
        "completion": [{"role": "assistant", "content": "12"}],
    },
    "the cauldron": {"images": ["images/One.png"], "texts": [{"user": "How tall?", "assistant": "12", "source": "x"}]},
    "query and label": {"image": "images/One.png", "query": "How tall?", "label": ["12"]},
    "problem and solution": {"image": "images/One.png", "problem": "How tall?", "solution": "<answer> 12 </answer>"},
    "a number": {**BAR, "answer": 12.0, "image": "images/One.png"},
    "an object as answer": {**BAR, "answer": {"text": "12"}, "image": "images/One.png"},
    "ten people's answers": {
        "image": "images/One.png", "question": "How tall?", "answers": [{"answer": each} for each in ("11", "12", "12")],
    },
    "boxed": {**BAR, "answer": "\\boxed{12}", "image": "images/One.png"},
}  # fmt: skip


@pytest.mark.parametrize("row", SAME.values(), ids=SAME)
def test_one_question_one_picture_in_every_layout(folder, row):
    (found,) = parse_row(row, "row 1", folder)
    assert (found.question, found.answer) == ("How tall?", "12")
    assert [image.bytes() for image in found.images] == [PNG]


@pytest.mark.parametrize("name", ["image", "img_path", "LLaVA", "TRL", "the cauldron", "data URL", "a drive"])
def test_import_reads_what_training_reads(folder, name):
    (folder / "data.jsonl").write_text(json.dumps(SAME[name]) + "\n")
    (found,) = sources.load(str(folder)).examples
    (imported,) = convert.read(str(folder)).splits["train"]
    assert (found.question, found.answer) == (imported.question, imported.answer) == ("How tall?", "12")
    assert [image.bytes() for image in (*found.images, *imported.images)] == [PNG, PNG]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"image": "One.png", "texts": [{"user": "<image><image>Which?", "assistant": "a"}]}, "2 `<image>` for 1"),
        ({"question": "<image>Which?", "answer": "a"}, "1 `<image>` for 0 pictures"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "tool turns are not supported"),
        ({"messages": [{"role": "narrator", "content": "x"}]}, "'narrator'"),
        ({"messages": [{"role": "user", "content": "Which?"}]}, "not answered"),
        ({"messages": ["Which?"]}, "must be an object"),
        ({"image": "https://example.com/a.png", **BAR}, "not fetched"),
        ({"image": "data:image/png;base64,xx", **BAR}, "holds no image"),
        ({"question": "Which?", "options": ["red", "blue"], "answer": "F"}, "option F of 2"),
        ({"question": "Which?", "options": ["red", "blue"], "answer": "green"}, "none of the 2 options"),
        ({"question": "Which?", "options": "red", "answer": "red"}, "options cannot be read"),
        ({"question": "Which?", "options": ["red", "blue"], "answer_index": 2}, "counted from 0"),
        ({"question": "<img>One.png</img>Which?", "image": "One.png", "answer": "a"}, "in a column as well"),
        ({"question": "Which?", "answer": float("nan")}, "no answer"),
    ],
)  # fmt: skip
def test_a_row_that_says_two_things_is_refused(folder, row, reason):
    with pytest.raises(DataError, match=reason):
        list(parse_row(row, "row 1", folder))


def turn(role, content, **more):
    return {"role": role, "content": content, **more}


WHICH, NOW, THAT = turn("user", "<image>Which?"), turn("user", "And now?"), turn("assistant", "that")


def test_each_turn_sees_the_turns_before_it_and_the_pictures_up_to_it(folder):
    (folder / "images" / "two.png").write_bytes(b"2")
    row = {
        "images": ["images/One.png", "images/two.png"],
        "messages": [turn("system", "Be brief."), WHICH, THAT, turn("user", "<image>And here?"), THAT],
    }
    first, second = parse_row(row, "row", folder)
    assert first.history == (Turn("system", "Be brief."),)
    assert second.history == (*first.history, Turn("user", "Which?", 1), Turn("assistant", "that"))
    assert [len(one.images) for one in (first, second)] == [1, 2]
    assert (second.question, second.answer, second.id) == ("And here?", "that", "row#1")
    assert second.key != replace(second, history=()).key
    # Written as a row of ours, it is read back equal; so is the history of Alpaca's rows.
    (again,) = parse_row({**write.columns(second), "images": row["images"]}, "row", folder)
    assert (again.history, again.images) == (second.history, second.images)
    (pushed,) = parse_row({**hub._texts(second), "images": row["images"]}, "row", folder)  # as parquet has it
    assert (pushed.history, pushed.key) == (second.history, second.key)
    alpaca = {
        "system": "Be brief.",
        "history": [["<image>Which?", "that"]],
        "instruction": "And here?",
        "output": "that",
    }
    (third,) = parse_row({**alpaca, "images": row["images"]}, "row", folder)
    assert (third.history, third.question) == (second.history, "And here?")


@pytest.mark.parametrize(
    ("messages", "questions", "change"),
    [
        ([WHICH, THAT, NOW, THAT], ["Which?", "And now?"], None),
        ([WHICH, NOW, THAT], ["Which?\nAnd now?"], "joined"),
        ([WHICH, THAT, NOW], ["Which?"], "without an answer"),
        ([turn("assistant", "Hello!"), WHICH, THAT], ["Which?"], "opening turn"),
        ([WHICH, {**THAT, "weight": 0}, NOW, THAT], ["And now?"], None),
        ([WHICH, turn("assistant", "<think>x</think>that"), NOW, THAT], ["Which?", "And now?"], "<think>"),
    ],
    ids=["two", "neighbours", "unanswered", "answers first", "weight 0", "tags"],
)
def test_turns_are_kept_joined_or_left_out_and_said(messages, questions, change):
    content = read_row({"image": "images/One.png", "messages": messages})
    assert [item.question for item in content.items] == questions
    assert {item.answers for item in content.items} == {("that",)}
    assert [change in each for each in content.changes] == ([True] if change else [])


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([WHICH, turn("assistant", None, tool_calls=[{"id": "1"}]), THAT], "tool turns"),
        ([WHICH, THAT, turn("system", "Be brief."), NOW, THAT], "in the middle"),
        ([WHICH, turn("assistant", "<image>")], "2 `<image>` for 1"),
        ([turn("user", "Which?"), turn("assistant", "<image>")], "not the user's"),
        ([WHICH, {**THAT, "weight": 0}], "no answer of it"),
        ([WHICH], "not answered"),
    ],
)
def test_turns_that_make_no_conversation_are_refused(messages, reason):
    with pytest.raises(DataError, match=reason):
        read_row({"image": "images/One.png", "messages": messages})


def test_a_template_that_takes_no_history_is_refused(tiny_model):
    processor = SimpleNamespace(
        tokenizer=AutoTokenizer.from_pretrained(tiny_model()), image_token="<image>", chat_template=None
    )
    system, turns = (Turn("system", "Be brief."),), (Turn("user", "Which?"), Turn("assistant", "that"))
    last = "{{ messages[-1]['content'][-1]['text'] }}"
    strict = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + last
    for template, history, why in (
        (last, system, "leaves"),
        (last, turns, "leaves"),
        (strict, system, "no system"),
    ):
        chat = Chat(processor, Prompt(chat_template=template))
        assert chat.question(Example("1", "Which?", "that")) == "Which?"
        with pytest.raises(ModelError, match="does not take") as caught:
            chat.question(Example("1", "Which?", "that", history=history))
        assert why in str(caught.value.why)


def rows_file(folder, *rows, name="train.jsonl"):
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


def test_columns_that_nothing_reads_and_tags_taken_off_are_said_once(folder, tmp_path):
    row = {**BAR, "image": "images/One.png", "answer": "<answer>12</answer>", "source": "web", "notes": ""}
    name = rows_file(folder, row, {**row, "licence": "free"}, row)
    said = ["columns that nothing reads: licence, source", "<answer> taken off (3)"]
    assert sources.load(name).reading.notes == convert.read(name).reading.notes == said
    recipe = Sft(model="toast-tiny", data=name)
    assert [note for note in select_rows(recipe, fetch=False).notes if note in said] == said
    limits = Limits(resolve("toast-tiny", tmp_path).shape.geometry, 2048)
    found = check(sources.load_splits(name, keep_faults=True), [], limits, Silent())
    assert [one.what for one in found.findings if one.kind in ("columns-unread", "rows-changed")] == said


@pytest.mark.parametrize(
    "cell", ["images/One.png", {"bytes": TEXT}, TEXT, ["scan.jpg"], "https://example.com/a.png"]
)
def test_a_set_without_pictures_beside_a_column_of_them_is_refused(folder, tmp_path, cell):
    name = rows_file(folder, {**BAR, "x_ray": cell}, {**BAR, "x_ray": None})
    for read in (
        sources.load,
        sources.load_splits,
        lambda name: convert.write(convert.read(name), tmp_path / "new", {}, Silent()),
    ):
        with pytest.raises(DataError, match="'x_ray'") as caught:
            read(name)
        assert "--image-column x_ray" in str(caught.value.next_step)
    limits = Limits(resolve("toast-tiny", tmp_path).shape.geometry, 2048)
    found = check(sources.load_splits(name, keep_faults=True), [], limits, Silent())
    assert [one.kind for one in found.findings if one.severity == "error"] == ["pictures-unread"]
    named = convert.read(name, columns={"question": "question", "answer": "answer"})  # by hand, without it
    assert named.reading.fault == ""
    rows_file(folder, {**BAR, "x_ray": "images/One.png"}, {**BAR, "image": "images/One.png"})
    assert len(sources.load(name)) == 2


def test_an_instruction_keeps_its_input():
    row = {"instruction": "Answer about the chart.", "input": "How tall is bar 3?", "output": "3"}
    (item,) = read_row(row).items
    assert item.question == "Answer about the chart.\nHow tall is bar 3?"


@pytest.mark.parametrize(
    "row",
    [
        {"options": ["red", "blue"], "answer": "B"},
        {"options": ["red", "blue"], "answer": 1},
        {"options": ["A. red", "B. blue"], "answer": "(B)"},
        {"choices": {"A": "red", "B": "blue"}, "answer": "blue"},
        {"options": "['red', 'blue']", "answer": "b"},
        {"A": "red", "B": "blue", "answer": "B"},
        {
            "choices": ["red", "blue"],
            "answer": 1,
            "hint": "Look at the sky.",
            "lecture": "Skies.",
            "solution": "It is.",
        },
    ],
    ids=["letter", "index", "lettered", "object", "text", "columns", "ScienceQA"],
)
def test_options_are_shown_and_the_answer_is_one_of_them(tmp_path, row):
    (found,) = parse_row({"question": "Which colour?", **row}, "row", tmp_path)
    assert found.answer == "blue"
    assert found.extra == {"task": "choice", "choices": ["red", "blue"]}
    assert found.question.endswith("Which colour?\nChoices:\nA: red\nB: blue")
    assert found.reasoning == ("It is." if "lecture" in row else None)
    assert right("B", found)
    assert not right("A", found)


@pytest.mark.parametrize(
    ("question", "answer", "taught"),
    [
        ("Is it red or blue?", "B", "blue"),  # nobody would know what B is
        ("Is it red or blue?", "Blue", "Blue"),
        ("Which? A. red B. blue", "B", "B"),
        ("Which?\nChoices:\nA: red\nB: blue", "blue", "blue"),
    ],
)
def test_options_that_the_question_names_are_not_shown_again(tmp_path, question, answer, taught):
    row = {"question": question, "choices": ["red", "blue"], "answer": answer}
    (found,) = parse_row(row, "row", tmp_path)
    assert (found.question, found.answer, found.extra) == (question, taught, {"choices": ["red", "blue"]})


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"options": ["2", "4", "8"], "answer": 2}, "8"),  # a number beside texts is a place
        ({"options": ["2", "4", "8"], "answer": "2"}, "2"),
        ({"options": [2, 4, 8], "answer": 2}, "2"),
        ({"options": ["2", "4", "8"], "answer": 8}, "8"),
        ({"options": ["2", "4", "8"], "answer_index": "2", "answer_text": "8"}, "8"),
        ({"options": "A. 2\nB. 4\nC. 8", "answer": "The answer is C."}, "8"),
        ({"options": "('2', '4', '8')", "answer": "c"}, "8"),
        ({"option1": "2", "option2": "4", "option3": "8", "answer": "C"}, "8"),
    ],
)
def test_an_option_is_found_by_its_words_letter_or_place(row, answer):
    (item,) = read_row({"question": "How many?", **row}).items
    assert item.answers == (answer,)
    assert item.question == "How many?\nChoices:\nA: 2\nB: 4\nC: 8"


def test_every_accepted_answer_counts_and_the_first_is_taught(tmp_path):
    (found,) = parse_row({"question": "Who?", "answers": ["ITC", "Indian Tobacco", "itc"]}, "row", tmp_path)
    assert found.answer == "ITC"
    assert right("Indian Tobacco", found)
    assert not right("Imperial", found)
    (found,) = parse_row({"question": "Who?", "answers": "['ITC', 'Indian Tobacco']"}, "row", tmp_path)
    assert found.answer == "ITC"


@pytest.mark.parametrize("answer", ["[13, 44]", '["red", "blue"]', '{"total": "12", "answer": "3"}'])
def test_a_list_or_object_written_as_one_answer_is_that_answer(tmp_path, answer):
    (found,) = parse_row({"question": "Which?", "answer": answer}, "row", tmp_path)
    assert found.answer == answer
    assert not found.extra.get("answers")


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("<think>7 > 3.</think><answer>red</answer>", "7 > 3.", "red"),
        ("<think>7 > 3.</think>red", "7 > 3.", "red"),
        ("7 > 3. <answer> red </answer>", "7 > 3.", "red"),
        ("<SUMMARY>s</SUMMARY><REASONING>7 > 3.</REASONING><CONCLUSION>red</CONCLUSION>", "7 > 3.", "red"),
        ("$\\boxed{red}$", None, "red"),
        ("So the final answer is: $$\\boxed{red}$$.", None, "red"),
        ("7 > 3, so it is $\\boxed{\\text{red}}$.", "7 > 3, so it is \\text{red}.", "\\text{red}"),
        ("\\boxed{1} or \\boxed{2}", None, "\\boxed{1} or \\boxed{2}"),
        ("red", None, "red"),
    ],
)  # fmt: skip
def test_tags_inside_a_column_are_taken_off(text, reasoning, answer):
    assert unwrap(text) == (reasoning, answer)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gbk"])
def test_encodings(tmp_path, encoding):
    row = {"question": "哪个最高？", "answer": "红色"}
    (tmp_path / "data.jsonl").write_bytes((json.dumps(row, ensure_ascii=False) + "\n").encode(encoding))
    assert sources.load(str(tmp_path)).examples[0].answer == "红色"
    (tmp_path / "data.jsonl").write_bytes("question: caf\xe9".encode("latin-1"))
    with pytest.raises(DataError, match="UTF-8"):
        sources.load(str(tmp_path))


def test_rows_under_other_brackets(tmp_path):
    for name, content in {
        "lines.json": "\n".join(json.dumps(BAR) for _ in range(2)),
        "array.jsonl": json.dumps([BAR, BAR]),
        "keyed.json": json.dumps({"0": BAR, "1": BAR}),
        "inside.json": json.dumps({"info": 1, "data": [BAR, BAR]}),
    }.items():
        (tmp_path / name).write_text(content)
        assert len(sources.load(str(tmp_path / name))) == 2, name


@pytest.mark.parametrize("name", ["train.jsonl", "train.parquet"])
@pytest.mark.parametrize(
    "content", [b"", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n"]
)
def test_pointers_and_empty_files_say_git_lfs_pull(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        sources.load(str(tmp_path))
    assert "git lfs pull" in str(caught.value.next_step)


def test_a_table_given_to_training_names_the_import(tmp_path):
    (tmp_path / "rows.csv").write_text("question,answer\nWhich?,red\n")
    for where in (tmp_path, tmp_path / "rows.csv"):
        with pytest.raises(DataError) as caught:
            sources.load(str(where))
        assert "toasterft data import" in str(caught.value.next_step)


def told(examples):
    return [
        (one.question, one.answer, one.reasoning, [image.bytes() for image in one.images]) for one in examples
    ]


@pytest.mark.parametrize("name", LAYOUTS)
def test_one_data_set_in_every_public_layout(tmp_path, name):
    found = LAYOUTS[name]
    folder = tmp_path / "set"
    folder.mkdir()
    found.write(folder)
    wanted = [
        (
            one.shown,
            one.answer,
            one.reasoning if found.reasoning else None,
            [png(one.picture)] if one.picture else [],
        )
        for one in found.rows
    ]
    imported = convert.read(str(folder))
    assert not imported.faults
    assert told(imported.splits["train"]) == wanted
    convert.write(imported, tmp_path / "copy", {}, Silent())
    assert told(sources.load(str(tmp_path / "copy")).examples) == wanted
    if found.trains:
        assert told(sources.load(str(folder)).examples) == wanted


# Name of a case and of the data set in it, and how many rows and pictures it holds; None where it is refused.
CASES = {
    "alpaca-input-lost/alpaca": (4, 4), "answer-is-an-object/cauldron": (4, 4),
    "answer-is-an-object/docvqa_answers": (4, 4), "answer-is-an-object/vqa_answers_dict": (4, 4),
    "base64-table/datauri_jsonl": (4, 4), "binary-column/pq_binary": (4, 4), "binary-column/pq_listbin": (4, 4),
    "bytes-as-text/bytes_dict_jsonl": (4, 4), "class-folder-formats/classes": (20, 20),
    "class-folder-formats/classes_tif": (6, 6), "image-column-other-name/col_image_path": (4, 4),
    "image-column-other-name/col_img": (4, 4), "image-column-other-name/imagefolder": (4, 4),
    "lfs-pointer/lfs_jsonl": None, "lfs-pointer/lfs_pq": None, "lfs-pointer/pq_zero": None,
    "mixed-null-image/mixed_noimg": (6, 1), "multi-turn-multi-image/multiturn": (6, 9),
    "paths-of-another-machine/abs_elsewhere": (4, 4), "paths-of-another-machine/windows": (4, 4),
    "paths-of-another-machine/windows_drive": (4, 4), "placeholder-count/mismatch": None,
    "roles-dropped/roles": (4, 4), "roles-dropped/roles_mixed": (4, 4), "save-to-disk-single/beans": (8, 8),
    "save-to-disk-single/classlabel_q": (4, 4), "tags-inside-columns/flat_tagged": (4, 4),
    "tags-inside-columns/llava_cot": (4, 4), "tags-inside-columns/r1v": (4, 4),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_reported_inputs(case):
    if not FIELD.is_dir():
        pytest.skip("the inputs of public reports are not here")
    if CASES[case] is None:
        with pytest.raises(DataError):
            sources.load_splits(str(FIELD / case))
        return
    for splits in (sources.load_splits(str(FIELD / case)).splits, convert.read(str(FIELD / case)).splits):
        rows = [one for found in splits.values() for one in found]
        pictures = [image for one in rows for image in one.images]
        assert (len(rows), len(pictures)) == CASES[case]
        for image in pictures:
            image.open()
