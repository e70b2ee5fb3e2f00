"""Bytes of a plan against arithmetic done by hand."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from toasterft import catalog
from toasterft.data.token_stats import TokenStats
from toasterft.estimation import memory, phases
from toasterft.estimation.memory import Sequences
from toasterft.models.architectures import (
    ModelShape,
    TextShape,
    VisionShape,
    shape_from_config,
)
from toasterft.models.architectures.idefics3 import IdeficsGeometry
from toasterft.recipe import Lora, Sft

# Linears of a layer: q 8x8 = 64, k and v 8x4 = 32, o 64, gate, up and down 8x32 = 256: 960, so 1,920 in all.
# Layers: 1,920 + 2 x 2 x 8 (norms) + 8 = 1,960. Embedding and head: 100 x 8 = 800 each.
# Total: 1,000 + 96 + 1,960 + 800 + 800 = 4,656.
TINY = ModelShape(
    model_type="idefics3",
    text=TextShape(
        layers=2,
        hidden=8,
        intermediate=32,
        heads=2,
        kv_heads=1,
        head_dim=4,
        vocab=100,
        max_position=512,
        tied_embeddings=False,
        attention_bias=False,
    ),
    vision=VisionShape(
        layers=1, hidden=4, intermediate=8, heads=1, image_px=16, patch_px=8, params=1000, masks_pixels=True
    ),
    connector_params=96,
    geometry=IdeficsGeometry(tile_px=16, patch_px=8, tile_tokens=1, longest_edge_px=32),
)
# r = 4: inputs 8+8+8+8+8+8+32 = 80 and outputs 8+4+4+8+32+32+8 = 96, so 2 x 4 x 176 = 1,408 parameters learn.
RECIPE = Sft(lora=Lora(r=4), optim="adamw_torch")
FULL = Sft(lora=None, load_in_4bit=False, optim="adamw_torch")


def with_(recipe: Sft, **changes: object) -> Sft:
    return recipe.model_copy(update=changes)


@pytest.mark.parametrize(
    ("recipe", "tower", "expected"),
    [
        pytest.param(
            RECIPE,
            False,
            {
                # 4 bits, a byte per 64 weights, a float32 per 256 of those, and 273 float32 of tables:
                # 64: 32 + 1 + 4 + 1,092 = 1,129; 32: 16 + 1 + 4 + 1,092 = 1,113; 256: 128 + 4 + 4 + 1,092 = 1,228.
                # 2 layers x (2 x 1,129 + 2 x 1,113 + 3 x 1,228) = 16,336; the rest 2 x (4,656 - 1,920 - 1,000).
                "weights": 16_336 + 2 * 1_736,
                "adapter": 4 * 1_408,
                "gradients": 4 * 1_408,
                "optimizer": 8 * 1_408,
                "optimizer_paged": 0,
            },
            id="4-bit",
        ),
        pytest.param(
            with_(RECIPE, load_in_4bit=False), True, {"weights": 2 * 4_656, "adapter": 5_632}, id="16-bit, tower"
        ),
        pytest.param(
            FULL,
            False,
            # Linears and norms, embedding, head.
            {"weights": 4 * 3_656, "adapter": 0, "gradients": 4 * 3_560, "optimizer": 8 * 3_560},
            id="full",
        ),
        pytest.param(
            # Every tensor is small: float32 states, and the tables of 8-bit ones.
            with_(RECIPE, optim="adamw_8bit"), False, {"optimizer": 8 * 1_408 + 2_048}, id="small states",
        ),
        pytest.param(
            with_(RECIPE, lora=Lora(r=4, target_modules=("q_proj", "v_proj"))),
            False,
            # 2 x 4 x (8 + 8 + 8 + 4)
            {"adapter": 4 * 224},
            id="two targets",
        ),
        pytest.param(
            with_(RECIPE, train_vision=True),
            True,
            # The tower learns in float32.
            {"weights": 16_336 + 2 * 1_736, "adapter": 4 * (1_408 + 1_000)},
            id="tower learns",
        ),
    ],
)  # fmt: skip
def test_what_stays(recipe: Sft, tower: bool, expected: dict[str, int]) -> None:
    found = memory.resident(TINY, recipe, 2, tower=tower)
    assert {name: found[name] for name in expected} == expected


# One layer keeps per position, in bytes: both norms' float32 input and a root, 2 x (32 + 4) = 72; gate, activation and
# up, 3 x 2 x 32 = 192; the norms' outputs and the product, 2 x (8 + 8 + 32) = 96; low-rank vectors, 7 x 2 x 4 = 56: 416.
# Flash attention: query and output, key and value, 2 x (8 + 8 + 4 + 4) = 48, and 2 float32 log-sums = 8: 56.
LAYER = 416 + 56
# 10 positions: ids, labels, order 16 each; rotary tables 4 x 2 x 4 each: 160 + 320.
BATCH = 480
# Around the loss: the last norm in float32 and in 16 bit, and what predicts: 10 x (32 + 16 + 16).
ENDS = 640
# What autocast copies of the adapter.
COPIES = 2 * 1_408
# All 10 positions fit one chunk: 16 x 10 x 100.
LOGITS = 16_000


@pytest.mark.parametrize(
    ("recipe", "sequences", "activations", "logits"),
    [
        pytest.param(
            # Between layers: 2 layers x 10 positions x 16 bytes.
            RECIPE, Sequences(1, 10, 10), 320 + BATCH + COPIES + ENDS, LOGITS, id="checkpointing",
        ),
        pytest.param(
            with_(RECIPE, gradient_checkpointing=False),
            Sequences(1, 10, 10),
            2 * 10 * LAYER + BATCH + COPIES + ENDS,
            LOGITS,
            id="no checkpointing",
        ),
        pytest.param(
            with_(RECIPE, gradient_checkpointing=False, load_in_4bit=False),
            Sequences(1, 10, 10),
            # Instead of 96 shared bytes every linear's own input: 2 x (5 x 8 + 8 + 32) = 160.
            2 * 10 * (LAYER + 64) + BATCH + COPIES + ENDS,
            LOGITS,
            id="16-bit",
        ),
        pytest.param(
            with_(RECIPE, gradient_checkpointing=False, lora=Lora(r=4, lora_dropout=0.1)),
            Sequences(1, 10, 10),
            # Likewise, and a byte for each that says whether it was dropped: 3 x 80.
            2 * 10 * (LAYER - 96 + 240) + BATCH + COPIES + ENDS,
            LOGITS,
            id="dropout",
        ),
        pytest.param(
            with_(RECIPE, gradient_checkpointing=False),
            Sequences(2, 10, 20),
            # Padded: keys and values of both heads, so 64 instead of 48 bytes; log-sums of 32 positions a row;
            # and in every layer a bias of 2 x 10 x 16 numbers. The mask itself: 2 x 10 x 10. Rotary tables once.
            2 * (20 * (416 + 64) + 4 * 2 * 2 * 32 + 2 * 320) + (320 + 320 + 200) + COPIES + 2 * ENDS,
            2 * LOGITS,
            id="padded",
        ),
        pytest.param(
            with_(RECIPE, gradient_checkpointing=False),
            Sequences(1, 10, 8, branches=2, branch_tokens=4),
            # 18 positions; query, key, value (of all heads) and joined output, 18 x 4 x 16; the parts' outputs again,
            # (10 + 8) x 16; log-sums 8 x (10 + 2 x 32); per branch keys and values of 14, 2 x 14 x 16, and a bias of
            # 4 x 16 numbers. The mask: 2 x 4 x 14. Only the 8 branch positions predict.
            2 * (18 * 416 + 1_152 + 288 + 592 + 2 * (448 + 128))
            + (16 * 18 + 320 + 112)
            + COPIES
            + 18 * 48
            + 8 * 16,
            # All 8 positions are one chunk.
            16 * 8 * 100,
            id="tree",
        ),
        pytest.param(
            with_(FULL, optim="adamw_8bit"),
            Sequences(1, 10, 10),
            # A float32 stream: 2 layers x 10 x 32; ids 160, rotary tables 640; 16-bit copies of 1,920 weights;
            # around the loss 10 x (3 x 32 + 32).
            640 + 160 + 640 + 2 * 1_920 + 1_280,
            LOGITS,
            id="full",
        ),
    ],
)  # fmt: skip
def test_a_step(recipe: Sft, sequences: Sequences, activations: int, logits: int) -> None:
    found = memory.of_step(TINY, recipe, sequences, 2, tower=False)
    assert (found["activations"], found["logits"]) == (activations, logits)


def test_the_last_layer_can_be_the_peak() -> None:
    """Long sequences, a small vocabulary: 16 x 256 x 100 bytes of logits are less than a layer's gradients."""
    n = 8_000
    found = memory.of_step(TINY, RECIPE, Sequences(1, n, 10), 2, tower=False)
    # Inputs of both layers, the batch, one layer, and three 16-bit vectors: two as wide as the MLP, one as the model.
    assert found["activations"] == n * (32 + 48 + LAYER + 2 * (2 * 32 + 8))
    assert found["logits"] == 0


