"""Parts that several families have, read from their part of `config.json`: decoders and the SigLIP tower."""

from __future__ import annotations

from typing import Any

from toasterft.errors import ModelError
from toasterft.models.shape import TextShape, VisionShape

Config = dict[str, Any]

_TEXT_DEFAULTS: dict[str, Config] = {
    "llama": {
        "num_hidden_layers": 32,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_attention_heads": 32,
        "vocab_size": 32000,
        "max_position_embeddings": 2048,
    },
    "qwen2": {
        "num_hidden_layers": 32,
        "hidden_size": 4096,
        "intermediate_size": 22016,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": 151936,
        "max_position_embeddings": 32768,
    },
    "qwen2_5_vl_text": {
        "num_hidden_layers": 80,
        "hidden_size": 8192,
        "intermediate_size": 29568,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "vocab_size": 152064,
        "max_position_embeddings": 32768,
    },
}


def decoder(config: Config, kind: str, tied: bool) -> TextShape:
    """The decoder of `kind` that `config` describes."""
    if kind not in _TEXT_DEFAULTS:
        known = sorted(set(_TEXT_DEFAULTS) - {"qwen2_5_vl_text"})
        raise ModelError(
            f"language model {kind!r} is not supported",
            where="config.json: text_config.model_type",
            why=f"known language models: {', '.join(known)}",
        )
    get = {**_TEXT_DEFAULTS[kind], **config}
    hidden, heads = get["hidden_size"], get["num_attention_heads"]
    llama = kind == "llama"
    # Qwen2.5-VL's decoder derives the head size even where a file states one.
    stated = get.get("head_dim") if kind != "qwen2_5_vl_text" else None
    return TextShape(
        layers=get["num_hidden_layers"],
        hidden=hidden,
        intermediate=get["intermediate_size"],
        heads=heads,
        kv_heads=get.get("num_key_value_heads") or heads,
        head_dim=stated or hidden // heads,
        vocab=get["vocab_size"],
        max_position=get["max_position_embeddings"],
        tied_embeddings=tied,
        # Qwen's decoders have these biases, and only these, whatever the file says.
        attention_bias=bool(get.get("attention_bias")) if llama else True,
        output_bias=llama and bool(get.get("attention_bias")),
        mlp_bias=llama and bool(get.get("mlp_bias")),
    )


def siglip(config: Config, defaults: Config, *, head: bool) -> VisionShape:
    """A SigLIP tower: learned positions, biases everywhere, a pooling head where `head` says so."""
    get = {**defaults, **config}
    hidden, intermediate, layers = get["hidden_size"], get["intermediate_size"], get["num_hidden_layers"]
    image_px, patch_px = edge_px(get["image_size"]), edge_px(get["patch_size"])
    norm = 2 * hidden
    attention = 4 * linear(hidden, hidden)
    mlp = linear(hidden, intermediate) + linear(intermediate, hidden)
    patches = linear(get.get("num_channels", 3) * patch_px**2, hidden)
    positions = (image_px // patch_px) ** 2 * hidden
    # The head is a learned probe that attends over the patches, then a norm and an MLP.
    pooling = hidden + attention + norm + mlp if head else 0
    return VisionShape(
        layers=layers,
        hidden=hidden,
        intermediate=intermediate,
        heads=get["num_attention_heads"],
        image_px=image_px,
        patch_px=patch_px,
        params=patches + positions + layers * (attention + mlp + 2 * norm) + norm + pooling,
    )


def section(config: Config, key: str) -> Config:
    """A nested part of a configuration; empty where it is left out or null."""
    return config.get(key) or {}


def linear(inputs: int, outputs: int, *, bias: bool = True) -> int:
    """Parameters of one linear layer."""
    return inputs * outputs + (outputs if bias else 0)


def edge_px(edge: Any) -> int:
    """An edge in pixels from a number or a (height, width) pair of equal numbers."""
    if isinstance(edge, (list, tuple)):
        if len(set(edge)) != 1:
            raise ValueError(f"tiles and patches must be square, not {edge}")
        edge = edge[0]
    if not isinstance(edge, int) or edge < 1:
        raise ValueError(f"{edge!r} is not an edge in pixels")
    return edge
