"""The scorers of tasks other than charts: tables of cases, planted answers on real golds, and their summaries."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from growth import MOST_TIMES_THE_WORK, times_the_work

from toasterft.data import sources
from toasterft.data.chat import Parsed
from toasterft.data.example import TASKS, Example
from toasterft.errors import DataError
from toasterft.scoring import Scored, judge, options_of, rewards, right, summarise, task_of

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("TOASTERFT_SHARED", ROOT / ".." / "shared"))
ITEMS = SHARED / "data" / "chartqa" / "items.jsonl"


def example(task: str, gold: str, choices: list[str] | None = None) -> Example:
    extra: dict[str, Any] = {"task": task} | ({"choices": choices} if choices else {})
    return Example("x", "What is it?", gold, extra=extra)


# ---------------------------------------------------------------------------- multiple choice

ANGLES = ["30°", "45°", "60°", "75°"]
CARS = ["red car", "car", "blue bike", "none of these"]

# options, gold, prediction, right?
CHOICES = [
    *((ANGLES, "B", said, True) for said in (
        "B", "b", "(B)", "(b)", "B.", "B)", "[B]", "**B**", '"B"', "option B", "Option (B)", "choice B.",
        "B. 45°", "(B) 45°", "B: 45°", "B 45°", "B.45°", "B\n45°", "45", "45°", "45 degrees", "45.0",
        "The answer is B.", "The answer is (B) 45°", "answer: b", "Answer: B) 45°", "The correct option is B",
        "The angle is 45°.", "∠A = 45°", "x=45",
    )),
    *((ANGLES, "B", said, False) for said in (
        "", "A", "C", "E", "(C)", "60°", "46", "45.5", "145", "4", "B. 60°", "(B) and (C)", "B or C", "45° or 60°",
        "not B", "It is not 45°", "more than 45°", "B because (C) is wrong", "I cannot tell", "none",
        "A B C D", "30° 45° 60° 75°",
    )),
    (ANGLES, "45°", "B", True),  # the gold as the option's words
    (ANGLES, "45°", "45", True),
    (ANGLES, "(b)", "B", True),
    (ANGLES, "60", "B", False),
    *((CARS, "car", said, True) for said in ("car", "a car", "It is a car.", "B", "(B) car", "The answer is: the car")),
    *((CARS, "car", said, False) for said in ("red car", "A red car.", "not the car", "red car or car", "(A) car", "bike")),
    (CARS, "none of these", "None of these.", True),
    (CARS, "none of these", "D", True),
    (CARS, "red car", "I see a red car near a tree", True),
    (CARS, "red car", "car", False),
    (CARS, "car", "It could be many things, " * 10 + "perhaps a car", False),  # a long text mentions anything
    (["A dog", "B movie", "C major"], "B movie", "B movie", True),
    (["A dog", "B movie", "C major"], "A dog", "A dog", True),
    (["yes", "no"], "no", "No.", True),
    (["yes", "no"], "yes", "true", True),
    (["B", "A"], "B", "B", True),  # options that are letters: their words come first, for gold and answer alike
    (["B", "A"], "B", "A", False),
    (["1,200", "12"], "1,200", "1200", True),
    (["10%", "10"], "10%", "10%", True),
    (["10%", "10"], "10%", "10", False),
]  # fmt: skip


@pytest.mark.parametrize(("choices", "gold", "said", "expected"), CHOICES)
def test_choice(choices: list[str], gold: str, said: str, expected: bool) -> None:
    assert right(said, example("choice", gold, choices)) is expected


@pytest.mark.parametrize(
    ("gold", "said", "expected"),
    [("B", "(b)", True), ("(B)", "B. 45", True), ("B", "C", False), ("B", "45", False), ("45°", "45", True),
     ("red car", "The answer is red car.", True), ("red car", "blue car", False)],
)  # fmt: skip
def test_choice_without_the_options(gold: str, said: str, expected: bool) -> None:
    assert right(said, example("choice", gold)) is expected


def test_what_was_chosen_is_told() -> None:
    assert judge("(C)", example("choice", "B", ANGLES)).picked == "60°"
    assert judge("I cannot tell", example("choice", "B", ANGLES)).picked is None


# --------------------------------------------------------------------- yes, no, short answers

SHORT = [
    ("Yes", "yes", True), ("YES.", "Yes", True), ("Yes, there is a lesion.", "yes", True), ("true", "Yes", True),
    ("No, there is no lesion", "No", True), ("The answer is yes.", "yes", True), ("**No**", "no", True),
    ("no", "yes", False), ("", "yes", False), ("Yes, there is no lesion", "yes", False), ("Yes or no", "yes", False),
    ("There is no lesion", "no", False), ("not yes", "yes", False), ("normal", "no", False), ("yes", "no", False),
    ("MRI", "mri", True), ("x-ray", "X ray", True), ("xray", "X-Ray", True), ("the left lung", "Left lung.", True),
    ("Lung and heart", "Heart, Lung", True), ("heart; lung", "Heart, Lung", True), ("lung", "Lung, Heart", False),
    ("heart, heart, lung", "Heart, Lung", False), ("right lung", "left lung", False), ("lung", "left lung", False),
    ("left", "left lung", False), ("The answer is left lung.", "left lung", True), ("5cm", "5 cm", True),
    ("5 mm", "5 cm", False), ("two", "2", True), ("2", "Two", True), ("20", "21", False), ("2.0", "2", True),
    ("12", "12%", False), ("12 %", "12%", True), ("It is in the left lung", "left lung", False), ("", "mri", False),
]  # fmt: skip


@pytest.mark.parametrize(("said", "gold", "expected"), SHORT)
def test_yes_no_and_short_answers(said: str, gold: str, expected: bool) -> None:
    assert right(said, example("yesno-open", gold)) is expected


def test_token_recall_is_of_open_answers_only() -> None:
    open_one = example("yesno-open", "Left lung")
    assert judge("It is in the left lung", open_one).token_recall == 1.0
    assert judge("the left side", open_one).token_recall == 0.5
    assert judge("left left", example("yesno-open", "left, left, right")).token_recall == pytest.approx(2 / 3)
    assert judge("Yes", example("yesno-open", "yes")).token_recall is None


# ------------------------------------------------------------------------------- class labels

LABELS = ["awe", "calm", "golden_retriever"]


@pytest.mark.parametrize(
    ("said", "gold", "picked"),
    [
        ("awe", "awe", "awe"), ("Awe.", "awe", "awe"), ("The picture shows awe.", "awe", "awe"),
        ("Answer: calm", "calm", "calm"), ("a golden retriever", "golden_retriever", "golden_retriever"),
        ("calm", "awe", "calm"), ("awe and calm", "awe", None), ("not awe", "awe", None), ("awesome", "awe", None),
        ("", "awe", None), ("A", "awe", None), ("joy", "awe", None), ("awe, calm, golden_retriever?", "awe", None),
    ],
)  # fmt: skip
def test_class_label(said: str, gold: str, picked: str | None) -> None:
    verdict = judge(said, example("class", gold, LABELS))
    assert verdict.picked == picked
    assert verdict.correct == {"robust": picked == gold}


# -------------------------------------------------------------------------------- mathematics

MATH = [
    ("5", "5", True), ("5.0", "5", True), ("five", "5", True), ("5 cm", "5", True), ("5", "5 cm", True),
    ("5 m", "5 cm", False), ("\\boxed{12}", "12", True), ("So \\boxed{12}.", "12", True), ("x = 5", "5", True),
    ("#### 72", "72", True), ("72 clips", "72", True), ("The answer is 12.", "12", True), ("$12$", "12", True),
    ("1,234", "1234", True), ("$1,234", "1234", True), ("1/2", "0.5", True), ("\\frac{1}{2}", "0.5", True),
    ("\\frac{1}{2}", "1/2", True), ("0.33", "1/3", False), ("1/3", "0.33", True), ("2\\sqrt{3}", "2√3", True),
    ("\\sqrt{12}", "2\\sqrt{3}", True), ("2√3", "3.46", True), ("3.464", "2√3", False), ("5\\pi", "5π", True),
    ("5", "5π", False), ("10\\pi/2", "5π", True), ("2^3", "8", True), ("45^\\circ", "45°", True),
    ("45 degrees", "45°", True),
    ("7.4", "7", False), ("105", "100", False), ("13", "12", False), ("-3", "3", False), ("12%", "12", False),
    ("x+1", "x + 1", True), ("y", "x", False), ("", "3", False), ("12 or 13", "12", False), ("-1/2", "-0.5", True),
    ("1/0", "3", False), ("9^9^9^9", "3", False), ("sqrt(-1)", "1", False), ("(" * 150, "3", False),
    ("__import__", "3", False),
]  # fmt: skip


@pytest.mark.parametrize(("said", "gold", "expected"), MATH)
def test_math(said: str, gold: str, expected: bool) -> None:
    assert right(said, example("math", gold)) is expected


# ---------------------------------------------------------------------------- tasks in general


def test_the_card_the_row_and_the_options_reach_the_example(tmp_path: Path) -> None:
    rows = [
        {"question": "Which?", "answer": "B", "choices": ["red", "blue"]},
        {"question": "How much?", "answer": "5", "task": "math", "choices": []},
        {"question": "Which?", "answer": "B", "task": "something else", "choices": [1, 2]},
    ]
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "card.json").write_text(json.dumps({"task": "choice"}))
    first, second, third = sources.load(str(tmp_path)).examples
    assert [task_of(one) for one in (first, second, third)] == ["choice", "math", "choice"]
    assert [options_of(one) for one in (first, second, third)] == [["red", "blue"], [], ["1", "2"]]
    assert first.key != replace(first, extra={"choices": ["blue", "red"]}).key
    assert first.key == replace(first, id="other", where="elsewhere", kind="sum").key


def test_charts_need_no_card(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text('{"question": "How much?", "answer": "5"}')
    found = sources.load(str(tmp_path))
    assert (found.task, task_of(found.examples[0])) == ("chart", "chart")


def test_charts_keep_their_three_scorers() -> None:
    assert judge("12.5 ", Example("x", "?", "12.0")).correct == {
        "robust": True,
        "relaxed": True,
        "contains": False,
    }


def test_an_unknown_task_is_refused_with_the_known_ones() -> None:
    with pytest.raises(DataError, match="did you mean choice"):
        task_of(example("choices", "B"))


@pytest.mark.parametrize(
    "unit", ["(A) ", "option ", "*", "A. ", "(", "\\frac{", "\\sqrt", "= ", "yes ", "awe "]
)
@pytest.mark.parametrize("task", TASKS)
def test_no_output_raises_or_stalls(task: str, unit: str) -> None:
    asked = example(task, "awe", LABELS)

    def judged(size: int) -> None:
        assert right(unit * size, asked) in (True, False)
        assert right("awe", example(task, unit * size, LABELS)) in (True, False)

    assert times_the_work(judged, 4000) <= MOST_TIMES_THE_WORK


def test_the_accuracy_reward_is_the_evaluations_scorer() -> None:
    def reward(said: str, asked: Example) -> float:
        completion = rewards.Completion(said, Parsed(None, said, True), 3, True, 10)
        return rewards.accuracy(completion, asked)

    asked = example("choice", "B", ANGLES)
    assert [reward(said, asked) for said in ("(b)", "45", "C")] == [1.0, 1.0, 0.0]
    assert reward("awe it is", example("class", "awe", LABELS)) == 1.0
    assert reward("12.5", Example("x", "?", "12")) == 1.0


# ---------------------------------------------------------------------------------- summaries


def scored(said: str, asked: Example) -> Scored:
    verdict = judge(said, asked)
    return Scored(
        asked.id, asked.kind, verdict.correct, True, 5, task=task_of(asked), gold=asked.answer,
        picked=verdict.picked, choices=tuple(options_of(asked)), token_recall=verdict.token_recall,
    )  # fmt: skip


def test_classes_are_summed_up_by_recall_and_confusion() -> None:
    labels = ["awe", "calm", "fear"]
    said = {"awe": ["awe", "awe", "Calm", "no idea"], "calm": ["calm", "fear"]}
    summary = summarise(
        scored(one, example("class", gold, labels)) for gold, all_said in said.items() for one in all_said
    )
    assert summary["task"] == "class"
    assert summary["scores"].keys() == {"robust"}
    assert summary["scores"]["robust"]["value"] == 0.5
    assert summary["macro_recall"] == 0.5  # over the classes that occur
    assert {label: row["n"] for label, row in summary["per_class"].items()} == {"awe": 4, "calm": 2}
    assert summary["per_class"]["awe"]["recall"]["value"] == 0.5
    assert summary["confusion"] == {"labels": labels, "counts": [[2, 1, 0, 1], [0, 1, 1, 0], [0, 0, 0, 0]]}
    assert summary["parse_failures"]["value"] == pytest.approx(1 / 6)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_classes_whose_labels_are_known_from_the_golds_alone() -> None:
    rows = [
        scored(said, example("class", gold))
        for said, gold in (("Calm", "awe"), ("calm", "calm"), ("joy", "awe"))
    ]
    summary = summarise(rows)
    assert summary["confusion"] == {"labels": ["awe", "calm"], "counts": [[0, 1, 1], [0, 1, 0]]}


def test_closed_and_open_questions_are_told_apart() -> None:
    pairs = [("yes", "yes"), ("no", "yes"), ("in the left lung", "left lung"), ("MRI", "mri")]
    summary = summarise(scored(said, example("yesno-open", gold)) for said, gold in pairs)
    assert (summary["closed"]["n"], summary["closed"]["robust"]["value"]) == (2, 0.5)
    assert (summary["open"]["n"], summary["open"]["robust"]["value"], summary["open"]["token_recall"]) == (
        2,
        0.5,
        1.0,
    )


def test_choices_tell_how_often_none_was_read() -> None:
    summary = summarise(
        scored(said, example("choice", "B", ANGLES)) for said in ("B", "C", "I cannot tell", "")
    )
    assert summary["parse_failures"]["value"] == 0.5
    assert summary["scores"]["robust"]["value"] == 0.25


def test_mixed_tasks_share_the_headline() -> None:
    rows = [scored("B", example("choice", "B", ANGLES)), scored("12", Example("y", "?", "12"))]
    summary = summarise(rows)
    assert (summary["task"], list(summary["scores"])) == ("mixed", ["robust"])
    assert summary["scores"]["robust"]["value"] == 1.0


# --------------------------------------------------------- planted on the golds of real questions


@pytest.fixture(scope="module")
def golds() -> list[str]:
    if not ITEMS.is_file():
        pytest.skip(f"no ChartQA items at {ITEMS}")
    return [json.loads(line)["answer"] for line in ITEMS.read_text(encoding="utf-8").splitlines()]


def questions(golds: list[str]) -> Iterator[tuple[Example, int]]:
    """Each gold among three others' golds, and its place."""
    rng, distinct = random.Random(0), sorted(set(golds))
    for gold in golds:
        options = [gold]
        while len(options) < 4:
            other = rng.choice(distinct)
            if all(apart(other, option) for option in options):
                options.append(other)
        rng.shuffle(options)
        yield example("choice", gold, options), options.index(gold)


