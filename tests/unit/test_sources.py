import json
from pathlib import Path

import pytest
from PIL import Image

from toasterft.data import sources
from toasterft.data.example import ImageRef
from toasterft.errors import DataError


def picture(path, mode="RGB", size=(20, 10)):
    Image.new(mode, size).save(path)
    return path


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


ROW = {"image": "a.png", "question": "Which?", "answer": "red"}


@pytest.fixture
def folder(tmp_path):
    picture(tmp_path / "a.png")
    return tmp_path


@pytest.mark.parametrize("key", ["reasoning", "hint", "cot"])
def test_flat_rows(folder, key):
    file = jsonl(folder / "x.jsonl", [{**ROW, key: "red = 7.", "id": "q1", "kind": "lookup"}, ROW])
    first, second = sources.load(str(file)).examples
    assert (first.id, first.question, first.answer, first.reasoning, first.kind) == (
        "q1",
        "Which?",
        "red",
        "red = 7.",
        "lookup",
    )
    assert (second.id, second.reasoning) == ("x.jsonl:2", None)
    assert first.images[0].path == folder / "a.png"


def test_trl_conversational(folder):
    row = {
        "images": ["a.png"],
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Which?"}]},
            {
                "role": "assistant",
                "content": [{"type": "text", "text": "<think>red = 7.</think><answer>red</answer>"}],
            },
        ],
    }
    prompt_completion = {
        "images": ["a.png"],
        "prompt": [{"role": "user", "content": "Which?"}],
        "completion": [{"role": "assistant", "content": "red"}],
    }
    one, two = sources.load(str(jsonl(folder / "x.jsonl", [row, prompt_completion]))).examples
    assert (one.question, one.reasoning, one.answer) == ("Which?", "red = 7.", "red")
    assert (two.question, two.reasoning, two.answer) == ("Which?", None, "red")


def test_llava_json_splits_turns(folder):
    turns = [
        {"from": "human", "value": "<image>\nWhich?"}, {"from": "gpt", "value": "red"},
        {"from": "human", "value": "How many?"}, {"from": "gpt", "value": "3"},
    ]  # fmt: skip
    (folder / "x.json").write_text(json.dumps([{"id": "9", "image": "a.png", "conversations": turns}]))
    found = sources.load(str(folder / "x.json")).examples
    assert [(e.id, e.question, e.answer) for e in found] == [
        ("9#0", "Which?", "red"),
        ("9#1", "How many?", "3"),
    ]


def test_rows_without_images_and_answer_lists(folder):
    (row,) = sources.load(
        str(jsonl(folder / "x.jsonl", [{"question": "1+1?", "answers": ["2", "two"]}]))
    ).examples
    assert (row.images, row.answer) == ((), "2")


def test_splits_by_file_by_row_and_by_name(folder):
    jsonl(folder / "train.jsonl", [ROW, ROW])
    jsonl(folder / "val.jsonl", [ROW])
    assert len(sources.load(str(folder))) == 2
    assert len(sources.load(str(folder), purpose="validate")) == 1
    assert sources.load(str(folder), split="valid").split == "validation"
    with pytest.raises(DataError, match="no split 'foo'"):
        sources.load(str(folder), split="foo")
    other = folder / "rows.jsonl"
    jsonl(other, [{**ROW, "split": "train"}, {**ROW, "split": "val"}, {**ROW, "split": "train"}])
    assert (len(sources.load(str(other))), len(sources.load(str(other), purpose="evaluate"))) == (2, 1)
    assert sources.has_split(str(other), "validate")


def test_limit_is_the_first_rows_or_a_seeded_choice(folder):
    file = jsonl(folder / "x.jsonl", [{**ROW, "id": str(n)} for n in range(20)])
    assert [e.id for e in sources.load(str(file), limit=3).examples] == ["0", "1", "2"]
    once = [e.id for e in sources.load(str(file), limit=5, seed=1).examples]
    assert (
        once == [e.id for e in sources.load(str(file), limit=5, seed=1).examples] != ["0", "1", "2", "3", "4"]
    )


def test_a_built_set_is_found_by_name(homes, folder):
    built = homes / "data" / "smolcot-7k"
    built.mkdir(parents=True)
    picture(built / "a.png")
    jsonl(built / "train.jsonl", [ROW])
    assert len(sources.load("smolcot-7k")) == 1


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"image": "a.png", "question": "Q?"}, "no answer"),
        ({"image": "a.png", "answer": "A"}, "no question"),
        ({**ROW, "answer": "  "}, "empty answer"),
        ({**ROW, "question": ""}, "empty question|no question"),
        ({**ROW, "image": "https://example.com/a.png"}, "not fetched from URLs"),
        ({**ROW, "image": 3}, "neither a path nor bytes"),
        ({**ROW, "image": "gone.png"}, "does not exist"),
        ([1], "must be an object"),
    ],
)
def test_bad_rows_name_their_line(folder, row, says):
    file = jsonl(folder / "x.jsonl", [ROW, row])
    with pytest.raises(DataError, match=says) as caught:
        sources.load(str(file))
    assert "x.jsonl:2" in str(caught.value)


