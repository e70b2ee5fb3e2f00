"""Every count of `shapes.py` against the model that transformers builds from the same configuration."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest

from toasterft import catalog
from toasterft.errors import ModelError
from toasterft.estimation.memory import trainable_params
from toasterft.models.architectures import shape_from_config
from toasterft.recipe import Lora, Sft

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SHARED = Path(os.environ.get("TOASTERFT_SHARED", Path(__file__).parents[2] / ".." / "shared" / "data"))

LLAMA = {
    "model_type": "llama",
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 120,
}
QWEN2 = {**LLAMA, "model_type": "qwen2"}
SIGLIP = {
    "hidden_size": 24,
    "intermediate_size": 52,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}
QWEN_VISION = {
    "depth": 3,
    "hidden_size": 32,
    "intermediate_size": 44,
    "num_heads": 4,
    "out_hidden_size": 48,
    "patch_size": 4,
    "fullatt_block_indexes": [1],
}

CONFIGS: dict[str, dict[str, Any]] = {
    # Small ones, each with something that changes a count.
    "idefics3": {"model_type": "idefics3", "text_config": LLAMA, "vision_config": SIGLIP},
    "idefics3 tied": {
        "model_type": "idefics3",
        "text_config": {**LLAMA, "attention_bias": True, "mlp_bias": True, "head_dim": 10},
        "vision_config": SIGLIP,
        "tie_word_embeddings": True,
        "scale_factor": 4,
    },
    "idefics3 tied inside": {
        "model_type": "idefics3",
        "text_config": {**LLAMA, "tie_word_embeddings": True},
        "vision_config": SIGLIP,
    },
    "idefics3 qwen2": {"model_type": "idefics3", "text_config": QWEN2, "vision_config": SIGLIP},
    "smolvlm": {"model_type": "smolvlm", "text_config": LLAMA, "vision_config": SIGLIP, "scale_factor": 2},
    "smolvlm partial": {
        "model_type": "smolvlm",
        "text_config": {"num_hidden_layers": 1, "num_key_value_heads": None},
        "vision_config": {"num_hidden_layers": 1},
    },
    "qwen2_5_vl": {"model_type": "qwen2_5_vl", "text_config": dict(LLAMA), "vision_config": QWEN_VISION},
    "qwen2_5_vl flat": {
        "model_type": "qwen2_5_vl",
        **{key: value for key, value in LLAMA.items() if key != "model_type"},
        "vision_config": QWEN_VISION,
        "tie_word_embeddings": True,
    },
    "qwen2_5_vl tied inside": {
        "model_type": "qwen2_5_vl",
        "text_config": {**LLAMA, "tie_word_embeddings": True},
        "vision_config": {**QWEN_VISION, "temporal_patch_size": 1, "spatial_merge_size": 4},
    },
    "internvl": {"model_type": "internvl", "text_config": QWEN2, "vision_config": SIGLIP},
    "internvl variant": {
        "model_type": "internvl",
        "text_config": {**LLAMA, "tie_word_embeddings": True},
        "vision_config": {
            **SIGLIP,
            "image_size": [32, 32],
            "patch_size": [8, 8],
            "norm_type": "rms_norm",
            "use_qk_norm": True,
            "attention_bias": True,
            "use_mask_token": True,
            "use_mean_pooling": False,
            "use_absolute_position_embeddings": False,
        },
        "tie_word_embeddings": False,
        "downsample_ratio": 0.25,
    },
    "internvl tied inside": {
        "model_type": "internvl",
        "text_config": {**QWEN2, "tie_word_embeddings": False},
        "vision_config": SIGLIP,
    },
    "llava_onevision": {"model_type": "llava_onevision", "text_config": QWEN2, "vision_config": SIGLIP},
    "llava_onevision no head": {
        "model_type": "llava_onevision",
        "text_config": {**QWEN2, "tie_word_embeddings": True, "head_dim": 10},
        "vision_config": {**SIGLIP, "vision_use_head": False},
        "multimodal_projector_bias": False,
        "vision_feature_layer": [-1, -2],
    },
    # Nothing given: the configuration classes' own defaults.
    # (Idefics3 without any text_config cannot be built: its default padding id is beyond its vocabulary.)
    "idefics3 default": {"model_type": "idefics3", "text_config": {}},
    "smolvlm default": {"model_type": "smolvlm", "text_config": {}, "vision_config": {}},
    "qwen2_5_vl default": {"model_type": "qwen2_5_vl"},
    "internvl default": {"model_type": "internvl"},
    "llava_onevision default": {"model_type": "llava_onevision"},
    "llava_onevision empty": {"model_type": "llava_onevision", "vision_config": {}, "text_config": {}},
}
CONFIGS.update({row.name: row.config for row in catalog.models().values()})


def build(config: dict[str, Any]) -> Any:
    """The model on the meta device: shapes without storage."""
    config_class = transformers.CONFIG_MAPPING[config["model_type"]]
    # The classes write into the dicts they are given.
    built = config_class(**copy.deepcopy(config))
    with torch.device("meta"):
        return transformers.AutoModelForImageTextToText.from_config(built)


def part_of(name: str) -> str:
    if name.startswith("lm_head"):
        return "lm_head"
    if name.endswith("embed_tokens.weight"):
        return "embedding"
    if name.startswith(("model.text_model.", "model.language_model.")):
        return "text_layer"
    if ".merger." in name or name.startswith(
        ("model.connector.", "model.multi_modal_projector.", "model.image_newline")
    ):
        return "connector"
    assert name.startswith(("model.vision_model.", "model.vision_tower.", "model.visual.")), name
    return "vision"


def counted(model: Any) -> dict[str, int]:
    """Parameters by part; a weight that two modules share counts once, as the embedding."""
    parts = dict.fromkeys(("vision", "connector", "text_layer", "embedding", "lm_head"), 0)
    for name, parameter in model.named_parameters():
        parts[part_of(name)] += parameter.numel()
    return parts


@pytest.mark.parametrize("name", CONFIGS)
def test_every_part_is_exact(name: str) -> None:
    config = CONFIGS[name]
    model = build(config)
    shape = shape_from_config(copy.deepcopy(config), None)
    assert {
        "vision": shape.vision_params,
        "connector": shape.connector_params,
        "text_layer": shape.text.layer_params,
        "embedding": shape.embedding_params,
        "lm_head": shape.lm_head_params,
    } == counted(model)
    assert shape.total_params == sum(parameter.numel() for parameter in model.parameters())
    linears = [
        module
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and part_of(f"{path}.weight") == "text_layer"
    ]
    assert shape.text.linear_params == sum(linear.weight.numel() for linear in linears)
    assert trainable_params(shape, Sft(lora=Lora(r=8))) == sum(
        8 * (linear.in_features + linear.out_features) for linear in linears
    )
    text = model.config.get_text_config()
    assert shape.text.max_position == text.max_position_embeddings
    assert (shape.text.heads, shape.text.kv_heads) == (text.num_attention_heads, text.num_key_value_heads)


@pytest.mark.parametrize(
    "name", ["idefics3 tied", "smolvlm", "qwen2_5_vl flat", "internvl", "llava_onevision no head"]
)
def test_a_saved_config_gives_the_same_shape(name: str, tmp_path: Path) -> None:
    config = CONFIGS[name]
    transformers.CONFIG_MAPPING[config["model_type"]](**copy.deepcopy(config)).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert shape_from_config(saved, None) == shape_from_config(config, None)


def test_the_real_256m_files() -> None:
    folder = SHARED / "smolvlm-256m"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    preprocessor = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    shape = shape_from_config(config, preprocessor)
    assert counted(build(config)) == {
        "vision": shape.vision_params,
        "connector": shape.connector_params,
        "text_layer": shape.text.layer_params,
        "embedding": shape.embedding_params,
        "lm_head": shape.lm_head_params,
    }
    row = catalog.models()["SmolVLM-256M"]
    assert shape == shape_from_config(row.config, row.preprocessor)
    # processor_config.json may carry the same settings one level down.
    assert shape == shape_from_config(config, {"image_processor": preprocessor, "image_seq_len": 64})


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("SmolVLM-256M", (86.43, 7.08, 106.20, 28.39, 28.39, 256.48)),
        ("SmolVLM-500M", (86.43, 11.80, 314.64, 47.31, 47.31, 507.48)),
    ],
)
def test_the_documented_numbers(name: str, millions: tuple[float, ...]) -> None:
    row = catalog.models()[name]
    shape = shape_from_config(row.config, row.preprocessor)
    parts = (
        shape.vision_params,
        shape.connector_params,
        shape.text.layer_params,
        shape.embedding_params,
        shape.lm_head_params,
        shape.total_params,
    )
    assert tuple(round(part / 1e6, 2) for part in parts) == millions


@pytest.mark.parametrize("row", catalog.models().values(), ids=lambda row: row.name)
def test_catalog_rows_agree_with_the_published_totals(row: catalog.Model) -> None:
    assert row.published_params is not None
    total = shape_from_config(row.config, row.preprocessor).total_params
    assert total == pytest.approx(row.published_params, rel=0.01)
    assert row.verified in ("yes", "partly", "no")
    assert all((row.note, row.source, row.licence, row.as_of))


def test_lora_against_peft() -> None:
    peft = pytest.importorskip("peft")
    config = CONFIGS["idefics3 tied"]
    model = build(config)
    lora = peft.LoraConfig(r=6, target_modules=r"model\.text_model\..*_proj")
    adapted = peft.get_peft_model(model, lora)
    trainable = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    assert trainable_params(shape_from_config(config, None), Sft(lora=Lora(r=6))) == trainable


def test_vision_facts() -> None:
    rows = catalog.models()
    qwen = shape_from_config(rows["Qwen2.5-VL-3B"].config, None).vision
    assert (qwen.gated_mlp, qwen.image_px, qwen.frames) == (True, None, 2)
    smol = shape_from_config(rows["SmolVLM-256M"].config, None).vision
    assert (smol.gated_mlp, smol.image_px, smol.patch_px, smol.frames) == (False, 512, 16, 1)


@pytest.mark.parametrize("row", catalog.models().values(), ids=lambda row: row.name)
def test_without_a_preprocessor_the_published_settings_are_assumed(row: catalog.Model) -> None:
    given = shape_from_config(row.config, row.preprocessor)
    assert shape_from_config(row.config, None).geometry == given.geometry


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model_type": "qwen2_vl"}, "known types: idefics3, internvl, llava_onevision, qwen2_5_vl, smolvlm"),
        ({}, "known types"),
        ({"model_type": "internvl", "text_config": {"model_type": "qwen3"}}, "models: llama, qwen2"),
        ({"model_type": "llava_onevision", "vision_config": {"model_type": "clip_vision_model"}}, "siglip"),
        ({"model_type": "llava_onevision", "vision_feature_select_strategy": "default"}, "'full'"),
        ({"model_type": "smolvlm", "vision_config": {"image_size": [32, 64]}}, "square"),
        ({"model_type": "smolvlm", "vision_config": {"hidden_size": "many"}}, "not a usable smolvlm"),
    ],
)
def test_what_is_refused(config: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelError) as caught:
        shape_from_config(config, None)
    assert says in str(caught.value)
