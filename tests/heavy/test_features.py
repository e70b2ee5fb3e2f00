"""Features-in equals pixels-in: same logits, same generated tokens, for single and mixed batches."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from toasterft.data.chat import Chat
from toasterft.data.example import Example, ImageRef, Turn
from toasterft.engine import Request, feature_cache, open_engine
from toasterft.engine.batching import Batcher
from toasterft.engine.forward import FEATURES, placed
from toasterft.engine.generate import Writing, generate
from toasterft.engine.image_features import ImageEncoder
from toasterft.errors import DataError, ModelError
from toasterft.models.architectures import supported
from toasterft.recipe import Lora, Prompt

WITH_FEATURES = [name for name, family in supported().items() if family.takes_features]


def load(folder, model_type, **more):
    return open_engine("plain").load(
        Request(base=str(folder), family=supported()[model_type], image_longest_edge=64, **more)
    )


@pytest.fixture
def examples(tmp_path):
    """Pictures of different tile counts, one row with two pictures, one with none, one of turns about two pictures."""
    refs = []
    for number, size in enumerate([(64, 64), (64, 20), (20, 64), (30, 30), (90, 40)]):
        path = tmp_path / f"{number}.png"
        Image.effect_noise(size, 90).convert("RGB").save(path)
        refs.append(ImageRef(path.name, path))
    rows = [(refs[0],), (refs[1],), (refs[2], refs[3]), (), (refs[4],)]
    history = (Turn("system", "Be brief."), Turn("user", "Which bar?", 1), Turn("assistant", "red"))
    return [
        Example(str(number), f"Which bar is {'very ' * number}high?", "red", images, "red = 7.")
        for number, images in enumerate(rows)
    ] + [Example("5", "And here?", "red", (refs[0], refs[4]), history=history)]


@pytest.mark.parametrize("model_type", WITH_FEATURES)
@pytest.mark.parametrize("four_bit", [False, True])
def test_logits_and_generated_tokens_are_the_same(model_type, four_bit, tiny_model, examples):
    loaded = load(tiny_model(model_type), model_type, load_in_4bit=four_bit)
    chat = Chat(loaded.processor, Prompt())
    encoder = ImageEncoder(loaded)
    for batch in (examples[:1], examples, examples[2:4], [examples[3]], [examples[5]]):
        logits, tokens = [], []
        for way in (encoder, None):
            inputs = Batcher(loaded, chat, way)
            ready = inputs.left_padded(inputs.prompts(batch))
            with loaded.evaluating() as model:
                logits.append(model(**placed(loaded, ready)).logits[ready["attention_mask"].bool()])
            tokens.append(generate(loaded, ready, Writing(chat.end_token_ids, 12)))
        assert torch.allclose(logits[0], logits[1], rtol=1e-5, atol=1e-5)
        assert tokens[0] == tokens[1]


@pytest.mark.parametrize("model_type", WITH_FEATURES)
def test_training_loss_and_gradients_are_the_same(model_type, tiny_model, examples):
    loaded = load(tiny_model(model_type), model_type, lora=Lora(r=4), train=True)
    chat = Chat(loaded.processor, Prompt())
    found = []
    for way in (ImageEncoder(loaded), None):
        batch = Batcher(loaded, chat, way).training([*examples[:3], examples[5]])
        loaded.model.zero_grad()
        loaded.model(**placed(loaded, batch), use_cache=False).loss.backward()
        grads = {name: p.grad.clone() for name, p in loaded.model.named_parameters() if p.grad is not None}
        found.append((loaded.model(**placed(loaded, batch)).loss.item(), grads))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert found[0][1]
    assert found[0][1].keys() == found[1][1].keys()
    for name, grad in found[0][1].items():
        assert torch.allclose(grad, found[1][1][name], rtol=1e-4, atol=1e-7), name


@pytest.mark.parametrize(
    "damage",
    [
        lambda batch, image: batch.pop(FEATURES),
        lambda batch, image: batch.update({FEATURES: batch[FEATURES][:-1]}),
        lambda batch, image: batch["input_ids"].masked_fill_(batch["input_ids"] == image, 0),
    ],
    ids=["none", "one too few", "no place"],
)
def test_images_that_find_no_place_are_an_error(damage, tiny_model, examples):
    loaded = load(tiny_model(), "idefics3")
    inputs = Batcher(loaded, Chat(loaded.processor, Prompt()), ImageEncoder(loaded))
    batch = inputs.left_padded(inputs.prompts(examples[:1]))
    damage(batch, loaded.image_token_id)
    with pytest.raises(ModelError, match="image tokens in a batch with features for"):
        placed(loaded, batch)


def test_an_image_is_encoded_once_and_read_back(tiny_model, examples):
    loaded = load(tiny_model(), "idefics3")
    encoder = ImageEncoder(loaded, batch_tiles=3)
    images = [image for example in examples for image in example.images]
    encoder.encode_all([*images, *images])
    assert encoder.encoded == len({image.sha256 for image in images})
    again = ImageEncoder(loaded)
    first = again(images)
    assert again.encoded == 0
    fresh = ImageEncoder(loaded, limit_bytes=0)(images)  # nothing is stored: straight from the tower
    for kept, made in zip(first, fresh):
        assert kept.text == made.text
        assert torch.allclose(kept.hidden, made.hidden, atol=1e-6)


def test_other_settings_never_read_the_same_entry(tiny_model, examples, tmp_path):
    image = [examples[0].images[0]]
    base = load(tiny_model(), "idefics3")
    ImageEncoder(base).encode_all(image)
    changed_size = load(tiny_model(), "idefics3")
    changed_size.processor.image_processor.size = {"longest_edge": 32}
    changed_dtype = load(tiny_model(), "idefics3", dtype="bfloat16")
    changed_weights = load(tiny_model(), "idefics3")
    with torch.no_grad():
        next(changed_weights.part("model.vision_model").parameters()).add_(1e-3)
    for other in (changed_size, changed_dtype, changed_weights):
        encoder = ImageEncoder(other)
        encoder(image)
        assert encoder.encoded == 1
    assert len(feature_cache.spaces()) == 4


def test_a_damaged_entry_is_made_again(tiny_model, examples):
    loaded = load(tiny_model(), "idefics3")
    image = examples[0].images[0]
    encoder = ImageEncoder(loaded)
    encoder.encode_all([image])
    path = encoder.store.path(image.sha256)
    path.write_bytes(path.read_bytes()[:50])
    (features,) = encoder([image])
    assert encoder.encoded == 2
    assert torch.equal(features.hidden, ImageEncoder(loaded)([image])[0].hidden)


def test_an_engine_whose_features_differ_falls_back_to_pixels(
    tiny_model, charts_folder, run_cli, quick, monkeypatch
):
    """Planted fault: features come out scaled, so the proof on opening must refuse them."""
    from toasterft.engine import image_features

    honest = image_features.ImageEncoder._encode
    monkeypatch.setattr(
        image_features.ImageEncoder,
        "_encode",
        lambda self, batch: (
            (i, image_features.Features(f.hidden * 1.5, f.text)) for i, f in honest(self, batch)
        ),
    )
    done = run_cli("sft", "--model", tiny_model(), "--data", charts_folder, "--json", *quick)
    assert done.code == 0
    assert any("logits differ" in note for note in done.json()["notes"])
    assert done.json()["images_encoded"] is None


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (10_000, 10), (3, 2)])
@pytest.mark.parametrize("model_type", supported())
def test_extreme_sizes_run_or_are_refused(model_type, size, tiny_model, tmp_path):
    Image.new("RGB", size, "red").save(tmp_path / "odd.png")
    row = [Example("odd", "What is it?", "red", (ImageRef("odd.png", tmp_path / "odd.png"),))]
    loaded = load(tiny_model(model_type), model_type)
    encoder = ImageEncoder(loaded, limit_bytes=0) if loaded.family.takes_features else None
    inputs = Batcher(loaded, Chat(loaded.processor, Prompt()), encoder)
    if max(size) > loaded.family.max_aspect * min(size):
        with pytest.raises(DataError, match=r"odd\.png: .* too narrow"):
            inputs.prompts(row)
        return
    with loaded.evaluating() as model:
        model(**placed(loaded, inputs.left_padded(inputs.prompts(row))))
