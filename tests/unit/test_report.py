"""The report: what it finds, what it says, and that nothing a model wrote can do more than stand there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import fake_runs
import pytest
from PIL import Image

from toasterft import recipe
from toasterft.errors import UserError
from toasterft.publish import model_card
from toasterft.publish.command import command
from toasterft.publish.report import collect, gallery, page
from toasterft.publish.report.curves import figures
from toasterft.publish.report.scores import per_point
from toasterft.publish.run_view import RunView, shortened
from toasterft.runs import plots, run_folder
from toasterft.units import Range, dollars, ranged_time

# ------------------------------------------------------------------------------------- runs to tell of


def judged(right: Any, text: Any = lambda k: f"value {k}") -> Any:
    """Answers of which `right(k)` says whether they are right."""
    return lambda k: {
        "answer": text(k), "reasoning": f"I read {text(k)}.", "kind": ("sum", "lookup")[k % 2],
        "correct": {"robust": bool(right(k)), "relaxed": False}, "finished": True,
    }  # fmt: skip


STEPS = [{"step": k, "loss": 3 / k, "mean_token_accuracy": k / 10} for k in range(1, 9)]
SAMPLED = [
    {
        "step": k, "loss": 0.0, "reward": k / 10, "rewards/accuracy/mean": k / 20, "rewards/format/mean": k / 20,
        "completions/mean_length": 20 + k, "completions/truncated": 0.1, "format_rate": 0.5,
        "switch/memorise": 1 - k / 10, "switch/explore": k / 10, "switch/solved": 0.0,
    }
    for k in range(1, 9)
]  # fmt: skip


class Home:
    """A runs folder with a base's evaluation, a training, and that training's evaluation: 4 of 40, 20 of 40."""

    def __init__(self, folder: Path) -> None:
        self.runs, self.data = folder / "runs", fake_runs.data_folder(folder / "data", 40)
        self.base = self.evaluate("base", lambda k: k < 4)
        self.training = fake_runs.training(self.runs / "tuned", self.data, STEPS)
        self.evaluate("tuned", lambda k: k < 20, self.training)

    def evaluate(self, name: str, right: Any, adapter: Path | None = None, **more: Any) -> str:
        of = (
            {"model_adapter": str(adapter), "model_run": adapter.name} if adapter else {"model_adapter": None}
        )
        record = {"model_base": "toast-tiny", "data_split": "test", **of, **more.pop("record", {})}
        answer = more.pop("answer", judged(right))
        return fake_runs.evaluation(self.runs, name, self.data, answer, range(40), record=record, **more)

    def write(self, *names: str, limit: int = 12) -> Page:
        out = self.runs.parent / "report.html"
        page.write(names or ["tuned"], self.runs, out, limit=limit, force=True)
        return Page(out.read_text(encoding="utf-8"))


class Page(HTMLParser):
    """A page's tags and its text, as a browser reads them."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source, self.tags, self.words = source, [], []  # type: ignore[var-annotated]
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def require_self_contained(found: Page) -> None:
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & {
        tag for tag, _ in found.tags
    }
    for tag, attrs in found.tags:
        for name, value in attrs.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
                assert value.startswith(("data:image/", "#")), (tag, name, value)
    assert "@import" not in found.source
    assert not re.search(r"url\((?!#)", found.source)


# ------------------------------------------------------------------------------------------- one run


def test_a_training_with_its_evaluation_and_its_base(home: Home) -> None:
    found = home.write()
    require_self_contained(found)
    for expected in (
        "sft of toast-tiny on data",
        "50.0 %", "35.2–64.8",  # Wilson's interval of 20 in 40
        "10.0 %", "+40.0",  # the base's, and the paired difference
        "$0.013",  # 0.50 dollars over 40 points
        "toasterft sft --model toast-tiny --data data",
        "torch 2.13.0",
        "Wrong before, right now 4 of 16",
        "Both right 4 of 4",
        "With 40 questions the interval is 30 points wide",
    ):  # fmt: skip
        assert expected in found.text, expected
    assert "Right before, wrong now" not in found.text  # it did not happen
    assert found.count("svg") == 2
    assert found.count("article") == found.count("img") == 12
    assert str(home.runs.parent) not in found.source  # a page travels


