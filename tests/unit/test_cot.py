"""Traces by rule, their recomputation, the filters on a teacher's answers, and the command without a network."""

from __future__ import annotations

import datetime
import json
import random
import re
import subprocess
import sys
from itertools import islice

import pytest

from toasterft.data.charts.questions import stream
from toasterft.data.example import Example
from toasterft.errors import UserError
from toasterft.scoring import tables, traces
from toasterft.scoring.traces import strict_faults
from toasterft.teachers import directory, filters, panel, styles
from toasterft.teachers.directory import Address
from toasterft.teachers.rules.write import write

TODAY = datetime.date(2026, 11, 21)
FRUIT = "Entity: red & ripe apples | pears | plums & Sold: 40 | 25 | nan & Left: 8 | 5 | 30"


def example(question, answer, facts=FRUIT):
    return Example(id="x", question=question, answer=answer, facts=facts)


# --- tables ----------------------------------------------------------------------------------


def test_a_table_is_read_from_text_with_ampersands_and_gaps():
    table = tables.read(FRUIT)
    assert table.labels == ("red & ripe apples", "pears", "plums")
    assert table.series == ("Sold", "Left")
    assert [cell.name for cell in table.cells][:2] == ["Sold red & ripe apples", "Left red & ripe apples"]
    assert table.at("plums", "Sold") is None


@pytest.mark.parametrize(
    "facts", [None, "", "no table", [], [{"label": "a"}], {"a": 1}, "Entity: a | b & S: nan | nan"]
)
def test_what_is_no_table(facts):
    assert tables.numeric(facts) is None
    assert write(example("How many?", "2", facts)) is None


# --- rules -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "answer", "trace"),
    [
        ("How many pears were sold?", "25", "Sold pears is 25."),
        ("What is the difference between sold pears and left pears?", "20",
         "Sold pears = 25, Left pears = 5. 25 - 5 = 20."),
        ("Which fruit has the highest value of left?", "plums",
         "Left red & ripe apples = 8, Left pears = 5, Left plums = 30. The largest is 30, so plums."),
        ("What is the sum of all left values?", "43",
         "Left red & ripe apples = 8, Left pears = 5, Left plums = 30. 8 + 5 + 30 = 43."),
        ("What is the share of pears left?", "0.05", "Left pears is 5. 5 / 100 = 0.05."),
        ("Are there more sold pears than left pears?", "Yes", "Sold pears = 25, Left pears = 5. 25 > 5, so yes."),
        ("In how many series are values above 20 for pears?", "1", "Sold pears = 25, Left pears = 5. Above 20: Sold. So 1."),
    ],
)  # fmt: skip
def test_traces_as_they_are_written(question, answer, trace):
    written = write(example(question, answer))
    assert written.simplified == trace
    assert written.answer == answer
    assert strict_faults(written.simplified, FRUIT, question, answer) == []
    assert strict_faults(written.structured, FRUIT, question, answer) == []


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("How many pears were sold?", "26"),
        ("What is the difference between sold pears and left pears?", "3"),
        ("Which fruit has the highest value of left?", "pears"),
        ("What is the colour of the pears?", "green"),
        ("Are there more sold pears than left pears?", "No"),
    ],
)
def test_an_answer_that_the_table_does_not_give_gets_no_trace(question, answer):
    assert write(example(question, answer)) is None


def test_blind_the_rules_do_not_see_the_answer():
    question = "What is the difference between sold pears and left pears?"
    assert write(example(question, "3"), blind=True).answer == "20"


@pytest.mark.parametrize("difficulty", ["core", "full", "hard"])
def test_charts_drawn_here_all_get_traces_that_hold(difficulty):
    for _, item in islice(stream(5, difficulty), 150):
        if item.kind == "transcribe" and ".0" in item.answer:
            continue  # 4.0 is written as it was drawn, and 4 as it was read
        written = write(example(item.question, item.answer, item.facts))
        assert written is not None, item.question
        assert strict_faults(written.simplified, item.facts, item.question, item.answer) == []
        assert strict_faults(written.structured, item.facts, item.question, item.answer) == []


