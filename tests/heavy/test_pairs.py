"""`cot pairs`: wrong samples of a model beside the data's own traces; stopped, gone on with, and trained on."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import replace

import pytest

from toasterft import scoring
from toasterft.data import sources, write
from toasterft.data.chat import parse
from toasterft.errors import UserError
from toasterft.recipe import Prompt
from toasterft.training import preference_pairs
from toasterft.training.preference_pairs import SAMPLES, Sample, worst

SHORT = ("--tries", "2", "max_completion_length=24", "per_device_eval_batch_size=4")


def rows_of(folder, split="train"):
    return [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Twenty questions about charts of toast-tiny's own size."""
    from toasterft.data import charts

    return charts.write_dataset(tmp_path_factory.mktemp("data") / "drawn", n=20, seed=3, per_chart=1)


@pytest.fixture(scope="module")
def whole(drawn, tmp_path_factory):
    """What an undisturbed build writes."""
    with pytest.MonkeyPatch.context() as patch:
        out = tmp_path_factory.mktemp("pairs") / "whole"
        patch.setenv("TOASTERFT_CACHE", str(out.parent / "cache"))
        build(out, drawn)
    return out


def build(out, data, *words, code=0):
    """Run the command in this process without capturing; the folder it wrote."""
    import sys

    from toasterft import cli

    given = [
        "cot",
        "pairs",
        "x",
        "--from",
        data,
        "--model",
        "toast-tiny",
        "--out",
        out,
        "--quiet",
        *SHORT,
        *words,
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["toasterft", *map(str, given)])
        try:
            cli.main()
            found = 0
        except SystemExit as stop:
            found = stop.code or 0
    assert found == code
    return out


def test_what_is_rejected_is_the_models_own_and_wrong(whole, drawn):
    data = sources.load(str(drawn))
    source = {example.id: example for example in data.examples}
    card = json.loads((whole / "card.json").read_text())
    ledger = [json.loads(line) for line in (whole / SAMPLES).read_text().splitlines()]
    sampled = {line["id"]: [one["text"] for one in line["samples"]] for line in ledger}
    rows = rows_of(whole)
    assert len(rows) >= 3
    for row in rows:
        own = source[row["id"]]
        assert (row["question"], row["answer"], row["reasoning"]) == (own.question, own.answer, own.reasoning)
        assert row["rejected"] in sampled[row["id"]]
        assert not scoring.right(parse(row["rejected"], Prompt()).answer, own)
    counts = card["counts"]
    assert card["complete"] is True
    assert counts["rows"] == counts["sampled"] == len(data) == len(ledger)
    assert counts["samples"] == 2 * len(data)
    assert counts["kept"] == len(rows) == card["splits"]["train"]
    assert counts["kept"] + sum(card["rejects"].values()) == len(data)
    # Rows that gave no pair: all right, or none of the wrong ones ended.
    chosen = {row["id"] for row in rows}
    for line in ledger:
        wrong = [one for one in line["samples"] if one["finished"] and not one["right"]]
        assert bool(wrong) == (line["id"] in chosen)
    held_out = [(row["id"], row["answer"]) for row in rows_of(whole, "test")]
    assert held_out == [(row["id"], row["answer"]) for row in rows_of(drawn, "test")]


def test_the_set_is_found_by_its_name_and_dpo_learns_from_it(drawn, run_cli, homes, quick):
    words = ("cot", "pairs", "mine", "--from", drawn, "--model", "toast-tiny", *SHORT, "limit=8")
    done = run_cli(*words)
    assert done.code == 0, done.err
    assert "pairs; " in done.out
    assert "next  toasterft dpo --model toast-tiny --data mine" in done.out
    assert len(sources.load("mine").examples) == len(rows_of(homes / "data" / "mine"))
    done = run_cli("dpo", "--model", "toast-tiny", "--data", "mine", "--json", *quick, "max_steps=1")
    assert done.code == 0, done.err
    assert done.json()["train_count"] == len(rows_of(homes / "data" / "mine"))


def test_a_stopped_build_goes_on_and_samples_nothing_twice(whole, drawn, tmp_path, monkeypatch):
    calls, plain = [], preference_pairs._sample

    def sample(session, batch, recipe):
        calls.append([row.id for row in batch])
        if len(calls) == 2:
            signal.raise_signal(signal.SIGTERM)
        return plain(session, batch, recipe)

    monkeypatch.setattr(preference_pairs, "_sample", sample)
    folder = build(tmp_path / "stopped", drawn, code=128 + signal.SIGTERM)
    card = json.loads((folder / "card.json").read_text())
    assert card["complete"] is False
    assert card["counts"]["sampled"] == 8
    # A kill in the middle of the next line.
    lines = (folder / SAMPLES).read_text()
    (folder / SAMPLES).write_text(lines + lines[:50])
    build(folder, drawn)
    for name in ("train.jsonl", SAMPLES):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
    every = [row for batch in calls for row in batch]
    assert len(every) == len(set(every)) == len(sources.load(str(drawn)).examples)