def test_its_figures_are_those_of_the_metrics(tmp_path: Path) -> None:
    drawn = figures([*SAMPLED, {"step": 9, "loss": float("nan"), "reward": None}], "a")
    assert [each["title"] for each in drawn] == ["Loss", "Reward", "Switch", "Length", "Samples"]
    by_title = {each["title"]: each for each in drawn}
    assert by_title["Reward"]["legend"] == ("total", "accuracy", "format")
    assert by_title["Reward"]["words"].startswith("total 0.1 → 0.8")
    assert by_title["Switch"]["words"] == "memorised 90 % → 20 %, explored 10 % → 80 %, solved 0 % → 0 %"
    assert by_title["Length"]["words"] == "21 → 28"
    assert figures([], "a") == []
    pairs = [
        {"step": 1, "loss": 0.7, "rewards/chosen": 0.1, "rewards/rejected": -0.1, "rewards/accuracies": 0.9}
    ]
    assert [each["title"] for each in figures(pairs, "a")] == ["Loss", "Preference", "Pairs ranked right"]


def test_drawings_scale_and_share_no_id() -> None:
    long = [(float(k), 1.0) for k in range(5000)]
    thin, many = plots.thinned(long)
    assert (len(thin) <= plots.PAGE_POINTS, many) == (True, 21)
    lines = plots.Drawing("", "", {"one": long, "two": [(1, 2)]}, marked=("two",))
    one, two = (plots.svg(lines, salt) for salt in "ab")
    assert one.startswith("<svg")
    assert "viewBox" in one
    assert not re.search(r'<svg[^>]* (width|height)="', one)
    assert "var(--line-2)" in one
    ids = [set(re.findall(r' id="([^"]+)"', each)) for each in (one, two)]
    assert ids[0]
    assert not ids[0] & ids[1]
    bands = plots.Drawing("", "", {"one": [(3, 0.5)], "two": [(3, 0.5)]}, share=True, stacked=True)
    assert plots.svg(bands, "c").count("var(--line-1)") == 1


def test_predicted_stands_beside_measured_also_by_phase(home: Home) -> None:
    planned = {
        "gpu": "A40", "vram_bytes": {"peak": 8e9}, "phase_bytes": {"train": {"peak": 8e9}},
        "seconds": {"low": 100, "likely": 150, "high": 300}, "usd": {"low": 0.2, "likely": 0.3, "high": 0.4},
        "phase_seconds": {"train": {"low": 80, "likely": 90, "high": 99}},
    }  # fmt: skip
    measured = {
        "seconds": 200.0, "usd": 0.5, "peak_memory_bytes": 6e9,
        "phases": {"train": {"seconds": 180.0, "peak_bytes": 6e9}},
    }  # fmt: skip
    more = {"estimate": planned, "measured": measured}
    fake_runs.training(home.runs / "a40", home.data, STEPS, record={**more, "gpu": "A40"})
    fake_runs.training(home.runs / "cpu", home.data, STEPS, record=more)
    held = RunView(collect.subjects(["a40"], home.runs)[0].last)
    assert [row.verdict for row in held.took] == ["inside the range", "×1.67", "×0.75"]
    [(seconds, peak)] = held.phases
    assert (seconds.name, seconds.predicted_text, seconds.measured_text, seconds.verdict) == (
        "train",
        "90 (80–99) s",
        "180 s",
        "×2.00",
    )
    assert peak.predicted_text == "8.0 GB"
    assert "150 (100–300) s 200 s inside the range" in home.write("a40").text
    other = home.write("cpu").text
    assert "Planned for A40, run on CPU: the two columns do not test each other." in other
    assert "inside the range" not in other


