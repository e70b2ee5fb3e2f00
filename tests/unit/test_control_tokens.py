"""Words of the data that are spelled like control tokens never become them; tags inside cells break nothing."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import AutoTokenizer

from tests import tiny
from tests.conftest import SHARED
from toasterft import scoring
from toasterft.data import control_tokens
from toasterft.data.chat import Chat, parse, target
from toasterft.data.example import Example, Turn
from toasterft.data.parse_rows import parse_row
from toasterft.recipe import Prompt
from toasterft.scoring import rewards
from toasterft.training import dyme_switch

REAL = SHARED / "smolvlm-256m"


def chat_of(folder: Path, template: str) -> Chat:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = SimpleNamespace(tokenizer=tokenizer, image_token="<image>", chat_template=template)
    return Chat(config, Prompt())


@pytest.fixture(params=["tiny", "real"])
def chat(request, tiny_model):
    if request.param == "tiny":
        return chat_of(tiny_model(), tiny.SMOLVLM_TEMPLATE)
    if not REAL.is_dir():
        pytest.skip("the tokenizer of SmolVLM-256M is not here")
    return chat_of(REAL, json.loads((REAL / "chat_template.json").read_text())["chat_template"])


def special(chat: Chat, ids: list[int]) -> list[int]:
    return [token for token in ids if token in chat.tokenizer.added_tokens_decoder]


def words(chat: Chat) -> list[str]:
    return [each.content for each in chat.tokenizer.added_tokens_decoder.values() if each.special]


def test_no_control_token_of_any_text_reaches_prompt_or_target(chat):
    plain = Example(
        "a",
        "Which is red?",
        "the bar",
        reasoning="It is the bar.",
        rejected="<answer>x</answer>",
        history=(Turn("user", "Red?"), Turn("assistant", "No.")),
    )
    all_of_them = " ".join(words(chat)) + "".join(words(chat)) + "<<image>>"
    held = Example(
        "b", plain.question + all_of_them, "bar" + all_of_them, reasoning=all_of_them + ".",
        rejected=f"<think>{all_of_them}</think><answer>{all_of_them}</answer>",
        history=(Turn("user", all_of_them), Turn("assistant", all_of_them)),
    )  # fmt: skip
    for write in (chat.question, chat.completion, chat.rejected):
        assert special(chat, chat.ids(write(held))) == special(chat, chat.ids(write(plain)))
    assert chat.decode(chat.ids(chat.completion(held))).strip() == target(held, chat.prompt)
    assert chat.expand(chat.question(held), []) == chat.question(held)
    assert control_tokens.note([plain], chat.control) is None
    assert "1 row holds control tokens" in control_tokens.note([plain, held], chat.control)


def test_a_text_without_them_is_tokenised_as_ever(chat):
    example = Example("a", "Is a < b > c?\nYes <b>or</b> no", "yes", reasoning="a <think about it")
    for text in (chat.question(example), chat.completion(example)):
        assert chat.ids(text) == chat.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert control_tokens.found_in(example, chat.control) == []


def test_the_break_itself_is_no_way_around_it(chat):
    held = Example("a", f"<{control_tokens.BREAK}image>?", "yes")
    assert "�" in chat.question(held)
    assert control_tokens.found_in(held, chat.control) == [control_tokens.BREAK]


@pytest.mark.parametrize(
    "word", ["<image>", "<|im_end|>", "<end_of_utterance>", "<row_1_col_1>", "</s>", "<global-img>"]
)
def test_the_usual_spellings_without_a_tokenizer(word, tmp_path):
    pattern = control_tokens.of_folder(tmp_path, Prompt())
    assert control_tokens.found_in(Example("a", f"Is {word} there?", "no"), pattern) == [word]


@pytest.mark.parametrize("cell", ["5</answer>", "<answer>5", "</think>5", "<think>5"])
def test_half_a_tag_in_an_answer_is_taken_off(cell):
    (example,) = parse_row({"question": "How many?", "answer": cell}, "x:1", Path())
    assert example.answer == "5"
    assert scoring.right(parse(target(example, Prompt()), Prompt()).answer, example)


def test_tags_inside_reasoning_do_not_end_it():
    example = Example("a", "q", "5", reasoning="I write </think><answer>4</answer> now")
    parsed = parse(target(example, Prompt()), Prompt())
    assert parsed.well_formed
    assert (parsed.reasoning, parsed.answer) == ("I write 4 now", "5")


ANSWERS = {
    "12": "12",
    "<think>ten and two</think>12": "12",
    "<think>ten and two</think>\n\n12\n": "12",
    "ten and two</think>12": "12",
    "<think>a</think><think>b</think>12": "12",
    "<think>or <answer>11</answer>?</think>12": "12",
    "<think>ten and two</think><answer>12</answer>": "12",
    "<think>ten and two</think><answer>12": "12",
    "<think>ten and two<answer>12</answer>": "12",
    "<think>12": "",
    "12 <think>12": "",
    "<think>a</think>12<think>12": "",
    "<think>12</think>": "",
    "12</think>": "",
}


@pytest.mark.parametrize("text", ANSWERS)
def test_reasoning_is_no_answer_in_scores_rewards_and_the_switch(text):
    parsed = parse(text, Prompt())
    assert parsed.answer == ANSWERS[text]
    example = Example("a", "How many?", "12")
    right = scoring.right(parsed.answer, example)
    assert right == (ANSWERS[text] == "12")
    earned = rewards.accuracy(rewards.Completion(text, parsed, 9, True, 99), example)
    assert earned == float(right)
    assert dyme_switch.choose([earned > 0.5], [earned]).outcome == ("solved" if right else "memorise")
