"""`data preview`, `split` and the folder that `push` writes, as a user calls them."""

from __future__ import annotations

import json
import re
import shutil

import chromium
import pytest
from PIL import Image

from toasterft.data import sources

HOSTILE = {
    "id": "<script>document.title='taken'</script>",
    "image": 'a b".png',
    "question": "</pre><img src=x onerror=\"document.title='taken'\"> \x1b[31mred\x1b[0m \u202egnp.exe [bold]x[/bold]",
    "answer": '"><svg onload="document.title=\'taken\'">',
    "reasoning": "</title></style><script>document.title='taken'</script>" + "w" * 400,
}


def as_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def hostile(tmp_path):
    folder = tmp_path / "hostile"
    folder.mkdir()
    Image.effect_noise((90, 60), 80).convert("RGB").save(folder / 'a b".png')
    (folder / "cut.png").write_bytes((folder / 'a b".png').read_bytes()[:900])
    as_jsonl(
        folder / "train.jsonl",
        [
            HOSTILE,
            {"id": "cut", "image": "cut.png", "question": "Which?", "answer": "red"},
            {"id": "gone", "image": "gone.png", "question": "Which?", "answer": "red"},
            {"id": "bare", "question": "1+1?", "answer": "2", "reasoning": "1 + 1 = 3. The answer is 3."},
        ],
    )
    return folder


# --- preview ---------------------------------------------------------------------------------


def test_preview_shows_what_is_read_and_what_is_learned(run_cli, charts_folder):
    done = run_cli("data", "preview", charts_folder, "--n", "1")
    assert done.code == 0, done.err
    (row,) = sources.load(str(charts_folder), limit=1).examples
    assert f"{row.question}\n⟦<think>{row.reasoning}</think><answer>{row.answer}</answer>⟧" in done.out
    assert "64 × 64 px" in done.out
    image, read, learned = map(int, re.search(r"(\d+) image, (\d+) read, (\d+) learned", done.out).groups())
    assert f"{image + read + learned:,} tokens of 2,048" in done.out


def test_preview_chooses_rows(run_cli, charts_folder):
    rows = sources.load(str(charts_folder), split="test").examples
    done = run_cli("data", "preview", charts_folder, "--row", rows[1].id)
    assert rows[1].id in done.out
    assert rows[0].id not in done.out
    once = run_cli("data", "preview", charts_folder, "--seed", "3", "--n", "2").out
    assert once == run_cli("data", "preview", charts_folder, "--seed", "3", "--n", "2").out
    assert once != run_cli("data", "preview", charts_folder, "--n", "2").out
    assert "test.jsonl" in run_cli("data", "preview", charts_folder, "--split", "test").out
    for words, says in ((["--row", "core-00000-0"], "did you mean"), (["--split", "extra"], "no split")):
        done = run_cli("data", "preview", charts_folder, *words)
        assert (done.code, says in done.err) == (2, True), done.err


def test_preview_in_a_terminal_obeys_no_row(run_cli, hostile):
    done = run_cli("data", "preview", hostile)
    assert done.code == 0, done.err
    assert "\x1b" not in done.out
    assert "\u202e" not in done.out
    assert r"\x1b[31mred\x1b[0m \u202egnp.exe [bold]x[/bold]" in done.out
    assert "gone.png: the image file does not exist" in done.out
    assert "trace-contradicts: “The answer is 3.”, the answer is 2" in done.out


def test_the_page_holds_no_markup_of_a_row(run_cli, hostile, tmp_path):
    done = run_cli("data", "preview", hostile, "--html", tmp_path / "page.html")
    assert done.code == 0, done.err
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<svg" not in page
    assert page.count("<img ") == 1, "the one picture that can be read"
    assert not re.search(r"(?:src|href)=\"(?!data:image/)", page), "nothing beside the file is needed"
    assert "default-src 'none'" in page
    assert "&lt;script&gt;document.title" in page
    assert "cut.png: the image is damaged" in page