def test_show_page_and_card_have_the_same_facts(home: Home, run_cli: Any) -> None:
    planned = {
        "gpu": "A40", "vram_bytes": {"peak": 8e9}, "phase_bytes": {}, "phase_seconds": {}, "usd": None,
        "seconds": {"low": 100, "likely": 150, "high": 300},
    }  # fmt: skip
    record = {
        "estimate": planned,
        "gpu": "A40",
        "git_commit": "abc123",
        "data_sha256": "ab" * 32,
        "train_count": 38,
    }
    settings = {"lora": {"r": 8}, "load_in_4bit": True, "eval_limit": 10, "seed": 3}
    folder = fake_runs.training(home.runs / "a40", home.data, STEPS, record=record, **settings)
    view = RunView(run_folder.open_run("a40", home.runs))
    prompt = recipe.Prompt().model_dump()
    check = {"largest_difference": 0.001, "tolerance": 0.05, "tokens": 30, "same_tokens": 29}
    exported = {"base": "toast-tiny", "dtype": "bfloat16", "prompt": prompt, "check": check}
    card = model_card.text(view.run, home.runs, exported)
    shown = " ".join(run_cli("show", folder).out.split())
    page_text = home.write("a40").text
    facts = [value for _, value in [*view.facts, *view.data]]
    figures = [text for one in view.took for text in (one.predicted_text, one.measured_text)]
    assert "LoRA of rank 8 on 4-bit weights" in facts
    assert figures == ["150 (100–300) s", "200 s", "–", "$0.50", "8.0 GB", "700 MB"]
    for expected in [*facts, *(figure for figure in figures if figure != "–")]:
        for where in (card, shown, page_text):
            assert expected in where, expected


def test_a_run_that_was_killed_is_told_as_far_as_it_came(home: Home) -> None:
    killed = fake_runs.training(
        home.runs / "killed", home.data, STEPS, record={"status": "running", "measured": None}
    )
    (killed / "spend.json").write_text(json.dumps({"seconds": 90.0, "usd": 0.1}))
    told = home.write("killed").text
    assert "This run did not end as planned: running" in told
    assert "90 s" in told
    assert "$0.10" in told


def test_what_only_some_tasks_have_is_shown(home: Home) -> None:
    rate = {"value": 0.75, "low": 0.5, "high": 0.875}
    summed = {
        "n": 40, "task": "class", "scores": {"robust": rate}, "by_kind": {}, "format_rate": rate,
        "mean_completion_tokens": 12.4, "macro_recall": 0.7, "parse_failures": rate,
        "per_class": {"awe": {"n": 30, "recall": rate}, "fear": {"n": 10, "recall": rate}},
        "confusion": {"labels": ["awe", "fear"], "counts": [[21, 4, 5], [0, 9, 1]]},
        "closed": {"n": 7, "robust": rate}, "open": {"n": 33, "robust": rate, "token_recall": 0.25},
        "traces": {
            "n": 39, "without_reasoning": rate, "repeating": rate, "tokens": {"median": 20, "p90": 31},
            "arithmetic_right": rate, "checked": {"n": 38, "facts_right": rate, "faultless": rate, "valid": rate},
        },
    }  # fmt: skip
    more = {
        "eval": summed,
        "measured": {"seconds": 9.0, "usd": 0.1, "peak_memory_bytes": 1e9, "seconds_per_1000_answers": 300.0},
    }
    name = home.evaluate("classes", lambda k: True, record={**more, "usd_per_hour": 1.2})
    told = home.write(name).text
    for expected in (
        "by class awe 30 75.0 % 50.0–87.5", "awe 21 4 5 fear · 9 1", "recall, mean of the classes 70.0 %",
        "yes-or-no questions 7 75.0 %", "words found in open answers 25.0 %", "no option read 75.0 %",
        "length, 90th percentile 39 31 tokens", "valid: both 38 75.0 %", "1,000 answers take 5.0 min, $0.10",
    ):  # fmt: skip
        assert expected in told, expected


# --------------------------------------------------------------------------------- the cost of a point


def test_what_a_point_costs_has_the_bounds_of_the_gain() -> None:
    rate = {"value": 0.4, "low": 0.25, "high": 0.5}
    assert per_point(2.0, rate) == pytest.approx({"value": 0.05, "low": 0.04, "high": 0.08})
    assert per_point(2.0, {"value": 0.1, "low": -0.1, "high": 0.2}) == pytest.approx(
        {"value": 0.2, "low": 0.1, "high": None}
    )
    assert per_point(2.0, {"value": 0.0, "low": -0.1, "high": 0.1}) is None
    assert per_point(None, rate) is None