def with_tables(shared):
    rows = map(json.loads, (shared / "chartqa/items.jsonl").read_text(encoding="utf-8").splitlines())
    return [row for row in rows if "table" in row]


def test_most_real_questions_get_a_trace_and_nearly_all_traces_hold(shared):
    rows, written, sound = with_tables(shared), 0, 0
    for row in rows:
        trace = write(example(row["question"], row["answer"], row["table"]))
        if trace is not None:
            written += 1
            faults = strict_faults(trace.simplified, row["table"], row["question"], row["answer"])
            faults += strict_faults(trace.structured, row["table"], row["question"], row["answer"])
            sound += not faults
    assert written >= 0.60 * len(rows)
    assert sound >= 0.98 * written


def test_questions_that_the_rules_were_not_made_on(shared):
    lines = (shared / "chartqa/train_human_text_only.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in random.Random(7).sample(lines, 250)]
    found = [(row, write(example(row["query"], row["label"], row["table"]))) for row in rows]
    traces = [(row, trace) for row, trace in found if trace is not None]
    sound = sum(
        not strict_faults(trace.simplified, row["table"], row["query"], row["label"]) for row, trace in traces
    )
    assert len(traces) >= 0.60 * len(rows)
    assert sound >= 0.98 * len(traces)


def test_a_changed_number_does_not_pass_the_recomputation(shared):
    rng, changed, caught = random.Random(1), 0, 0
    for row in with_tables(shared)[::2]:
        trace = write(example(row["question"], row["answer"], row["table"]))
        places = list(re.finditer(r"(?<= )\d+(?=[ .,])", trace.simplified)) if trace else []
        if not places:
            continue
        place = rng.choice(places)
        other = str(int(place[0]) + rng.choice((1, 2, 10)))
        text = trace.simplified[: place.start()] + other + trace.simplified[place.end() :]
        changed += 1
        caught += bool(strict_faults(text, row["table"], row["question"], row["answer"]))
    assert changed > 100
    assert caught >= 0.97 * changed


# --- calculations ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "47 - 42 = 5.", "1,200 + 300 = 1,500", "$5 + $7 = $12", "12% + 8% = 20%", "38 / 50 = 76%", "10 / 3 = 3.33",
        "10 / 3 ≈ 3.3", "(5 + 3) / 2 = 4", "3 × 4 = 12 bars", "12 ÷ 4 = 3", "5 − 2 = 3", r"3 \times 4 = 12",
        "2 + 3 = 5 = 5", "so 0.1 + 0.2 = 0.3", "The sum (see above) 3 + 4 = 7.", "7 + 8 = about 15",
    ],
)  # fmt: skip
def test_calculations_that_hold(text):
    assert traces.wrong_steps(text) == []
    assert traces.check(text, None, "", "").arithmetic > 0


@pytest.mark.parametrize(
    "text",
    ["47 - 42 = 6", "10 / 3 = 3.4", "3 × 4 = 13", "(5 + 3) / 2 = 5", "1,200 + 300 = 150", "12% + 8% = 25%"],
)
def test_calculations_that_do_not(text):
    assert len(traces.wrong_steps(text)) == 1


@pytest.mark.parametrize(
    "text",
    ["x = 5", "red = 7, blue = 3", "2010-2015 = five years", "a / 0 = 3", "3 / 0 = 1", "12:30 = noon", "= 4"],
)
def test_what_is_no_calculation(text):
    checked = traces.check(text, None, "", "")
    assert (checked.arithmetic, checked.faults) == (0.0, ())


# --- filters ---------------------------------------------------------------------------------

STYLE = styles.load("simplified", blind=False)
TWELVE = Example(id="x", question="How high is the bar?", answer="12")