def test_without_flash_attention_pairs_of_positions_count() -> None:
    n = 1_000
    recipe = with_(RECIPE, gradient_checkpointing=False)
    flash, none = (
        memory.of_step(TINY, recipe, Sequences(1, n, 10), 2, tower=False, flash=flash)["activations"]
        for flash in (True, False)
    )
    # Per layer: two heads' float32 probabilities, and 3 x 4 x 8 + 2 x 8 bytes instead of 56 a position.
    assert none - flash >= 2 * (4 * 2 * n**2 + n * (112 - 56))
    padded = [
        memory.of_step(TINY, recipe, Sequences(2, n, 10), 2, tower=False, flash=flash)
        for flash in (True, False)
    ]
    assert padded[0] == padded[1]


def test_generation() -> None:
    generate = partial(memory.of_generation, TINY, rows=8, width_bytes=2)
    # Keys and values, 2 layers, 1 head of 4, 16 bit: 32 bytes a position.
    # Places for two prompts and two that come in before those end, of 2 x 64 positions each, and for the rows' own;
    # beside them what is being read. Per position of it an adapter's float32 result, scaled and not, two 16-bit values
    # of the MLP, a float32 and four 16-bit vectors.
    assert generate(prompts=2, prompt_tokens=100, completion_tokens=1, image_tokens=64) == {
        "image_features": 64 * 8 * 2,
        "kv_cache": (4 * 128 + 8 * 1 + 100) * 32,
        "activations": 100 * (2 * 4 * 32 + 2 * 2 * 32 + 4 * 8 + 4 * 2 * 8),
        "logits": 0,
    }
    # Much is written: 16-bit scores of two heads over a row's own, and their weights.
    assert generate(prompts=1, prompt_tokens=40, completion_tokens=400) == {
        "image_features": 0,
        "kv_cache": (2 * 64 + 8 * 400) * 32,
        "activations": 2 * 8 * 400 * (2 + 4),
        "logits": 0,
    }
    # Without flash attention, scores of 2 heads before and after the causal mask, and the mask, in
    # float32; and per position 16 x 8 + 8 x 4 + 4 x 2 x 8 bytes of queries, keys, values and the stream.
    unfused = generate(rows=1, prompt_tokens=100, completion_tokens=1, flash=False)
    assert unfused["activations"] == 100**2 * (2 * 4 * 2 + 4) + 100 * 224
    # With short sequences it is the scores: 16-bit logits, a float32 copy, and what top-p sorts.
    sampled = generate(prompts=1, prompt_tokens=4, completion_tokens=4, top_p=0.9)
    assert (sampled["activations"], sampled["logits"]) == (0, 8 * 100 * (2 + 26))