def test_the_page_in_a_browser(run_cli, hostile, charts_folder, tmp_path):
    run_cli("data", "preview", hostile, "--html", tmp_path / "hostile.html")
    run_cli("data", "preview", charts_folder, "--n", "3", "--html", tmp_path / "charts.html")
    driver = chromium.start()
    try:
        driver.set_window_size(1200, 900)
        driver.get((tmp_path / "hostile.html").as_uri())
        assert driver.title == "hostile"
        assert HOSTILE["id"] in driver.find_element("css selector", "article b").text
        for width in (1200, 500):
            driver.set_window_size(width, 900)
            wide, inner = driver.execute_script(
                "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
            )
            assert wide <= inner, f"at {width} px"
        driver.get((tmp_path / "charts.html").as_uri())
        images = driver.find_elements("css selector", "img")
        assert [image.get_property("naturalWidth") for image in images] == [64, 64, 64]
        assert all("<answer>" in mark.text for mark in driver.find_elements("css selector", "pre mark"))
        faults = [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
        assert faults == []
    finally:
        driver.quit()


# --- split -----------------------------------------------------------------------------------


@pytest.fixture
def shots(tmp_path):
    """Twenty pictures with three questions each; the last is shown under a second name as well."""
    folder = tmp_path / "shots"
    folder.mkdir()
    rows = []
    for place in range(20):
        Image.new("RGB", (30, 20), (place * 12, 40, 90)).save(folder / f"{place}.png")
        rows += [
            {"id": f"{place}-{turn}", "image": f"{place}.png", "question": f"Q{turn}?", "answer": "a"}
            for turn in range(3)
        ]
    shutil.copy(folder / "19.png", folder / "copy.png")
    rows.append({"id": "copy", "image": "copy.png", "question": "Q9?", "answer": "a"})
    return as_jsonl(folder / "items.jsonl", rows)


def test_split_by_image(run_cli, shots):
    done = run_cli("data", "split", shots, "parts", "--test", "0.2", "--validation", "0.1", "--json")
    assert done.code == 0, done.err
    assert sum(done.json()["splits"].values()) == 61
    whole = sources.load_splits("parts")
    sides = {
        split: {image.sha256 for row in rows for image in row.images} for split, rows in whole.splits.items()
    }
    assert {split: len(pictures) for split, pictures in sides.items()} == {
        "train": 14,
        "validation": 2,
        "test": 4,
    }
    assert len(set.union(*sides.values())) == 20, "no picture is on two sides"
    assert run_cli("data", "check", "parts", "--quiet").code == 0


def test_split_depends_on_pictures_and_seed_alone(run_cli, shots):
    def parts(name, *words):
        assert run_cli("data", "split", shots, name, *words).code == 0
        return {split: {row.id for row in rows} for split, rows in sources.load_splits(name).splits.items()}

    first = parts("one")
    lines = shots.read_text().splitlines()
    shots.write_text("\n".join(reversed(lines)))
    assert parts("two") == first
    assert parts("three", "--seed", "1") != first


def test_published_splits_stay(run_cli, charts_folder):
    done = run_cli("data", "split", charts_folder, "parts", "--validation", "0.2")
    assert done.code == 2
    assert "there is a validation split already" in done.err
    rows = sources.load(str(charts_folder), split="train").examples
    assert run_cli("data", "split", charts_folder, "parts", "--validation", "0", "--test", "0").code == 2
    alone = charts_folder / "train.jsonl"
    assert run_cli("data", "split", alone, "parts", "--validation", "0", "--test", "0.5").code == 0
    assert len(sources.load("parts", split="train")) + len(sources.load("parts", split="test")) == len(rows)


def test_rows_without_an_image_split_by_question(run_cli, tmp_path):
    rows = [{"id": f"{n}", "question": f"{n // 2} + 1?", "answer": "x"} for n in range(20)]
    as_jsonl(tmp_path / "rows.jsonl", rows)
    assert run_cli("data", "split", tmp_path / "rows.jsonl", "parts").code == 0
    whole = sources.load_splits("parts")
    assert {split: len(rows) for split, rows in whole.splits.items()} == {
        "train": 16,
        "validation": 2,
        "test": 2,
    }


# --- push, without a hub ---------------------------------------------------------------------


def test_packed_rows_of_every_form_read_back(run_cli, tmp_path):
    for name in ("a.png", "b.png"):
        Image.effect_noise((40, 30), 50).convert("RGB").save(tmp_path / name)
    rows = [
        {"id": "two", "images": ["a.png", "b.png"], "question": "Same?", "answer": "No", "kind": "pair"},
        {
            "id": "one",
            "image": "b.png",
            "question": "Which?",
            "answer": "B",
            "choices": ["x", "y"],
            "task": "choice",
        },
        {"id": "none", "question": "1+1?", "answer": "2", "reasoning": "1 + 1 = 2.", "task": "math"},
        {
            "id": "facts",
            "image": "a.png",
            "question": "Red?",
            "answer": "7",
            "facts": [{"label": "red", "value": 7}],
        },
        {"id": "text", "image": "a.png", "question": "Blue?", "answer": "7", "table": "Entity: a & X: 7"},
    ]
    as_jsonl(tmp_path / "train.jsonl", rows)
    done = run_cli(
        "data", "push", tmp_path / "train.jsonl", "me/mixed", "--out", tmp_path / "packed", "--json"
    )
    assert done.code == 0, done.err
    assert done.json()["rows"] == {"train": 5}

    def told(name):
        return [
            (one.id, one.question, one.answer, one.reasoning, one.kind, one.facts, one.extra)
            for one in sources.load(str(name)).examples
        ]

    def pictures(name):
        return [[image.sha256 for image in one.images] for one in sources.load(str(name)).examples]

    before = tmp_path / "train.jsonl"
    assert told(tmp_path / "packed") == told(before)
    assert pictures(tmp_path / "packed") == pictures(before)
    assert run_cli("data", "import", tmp_path / "packed", "back").code == 0
    assert (told("back"), pictures("back")) == (told(before), pictures(before))


def test_push_wants_an_owner_and_writes_over_nothing(run_cli, charts_folder, tmp_path):
    done = run_cli("data", "push", charts_folder, "mine", "--out", tmp_path / "packed")
    assert (done.code, "owner/name" in done.err) == (2, True)
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "here").write_text("x")
    assert run_cli("data", "push", charts_folder, "me/mine", "--out", tmp_path / "packed").code == 2
    assert [path.name for path in (tmp_path / "packed").iterdir()] == ["here"]


def test_a_folder_named_from_here_is_imported(run_cli, charts_folder, homes, monkeypatch):
    """Pictures are looked for beside the rows, however the folder was named."""
    monkeypatch.chdir(charts_folder.parent)
    done = run_cli("data", "import", charts_folder.name, "mine", "--json", "--quiet")
    assert done.code == 0, done.err
    assert sum(done.json()["splits"].values()) == 40