def test_every_training_behind_a_run_is_paid_for(home: Home) -> None:
    more = {"model_adapter": str(home.training), "model_run": "tuned"}
    second = fake_runs.training(home.runs / "again", home.data, SAMPLED, method="grpo", record=more)
    home.evaluate("again", lambda k: k < 24, second)
    [subject] = collect.subjects(["again"], home.runs)
    assert [run.id for run in subject.trainings] == ["tuned", "again"]
    assert [(gain.usd, gain.seconds) for gain in subject.gains] == [(1.0, 400.0)]
    # Where one of them is gone, nobody knows the cost.
    (home.training / "run.json").unlink()
    [subject] = collect.subjects(["again"], home.runs)
    assert [(gain.usd, gain.seconds) for gain in subject.gains] == [(None, None)]


def test_a_base_that_was_asked_otherwise_is_no_base(home: Home) -> None:
    (home.runs / home.base / "run.json").write_text(
        json.dumps({"id": home.base, "method": "eval", "status": "failed"})
    )
    home.evaluate("step", lambda k: k < 9, step=True)
    told = home.write()
    assert "There is no evaluation of toast-tiny itself on the same questions" in told.text
    assert "cost of a point" not in told.text.partition("How to read")[0]
    assert "Right 6 of 20" in told.text  # its own answers are shown nevertheless


def test_a_pipeline_is_all_its_stages(home: Home) -> None:
    for name in ("pipe", "other"):
        first = fake_runs.training(home.runs / name / "1-sft", home.data, STEPS)
        more = {"model_adapter": str(first), "model_run": "1-sft"}
        last = fake_runs.training(home.runs / name / "2-dyme", home.data, SAMPLED, method="dyme", record=more)
        (home.runs / name / "pipeline.json").write_text("{}")
        (home.runs / name / "recipe.yaml").write_text(
            "method: train\nmodel: toast-tiny\ndata: x\nstages: []\n"
        )
        home.evaluate(name, lambda k, name=name: k < (30 if name == "pipe" else 10), last)
    [subject] = collect.subjects(["pipe"], home.runs)
    assert [answers.name for answers in subject.answered] == [
        "20261121-120000-eval-pipe"
    ]  # stages share their names
    assert [gain.usd for gain in subject.gains] == [1.0]
    told = home.write("pipe").text
    for expected in (
        "sft, then dyme of toast-tiny",
        "Stage 1: sft",
        "Stage 2: dyme",
        "Switch",
        "75.0 %",
        "$1.00",
    ):
        assert expected in told, expected


# ------------------------------------------------------------------------------------------ several runs


def test_several_runs_are_compared_on_what_all_were_asked(home: Home) -> None:
    home.evaluate("rival", lambda k: k % 4 == 0)
    told = home.write("tuned", "20261121-120000-eval-rival", home.base)
    require_self_contained(told)
    for expected in (
        "3 runs compared",
        "40 questions that all runs answered",
        "B − A",
        "−25.0",
        "Holm p",
        "They differ 6 of 24",
    ):
        assert expected in told.text, expected
    two = home.write("tuned", "20261121-120000-eval-rival").text
    assert "Only A right 3 of 15" in two
    assert "Only B right 3 of 5" in two
    assert "A 15, B 5" in two


def test_an_evaluation_of_a_run_that_is_named_too_is_shown_with_it(home: Home) -> None:
    found = collect.subjects(["tuned", "20261121-120000-eval-tuned"], home.runs)
    assert [(subject.name, subject.label) for subject in found] == [("tuned", "")]


def test_what_cannot_be_compared_is_shown_apart(home: Home) -> None:
    fake_runs.training(home.runs / "silent", home.data, STEPS)
    told = home.write("tuned", "silent").text
    assert "These runs cannot be compared: B answered no questions" in told
    assert "Pair by pair" not in told


# --------------------------------------------------------------------------------------------- the gallery


def test_places_are_handed_out_evenly() -> None:
    assert gallery._shares({"a": 1, "b": 9, "c": 9}, 9) == {"a": 1, "b": 4, "c": 4}
    assert gallery._shares({"a": 1, "b": 2}, 9) == {"a": 1, "b": 2}
    assert gallery._shares({}, 9) == {}


