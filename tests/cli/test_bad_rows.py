# ruff: noqa: E501
"""No input of a command on data ends in a traceback: bad rows and bad files through every entry point that reads them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from toasterft.audit.check import Limits, check
from toasterft.audit.fix import write_clean
from toasterft.data import sources
from toasterft.data.example import Example
from toasterft.data.importers import convert
from toasterft.errors import UserError
from toasterft.models.lookup import resolve
from toasterft.progress import Silent

FIELD = (
    Path(os.environ.get("TOASTERFT_SHARED", Path(__file__).parents[2] / ".." / "shared")) / "cases" / "field"
)
# What a data set is refused for by whatever reads it, and what else is an error only in training.
REFUSED = ("unreadable", "empty", "pictures-unread", "image-missing")
LIMITS = Limits(resolve("SmolVLM-256M", Path()).shape.geometry, 8192)

GOOD = {
    "image": "a.png",
    "question": "Which bar is red?",
    "answer": "the left one",
    "reasoning": "Left is red.",
}
DEEP = "[" * 3000 + "]" * 3000
# Cells as JSON text: what a column may hold although nobody meant it to.
CELLS = {
    "null": "null", "true": "true", "list": "[1, [2, null]]", "object": '{"a": {"b": []}}', "empty": '""',
    "nan": "NaN", "infinity": "-Infinity", "huge": "9" * 5000, "exponent": "1e400", "surrogate": '"\\ud800 red"',
    "nul": '"a\\u0000b.png"', "long": json.dumps("x" * 300 + ".png"), "deep": DEEP, "url": '"https://x.y/a.png"',
    "folder": '"."', "upwards": '"../../../../etc/passwd"', "tags": '"<answer></answer>"', "half": '"</think>"',
    "controls": '"<image><|im_end|>\\u202e\\u001b[31m"', "spaces": '" \\n "', "dashes": '"dev-v1.1 b"', "data-url": '"data:image/png;base64,!!"',
}  # fmt: skip
COLUMNS = (
    "image", "images", "question", "answer", "reasoning", "choices", "messages", "rejected", "id", "kind", "facts", "split",
)  # fmt: skip
LINES = {
    "a list": "[1, 2]", "a number": "7", "a text": '"row"', "null": "null", "nothing": "{}", "cut": '{"question": "Wh',
    "deep": '{"question": ' + DEEP + "}", "roles": json.dumps({"messages": [{"role": "judge", "content": "?"}]}),
    "messages of text": json.dumps({"messages": ["?", "!"]}), "unanswered": json.dumps({"messages": [{"role": "user", "content": "?"}]}),
    "role is an object": json.dumps({"messages": [{"role": {}, "content": []}]}), "content is a number": json.dumps({"messages": [{"role": "user", "content": 3}, {"role": "assistant", "content": [4]}]}),
    "more places": json.dumps({"image": "a.png", "question": "<image><image>?", "answer": "1"}),
    "answer of objects": json.dumps({"question": "?", "answers": [{"x": 1}, None, 2.0]}),
    "option and answer differ": json.dumps({"question": "?", "choices": ["a", "b"], "answer": 7}),
    "keys": json.dumps({"": "?", "question ": "?", "answer": "1"}), "twice": '{"question": "a", "question": "b", "answer": "1", "answer": []}',
}  # fmt: skip
FILES = {
    "empty": ("x.jsonl", b""), "spaces": ("x.jsonl", b" \n\n"), "pointer": ("x.jsonl", b"version https://git-lfs.github.com/spec/v1\n"),
    "latin": ("x.jsonl", b'{"question": "caf\xe9?", "answer": "\xff"}\n'), "utf16": ("x.jsonl", '{"question": "?"}\n'.encode("utf-16")[:-1]),
    "nul": ("x.jsonl", b"\0" * 99), "object": ("x.json", b'{"a": 1}'), "number": ("x.json", b"3"), "cut": ("x.json", b'[{"question": "?"}'),
    "deep": ("x.json", DEEP.encode()), "numbers": ("x.json", b"[1, 2, null]"), "parquet": ("x.parquet", b"PAR1 not really PAR1"),
    "empty parquet": ("x.parquet", b""), "arrow": ("x.arrow", b"ARROW1\0\0"), "csv": ("x.csv", b'a,"b\n\0'), "empty csv": ("x.csv", b""),
    "one column": ("x.csv", b"question\nWhich?\n"), "ragged": ("x.csv", b"question,answer\na\nb,c,d,e\n"), "tsv": ("x.tsv", b"\xff\xfe"),
    "xlsx": ("x.xlsx", b"PK\x03\x04"), "card": ("card.json", b"["), "zip": ("train.jsonl", b"PK\x03\x04\x00\x00\xff\xfe\xfa"),
}  # fmt: skip


def parquet(columns: dict[str, list]) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    return file.getvalue()


ROWS = {"question": ["Which bar is red?"] * 3, "answer": ["the left one"] * 3}
WHOLE = parquet(ROWS)
TABLES = {
    "cut": [("x.parquet", WHOLE[: len(WHOLE) // 2])], "bytes changed": [("x.parquet", WHOLE[:40] + b"\xff" * 60 + WHOLE[100:])],
    "numbers": [("x.parquet", parquet({"question": [1.5, None, float("nan")], "answer": [2**62, None, -1]}))],
    "lists": [("x.parquet", parquet({"question": [["a"], [], None], "answer": [[1.0], None, []]}))],
    "structs": [("x.parquet", parquet({"image": [{"bytes": b"", "path": None}, None, {"bytes": b"x", "path": "/etc/passwd"}], **ROWS}))],
    "bytes": [("x.parquet", parquet({"image": [b"", None, b"\x89PNG"], "question": [b"\xff", b"a", None], "answer": ["", " ", "1"]}))],
    "two kinds": [("train-0.parquet", WHOLE), ("train-1.parquet", parquet({"question": [1], "other": [2]}))],
    "no rows": [("x.parquet", parquet({"question": [], "answer": []}))], "no columns": [("x.parquet", parquet({}))],
    "names": [("x.parquet", parquet({"": ["a"], "\n": ["b"], "Question": ["c"], "ANSWER": ["d"]}))],
    "a folder": [("x.parquet", None)], "lines in a folder": [("x.jsonl", None)], "a table in a folder": [("x.csv", None)],
}  # fmt: skip
SAVED = {
    "state cut": {"state.json": b'{"_data_'}, "state without files": {"state.json": b"{}"}, "state a list": {"state.json": b"[]"},
    "info cut": {"dataset_info.json": b"{"}, "arrow cut": {"data-00000-of-00001.arrow": b"ARROW1"},
    "another file": {"state.json": b'{"_data_files": [{"filename": "../x.arrow"}]}'}, "splits": {"dataset_dict.json": b'{"splits": ["train", 3]}'},
    "label": {"dataset_info.json": b'{"features": {"question": {"names": ["a"], "_type": "ClassLabel"}}}'},
}  # fmt: skip


def inputs() -> dict[str, list[tuple[str, bytes | None]]]:
    """Name → files of a folder, folders as None; the last one is also given to the commands by its own name."""
    good = json.dumps(GOOD)
    found: dict[str, list[tuple[str, bytes | None]]] = {}
    for column, (name, cell) in itertools.product(COLUMNS, CELLS.items()):
        rest = json.dumps({key: value for key, value in GOOD.items() if key != column})
        row = f'{rest[:-1]}, "{column}": {cell}}}'
        found[f"{column} {name}"] = [("x.jsonl", f"{good}\n{row}\n".encode())]
    for name, line in LINES.items():
        found[f"line {name}"] = [("x.jsonl", f"{good}\n{line}\n".encode())]
        found[f"only {name}"] = [("x.json", f"[{line}]".encode())]
    found |= {f"file {name}": [file] for name, file in FILES.items()}
    found |= {f"table {name}": files for name, files in TABLES.items()}
    found |= {f"saved {name}": [*files.items()] for name, files in SAVED.items()}
    return found


INPUTS = inputs()


def make(name: str, folder: Path) -> tuple[Path, Path]:
    """Write one input into a new folder; returns the folder and its last file."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if name.startswith("saved "):
        datasets.Dataset.from_dict(ROWS).save_to_disk(str(folder))
    Image.new("RGB", (40, 30), "red").save(folder / "a.png")
    for file, content in INPUTS[name]:
        if content is None:
            (folder / file).mkdir()
        else:
            (folder / file).write_bytes(content)
    return folder, folder / INPUTS[name][-1][0]