def test_n_pairs_then_more_of_them(whole, drawn, tmp_path, monkeypatch):
    folder = build(tmp_path / "some", drawn, "--n", "2")
    assert rows_of(folder) == rows_of(whole)[:2]
    card = json.loads((folder / "card.json").read_text())
    assert card["complete"] is True
    assert (card["counts"]["wanted"], card["counts"]["kept"]) == (2, 2)
    before = (folder / SAMPLES).read_text()
    assert before == (whole / SAMPLES).read_text()[: len(before)]
    (folder / SAMPLES).write_text(before.removesuffix("\n"))  # a kill between a line and its end
    build(folder, drawn)
    assert rows_of(folder) == rows_of(whole)


def test_a_cap_stops_between_two_batches(drawn, tmp_path, monkeypatch, capsys):
    from toasterft.runs.meter import Meter

    folder = tmp_path / "capped"
    ledger = folder / SAMPLES
    monkeypatch.setattr(Meter, "reached", lambda self, *_: ledger.exists() and ledger.stat().st_size > 0)
    build(folder, drawn, "--max-hours", "1", code=3)
    assert "stopped at the cap (1 h)" in capsys.readouterr().err
    assert len(ledger.read_text().splitlines()) == 4


def test_a_cap_stops_the_loading_too(drawn, tmp_path, capsys):
    build(tmp_path / "set", drawn, "--max-hours", "0.0001", code=3)
    assert "before the first sample" in capsys.readouterr().err


def test_another_way_to_build_is_refused(whole, drawn, tmp_path, capsys):
    folder = tmp_path / "again"
    shutil.copytree(whole, folder)
    build(folder, drawn, "--temperature", "0.5", code=UserError.exit_code)
    said = capsys.readouterr().err
    assert "was built another way" in said
    assert "temperature: 1.0 there, 0.5 requested" in said
    assert (folder / "train.jsonl").read_bytes() == (whole / "train.jsonl").read_bytes()


def test_a_damaged_picture_costs_its_own_row(drawn, tmp_path):
    examples = sources.load(str(drawn)).examples[:6]
    folder = tmp_path / "data"
    write.write_dataset(folder, {"name": "data"}, {"train": examples})
    picture = sources.load(str(folder)).examples[2].images[0].path
    picture.write_bytes(picture.read_bytes()[:200])
    found = build(tmp_path / "found", folder)
    card = json.loads((found / "card.json").read_text())
    assert card["counts"]["sampled"] == 6
    assert card["rejects"]["the picture cannot be read"] == 1
    assert examples[2].id not in [row["id"] for row in rows_of(found)]


def test_models_that_never_end_make_no_pair(tiny_model, charts_folder, run_cli, homes):
    done = run_cli(
        "cot", "pairs", "none", "--from", charts_folder, "--model", tiny_model(), "--quiet", "limit=2",
        "max_completion_length=4",
    )  # fmt: skip
    assert done.code == 4
    assert "no wrong sample came to an end" in done.err
    assert json.loads((homes / "data" / "none" / "card.json").read_text())["counts"]["kept"] == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--model", "toast-tinny"), "did you mean toast-tiny"),
        (("--model", "toast-tiny", "--budget", "1"), "--budget needs the machine's price"),
        (("--model", "toast-tiny", "tris=3"), "did you mean tries"),
        (("--model", "toast-tiny", "top_p=2"), "top_p"),
    ],
)
def test_mistakes_leave_nothing_behind(words, says, charts_folder, run_cli, homes):
    done = run_cli("cot", "pairs", "mine", "--from", charts_folder, *words)
    assert done.code == 2
    assert says in done.err
    assert not (homes / "data").exists()


def test_rows_without_reasoning_make_no_pair(drawn, tmp_path, run_cli, homes):
    rows = [replace(one, reasoning=None) for one in sources.load(str(drawn)).examples[:2]]
    write.write_dataset(tmp_path / "bare", {"name": "bare"}, {"train": rows})
    done = run_cli("cot", "pairs", "mine", "--from", tmp_path / "bare", "--model", "toast-tiny")
    assert done.code == 2
    assert "no row carries reasoning" in done.err
    assert "toasterft cot build" in done.err
    assert not (homes / "data").exists()


def test_which_sample_is_rejected():
    right = Sample("<answer>1</answer>", True, True, True)
    cut = Sample("<answer>2", False, False, False)
    rough = Sample("2", False, True, False)
    clean = Sample("<answer>3</answer>", False, True, True)
    empty = Sample("", False, True, False)
    assert worst([right, cut, rough, clean]) is clean
    assert worst([right, rough, replace(rough, text="4")]) is rough
    assert worst([right, cut, empty]) is None
    assert worst([]) is None