def test_the_lot_is_the_same_every_time(home: Home) -> None:
    [subject] = collect.subjects(["tuned"], home.runs)
    assert subject.main is not None
    shown = [gallery.gallery({"it": subject.main}, 6, changed=None) for _ in range(2)]
    assert shown[0] == shown[1]
    assert [(group.title, group.count, len(group.cards)) for group in shown[0].groups] == [
        ("Wrong", 20, 3),
        ("Right", 20, 3),
    ]
    assert {card.id for card in shown[0].groups[0].cards} != {"q20", "q21", "q22"}  # not the first


def test_pictures_are_reduced_and_end_where_a_page_is_full(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = home.data / "images" / "0.png"
    Image.effect_noise((800, 600), 90).convert("RGB").save(noise, compress_level=0)
    for k in range(1, 40):
        shutil.copy(noise, noise.with_name(f"{k}.png"))
    picture = next(attrs for tag, attrs in home.write(limit=1).tags if tag == "img")
    assert (picture["width"], picture["height"]) == ("640", "480")
    assert picture["src"].startswith("data:image/jpeg;base64,")
    monkeypatch.setattr(gallery, "MOST_BYTES", 2.5 * len(picture["src"]))
    told = home.write(limit=4)
    assert told.count("img") == 2
    assert told.text.count("picture left out") == 2


def test_pictures_that_are_not_those_asked_about_are_not_shown(home: Home) -> None:
    rows = [json.loads(line) for line in (home.data / "test.jsonl").read_text().splitlines()]
    (home.data / "test.jsonl").write_text(
        "".join(json.dumps(row | {"answer": "other"}) + "\n" for row in rows)
    )
    told = home.write(limit=2)
    assert told.count("img") == 0
    assert told.text.count("picture not shown: the data has changed since") == 2
    home.data.rename(home.data.with_name("elsewhere"))
    assert "No pictures: the data cannot be read here" in home.write(limit=2).text
    assert home.write(limit=0).count("article") == 0


# ------------------------------------------------------------------------------------------ hostile text


def test_whatever_was_written_is_text(home: Home) -> None:
    hostile = list(fake_runs.HOSTILE.values())

    def answer(k: int) -> dict[str, Any]:
        text = hostile[k % len(hostile)]
        return {
            "id": text, "question": text, "gold": text, "kind": text, "answer": text, "reasoning": text, "faults": [text],
            "correct": {"robust": k % 2 == 0, text: True}, "item": f"{k}",
        }  # fmt: skip

    rows = [
        {"step": k, "loss": 1.0, "reward": 1.0, **{f"rewards/{text}/mean": 0.5 for text in hostile}}
        for k in (1, 2)
    ]
    record = {
        "notes": hostile,
        "stop_reason": hostile[0],
        "status": hostile[4],
        "engine": hostile[1],
        "gpu": hostile[2],
    }
    bad = fake_runs.training(
        home.runs / "bad", home.data, rows, method="dyme", record=record, suffix=hostile[0]
    )
    home.evaluate("bad", None, bad, answer=answer)
    calm = home.write("tuned")
    told = home.write("bad", "tuned", limit=40), home.write("bad", limit=40)
    for found in told:
        require_self_contained(found)
        assert {tag for tag, _ in found.tags} <= {tag for tag, _ in calm.tags} | {"a", "ol"}
        assert found.count("a") in (0, 2)  # from the list of runs to each
        assert "<script" not in found.source
        assert "window.broken = 1" in found.text
        assert "{{7*7}}" in found.text
        assert "\u202e" not in found.source
        assert "\\u202e" in found.text
        assert "\x00" not in found.source
        assert "9" * 1000 not in found.text.partition("method: dyme")[0]  # the recipe is told in full
        assert found.count("h1") == 1


# --------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("method", "words", "flags"),
    [
        ("sft", ["lora.r=4", "learning_rate=2e-4", "report_to=[wandb]"], {"data": "some where", "seed": 7}),
        (
            "dyme",
            [
                "rewards.length=0.2",
                "anneal=true",
                'prompt.system="Be brief: $x"',
                "rewards.accuracy=2",
                "teachers_usd=3",
            ],
            {"price": 0.4},
        ),
        (
            "grpo",
            ["lora=null", "load_in_4bit=false", "rewards={accuracy: 1}"],
            {"model": "owner/name", "data": "d"},
        ),
        (
            "eval",
            ["max_completion_length=9"],
            {"model": "a", "data": "b", "step": True, "suffix": "Say 'why'."},
        ),
    ],
)
def test_the_command_asks_for_the_same_again(method: str, words: list[str], flags: dict[str, Any]) -> None:
    import shlex

    wanted = recipe.load(method, None, words, flags)
    typed = shlex.split(command(wanted.model_dump(mode="json")))
    assert typed[:2] == ["toasterft", method]
    given, settings, rest = {}, [], typed[2:]
    while rest:
        word = rest.pop(0)
        if word == "--step":
            given["step"] = True
        elif word.startswith("--"):
            given[word[2:]] = rest.pop(0)
        elif "=" in word:
            settings.append(word)
        else:
            given["model"] = word
    assert recipe.load(method, None, settings, given) == wanted