@pytest.mark.parametrize(
    ("reasoning", "answer", "reason"),
    [
        ("The bar for 2019 is at 12.", "12", None),
        ("The bar for 2019 is at 12 million.", "12 million", "answer"),
        ("The bar for 2019 is at 12, the provided answer.", "12", "leak"),
        ("As given, the bar is at 12.", "12", "leak"),
        ("As given in the chart, the bar is at 12.", "12", None),
        ("The value given on the axis is 12.", "12", None),
        ("According to the answer the bar is at 12.", "12", "leak"),
        ("Since the correct answer is 12, the bar must be at 12.", "12", "leak"),
        ("From the provided chart, 20 - 8 = 12.", "12", None),
        ("From the chart, 20 - 8 = 13.", "12", "arithmetic"),
        ("The answer is 15.", "12", "answer"),
        ("The answer is 12 apples.", "12", None),
        ("Well. So. It is. There. Twelve.", "12", "length"),
        ("bar " * 200, "12", "length"),
        ("Der Balken für das Jahr liegt genau auf der Höhe von zwölf und über allen anderen.", "12", "language"),
        ("2019年的柱子是十二。", "12", "language"),
    ],
)  # fmt: skip
def test_reasons(reasoning, answer, reason):
    assert (
        filters.judge(f"<think>{reasoning}</think><answer>{answer}</answer>", TWELVE, STYLE).reason == reason
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "12",
        "<think>a</think>",
        "<answer>12</answer>",
        "<think></think><answer>12</answer>",
        "so <think>a</think><answer>12</answer>",
    ],
)
def test_tags(text):
    assert filters.judge(text, TWELVE, STYLE).reason == "tags"


def test_a_code_fence_is_no_reason():
    assert filters.judge(
        "```xml\n<think>The bar is at 12.</think><answer>12</answer>\n```", TWELVE, STYLE
    ).kept


@pytest.mark.parametrize(
    ("task", "gold", "answer", "reasoning", "reason"),
    [
        ("choice", "B", "60°", "An equilateral triangle has equal angles. The answer is (B).", None),
        ("choice", "B", "B", "An equilateral triangle has equal angles. The answer is 60°.", None),
        ("choice", "60°", "B", "An equilateral triangle has equal angles.", None),
        ("choice", "B", "A", "An equilateral triangle has equal angles.", "answer"),
        ("choice", "B", "B", "An equilateral triangle has equal angles. The answer is 45°.", "answer"),
        ("yesno-open", "yes", "Yes, there is", "The left lung shows a mass in the upper lobe.", None),
        ("yesno-open", "left lung", "The left lung", "It shows a mass in the upper lobe.", None),
        ("yesno-open", "4", "4.1", "There are four ribs in the picture.", "answer"),
        ("math", "2\\sqrt{3}", "2√3", "The height of the triangle is the root of twelve.", None),
    ],
)
def test_answers_are_right_by_the_scorer_of_their_task(task, gold, answer, reasoning, reason):
    choices = {"choices": ["45°", "60°", "90°"]} if task == "choice" else {}
    example = Example(id="x", question="Which?", answer=gold, extra={"task": task, **choices})
    text = f"<think>{reasoning}</think><answer>{answer}</answer>"
    assert filters.judge(text, example, STYLE).reason == reason


def test_structured_traces_have_their_six_headings_in_whatever_dress():
    style = styles.load("structured", blind=False)
    lines = ["**Goal:** the height", "**Requirements:** read it", "**Observation:** the bar is at 12",
             "**Conclusion:** it is 12", "**Recheck:** it is", "**Final Answer:** 12"]  # fmt: skip
    verdict = filters.judge("<think>" + "\n".join(lines) + "</think><answer>12</answer>", TWELVE, style)
    assert verdict.kept, verdict
    assert verdict.reasoning.split("\n")[2] == "Observations: the bar is at 12"
    without = "<think>" + "\n".join(lines[:-2]) + "</think><answer>12</answer>"
    assert filters.judge(without, TWELVE, style).reason == "headings"
    other = "<think>" + "\n".join([*lines[:-1], "Final Answer: 13"]) + "</think><answer>12</answer>"
    assert filters.judge(other, TWELVE, style).reason == "answer"