def apart(one: str, other: str) -> bool:
    """Whether two golds are plainly different answers."""
    try:
        return float(one) != float(other)
    except ValueError:
        return one.casefold() != other.casefold()


def test_real_golds_as_options(golds: list[str]) -> None:
    refused, accepted, count = [], [], 0
    for asked, place in questions(golds):
        options, letter = options_of(asked), "ABCD"[place]
        gold, wrong = options[place], (place + 1) % 4
        by_letter = (
            letter,
            letter.lower(),
            f"({letter})",
            f"{letter}.",
            f"option {letter}",
            f"The answer is ({letter}).",
        )
        by_both = (f"{letter}. {gold}", f"({letter}) {gold}")
        for said in (*by_letter, *by_both, gold, f"{gold}.", f"The answer is {gold}."):
            count += 1
            refused += [] if right(said, asked) else [(said, options)]
        false = options[wrong]
        for said in ("ABCD"[wrong], f"({'ABCD'[wrong]})", false, f"{letter}. {false}", f"{letter} or {'ABCD'[wrong]}",
                     f"({letter}) or ({'ABCD'[wrong]})", f"not {gold}", "", "E"):  # fmt: skip
            accepted += [(said, gold, options)] if right(said, asked) else []
    assert count > 10_000
    assert len(refused) / count <= 0.002, refused[:10]
    assert len(accepted) / count <= 0.002, accepted[:10]


def test_real_golds_as_short_answers(golds: list[str]) -> None:
    refused, accepted = [], []
    for gold, other in zip(golds, [*golds[1:], golds[0]]):
        asked = example("yesno-open", gold)
        for said in (gold, gold.upper(), f"{gold}.", f' "{gold}"\n', f"The answer is {gold}."):
            refused += [] if right(said, asked) else [(said, gold)]
        if apart(other, gold):
            for said in (other, f"{other}.", f"not {gold}", f"{gold} or {other}", ""):
                accepted += [(said, gold)] if right(said, asked) else []
        if gold in ("Yes", "No"):
            refused += [] if right(f"{gold}, as the chart shows", asked) else [gold]
            accepted += [gold] if right({"Yes": "No", "No": "Yes"}[gold], asked) else []
    assert len(refused) / (5 * len(golds)) <= 0.005, refused[:10]
    assert accepted == []
