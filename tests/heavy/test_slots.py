"""Completions in slots: transformers' own tokens, whatever the company, or its own loop where they are not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from toasterft.data.chat import Chat
from toasterft.data.example import Example, ImageRef
from toasterft.engine import Request, open_engine
from toasterft.engine.batching import Batcher
from toasterft.engine.generate import Writing, complete, generate
from toasterft.engine.image_features import ImageEncoder
from toasterft.engine.slots import Slots
from toasterft.models.architectures import supported
from toasterft.recipe import Lora, Prompt

# Every fifth id ends a completion, so that rows of one batch come to an end at different places.
ENDS = list(range(0, 500, 5))
LIMIT = 12


@pytest.fixture
def examples(tmp_path):
    """Prompts of different lengths: several tiles, one, two pictures, none."""
    refs = []
    for number, size in enumerate([(64, 64), (30, 30), (64, 20)]):
        path = tmp_path / f"{number}.png"
        noise = np.random.default_rng(number).integers(0, 256, (*size[::-1], 3), np.uint8)
        Image.fromarray(noise).save(path)
        refs.append(ImageRef(path.name, path))
    rows = [(refs[0],), (refs[1],), (refs[1], refs[2]), (), (refs[2],)]
    return [
        Example(str(number), f"Which bar is {'very ' * number}high?", "red", images)
        for number, images in enumerate(rows)
    ]


def inputs_of(folder, model_type, **more):
    """With an adapter that does something: with tied embeddings a random model repeats one token."""
    request = dict(lora=Lora(r=4), train=True, image_longest_edge=64) | more
    loaded = open_engine("plain").load(Request(base=str(folder), family=supported()[model_type], **request))
    torch.manual_seed(1)
    for name, value in loaded.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.5)
    encoder = ImageEncoder(loaded) if loaded.family.takes_features else None
    return Batcher(loaded, Chat(loaded.processor, Prompt()), encoder)


def written(inputs, examples, writing, **options):
    """Completions of each example, in order."""
    found = dict(complete(inputs, examples, inputs.prompts, writing, **options))
    return [found[place] for place in range(len(examples))]


@pytest.mark.parametrize("four_bit", [False, True])
@pytest.mark.parametrize("model_type", supported())
def test_greedy_tokens_are_those_of_generate(model_type, four_bit, tiny_model, examples):
    inputs = inputs_of(tiny_model(model_type), model_type, load_in_4bit=four_bit)
    loaded, plain = inputs.loaded, []
    pixels = Batcher(loaded, inputs.chat, None)
    for example in examples:
        batch = pixels.left_padded(pixels.prompts([example]))
        with loaded.evaluating() as model:
            out = model.generate(
                **batch, max_new_tokens=LIMIT, eos_token_id=ENDS, pad_token_id=1, do_sample=False,
                suppress_tokens=loaded.never_sampled,
            )  # fmt: skip
        plain.append(out[0, batch["input_ids"].shape[1] :].tolist())
    assert len({len(ids) for ids in plain}) > 1
    rows = written(inputs, examples, Writing(ENDS, LIMIT), rows_at_once=4, num_generations=2)
    assert loaded.slots_agree, loaded.notes
    assert rows == [[ids, ids] for ids in plain]


@pytest.mark.parametrize("model_type", supported())
def test_what_a_row_samples_does_not_depend_on_its_company(model_type, tiny_model, examples):
    inputs = inputs_of(tiny_model(model_type), model_type)
    writing = Writing(ENDS, LIMIT, temperature=0.9, top_p=0.95)
    drawn = torch.rand(len(examples), 3, LIMIT, dtype=torch.float64)
    options = {"num_generations": 3, "drawn": drawn}
    many = written(inputs, examples, writing, rows_at_once=64, **options)
    assert inputs.loaded.slots_agree, inputs.loaded.notes
    assert len({tuple(ids) for group in many for ids in group}) > 10
    assert written(inputs, examples, writing, rows_at_once=4, **options) == many
    alone = complete(
        inputs, examples[3:4], inputs.prompts, writing, rows_at_once=3, num_generations=3, drawn=drawn[3:4]
    )
    assert next(alone) == (0, many[3])
    # transformers' loop, which every row goes through until the longest ends.
    inputs.loaded.slots_agree = False
    assert written(inputs, examples, writing, rows_at_once=6, **options) == many
    assert not set(inputs.loaded.never_sampled) & {token for group in many for ids in group for token in ids}


def test_rows_that_get_other_logits_go_through_generate(tiny_model, examples, monkeypatch):
    """Planted fault: a row does not see its prompt's last token."""
    inputs = inputs_of(tiny_model(), "idefics3")
    honest = Slots.join

    def short(self, prompt, rows):
        honest(self, prompt, rows)
        prompt.tokens -= 1

    right = written(inputs, examples, Writing(ENDS, LIMIT), rows_at_once=8)
    monkeypatch.setattr(Slots, "join", short)
    inputs.loaded.slots_agree = None
    assert written(inputs, examples, Writing(ENDS, LIMIT), rows_at_once=8) == right
    assert not inputs.loaded.slots_agree
    assert "logits differ" in inputs.loaded.notes[-1]


def test_sampling_follows_the_probabilities():
    logits = torch.tensor([[0.0, 1.0, 2.0, -torch.inf, 9.0]]).expand(20_000, -1)
    drawn = torch.rand(20_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    tokens = Writing([1], 9, temperature=2.0).choose(logits, drawn, [4])
    shares = tokens.bincount(minlength=5) / len(tokens)
    expected = (logits[0, :4] / 2).softmax(0)
    assert torch.allclose(shares[:4], expected, atol=0.02)
    assert shares[3] == shares[4] == 0
    nucleus = Writing([1], 9, temperature=2.0, top_p=0.5).choose(logits, drawn, [4])
    assert set(nucleus.tolist()) == {2}
    edges = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert Writing([1], 9, temperature=1.0).choose(logits[:2], edges, [4]).tolist() == [0, 2]


def test_generate_is_left_alone(tiny_model, examples):
    """Plain passes go through transformers' own attention again."""
    inputs = inputs_of(tiny_model(), "idefics3")
    text = inputs.loaded.inner.config.get_text_config()
    before = text._attn_implementation
    written(inputs, examples, Writing(ENDS, LIMIT), rows_at_once=8)
    assert text._attn_implementation == before
    batch = inputs.left_padded(inputs.prompts(examples))
    assert [[ids] for ids in generate(inputs.loaded, batch, Writing(ENDS, LIMIT))] == written(
        inputs, examples, Writing(ENDS, LIMIT), rows_at_once=8
    )