def commands(source: Path, out: Path) -> list[list[object]]:
    plan = ("--gpu", "A40", "--dry-run")
    return [
        ["data", "check", source, "--fix", out / "fixed"],
        ["data", "preview", source],
        ["data", "split", source, "parts", "--out", out / "parts"],
        ["data", "push", source, "me/set", "--out", out / "pushed"],
        ["data", "import", source, "taken", "--out", out / "taken"],
        ["cot", "build", "made", "--from", source, "--teacher", "rules", "--out", out / "made"],
        ["estimate", "eval", "--data", source, "--gpu", "A40"],
        ["estimate", "cot", "--data", source],
        *([method, "--data", source, "--model", "SmolVLM-256M", *plan] for method in ("sft", "grpo", "dyme")),
        ["dpo", "--data", source, "--model", "SmolVLM-256M", *plan],
    ]


def faults(name: str, run_cli, folder: Path, places: int, *model: object) -> str:
    """What is wrong with how the commands take one input: its folder, and with two places also its file; or an eval."""
    out, found = folder / "out", ""
    for source in make(name, folder / "set")[:places]:
        for words in [["eval", *model, "--data", source]] if model else commands(source, out):
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            about = f"{name}: {' '.join(map(str, words[:2]))} {source.name}"
            try:
                done = run_cli(*words)
            except Exception as error:
                found += f"{about}: {type(error).__name__}: {str(error)[:200]}\n"
                continue
            # 4: an incomplete result, said; rules write no trace where rows have no table.
            if done.code not in ((0, 2, 4) if words[0] == "cot" else (0, 2)) or "Traceback" in done.err:
                found += f"{about}: exit code {done.code}: {done.err[-300:]}\n"
            elif done.code == 2 and not any(
                line.startswith("✗ ") for line in (done.err + done.out).split("\n")
            ):
                found += f"{about}: refused without a word: {done.err[-300:]}\n"
            elif done.code == 2 and any(out.iterdir()):
                found += f"{about}: refused, and left {[each.name for each in out.iterdir()]}\n"
    return found