# --- stripping -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rationale", "answer", "left"),
    [
        ("France is at 43 and Peru at 19. 43 - 19 = 24. So the answer is 24.", "24",
         "France is at 43 and Peru at 19. 43 - 19 = ___."),
        ("Sales rose from 1,200 to 1,500 units.", "1200", "Sales rose from ___ to 1,500 units."),
        ("There are twelve bars in the chart.", "12", "There are ___ bars in the chart."),
        ("The share is 45% for men and 30 % for women.", "0.45", "The share is ___ for men and 30 % for women."),
        ("Guatamala has the highest bar of them all.", "Guatemala", "___ has the highest bar of them all."),
        ("The United-States lead by far here, so United States.", "United States",
         "The ___ lead by far here, so ___."),
        ("Red is 7 and blue is 5, 7 > 5, so yes.", "Yes", "Red is 7 and blue is 5, 7 > 5, so ___."),
        ("So it is 12.", "12", ""),
        ("Final Answer: 12", "12", ""),
    ],
)  # fmt: skip
def test_the_answer_is_taken_out(rationale, answer, left):
    assert panel.without_answer(rationale, answer) == left


def test_nothing_else_is():
    text = "The bar of 1990 is at 120 and that of 2012 at 112."
    assert panel.without_answer(text, "12") == text


# --- styles and teachers ---------------------------------------------------------------------


def test_a_prompt_gives_the_answer_away_unless_blind():
    asked = Example(id="x", question="How many?", answer="seventeen")
    for name in styles.LIMITS:
        assert "seventeen" in styles.load(name, blind=False).ask(asked, blind=False)
        assert "seventeen" not in styles.load(name, blind=True).ask(asked, blind=True)