def test_paths_are_cut_and_hub_ids_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sets" / "mine").mkdir(parents=True)
    asked = {
        "data": "/home/me/x/charts",
        "model": "owner/name",
        "eval_data": "sets/mine",
        "n": 3,
        "text": "a b/c",
    }
    assert shortened(asked) == {
        "data": "charts",
        "model": "owner/name",
        "eval_data": "mine",
        "n": 3,
        "text": "a b/c",
    }


def test_small_figures_keep_their_digits() -> None:
    assert [dollars(usd) for usd in (None, 0.0, 0.0000001, 0.00026, 0.0131, 1.5, 1234.5)] == [
        "–", "$0.00", "under $0.000001", "$0.00026", "$0.013", "$1.50", "$1,234.50",
    ]  # fmt: skip
    assert ranged_time(Range(0.0, 0.1, 0.3)) == "under 1 s"


# ------------------------------------------------------------------------------------------ the command


def test_what_cannot_be_done_is_said_and_nothing_is_written(home: Home, run_cli: Any, tmp_path: Path) -> None:
    empty = fake_runs.training(
        home.runs / "empty", home.data, [], record={"status": "running", "measured": None}
    )
    out = tmp_path / "new.html"

    def refused(*words: Any) -> str:
        done = run_cli("report", *words, "--runs-dir", home.runs)
        assert done.code == 2, done.out
        return str(done.err)

    assert "did you mean tuned?" in refused("tuna", "-o", out)
    assert "nothing to show yet" in refused("tuned", empty, "-o", out)
    assert "named twice" in refused("tuned", home.training, "-o", out)
    assert "no such folder" in refused("tuned", "-o", tmp_path / "gone" / "new.html")
    assert "this is a folder" in refused("tuned", "-o", tmp_path)
    (home.runs / "pipe").mkdir()
    (home.runs / "pipe" / "pipeline.json").write_text("{}")
    assert "no stage of this pipeline has begun" in refused("pipe", "-o", out)
    assert not out.exists()
    out.write_text("mine")
    assert "nothing is overwritten" in refused("tuned", "-o", out)
    assert out.read_text() == "mine"
    done = run_cli("report", "tuned", "-o", out, "--force", "--gallery", 2, "--json", "--runs-dir", home.runs)
    assert done.code == 0, done.err
    assert done.json()["questions"] == 2
    assert done.json()["size_bytes"] == out.stat().st_size


def test_the_command_is_light(home: Home) -> None:
    code = (
        "import sys, toasterft.cli as cli\n"
        f"sys.argv = ['toasterft', 'report', 'tuned', '--runs-dir', {str(home.runs)!r}]\n"
        "try:\n    cli.main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "assert not {'torch', 'transformers', 'datasets'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=home.runs.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "wrote report.html" in done.stdout
    assert "12 questions" in done.stdout


def test_a_name_that_is_a_path_with_dots_is_a_user_error(home: Home) -> None:
    with pytest.raises(UserError, match="no such run"):
        collect.subjects(["../nowhere"], home.runs)