# A few of every sort in `make test`, all of them in `make soak`.
SOME = sorted(INPUTS)[::20]
SOAK = [pytest.mark.soak, pytest.mark.timeout(1800)]
ALL = [pytest.param(sorted(INPUTS)[part::12], 2, id=f"all-{part}", marks=SOAK) for part in range(12)]


@pytest.mark.parametrize(("names", "places"), [pytest.param(SOME, 1, id="some"), *ALL])
def test_bad_inputs(names, places, run_cli, tmp_path):
    found = "".join(faults(name, run_cli, tmp_path / "x", places) for name in names)
    assert not found, found


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_evaluations_of_bad_inputs(run_cli, tmp_path, tiny_model):
    words = (tiny_model(), "--limit", 1, "max_completion_length=1")
    found = "".join(faults(name, run_cli, tmp_path / "x", 1, *words) for name in sorted(INPUTS)[::4])
    assert not found, found


def test_reasons_are_grouped_on_the_screen(run_cli, tmp_path):
    rows = [{"question": "<image>" * n + "?", "answer": "1"} for n in (1, 2, 3)] + [
        {"messages": [{"role": "judge"}]}
    ]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    done = run_cli("data", "check", tmp_path / "x.jsonl")
    assert "… `<image>` for … pictures: 3" in done.out
    assert "the role … is not supported: 1" in done.out


@pytest.mark.parametrize("source", ["/dev/null", "x" * 300])
def test_sources_that_are_neither_file_nor_folder(source, run_cli, tmp_path):
    for words in commands(Path(source), tmp_path):
        done = run_cli(*words)
        assert done.code == 2, words
        assert "✗ " in done.err


def test_a_split_that_is_a_path_is_refused(run_cli, tmp_path):
    rows = [GOOD | {"image": None, "split": split} for split in ("train", "../../out")]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    done = run_cli("data", "split", tmp_path / "x.jsonl", "parts", "--out", tmp_path / "a" / "parts")
    assert done.code == 2
    assert "x.jsonl:2: the column `split` names no split" in done.err