def test_broken_lines_are_all_named(folder):
    file = folder / "x.jsonl"
    file.write_text(json.dumps(ROW) + "\n{broken\n" + json.dumps(ROW) + "\n{'a': 1}\n")
    with pytest.raises(DataError) as caught:
        sources.load(str(file))
    assert "2 broken lines" in str(caught.value)
    assert "x.jsonl:2:" in str(caught.value)
    assert "x.jsonl:4:" in str(caught.value)


def test_nothing_there(folder, homes):
    with pytest.raises(DataError, match="no such data"):
        sources.load("nope")
    with pytest.raises(DataError, match="did you mean chartqa"):
        sources.load("chartqs")
    with pytest.raises(DataError, match="no data file found"):
        sources.load(str(folder))
    (folder / "x.jsonl").write_text("\n")
    with pytest.raises(DataError, match="no rows"):
        sources.load(str(folder / "x.jsonl"))
    with pytest.raises(DataError, match="smolcot-7k is not on this machine"):
        sources.load("smolcot-7k")
    with pytest.raises(DataError, match="cannot be fetched from the hub"):
        sources.load("nobody/nothing")


def test_parquet_with_embedded_images(folder):
    import datasets

    embedded = {"bytes": (folder / "a.png").read_bytes(), "path": None}
    rows = {"image": [embedded] * 3, "query": ["Which?"] * 3, "label": [["red"], ["blue"], ["3"]],
            "human_or_machine": [0, 1, 0]}  # fmt: skip
    table = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    (folder / "out").mkdir()
    table.to_parquet(folder / "out" / "test-00000-of-00001.parquet")
    (folder / "a.png").unlink()  # the bytes are inside
    found = sources.load(str(folder / "out"), purpose="evaluate")
    assert [(e.answer, e.kind) for e in found.examples] == [
        ("red", "human"),
        ("blue", "augmented"),
        ("3", "human"),
    ]
    assert found.examples[0].images[0].open().size == (20, 10)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "1", "LA", "I", "CMYK"])
def test_any_mode_opens_as_upright_rgb(tmp_path, mode):
    path = tmp_path / ("x.tiff" if mode in ("CMYK", "I") else "x.png")
    Image.new(mode, (20, 10)).save(path)
    assert ImageRef("x", path).open().mode == "RGB"


def test_transparency_is_laid_on_white_and_exif_is_turned(tmp_path):
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert ImageRef("x", tmp_path / "clear.png").open().getpixel((0, 0)) == (255, 255, 255)
    image = Image.new("RGB", (20, 10))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    turned = ImageRef("x", tmp_path / "turned.jpg")
    assert turned.size_px == turned.open().size == (10, 20)


def test_damaged_images_are_named(tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("hello")
    whole = picture(tmp_path / "whole.png", size=(300, 300)).read_bytes()
    noisy = Image.effect_noise((300, 300), 90)
    noisy.save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    for name, says in [
        ("empty.png", "0 bytes"),
        ("text.png", "not an image"),
        ("cut.png", "damaged"),
        ("gone.png", "exist"),
    ]:
        with pytest.raises(DataError, match=says) as caught:
            ImageRef(name, tmp_path / name).open()
        assert name in str(caught.value)


def test_an_empty_split_is_no_split(tmp_path):
    (tmp_path / "train.jsonl").write_text(json.dumps({"question": "q", "answer": "a"}) + "\n")
    (tmp_path / "validation.jsonl").write_text("")
    assert not sources.has_split(str(tmp_path), "evaluate")
    assert len(sources.load(str(tmp_path), purpose="train").examples) == 1


BAD_LINES = {
    "[1]": "a row must be an object, this is list",
    '{"question": ' + "[" * 3000 + "]" * 3000 + "}": "nested too deeply",
    '{"question": ' + "9" * 5000 + "}": "4300 digits",
    '{"question": "\\ud800"}': "lone surrogate",
    "{broken": "not valid JSON",
}


@pytest.mark.parametrize("line", BAD_LINES, ids=range(len(BAD_LINES)))
@pytest.mark.parametrize("name", ["x.jsonl", "x.json"])
def test_a_line_that_is_no_row_is_named_and_the_others_are_read(line, name, folder):
    file = folder / name
    file.write_text(f"{json.dumps(ROW)}\n{line}\n{json.dumps(ROW)}\n")
    with pytest.raises(DataError) as refused:
        sources.load(str(file))
    assert BAD_LINES[line] in str(refused.value.details)
    found = sources.load_splits(str(file), keep_faults=True)
    assert len(found) == 2
    assert [BAD_LINES[line] in fault.what for fault in found.faults] == [True]


def test_what_vanishes_while_it_is_read_is_named(tmp_path, monkeypatch):
    def gone(*_):
        raise FileNotFoundError(2, "No such file or directory", "x/1")

    monkeypatch.setattr(Path, "rglob", gone)
    with pytest.raises(DataError, match="cannot be read"):
        sources.load(str(tmp_path))
