"""`data check`: every kind of fault is named with its row, clean data has none, and `--fix` mends a copy."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from toasterft.audit import images, labels, near_duplicates, traces
from toasterft.audit.kinds import KINDS
from toasterft.data import sources, token_stats
from toasterft.data.example import Example, ImageRef


def chart(seed, size=(240, 160)):
    """A picture that looks like no other seed's."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    for place in range(6):
        height = int(rng.integers(10, size[1] - 20))
        draw.rectangle(
            (10 + place * 38, size[1] - height, 34 + place * 38, size[1]),
            fill=tuple(int(c) for c in rng.integers(0, 200, 3)),
        )
    return image


class Folder:
    """A data set that a test writes row by row."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self.rows: dict[str, list[dict]] = {}

    def picture(self, name, image):
        image.save(self.path / name)
        return name

    def row(self, split, id, image=None, question="What is the value of red?", answer="7", **more):
        shown = {} if image is None else {"image": image}
        self.rows.setdefault(split, []).append(
            {"id": id, **shown, "question": question, "answer": answer, **more}
        )

    def write(self):
        for split, rows in self.rows.items():
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (self.path / f"{split}.jsonl").write_text(text, encoding="utf-8")
        return self.path


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "set")


@pytest.fixture
def check(run_cli):
    """Check a folder and return {kind: [ids]}, with `.done` of the call."""

    def call(path, *words):
        done = run_cli("data", "check", path, "--json", *words)
        assert "Traceback" not in done.err
        found = {}
        for finding in done.json()["findings"]:
            found.setdefault(finding["kind"], []).append(finding["id"])
        call.done = done
        return found

    return call


def test_clean_data_has_no_findings(folder, check):
    for seed in range(6):
        split = ("train", "validation", "test")[seed % 3]
        folder.row(
            split,
            f"q{seed}",
            folder.picture(f"{seed}.png", chart(seed)),
            reasoning="red = 7, blue = 3. 7 - 3 = 4. So the answer is 7.",
        )
    assert check(folder.write()) == {}
    assert (check.done.code, check.done.json()["errors"]) == (0, 0)
    assert check.done.json()["rows"] == {"train": 2, "validation": 2, "test": 2}
    assert check.done.json()["images"] == 6


def test_images_that_are_missing_broken_huge_tiny_or_blank(folder, check):
    whole = folder.picture("whole.png", chart(1))
    data = (folder.path / whole).read_bytes()
    (folder.path / "cut.png").write_bytes(data[: len(data) // 2])
    (folder.path / "empty.png").write_bytes(b"")
    (folder.path / "text.png").write_text("hello")
    jpeg = io.BytesIO()
    chart(2, (800, 600)).save(jpeg, "JPEG")
    (folder.path / "cut.jpg").write_bytes(jpeg.getvalue()[:4000])
    # A header alone can claim any size: nothing of it may be decoded.
    huge = bytearray(data)
    huge[16:24] = (30_000).to_bytes(4) + (30_000).to_bytes(4)
    huge[29:33] = zlib.crc32(huge[12:29]).to_bytes(4)
    (folder.path / "huge.png").write_bytes(huge)
    folder.picture("tiny.png", Image.effect_noise((40, 9), 80))
    folder.picture("blank.png", Image.new("RGB", (90, 90), (250, 250, 250)))
    for name in ("whole.png", "gone.png", "cut.png", "empty.png", "text.png", "cut.jpg", "huge.png"):
        folder.row("train", name, name)
    for name in ("tiny.png", "blank.png"):
        folder.row("train", name, name)
    found = check(folder.write())
    assert found == {
        "image-missing": ["gone.png"],
        "image-broken": ["cut.png", "empty.png", "text.png", "cut.jpg"],
        "image-huge": ["huge.png"],
        "image-tiny": ["tiny.png"],
        "image-blank": ["blank.png"],
    }
    assert check.done.code == 2


def test_a_large_picture_is_named_but_no_error(folder, check, monkeypatch):
    monkeypatch.setattr(images, "LARGE_PX", 30_000)
    folder.row("train", "q", folder.picture("large.png", chart(1)))
    assert check(folder.write()) == {"image-large": ["q"]}
    assert check.done.code == 0


def test_rows_that_cannot_be_read_are_named_by_id_or_line(folder, check):
    picture = folder.picture("a.png", chart(1))
    folder.row("train", "good", picture)
    folder.row("train", "silent", picture, answer="  ")
    folder.row("train", "far", "https://example.com/a.png")
    path = folder.write()
    (path / "train.jsonl").write_text((path / "train.jsonl").read_text() + "{broken\n[1]\n")
    found = check(path)
    assert found == {"empty": ["silent"], "unreadable": ["train.jsonl:4", "train.jsonl:5", "far"]}
    (row,) = [one for one in check.done.json()["findings"] if one["id"] == "silent"]
    assert (row["split"], row["where"], row["what"]) == ("train", "train.jsonl:2", "empty answer")


def test_duplicates_and_contradictions(folder, check):
    one, other = folder.picture("1.png", chart(1)), folder.picture("2.png", chart(2))
    folder.row("train", "a", one, answer="7")
    folder.row("train", "again", one, question="what is the value of red", answer="7.0")
    folder.row("train", "other image", other, answer="9")
    folder.row("train", "b", one, question="How many?", answer="5")
    folder.row("train", "c", one, question="How many?", answer="6 bars")
    # The same file under another name is the same image.
    (folder.path / "copy.png").write_bytes((folder.path / "1.png").read_bytes())
    folder.row("train", "d", "copy.png", question="How many? ", answer="5")
    found = check(folder.write())
    assert found == {"duplicate": ["again"], "contradiction": ["b", "c", "d"], "same-image": ["d"]}


def test_the_same_image_on_two_sides(folder, check):
    base = chart(1, (480, 320))
    folder.row("test", "t", folder.picture("t.png", base))
    folder.row("train", "same", "t.png", question="How many?")
    base.save(folder.path / "jpeg.jpg", quality=60)
    folder.row("train", "jpeg", "jpeg.jpg", question="Which?")
    folder.picture("small.png", base.resize((300, 200), Image.Resampling.LANCZOS))
    folder.row("validation", "small", "small.png", question="Where?")
    folder.row("train", "own", folder.picture("own.png", chart(2, (480, 320))))
    folder.row("train", "words", question="What is 2 + 2?", answer="4")
    folder.row("test", "words too", question="what is 2 + 2", answer="4")
    found = check(folder.write())
    assert found == {
        "leak-image": ["same"],
        "leak-lookalike": ["jpeg", "small"],
        "leak-question": ["words"],
        "lookalike": ["jpeg"],
    }
    assert check.done.code == 2


def test_against_evaluation_data(folder, check, tmp_path):
    base = chart(1, (480, 320))
    folder.row("train", "same", folder.picture("a.png", base))
    base.save(folder.path / "b.jpg", quality=70)
    folder.row("train", "alike", "b.jpg", question="Which?")
    folder.row("validation", "held out too", folder.picture("c.png", chart(3, (480, 320))))
    bench = Folder(tmp_path / "bench")
    bench.row("test", "t", bench.picture("x.png", base))
    # What the benchmark trains on may be trained on here as well.
    bench.row("train", "free", bench.picture("y.png", chart(3, (480, 320))))
    assert check(folder.write()) == {"lookalike": ["alike"]}
    found = check(folder.path, "--against", bench.write())
    assert found == {"eval-image": ["same"], "eval-lookalike": ["alike"], "lookalike": ["alike"]}
    assert "t in test shows x.png" in check.done.out


def test_labels(folder, check):
    picture = folder.picture("a.png", chart(1))
    table = "Entity: Yes | No & Share: 8 | 55"
    ratio = "What is the ratio of No and Yes?"
    folder.row("train", "time", picture, question=ratio, answer="0.371527778", table=table)
    folder.row(
        "train", "quotient", picture, question="And the ratio of Yes to No?", answer="6.875", table=table
    )
    folder.row("train", "sheet", picture, question="Q1?", answer="#DIV/0!")
    folder.row("train", "text", picture, question="Q2?", answer="'82:15")
    folder.row("train", "nan", picture, question="Q3?", answer="nan")
    folder.row("train", "closed", picture, question="Has it ever passed 300?", answer="521.1")
    folder.row("train", "either", picture, question="Is it 3 or 4?", answer="4")
    folder.row("train", "lost", picture, question="What\ufffds this?", answer="7")
    choices = {"choices": ["cat", "dog"], "task": "choice"}
    folder.row("train", "b", picture, question="Q4? A: cat B: dog", answer="B", **choices)
    folder.row("train", "c", picture, question="Q5? A: cat B: dog", answer="C", **choices)
    found = check(folder.write())
    # 6.875 is 165 h of a day, but nobody stores a ratio that way: it is 55 / 8.
    assert found == {
        "label": ["sheet", "text", "nan", "c"],
        "label-time": ["time"],
        "label-doubtful": ["closed"],
        "text-damaged": ["lost"],
    }
    (time,) = [one for one in check.done.json()["findings"] if one["kind"] == "label-time"]
    assert time["right_answer"] == "8:55"


@pytest.mark.parametrize(
    ("question", "answer", "facts", "ratio"),
    [
        ("What is the ratio of A to B?", "0.211111111", None, (5, 4)),
        ("what's the radio between them", "3.338194444", None, (80, 7)),
        ("What is the ratio?", "1.21875", "Year: 1 | 2 & X: 29 | 15", (29, 15)),
        ("What is the ratio?", "1.21875", "Year: 1 | 2 & X: 39 | 32", None),  # 39 / 32
        ("What is the ratio?", "0.333333333", None, None),  # 8:00
        ("What is the ratio?", "0.211", None, None),
        ("What is the ratio?", "1.51572327", None, None),
        ("What is the highest minus the average?", "0.31875", None, None),
        ("What is the value?", "0.211111111", None, None),
        ("What is the value?", "0.211111111", "Year: 1 | 2 & X: 5 | 4", (5, 4)),
        ("What is the ratio?", "5:4", None, None),
    ],
)
def test_ratios_stored_as_a_time_of_day(question, answer, facts, ratio):
    assert labels.ratio_stored_as_time(question, answer, facts) == ratio


@pytest.mark.parametrize(
    ("trace", "answer", "kind"),
    [
        ("red = 7. So the answer is 7.", "7", None),
        ("The value is 3 920.", "3920", None),
        ("It is shown in two colours.", "2", None),
        ("red = 7. The answer is 5.", "7", "trace-contradicts"),
        ("2018: 415, 2019: 417.\nConclusion: The increase was 2 million GBP.", "415", "trace-contradicts"),
        ("The lines are not diverging.", "No", None),
        ("So, the answer is based on the chart: it is Canada.", "Canada", None),
        ("The chart has no data for 2020. Therefore it is impossible to answer.", "81", "trace-gives-up"),
        ("I look at the bar for 2018. I will read its label.", "81", "trace-unfinished"),
        ("Then the answer would be Yukon. But only Canada is a country.", "Canada", None),
        ('The graph shows "NET Excellent/good".', "NET Excellent/ good", None),
    ],
)
def test_traces_and_their_answers(trace, answer, kind):
    found = traces.misses(Example("q", "Which one in 2018?", answer, reasoning=trace))
    assert (found[0] if found else None) == kind


def test_a_trace_may_name_its_option_by_letter_or_words():
    extra = {"task": "choice", "choices": ["12 cm", "15 cm"]}
    for trace in ("AB = 15 cm.", "So the answer is B.", "Therefore, AB is 15 cm long."):
        assert traces.misses(Example("q", "AB?", "B", reasoning=trace, extra=extra)) is None, trace
    wrong = Example("q", "AB?", "B", reasoning="So the answer is A.", extra=extra)
    assert traces.misses(wrong) == ("trace-contradicts", "“the answer is A.”, the answer is B")


def test_traces_in_the_report(folder, check):
    picture = folder.picture("a.png", chart(1))
    traces = {
        "leak": "The provided answer is 7, and red shows 7.",
        "sum": "red = 3, blue = 4. 3 + 4 = 8. But it is 7.",
        "long": "red is large. " * 400 + "So the answer is 7.",
    }
    for id, trace in traces.items():
        folder.row("train", id, picture, question=f"{id}?", reasoning=trace)
    found = check(folder.write())
    assert found == {
        "trace-mentions-answer": ["leak"],
        "trace-arithmetic": ["sum"],
        "trace-long": ["long"],
        "row-long": ["long"],
    }
    found = check(folder.path, "--max-length", "4000", "--max-trace-tokens", "9000")
    assert found.keys() == {"trace-mentions-answer", "trace-arithmetic"}


def test_class_balance(tmp_path, check):
    seed = 0
    for split, label, count in (
        ("train", "joy", 30),
        ("train", "awe", 24),
        ("train", "rage", 1),
        ("test", "joy", 1),
        ("test", "fear", 1),
    ):
        for _ in range(count):
            path = tmp_path / "faces" / split / label / f"{seed}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            chart(seed).save(path)
            seed += 1
    found = check(tmp_path / "faces")
    assert set(found) == {"class-absent", "class-rare"}
    whats = [one["what"] for one in check.done.json()["findings"]]
    assert any(what.startswith("fear") for what in whats)
    assert any(what.startswith("rage") for what in whats)
    assert check.done.json()["classes"]["train"] == {"joy": 30, "awe": 24, "rage": 1}


# --- what looks the same ---------------------------------------------------------------------


def copies(image):
    """The picture as it comes back from other hands."""
    for quality in (40, 80):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        yield Image.open(buffer)
    for share in (0.5, 0.75, 1.4):
        yield image.resize((int(image.width * share), int(image.height * share)), Image.Resampling.LANCZOS)
    yield image.quantize(64)
    yield image.convert("RGBA")
    yield image.convert("L")
    yield image.point(lambda value: int(value * 0.85 + 10))


def test_copies_look_the_same_and_other_charts_do_not():
    originals = [chart(seed, (640, 420)) for seed in range(8)]
    shown, owner = [], []
    for place, image in enumerate(originals):
        for one in (image, *copies(image)):
            shown.append(images.grey(one))
            owner.append(place)
    looks = near_duplicates.groups(np.stack(shown), np.zeros(len(shown)))
    assert len(set(zip(looks, owner))) == len(set(looks)) == len(originals)


@pytest.mark.parametrize(
    ("spot", "looks_the_same"),
    [
        ([14] * 9, True),
        ([14] * 8 + [15], False),  # 14.1 grey levels over the 3 x 3
        ([60] + [0] * 8, True),
        ([61] + [0] * 8, False),
    ],
)
def test_how_far_a_spot_may_be_off(spot, looks_the_same):
    """Fourteen grey levels of a 3 x 3 spot, and sixty of a single one."""
    one = np.where(np.indices((64, 64)).sum(0) % 2, 180, 20).astype(np.uint8)
    other = one.copy()
    other[30:33, 30:33] += np.array(spot, np.uint8).reshape(3, 3)
    assert near_duplicates.same(one, other[None]).tolist() == [looks_the_same]


def test_shape_tells_pictures_apart():
    shown = np.stack([images.grey(chart(1))] * 3)
    assert near_duplicates.groups(shown, np.array([0.0, 0.029, 0.06])) == [0, 0, 2]


def test_transparent_paper_is_white():
    drawn = chart(1).convert("RGBA")
    clear = Image.new("RGBA", drawn.size, (0, 0, 0, 0))
    clear.paste(drawn, mask=drawn.convert("L").point(lambda value: 255 * (value < 250)))
    assert int(np.abs(images.grey(clear).astype(int) - images.grey(drawn)).max()) < 16


# --- the cleaned copy ------------------------------------------------------------------------


def everything(folder):
    return {
        path.relative_to(folder): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }  # fmt: skip


def test_fix_writes_a_clean_copy_and_leaves_the_original_alone(folder, check, run_cli, tmp_path):
    one, other = folder.picture("1.png", chart(1)), folder.picture("2.png", chart(2))
    folder.row("train", "good", one, reasoning="red = 7. So the answer is 7.", kind="look-up")
    folder.row("train", "gone", "gone.png")
    folder.row("train", "empty", one, answer="")
    folder.row("train", "leaky", one, question="Which?", reasoning="As provided, the given answer is 7.")
    folder.row("train", "time", one, question="What is the ratio?", answer="0.211111111")
    folder.row("train", "on two sides", other)
    folder.row("train", "again", one)
    folder.row("test", "held out", other)
    path = folder.write()
    (path / "card.json").write_text(json.dumps({"name": "mine", "task": "chart", "licence": "MIT"}))
    before = everything(path)
    clean = tmp_path / "clean"
    done = run_cli("data", "check", path, "--fix", clean)
    assert done.code == 0, done.err
    assert everything(path) == before
    assert check(clean) == {}
    whole = sources.load_splits(str(clean))
    assert [(row.id, row.answer, row.reasoning) for row in whole.splits["train"]] == [
        ("good", "7", "red = 7. So the answer is 7."),
        ("leaky", "7", None),
        ("time", "5:4", None),
    ]
    assert [row.id for row in whole.splits["test"]] == ["held out"]
    fixes = [json.loads(line) for line in (clean / "fixes.jsonl").read_text().splitlines()]
    assert {fix["id"]: fix["done"] for fix in fixes} == {
        "gone": "left out", "empty": "left out", "leaky": "trace taken off", "time": "answer put right",
        "on two sides": "left out", "again": "left out",
    }  # fmt: skip
    card = json.loads((clean / "card.json").read_text())
    assert (card["licence"], card["cleaned_from"], card["fixes"]["label-time"]) == ("MIT", "set", 1)
    # Nothing done to the copy can reach the original.
    for copied in (clean / "images").iterdir():
        copied.write_bytes(b"")
    assert everything(path) == before


def test_fix_never_writes_where_something_is(folder, run_cli):
    folder.row("train", "q", folder.picture("1.png", chart(1)))
    path = folder.write()
    before = everything(path)
    for target in (path, path / "inside"):
        done = run_cli("data", "check", path, "--fix", target)
        assert done.code == 2, done.out
        assert everything(path) == before


def test_fix_does_not_empty_a_split(folder, run_cli, tmp_path):
    picture = folder.picture("1.png", chart(1))
    folder.row("train", "q", picture)
    folder.row("test", "t", picture)
    done = run_cli("data", "check", folder.write(), "--fix", tmp_path / "clean")
    assert (done.code, "nothing would be left of train" in done.err) == (2, True)
    assert not (tmp_path / "clean").exists()


# --- the command -----------------------------------------------------------------------------


def test_what_is_printed(folder, run_cli, tmp_path):
    for number in range(8):
        folder.row("train", f"gone-{number}", f"{number}.png", answer="[bold]7[/bold]\x1b[31m")
    path = folder.write()
    report = tmp_path / "report.jsonl"
    done = run_cli("data", "check", path, "--show", "2", "--report", report)
    assert done.code == 2
    assert "✗ image-missing  the image file does not exist: 8" in done.out
    assert "gone-1" in done.out
    assert "gone-2" not in done.out
    assert "… and 6 more" in done.out
    assert "8 errors" in done.out
    assert "--fix" in done.out
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert [line["id"] for line in lines] == [f"gone-{number}" for number in range(8)]
    assert "gone-7" in run_cli("data", "check", path, "--show", "0").out


def test_a_check_loads_nothing_heavy(charts_folder):
    code = (
        "import sys, toasterft.cli as cli\n"
        f"sys.argv = ['toasterft', 'data', 'check', {str(charts_folder)!r}, '--quiet']\n"
        "cli.app(standalone_mode=False)\n"
        "found = {'torch', 'transformers', 'datasets', 'trl'} & sys.modules.keys()\n"
        "assert not found, found\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_such_data(run_cli):
    done = run_cli("data", "check", "nowhere")
    assert (done.code, "no such data" in done.err) == (2, True)


def test_every_kind_has_an_order_and_a_cure_that_exists():
    assert all(kind.severity in ("error", "warning", "note") for kind in KINDS.values())
    errors = {name for name, kind in KINDS.items() if kind.severity == "error" and not kind.fix}
    assert errors == {"pictures-unread"}, (
        "a cleaned copy has no errors; without its pictures no copy is written"
    )


# --- the real sample -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(shared):
    """The ChartQA sample: raw rows by id, and findings by kind."""
    from toasterft.audit.check import Limits, text_findings
    from toasterft.models import lookup

    path = shared / "chartqa" / "items.jsonl"
    raw = {row["id"]: row for row in map(json.loads, path.read_text().splitlines())}
    shape = lookup.resolve("SmolVLM-256M", Path("runs")).shape
    count = token_stats.token_counter(shared / "smolvlm-256m")
    limits = Limits(shape.geometry, 2048, 1000, count)
    found: dict[str, set[str]] = {}
    for rows in sources.load_splits(str(path)).splits.values():
        for example in rows:
            for finding in text_findings(example, limits):
                found.setdefault(finding.kind, set()).add(finding.id)
    return raw, found, count


def test_real_label_faults_are_named(real):
    raw, found, _ = real
    suspect = {id for id, row in raw.items() if row.get("label_suspect")}
    named = found["label-time"]
    recall, precision = len(named & suspect) / len(suspect), len(named & suspect) / len(named)
    assert recall == 1.0
    assert precision >= 0.95, named - suspect


def test_real_hints_that_are_long_or_speak_of_an_answer(real):
    raw, found, count = real
    hints = {id: row["hint"] for id, row in raw.items() if row.get("hint")}
    assert found["trace-long"] == {id for id, hint in hints.items() if count(hint) > 1000}
    speak = {
        id for id, hint in hints.items() if re.search(r"\b(?:provided|given) answer\b", hint, re.IGNORECASE)
    }
    assert speak <= found.get("trace-mentions-answer", set())


def test_real_traces_are_seldom_accused(real):
    """Looked at one by one, 2026-11-21: the nine that are named do not come to their answer."""
    _, found, _ = real
    missed = {
        id
        for kind, ids in found.items()
        if kind.startswith("trace-") and kind not in ("trace-long",)
        for id in ids
    }
    assert len(missed) <= 12, sorted(missed)


def test_real_charts_are_told_apart(shared):
    folder = shared / "chartqa" / "images" / "train"
    refs = {path.name: ImageRef(path.name, path) for path in sorted(folder.iterdir())[:250]}
    found = images.stats(refs, lambda done, total: None)
    assert not [fault for picture in found.values() for fault in picture.faults]
    groups: dict[int, list[str]] = {}
    for name, picture in found.items():
        groups.setdefault(picture.look, []).append(name)
    # One chart lies there twice, under two names and in two encodings.
    assert [names for names in groups.values() if len(names) > 1] in ([], [["4549.png", "4612.png"]])