def test_cells_beyond_the_header_are_no_row(tmp_path):
    (tmp_path / "x.csv").write_text("question,answer\nHow many, in all?,3\nHow many?,3,\n")
    found = convert.read(str(tmp_path / "x.csv"))
    assert [row.question for row in in_all(found.splits)] == ["How many?"]
    assert [fault.where for fault in found.faults] == ["x.csv:2"]


# --- what one command calls good is what the others read ---------------------------------------

Rows = set[tuple[object, ...]]


def as_rows(examples: Iterable[Example]) -> Rows:
    """What rows say and show; those left out whose pictures cannot be opened, which is found only then."""
    found = set()
    for each in examples:
        with contextlib.suppress(UserError):
            assert all(image.size_px for image in each.images)
            pictures = [hashlib.sha256(image.bytes()).hexdigest() for image in each.images]
            found.add((each.question, each.answer, each.reasoning, each.rejected, each.history, *pictures))
    return found


def read_by(load: Callable[[], Iterable[Example]]) -> Rows | str:
    """The rows that a command gets; a refusal as its text."""
    try:
        return as_rows(load())
    except UserError as error:
        return str(error)


def disagreements(source: Path, scratch: Path) -> str:
    """Where `data check`, training, evaluation and import differ about one data set."""
    name, found = str(source), ""
    imported = read_by(lambda: in_all(convert.read(name).splits))
    try:
        data = sources.load_splits(name, keep_faults=True)
    except UserError as error:
        trained = read_by(lambda: sources.load(name).examples)
        return (
            ""
            if isinstance(trained, str)
            else f"{source.name}: check refuses it ({error.what}), training does not\n"
        )
    report = check(data, [], LIMITS, Silent())
    errors = [finding for finding in report.findings if finding.severity == "error"]
    refused = [one for one in errors if one.kind in REFUSED]
    lost = {(one.split, one.id, one.where) for one in errors if one.kind in REFUSED}
    good = as_rows(
        row for split, rows in data.splits.items() for row in rows if (split, row.id, row.where) not in lost
    )
    for purpose in ("train", "evaluate"):
        read = read_by(lambda purpose=purpose: sources.load(name, purpose=purpose).examples)
        if isinstance(read, str):
            if not errors and "no split to" not in read and "no rows" not in read:
                found += f"{source.name}: {purpose} refuses what check calls good: {read}\n"
        elif refused:
            found += f"{source.name}: {purpose} reads what check calls an error: {refused[0]}\n"
        elif not read <= good or (len(data.splits) == 1 and read != good):
            found += f"{source.name}: {purpose} reads other rows than check: {read ^ good}\n"
    if isinstance(imported, str):
        found += "" if errors else f"{source.name}: import refuses what check calls good: {imported}\n"
    elif imported != good:
        found += f"{source.name}: import reads other rows than check: {imported ^ good}\n"
    if errors:
        try:
            write_clean(data, report, scratch / "fixed")
        except UserError:
            return found
        again = check(sources.load_splits(str(scratch / "fixed"), keep_faults=True), [], LIMITS, Silent())
        left = [one for one in again.findings if one.severity == "error"]
        found += f"{source.name}: errors in the cleaned copy: {left[0]}\n" if left else ""
        shutil.rmtree(scratch / "fixed")
    return found


def in_all(splits: Mapping[str, Iterable[Example]]) -> Iterator[Example]:
    return itertools.chain.from_iterable(splits.values())


@pytest.mark.parametrize(("names", "places"), [pytest.param(SOME, 1, id="some"), *ALL])
def test_commands_agree_on_bad_inputs(names, places, tmp_path):
    found = ""
    for name in names:
        texts = [disagreements(source, tmp_path) for source in make(name, tmp_path / "x")[:places]]
        found += "".join(f"{name}: {text}" for text in texts if text)
    assert not found, found


@pytest.mark.skipif(not FIELD.is_dir(), reason="the inputs of public reports are not here")
def test_commands_agree_on_the_inputs_of_public_reports(tmp_path):
    sets = sorted(each for each in FIELD.glob("*/*") if each.is_dir())
    found = "".join(disagreements(each, tmp_path) for each in sets)
    assert sets
    assert not found, found
