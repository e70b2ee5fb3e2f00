"""Preference pairs in data: ours, TRL's three columns as text and as messages, written, hashed and read again."""

from __future__ import annotations

import json

import pytest

from toasterft import recipe
from toasterft.data import sources, token_stats, write
from toasterft.data.chat import as_data, rejected, target
from toasterft.data.example import Example
from toasterft.data.parse_rows import parse_row
from toasterft.data.selection import preference_pairs
from toasterft.errors import DataError, RecipeError
from toasterft.recipe import Prompt

TAGGED = "<think>7 > 3.</think><answer>red</answer>"
WORSE = "<think>3 > 7.</think><answer>blue</answer>"
NO_IMAGE = [{"role": "user", "content": "And now?"}]
USER = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Which?"}]}]


def says(text):
    return [{"role": "assistant", "content": text}]


def one(tmp_path, **row):
    (found,) = parse_row(row, "row 1", tmp_path)
    return found


@pytest.mark.parametrize(
    "row",
    [
        {"question": "Which?", "answer": "red", "reasoning": "7 > 3.", "rejected": WORSE},
        {"prompt": "Which?", "chosen": TAGGED, "rejected": WORSE},
        {"prompt": USER, "chosen": says(TAGGED), "rejected": says(WORSE), "image": "1.png"},
        {"chosen": [*USER, *says(TAGGED)], "rejected": [*USER, *says(WORSE)], "images": ["1.png"]},
        {
            "prompt": USER, "chosen": says("<think>7 > 3.</think>red"), "rejected": says("<think>3 > 7.</think>blue"),
            "image": "1.png",
        },
    ],
    ids=["ours", "text", "messages", "prompt within", "bare answers"],
)  # fmt: skip
def test_rows_of_every_form_are_the_same_pair(tmp_path, row):
    found = one(tmp_path, **row)
    assert (found.question, found.answer, found.reasoning) == ("Which?", "red", "7 > 3.")
    assert target(found, Prompt()) == TAGGED
    assert rejected(found, Prompt()) == WORSE


def test_a_pair_without_tags_has_them_on_both_sides(tmp_path):
    found = one(tmp_path, prompt="Which?", chosen="red", rejected="blue ")
    assert target(found, Prompt()) == "<answer>red</answer>"
    assert rejected(found, Prompt()) == "<answer>blue</answer>"


def test_our_own_rejected_text_stays_as_it_was_written(tmp_path):
    broken = "<think>3 > 7. <answer>blue"
    found = one(tmp_path, question="Which?", answer="red", rejected=broken)
    assert rejected(found, Prompt()) == broken


def test_tags_are_called_as_the_prompt_calls_them():
    other = Prompt(think_tag="reason", answer_tag="final")
    said = "<reason>3 > 7.</reason><final>blue</final>"
    assert as_data(said, other) == WORSE
    example = Example("1", "Which?", "red", reasoning="7 > 3.", rejected=WORSE)
    assert rejected(example, other) == said
    assert target(example, other) == "<reason>7 > 3.</reason><final>red</final>"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "Which?", "answer": "red", "rejected": " "}, "empty rejected"),
        ({"messages": [*NO_IMAGE, *says("red"), *NO_IMAGE, *says("red")], "rejected": says("b")}, "2 turns"),
        ({"prompt": "Which?", "rejected": "blue"}, "no answer"),
    ],
)  # fmt: skip
def test_rows_that_are_no_pair_say_why(tmp_path, row, message):
    with pytest.raises(DataError, match=message):
        one(tmp_path, **row)


def test_written_and_read_again(tmp_path):
    rows = [
        Example("1", "Which?", "red", reasoning="7 > 3.", rejected=WORSE),
        Example("2", "Which?", "red", reasoning="7 > 3."),
    ]
    folder = tmp_path / "set"
    write.write_dataset(folder, {"name": "set"}, {"train": rows})
    first, second = (json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines())
    assert first["rejected"] == WORSE
    assert "rejected" not in second
    data = sources.load(str(folder))
    assert [each.rejected for each in data.examples] == [WORSE, None]
    assert [each.id for each in preference_pairs(data.examples, "set")] == ["1"]
    with pytest.raises(DataError, match="cot pairs NAME --from set"):
        preference_pairs(data.examples[1:], "set")
    # Another rejected text is other data: a run on it is not resumed on this.
    write.write_rows(folder / "train.jsonl", [{**first, "rejected": "blue"}, second])
    assert sources.load(str(folder)).sha256 != data.sha256


def test_a_pair_is_as_long_as_its_longer_side():
    rows = [
        Example("1", "Which?", "red", reasoning="7 > 3.", rejected="blue " * 40),
        Example("2", "Which?", "red", reasoning="7 > 3. " * 20, rejected="blue"),
    ]
    count = lambda text: len(text.split())  # noqa: E731
    plain, both = (
        list(token_stats.measure(rows, Prompt(), count, pairs=pairs).rows) for pairs in (False, True)
    )
    assert [row.completion_tokens for row in plain] == [
        4 + token_stats.TAG_TOKENS,
        61 + token_stats.TAG_TOKENS,
    ]
    assert [row.completion_tokens for row in both] == [40, 61 + token_stats.TAG_TOKENS]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["loss_type=dpo"], "loss_type"),
        (["loss_type=[]"], "nothing would be learned"),
        (["loss_type=[sigmoid,sft]", "loss_weights=[1]"], "one number for each of 2 losses, got 1"),
        (["label_smoothing=0.1"], "robust alone"),
        (["loss_type=robust", "label_smoothing=0.5"], "label_smoothing"),
        (["lora.lora_dropout=0.1"], "disable_dropout=false"),
        (["beta=0"], "beta"),
    ],
)
def test_settings_that_cannot_act_are_refused(words, message):
    with pytest.raises(RecipeError) as caught:
        recipe.load("dpo", None, words)
    assert message in str(caught.value)


def test_one_loss_or_several(tmp_path):
    assert recipe.load("dpo", None, ["loss_type=ipo"]).loss_type == ("ipo",)
    mpo = recipe.load("dpo", None, ["loss_type=[sigmoid, bco_pair, sft]", "loss_weights=[0.8, 0.2, 1]"])
    (tmp_path / "recipe.yaml").write_text(recipe.dump(mpo))
    assert recipe.load("dpo", str(tmp_path / "recipe.yaml")) == mpo