def test_encoding() -> None:
    found = memory.of_encoding(TINY, with_(RECIPE, encode_batch_size=3), 2)
    # 3 tiles of 4 patches; pixels 3 x 8 x 8 float32 a patch.
    assert found["pixels"] == 12 * 3 * 64 * 4
    # Four vectors of 4 and two of 8 in 16 bit; pixels in 16 bit, and a mask of a byte each.
    assert found["activations"] == 12 * (4 * 4 * 2 + 2 * 8 * 2 + 64 * (3 * 2 + 1))
    assert found["weights"] == 16_336 + 2 * 2_736


def test_smolvlm_256m() -> None:
    row = catalog.models()["SmolVLM-256M"]
    shape = shape_from_config(row.config, row.preprocessor)
    found = memory.resident(shape, Sft(), 2, tower=False)
    # q, o 576²: 165,888 + 5,184 + 4 x 21 + 1,092 = 172,248. k, v 576 x 192: 55,296 + 1,728 + 4 x 7 + 1,092 = 58,144.
    # gate, up, down 576 x 1,536: 442,368 + 13,824 + 4 x 54 + 1,092 = 457,500. 30 layers: 54,998,520.
    # Connector, embedding, head, norms: (256,484,928 - 106,168,320 - 86,433,024) x 2 = 127,767,168.
    assert found["weights"] == 54_998_520 + 127_767_168
    # r = 16: 30 x 16 x (2 x 1,152 + 2 x 768 + 3 x 2,112)
    assert found["adapter"] == found["gradients"] == 4 * 4_884_480
    # The second factors of k and v have 3,072 entries, too few for 8 bit: 60 x 3,072 x 8. The others 2 bytes an entry,
    # and 8 per 256: 2 x 4,700,160 + 30 x 612 x 8. And 2,048 of tables.
    assert found["optimizer"] == 1_474_560 + 9_400_320 + 146_880 + 2_048
    # No tensor has 100,000 entries: nothing of a paged optimizer can leave the GPU, not even at r = 64.
    assert found["optimizer_paged"] == 0
    assert memory.resident(shape, Sft(lora=Lora(r=64)), 2, tower=False)["optimizer_paged"] == 0
    # In full tuning all linears' 8-bit states can, the head's, and the embedding's float32 ones.
    full = memory.resident(shape, Sft(lora=None, load_in_4bit=False), 2, tower=False)
    assert full["optimizer_paged"] == 2 * (106_168_320 + 28_385_280) + 8 * 28_385_280


