"""The quality of traces: what counts as repeating, as unreasoned, as right."""

from __future__ import annotations

import json
from typing import Any

import pytest

from toasterft.data.chat import parse
from toasterft.data.example import Example
from toasterft.recipe import Prompt
from toasterft.scoring import wilson
from toasterft.scoring.traces.quality import Trace, measure, repeats, summarise

FACTS = [{"label": "red", "value": 7}, {"label": "blue", "value": 3}]


def measured(text: str, facts: Any = FACTS) -> Trace:
    asked = Example("x", "How much higher is red than blue?", "4", facts=facts)
    return measure(text, parse(text, Prompt()), 9, asked)


def test_eight_words_twice_are_a_repetition() -> None:
    eight = "one two three four five six seven eight"
    assert repeats(f"{eight} and {eight}")
    assert repeats(f"{eight}. {eight.upper()}!")  # case and punctuation aside
    assert repeats("no " * 9)
    assert repeats("1.1.1.1.1.1.1.1.1.1")
    assert not repeats(f"{eight} and one two three four five six seven nine")
    assert not repeats("no " * 8)
    assert not repeats("red = 7, blue = 3, green = 7, pink = 3, red = 7, blue = 3")
    assert not repeats("")


@pytest.mark.parametrize(
    ("text", "unreasoned", "reasons"),
    [
        ("<think>7 - 3 = 4</think><answer>4</answer>", False, True),
        ("<answer>4</answer>", True, False),
        ("4", True, False),
        ("<think> </think><answer>4</answer>", True, False),
        ("<think>7 - 3 = 4", False, True),  # cut off
        ("<think></think><answer></answer>", False, False),  # nothing is answered either
        ("", False, False),
    ],
)
def test_answers_without_reasoning(text: str, unreasoned: bool, reasons: bool) -> None:
    found = measured(text)
    assert (found.unreasoned, found.tokens is not None) == (unreasoned, reasons)


def test_facts_are_checked_where_there_are_any() -> None:
    text = "<think>red = 7, blue = 3. 7 - 3 = 4. So the answer is 4.</think><answer>4</answer>"
    assert measured(text).checked is not None
    assert measured(text, None).checked is None
    assert measured(text, []).checked is None
    of_chartqa = measured(text, "Entity: red | blue & Value: 7 | 3")
    assert of_chartqa.checked == measured(text).checked
    assert measured(text, "no table at all").checked is None
    wrong = measured(
        "<think>red = 7, blue = 3. 7 - 3 = 6. So the answer is 6.</think><answer>6</answer>", None
    )
    assert wrong.miscalculates  # a calculation can be checked without facts


def test_shares_carry_intervals() -> None:
    good = "<think>red = 7, blue = 3. 7 - 3 = 4. So the answer is 4.</think><answer>4</answer>"
    found = summarise([measured(text) for text in (good, good, "4", good.replace("= 3.", "= 2."))])
    assert found["n"] == 3
    assert found["without_reasoning"] == dict(zip(("low", "high"), wilson(1, 4))) | {"value": 0.25}
    assert found["checked"]["facts_right"] == dict(zip(("low", "high"), wilson(2, 3))) | {"value": 2 / 3}
    assert found["checked"]["valid"]["value"] == found["checked"]["faultless"]["value"] == 2 / 3
    assert found["tokens"] == {"median": 9, "p90": 9}
    json.dumps(found, allow_nan=False)


def test_p90_is_what_nine_in_ten_do_not_exceed() -> None:
    traces = [Trace(tokens, False, False) for tokens in range(1, 11)]
    assert summarise(traces)["tokens"] == {"median": 5.5, "p90": 9}
    assert summarise(traces[:1])["tokens"] == {"median": 1, "p90": 1}


def test_nothing_written_is_summed_up_too() -> None:
    found = summarise([])
    assert (found["n"], found["tokens"], found["checked"]) == (0, None, None)
    json.dumps(found, allow_nan=False)
