"""`Architecture`, and the parts that several families have: decoders and the SigLIP tower."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from toasterft.errors import ModelError
from toasterft.models.shape import ModelShape, TextShape, VisionShape

Config = dict[str, Any]


@dataclass(frozen=True)
class Architecture:
    """How to read, size, load and run models of one `model_type` (transformers 5.17).

    Attributes:
        read_shape: from the content of config.json and of preprocessor_config.json (None where there is none). May
            raise any of TypeError, KeyError, ValueError, AttributeError, ArithmeticError on values it cannot use.
        vision, connector, text: attribute paths, below the `…ForConditionalGeneration`, of the vision tower, of what
            maps its output into the language model's space, and of the language model without its head.
        processor: class that pairs image processor and tokenizer, as `module:class` below `transformers.models`.
        pil_processor: likewise the image processor that needs no torchvision.
        takes_features: what the connector gives for an image stands for its image tokens and depends on nothing else, so
            that every image is encoded once.
        tiles_apart: the tower sees each tile on its own, so that a pass takes tiles of several images, or some of one.
        image_options: what the processor tells its image processor.
        connector_linear: path of the connector's single bias-free linear, where it has just one.
        max_aspect: the image processor refuses pictures whose sides differ by more than this factor.
    """

    model_type: str
    read_shape: Callable[[Config, Config | None], ModelShape]
    vision: str
    connector: str
    text: str
    processor: str
    pil_processor: str
    takes_features: bool = True
    tiles_apart: bool = True
    image_options: Mapping[str, bool] = field(default_factory=dict)
    connector_linear: str | None = None
    max_aspect: float = math.inf

    @property
    def not_quantised(self) -> list[str]:
        """Modules kept in 16 bit: 4-bit towers lose detail that small charts need."""
        return ["lm_head", self.vision, self.connector]


# Defaults of transformers' configuration classes for keys that a file leaves out: one row per class.
DECODER_KEYS = (
    "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads",
    "vocab_size", "max_position_embeddings",
)  # fmt: skip
DECODERS: dict[str, tuple[int | None, ...]] = {
    "llama": (32, 4096, 11008, 32, None, 32000, 2048),
    "qwen2": (32, 4096, 22016, 32, 32, 151936, 32768),
}
SIGLIP_KEYS = (
    "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "image_size", "patch_size",
)  # fmt: skip


def decoder(
    config: Config, kind: str, *, tied: bool, defaults: tuple[int | None, ...] | None = None
) -> TextShape:
    """The decoder that `config` describes.

    Args:
        kind: `llama` or `qwen2`.
        defaults: of `DECODER_KEYS`, where they are not those of `kind`.

    Raises:
        ModelError: another kind.
    """
    if kind not in DECODERS:
        raise ModelError(
            f"language model {kind!r} is not supported",
            where="config.json: text_config.model_type",
            why=f"known language models: {', '.join(sorted(DECODERS))}",
        )
    get = {**dict(zip(DECODER_KEYS, defaults or DECODERS[kind])), **config}
    hidden, heads = get["hidden_size"], get["num_attention_heads"]
    llama = kind == "llama"
    return TextShape(
        layers=get["num_hidden_layers"],
        hidden=hidden,
        intermediate=get["intermediate_size"],
        heads=heads,
        kv_heads=get.get("num_key_value_heads") or heads,
        head_dim=get.get("head_dim") or hidden // heads,
        vocab=get["vocab_size"],
        max_position=get["max_position_embeddings"],
        tied_embeddings=tied,
        # Qwen's decoders have these biases, and only these, whatever the file says.
        attention_bias=bool(get.get("attention_bias")) if llama else True,
        output_bias=llama and bool(get.get("attention_bias")),
        mlp_bias=llama and bool(get.get("mlp_bias")),
    )


def siglip(config: Config, defaults: tuple[int, ...], *, head: bool, **facts: bool) -> VisionShape:
    """A SigLIP tower: learned positions, biases everywhere, a pooling head where `head` is true.

    Args:
        defaults: of `SIGLIP_KEYS`.
        facts: further fields of `VisionShape`.
    """
    get = {**dict(zip(SIGLIP_KEYS, defaults)), **config}
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
        **facts,
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
