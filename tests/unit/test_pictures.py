"""Which file a row's picture is: found by another machine's path, never outside of the folders that were named."""

from __future__ import annotations

import json
import os

import pytest
from PIL import Image

from toasterft.data import sources
from toasterft.data.pictures import PictureFinder
from toasterft.errors import DataError


def picture(path, shade=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (40, 30), shade).save(path)
    return path


def rows(folder, *names, file="items.jsonl"):
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        {"id": str(place), "image": str(name), "question": "How tall?", "answer": str(place)}
        for place, name in enumerate(names)
    ]
    (folder / file).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def elsewhere(tmp_path):
    """A folder of pictures, two of which have the same name."""
    for shade, name in enumerate(("a/1.png", "b/1.png", "b/Two.PNG", "deep/er/3.png")):
        picture(tmp_path / "elsewhere" / name, shade)
    return tmp_path / "elsewhere"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("deep/er/3.png", "deep/er/3.png"),
        ("/home/me/set/er/3.png", "deep/er/3.png"),
        ("C:\\Users\\me\\3.png", "deep/er/3.png"),
        ("3.PNG", "deep/er/3.png"),
        ("..\\two.png", "b/Two.PNG"),
        ("/data/set/a/1.png", "a/1.png"),
        ("D:\\data\\B\\1.PNG", "b/1.png"),
    ],
)
def test_paths_of_another_machine_are_found_by_their_tail(name, meant, elsewhere, tmp_path):
    data = rows(tmp_path / "set", name)
    (found,) = sources.load(str(data), images=elsewhere).examples[0].images
    assert found.path == elsewhere / meant


def test_several_that_could_be_meant_are_named(elsewhere, tmp_path):
    for name in ("1.png", "/home/c/1.png"):
        with pytest.raises(DataError) as caught:
            sources.load(str(rows(tmp_path / "set", name)), images=elsewhere)
        assert "could be any of 2" in str(caught.value)
        assert all(str(elsewhere / each) in str(caught.value) for each in ("a/1.png", "b/1.png"))


def test_two_paths_never_become_one_picture(tmp_path):
    picture(tmp_path / "set" / "images" / "1.png")
    assert sources.load(str(rows(tmp_path / "set", "/x/1.png", "C:\\x\\1.png", "images/1.png")))
    with pytest.raises(DataError, match=r"taken for coco/1\.png already"):
        sources.load(str(rows(tmp_path / "set", "coco/1.png", "genome/1.png")))


@pytest.fixture
def secret(tmp_path):
    """A picture that lies beside the data set's folder, and the ways by which a row may name it."""
    data, other = tmp_path / "set", picture(tmp_path / "private" / "key.png")
    (data / "images").mkdir(parents=True)
    os.symlink(other, data / "images" / "link.png")
    os.symlink(other.parent, data / "folder")
    return data, [
        "../private/key.png",
        other,
        "images/link.png",
        "folder/key.png",
        "images/../../private/key.png",
    ]


def test_a_picture_lies_under_the_data_sets_folder_or_one_that_was_named(secret, run_cli):
    data, ways = secret
    for way in ways:
        rows(data, picture(data / "images" / "own.png").relative_to(data), way)
        commands = [
            ("data", "import", data, "new"), ("data", "split", data, "new"), ("data", "push", data, "me/set", "--out", "o"),
            ("sft", "--data", data, "--dry-run"), ("eval", "toast-tiny", "--data", data),
            ("cot", "build", "new", "--from", data, "--teacher", "rules"), ("estimate", "sft", "--data", data),
        ]  # fmt: skip
        for words in commands if way == ways[0] else commands[1:2]:
            done = run_cli(*words)
            assert done.code == 2, (words, done.out)
            assert "items.jsonl:2" in done.err
            assert f"--images {data.parent / 'private'}" in done.err
        found = run_cli("data", "check", data, "--json").json()
        assert found["counts"]["unreadable"] == 1
        named = sources.load(str(data), images=data.parent / "private")
        assert len({image.sha256 for one in named.examples for image in one.images}) == 1


def test_one_option_allows_a_list_of_absolute_paths(elsewhere, tmp_path):
    data = rows(tmp_path / "set", *sorted(elsewhere.rglob("1.png")), elsewhere / "deep" / "er" / "3.png")
    with pytest.raises(DataError) as caught:
        sources.load(str(data))
    assert f"--images {elsewhere} " in str(caught.value.next_step)
    assert [one.images[0].path for one in sources.load(str(data), images=elsewhere).examples] == [
        elsewhere / name for name in ("a/1.png", "b/1.png", "deep/er/3.png")
    ]


def test_the_folder_of_a_file_counts_and_so_does_that_of_all_splits(tmp_path):
    picture(tmp_path / "set" / "shared" / "1.png")
    data = rows(tmp_path / "set" / "train", "../shared/1.png", file="metadata.jsonl")
    assert sources.load(str(tmp_path / "set")).examples[0].images[0].path.is_file()
    with pytest.raises(DataError, match="outside"):
        sources.load(str(data / "metadata.jsonl"))


def test_links_of_the_hubs_own_store_are_followed(tmp_path):
    blob = picture(tmp_path / "blobs" / "123.png")
    data = rows(tmp_path / "snapshots" / "abc", "1.png")
    os.symlink(blob, data / "1.png")
    assert sources.load(str(data)).examples[0].images[0].size_px == (40, 30)


def test_tables_and_class_folders_are_held_to_the_same(secret, tmp_path):
    from datasets import Dataset, Features, Value
    from datasets import Image as Picture

    _, ways = secret
    table = {"image": [{"path": str(ways[1]), "bytes": None}], "question": ["How tall?"], "answer": ["1"]}
    kinds = Features({"image": Picture(decode=False), "question": Value("string"), "answer": Value("string")})
    Dataset.from_dict(table, features=kinds).to_parquet(str(tmp_path / "table" / "train.parquet"))
    (row,) = sources.load(str(tmp_path / "table")).examples
    with pytest.raises(DataError, match=r"train\[0\]: the picture .* outside"):
        row.images[0].open()
    classes = tmp_path / "classes"
    for label in ("cat", "dog"):
        picture(classes / label / "1.png")
    os.symlink(ways[1], classes / "dog" / "2.png")
    with pytest.raises(DataError, match="outside"):
        sources.load(str(classes))
    assert len(sources.load_splits(str(classes), keep_faults=True).faults) == 1


@pytest.mark.parametrize(
    "name", ["x" * 300 + ".png", "a\0b.png", "images", "/dev/zero", "missing.png", "../no.png"]
)
def test_odd_names_are_refused(name, secret, run_cli):
    data = rows(secret[0], name)
    with pytest.raises(DataError):
        sources.load(str(data))
    assert run_cli("data", "check", data).code == 2


def test_no_such_folder(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        PictureFinder(tmp_path, tmp_path / "no")


def test_a_shape_that_the_model_refuses_is_a_finding(tmp_path, run_cli):
    Image.new("L", (4100, 10)).save(picture(tmp_path / "set" / "1.png"))
    data = rows(tmp_path / "set", "1.png")
    found = run_cli("data", "check", data, "--model", "Qwen2.5-VL-3B", "--json").json()
    assert found["counts"]["image-narrow"] == 1
    assert run_cli("data", "preview", data, "--model", "Qwen2.5-VL-3B").code == 0
    done = run_cli("sft", "--model", "Qwen2.5-VL-3B", "--data", data, "--dry-run")
    assert done.code == 2
    assert "too narrow" in done.err