SURVEY = TokenStats(
    rows=10,
    images=10,
    tiles=2.0,
    tower_patches=8.0,
    feature_tokens=2.0,
    prompt_tokens=20.0,
    completion_tokens=10.0,
    longest_tokens=40,
    over_max_length=0,
    with_reasoning=10,
    provenance="made up",
)


A100 = catalog.gpu("A100-40GB")


def training(shape: ModelShape, recipe: Sft) -> dict[str, int]:
    return phases.of_run(shape, SURVEY, None, recipe, A100)["train"]


def test_training_takes_the_longest_row_up_to_the_limit() -> None:
    recipe = with_(RECIPE, per_device_train_batch_size=2, max_length=30)
    found = training(TINY, recipe)
    step = memory.of_step(TINY, recipe, Sequences(2, 20, 20, 4, branches=1, branch_tokens=10), 2, tower=False)
    assert {**found, **step} == found
    assert found["image_features"] == 4 * 8 * 2


def test_the_tower_leaves_when_every_feature_is_cached() -> None:
    without = training(TINY, RECIPE)
    # 10 images x 2 positions x 8 x 2 bytes = 320 do not fit 300.
    crowded = training(TINY, with_(RECIPE, cache_limit_gb=3e-7))
    assert crowded["weights"] - without["weights"] == 2 * 1_000
    pixels = training(replace(TINY, model_type="llava_onevision"), RECIPE)
    assert pixels["weights"] == crowded["weights"]
    assert pixels["pixels"] == 8 * 3 * 64 * 4


@pytest.mark.parametrize("optim", ["paged_adamw_8bit", "adamw_8bit", "adamw_torch"])
def test_items_are_whole_and_not_negative(optim: str) -> None:
    for name, row in catalog.models().items():
        shape = shape_from_config(row.config, row.preprocessor)
        for recipe in (Sft(optim=optim), Sft(optim=optim, lora=None, load_in_4bit=False, train_vision=True)):
            found = training(shape, recipe)
            assert all(isinstance(size, int) and size >= 0 for size in found.values()), (name, found)


def test_checkpoints_on_disk() -> None:
    # Three at once: float32 adapter, both states, 98 bytes of tokenizer files per entry of the vocabulary.
    assert memory.checkpoint_bytes(TINY, RECIPE) == 3 * (4 * 1_408 + 8 * 1_408 + 9_800)
    # Full tuning saves the whole model, the tower included.
    assert memory.checkpoint_bytes(TINY, FULL) == 3 * (4 * 4_656 + 8 * 3_560 + 9_800)