def test_a_prompt_file_of_one_s_own(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text("Say {question} {not_a_blank} because {answer}")
    asked = Example(id="x", question="{answer}?", answer="7")
    assert (
        styles.load(str(file), blind=False).ask(asked, blind=False) == "Say {answer}? {not_a_blank} because 7"
    )
    with pytest.raises(UserError, match="gives the"):
        styles.load(str(file), blind=True)
    file.write_text("no blank")
    with pytest.raises(UserError, match="question"):
        styles.load(str(file), blind=False)
    with pytest.raises(UserError, match="no style"):
        styles.load("simplifed", blind=False)


def test_teachers_are_rows():
    row = directory.find("gemini-3.5-flash-lite", Address(), TODAY)
    assert row.model_id == "gemini-3.5-flash-lite"
    assert row.api_key_env == "GEMINI_API_KEY"
    assert row.usd(1e6, 1e6) == pytest.approx(2.80)
    # A key goes only to the address that its row names.
    assert directory.find("gemini-3.5-flash-lite", Address(base_url="http://x/v1"), TODAY).api_key_env is None


@pytest.mark.parametrize(
    ("name", "address", "says"),
    [
        ("gemini-2.0-flash", Address(), "gone"),
        ("gemini-3.5-flash-light", Address(), "did you mean gemini-3.5-flash-lite"),
        ("mine", Address(base_url="http://x/v1"), "--price-in"),
    ],
)
def test_teachers_that_cannot_be_asked(name, address, says):
    with pytest.raises(UserError) as caught:
        directory.find(name, address, TODAY)
    assert says in str(caught.value)


def test_a_row_of_one_s_own(tmp_path):
    file = tmp_path / "row.yaml"
    file.write_text(
        "{name: a, base_url: 'http://x/v1', input_usd_per_mtok: 1, output_usd_per_mtok: 2, model_id: b}"
    )
    row = directory.find(str(file), Address(), TODAY)
    assert (row.name, row.model_id, row.usd(1e6, 1e6)) == ("a", "b", 3.0)
    file.write_text("{name: a, base_ulr: 'http://x/v1', input_usd_per_mtok: cheap, output_usd_per_mtok: 2}")
    with pytest.raises(UserError) as caught:
        directory.find(str(file), Address(), TODAY)
    assert len(caught.value.details) == 3
    assert "did you mean base_url" in str(caught.value)


# --- the command -----------------------------------------------------------------------------


def test_rules_build_a_set_that_trains_without_a_network(run_cli, charts_folder, homes):
    from toasterft.data import sources

    done = run_cli(
        "cot", "build", "ruled", "--from", charts_folder, "--teacher", "rules", "--n", 20, "--json", "--quiet"
    )
    assert done.code == 0, done.err
    card = done.json()
    assert (card["counts"]["kept"], card["spent"]["usd"], card["complete"]) == (20, 0, True)
    data = sources.load("ruled")
    assert len(data) == 20
    for row in data.examples:
        assert strict_faults(row.reasoning, row.facts, row.question, row.answer) == []
    # Pictures lie in the set itself, named after their content.
    assert all(row.images[0].path.parent == homes / "data/ruled/images" for row in data.examples)
    files = {
        name: file
        for name in ("train", "validation", "test")
        if (file := homes / f"data/ruled/{name}.jsonl").exists()
    }
    assert set(files) == {"train", "validation", "test"}


def test_no_client_is_loaded_before_something_is_asked(charts_folder):
    code = (
        "import sys, toasterft.cli as cli\n"
        f"sys.argv = ['toasterft', 'cot', 'build', 'x', '--from', {str(charts_folder)!r}, '--teacher', 'rules', '--quiet']\n"
        "cli.app(standalone_mode=False)\n"
        "found = {'openai', 'torch', 'transformers', 'datasets'} & set(sys.modules)\n"
        "assert not found, found\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_same_build_again_gives_the_same_rows(run_cli, charts_folder, homes):
    for name in ("one", "two"):
        run_cli(
            "cot",
            "build",
            name,
            "--from",
            charts_folder,
            "--teacher",
            "rules",
            "--style",
            "structured",
            "--quiet",
        )
    first, second = ((homes / f"data/{name}/train.jsonl").read_bytes() for name in ("one", "two"))
    assert first == second
    assert first.count(b"Final Answer: ") > 10


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["x", "--from", "{charts}"], "either --teacher or --generators"),
        (["x/y", "--from", "{charts}", "--teacher", "rules"], "no name"),
        (["x", "--from", "nowhere", "--teacher", "rules"], "no such data"),
        (["x", "--from", "{charts}", "--teacher", "nobody"], "no teacher"),
        (["x", "--from", "{charts}", "--teacher", "rules", "--style", "nice"], "no style"),
        (["x", "--from", "{charts}", "--teacher", "rules", "--judges", "a"], "--generators"),
        (["x", "--from", "{charts}", "--teacher", "gemini-3.5-flash-lite"], "needs a budget"),
        (
            ["x", "--from", "{charts}", "--teacher", "gemini-3.5-flash-lite", "--budget", "0.001"],
            "would take",
        ),
        (
            ["x", "--from", "{charts}", "--teacher", "gemini-3.5-flash-lite", "--budget", "9"],
            "GEMINI_API_KEY",
        ),
    ],
)
def test_mistakes_are_explained_and_leave_nothing_behind(
    words, says, run_cli, charts_folder, homes, monkeypatch
):
    monkeypatch.delenv("GEMINI_API_KEY", raising=False)
    done = run_cli("cot", "build", *(word.format(charts=charts_folder) for word in words))
    assert done.code == 2
    assert says in done.err
    assert "Traceback" not in done.err
    assert not (homes / "data").exists() or not list((homes / "data").iterdir())


def test_a_folder_that_holds_something_else_is_left_alone(run_cli, charts_folder, homes):
    folder = homes / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    done = run_cli("cot", "build", "x", "--from", charts_folder, "--teacher", "rules", "--out", folder)
    assert done.code == 2
    assert [file.name for file in folder.iterdir()] == ["notes.txt"]


def test_the_estimate_counts_pictures_and_thinking(run_cli, charts_folder):
    words = [
        "cot",
        "build",
        "x",
        "--from",
        charts_folder,
        "--teacher",
        "gemini-3.5-flash-lite",
        "--dry-run",
        "--json",
    ]
    simple = run_cli(*words).json()["expected"]
    structured = run_cli(*words, "--style", "structured").json()["expected"]
    assert simple["requests"] == 32
    # 1,120 picture tokens at 0.30, a likely 1,000 thought tokens at 2.50 dollars per million, and more.
    assert simple["usd"]["likely"] > 32 * (1120 * 0.30 + 1000 * 2.50) / 1e6
    assert (
        simple["usd"]["low"] < simple["usd"]["likely"] < structured["usd"]["likely"] < simple["usd"]["high"]
    )
