"""What an estimate needs to know of a vision-language model, read from its configuration files alone.

`shape_from_config` takes the content of `config.json` (and `preprocessor_config.json`) as plain dicts.
Keys that a file leaves out get the default of the configuration class that transformers 5.17 builds
for that `model_type`; `tests/unit/test_shapes.py` holds every count against the real model classes on
the meta device. Counts are numbers of parameters, not bytes.

To add a family: write its `_shape` function and enter it in `_FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from toasterft.errors import ModelError, did_you_mean
from toasterft.geometry import (
    Geometry,
    IdeficsGeometry,
    InternVLGeometry,
    LlavaOnevisionGeometry,
    QwenGeometry,
)

Config = dict[str, Any]


@dataclass(frozen=True)
class TextShape:
    """The language model: a decoder with grouped-query attention and a gated MLP."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    max_position: int
    """Longest sequence in tokens the positions were made for."""
    tied_embeddings: bool
    attention_bias: bool
    """Biases on the query, key and value projections."""
    output_bias: bool = False
    """A bias on the attention's output projection."""
    mlp_bias: bool = False

    @property
    def layer_linears(self) -> tuple[tuple[int, int], ...]:
        """(in, out) features of one layer's linears: q, k, v, o, gate, up, down."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return (
            (self.hidden, queries),
            (self.hidden, keys),
            (self.hidden, keys),
            (queries, self.hidden),
            (self.hidden, self.intermediate),
            (self.hidden, self.intermediate),
            (self.intermediate, self.hidden),
        )

    @property
    def linear_params(self) -> int:
        """Weights of all layers' linears, biases not counted."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.layer_linears)

    @property
    def layer_params(self) -> int:
        """All layers and the final norm; neither the embedding nor the head."""
        outputs = [outputs for _, outputs in self.layer_linears]
        biases = self.attention_bias * sum(outputs[:3]) + self.output_bias * outputs[3]
        biases += self.mlp_bias * sum(outputs[4:])
        norms = 2 * self.hidden
        return self.linear_params + self.layers * (biases + norms) + self.hidden


@dataclass(frozen=True)
class VisionShape:
    """The vision tower, the connector not counted."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    image_px: int | None
    """Edge of the square tile it was built for; None where it takes any size."""
    patch_px: int
    params: int
    gated_mlp: bool = False
    class_tokens: int = 0
    """Positions per tile besides its patches."""
    window_px: int | None = None
    """Edge of the attention window; None where every layer sees the whole tile."""
    full_attention_layers: int | None = None
    """Layers that see the whole image in spite of `window_px`; None for all."""


@dataclass(frozen=True)
class ConnectorShape:
    """What turns the tower's output into the language model's input.

    `kind` is `linear` (pixel shuffle, one linear), `mlp` (two linears) or `merger` (norm, two linears).
    """

    kind: str
    params: int


@dataclass(frozen=True)
class ModelShape:
    """Everything an estimator needs to know of one model."""

    model_type: str
    text: TextShape
    vision: VisionShape
    connector: ConnectorShape
    geometry: Geometry

    @property
    def vision_params(self) -> int:
        return self.vision.params

    @property
    def connector_params(self) -> int:
        return self.connector.params

    @property
    def text_layer_params(self) -> int:
        """The language model's layers and final norm."""
        return self.text.layer_params

    @property
    def embedding_params(self) -> int:
        return self.text.vocab * self.text.hidden

    @property
    def lm_head_params(self) -> int:
        """The output projection; 0 where it shares the embedding's weights."""
        return 0 if self.text.tied_embeddings else self.embedding_params

    @property
    def total_params(self) -> int:
        return (
            self.vision_params
            + self.connector_params
            + self.text_layer_params
            + self.embedding_params
            + self.lm_head_params
        )

    @property
    def linear_params_text(self) -> int:
        """Weights that 4-bit quantisation and LoRA touch: the linears of the language model's layers."""
        return self.text.linear_params

    def lora_params(self, r: int) -> int:
        """Trainable parameters of LoRA of rank `r` on every linear of the language model's layers."""
        return self.text.layers * sum(r * (inputs + outputs) for inputs, outputs in self.text.layer_linears)


def shape_from_config(config: Config, preprocessor: Config | None = None) -> ModelShape:
    """The shape of the model that a `config.json` describes.

    Args:
        config: the content of `config.json`.
        preprocessor: the content of `preprocessor_config.json`, or of `processor_config.json` (its
            `image_processor` part is taken). Without it the tile size is the vision tower's, and the
            limits are those the family is published with.

    Raises:
        ModelError: a `model_type`, language model or vision tower that is not known here, or a value
            that no such model can have.
    """
    model_type = str(config.get("model_type"))
    family = _FAMILIES.get(model_type)
    if family is None:
        known = sorted(_FAMILIES)
        raise ModelError(
            f"model type {model_type!r} is not supported{did_you_mean(model_type, known)}",
            where="config.json",
            why=f"known types: {', '.join(known)}",
        )
    if preprocessor is not None:
        preprocessor = preprocessor.get("image_processor", preprocessor)
    try:
        return family(config, preprocessor)
    except (TypeError, KeyError, ValueError, AttributeError, ArithmeticError) as error:
        raise ModelError(f"not a usable {model_type} configuration ({error})", where="config.json") from error


# ---- language models ---------------------------------------------------------------------------

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


def _text(config: Config, kind: str, tied: bool) -> TextShape:
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


def _sub(config: Config, key: str) -> Config:
    return config.get(key) or {}


# ---- Idefics3, SmolVLM -------------------------------------------------------------------------


def _idefics(config: Config, preprocessor: Config | None) -> ModelShape:
    text_config = _sub(config, "text_config")
    # transformers 5 reads the outer key alone; one inside text_config is without effect.
    tied = bool(config.get("tie_word_embeddings", False))
    text = _text(text_config, text_config.get("model_type", "llama"), tied)
    vision = _siglip(
        _sub(config, "vision_config"),
        {
            "hidden_size": 1152,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 16,
            "image_size": 224,
            "patch_size": 32,
        },
        head=False,
    )
    shuffle = config.get("scale_factor", 2)
    connector = ConnectorShape("linear", vision.hidden * shuffle**2 * text.hidden)

    if preprocessor is None:
        tile_px = _px(vision.image_px)
        preprocessor = {"max_image_size": {"longest_edge": tile_px}, "size": {"longest_edge": 4 * tile_px}}
    tile_px = preprocessor.get("max_image_size", {"longest_edge": 364})["longest_edge"]
    geometry = IdeficsGeometry(
        tile_px=tile_px,
        patch_px=vision.patch_px,
        tile_tokens=(tile_px // vision.patch_px) ** 2 // shuffle**2,
        longest_edge_px=preprocessor.get("size", {"longest_edge": 4 * 364})["longest_edge"],
        splits=preprocessor.get("do_image_splitting", True),
        resizes=preprocessor.get("do_resize", True),
    )
    return ModelShape(config["model_type"], text, vision, connector, geometry)


def _siglip(config: Config, defaults: Config, *, head: bool) -> VisionShape:
    """A SigLIP tower: learned positions, biases everywhere, a pooling head where `head` says so."""
    get = {**defaults, **config}
    hidden, intermediate, layers = get["hidden_size"], get["intermediate_size"], get["num_hidden_layers"]
    image_px, patch_px = _px(get["image_size"]), _px(get["patch_size"])
    norm = 2 * hidden
    attention = 4 * _linear(hidden, hidden)
    mlp = _linear(hidden, intermediate) + _linear(intermediate, hidden)
    patches = _linear(get.get("num_channels", 3) * patch_px**2, hidden)
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


# ---- Qwen2.5-VL --------------------------------------------------------------------------------


def _qwen(config: Config, preprocessor: Config | None) -> ModelShape:
    # The hub's files of this family keep the language model's keys on the outer level.
    text_config = config["text_config"] if isinstance(config.get("text_config"), dict) else config
    tied = bool(config.get("tie_word_embeddings") or text_config.get("tie_word_embeddings"))
    text = _text(text_config, "qwen2_5_vl_text", tied)

    get = {
        "depth": 32,
        "hidden_size": 3584,
        "intermediate_size": 3420,
        "in_channels": 3,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 112,
        "out_hidden_size": 3584,
        "fullatt_block_indexes": (7, 15, 23, 31),
        **_sub(config, "vision_config"),
    }
    layers, hidden, intermediate = get["depth"], get["hidden_size"], get["intermediate_size"]
    patch_px, merge = _px(get["patch_size"]), get["spatial_merge_size"]
    attention = _linear(hidden, 3 * hidden) + _linear(hidden, hidden)
    mlp = 2 * _linear(hidden, intermediate) + _linear(intermediate, hidden)
    patches = get["in_channels"] * get["temporal_patch_size"] * patch_px**2 * hidden
    vision = VisionShape(
        layers=layers,
        hidden=hidden,
        intermediate=intermediate,
        heads=get.get("num_heads", get.get("num_attention_heads", 16)),
        image_px=None,
        patch_px=patch_px,
        params=patches + layers * (attention + mlp + 2 * hidden),
        gated_mlp=True,
        window_px=get["window_size"],
        full_attention_layers=sum(index < layers for index in get["fullatt_block_indexes"]),
    )
    merged = hidden * merge**2
    merger = hidden + _linear(merged, merged) + _linear(merged, get["out_hidden_size"])

    found = preprocessor or {}
    # In this family `size` holds areas, and the older min_pixels/max_pixels win over it.
    area = {"shortest_edge": 56**2, "longest_edge": 1280 * 28**2, **(found.get("size") or {})}
    if preprocessor is None:
        area["longest_edge"] = 16384 * 28**2
    geometry = QwenGeometry(
        patch_px=found.get("patch_size", patch_px),
        merge=found.get("merge_size", merge),
        min_pixels=found.get("min_pixels") or area["shortest_edge"],
        max_pixels=found.get("max_pixels") or area["longest_edge"],
    )
    return ModelShape(config["model_type"], text, vision, ConnectorShape("merger", merger), geometry)


# ---- InternVL ----------------------------------------------------------------------------------


def _internvl(config: Config, preprocessor: Config | None) -> ModelShape:
    text_config = _sub(config, "text_config")
    # Tied unless the outer level denies it; what text_config says is without effect.
    tied = bool(config.get("tie_word_embeddings", True))
    text = _text(text_config, text_config.get("model_type", "qwen2"), tied)

    get = {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 448,
        "patch_size": 14,
        "num_channels": 3,
        "norm_type": "layer_norm",
        "use_absolute_position_embeddings": True,
        "use_mean_pooling": True,
        **_sub(config, "vision_config"),
    }
    hidden, intermediate, layers = get["hidden_size"], get["intermediate_size"], get["num_hidden_layers"]
    image_px, patch_px = _px(get["image_size"]), _px(get["patch_size"])
    norm = hidden if get["norm_type"] == "rms_norm" else 2 * hidden
    attention = 3 * _linear(hidden, hidden, bias=bool(get.get("attention_bias"))) + _linear(hidden, hidden)
    query_key_norms = 2 * hidden if get.get("use_qk_norm") else 0
    mlp = _linear(hidden, intermediate) + _linear(intermediate, hidden)
    layer_scales = 2 * hidden
    class_and_mask = 2 * hidden if get.get("use_mask_token") else hidden
    patches = _linear(get["num_channels"] * patch_px**2, hidden)
    tile_patches = (image_px // patch_px) ** 2
    positions = (tile_patches + 1) * hidden if get["use_absolute_position_embeddings"] else 0
    last_norm = 0 if get["use_mean_pooling"] else 2 * hidden
    vision = VisionShape(
        layers=layers,
        hidden=hidden,
        intermediate=intermediate,
        heads=get["num_attention_heads"],
        image_px=image_px,
        patch_px=patch_px,
        params=class_and_mask
        + patches
        + positions
        + layers * (attention + query_key_norms + mlp + layer_scales + 2 * norm)
        + last_norm,
        class_tokens=1,
    )
    shuffle = int(1 / config.get("downsample_ratio", 0.5))
    shuffled = hidden * shuffle**2
    projector = 2 * shuffled + _linear(shuffled, text.hidden) + _linear(text.hidden, text.hidden)

    if preprocessor is None:
        preprocessor = {"size": {"height": image_px}}
    tile_px = preprocessor.get("size", {"height": 384})["height"]
    # `crop_to_patches` is not read: the processor always turns it on, whatever the file says.
    geometry = InternVLGeometry(
        tile_px=tile_px,
        patch_px=patch_px,
        tile_tokens=(tile_px // patch_px) ** 2 // shuffle**2,
        min_tiles=preprocessor.get("min_patches", 1),
        max_tiles=preprocessor.get("max_patches", 12),
    )
    return ModelShape(config["model_type"], text, vision, ConnectorShape("mlp", projector), geometry)


# ---- LLaVA-OneVision ---------------------------------------------------------------------------


def _llava_onevision(config: Config, preprocessor: Config | None) -> ModelShape:
    text_config = _sub(config, "text_config")
    tied = bool(config.get("tie_word_embeddings") or text_config.get("tie_word_embeddings"))
    text = _text(text_config, text_config.get("model_type", "qwen2"), tied)
    if config.get("vision_feature_select_strategy", "full") != "full":
        raise ModelError(
            "vision_feature_select_strategy must be 'full'",
            where="config.json",
            why="the other one drops a class token, which SigLIP towers do not have",
        )

    tower: Config | None = config.get("vision_config")
    if tower is None:
        tower = {
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "patch_size": 14,
            "image_size": 384,
            "num_hidden_layers": 26,
            "num_attention_heads": 16,
            "vision_use_head": False,
        }
    kind = tower.get("model_type", "siglip_vision_model")
    if kind != "siglip_vision_model":
        raise ModelError(
            f"vision tower {kind!r} is not supported",
            where="config.json: vision_config.model_type",
            why="known vision towers: siglip_vision_model",
        )
    siglip_defaults = {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 224,
        "patch_size": 16,
    }
    # An unused pooling head is still there, and counted, unless the file switches it off.
    vision = _siglip(tower, siglip_defaults, head=tower.get("vision_use_head", True))
    taps = config.get("vision_feature_layer", -1)
    inputs = vision.hidden * (1 if isinstance(taps, int) else len(taps))
    bias = config.get("multimodal_projector_bias", True)
    projector = _linear(inputs, text.hidden, bias=bias) + _linear(text.hidden, text.hidden, bias=bias)
    newline = text.hidden
    connector = ConnectorShape("mlp", projector + newline)

    found = preprocessor or {"size": {"height": vision.image_px}}
    size = found.get("crop_size") or found.get("size") or {"height": 384}
    tile_px = size.get("height") or size["shortest_edge"]
    default_edges = range(384, 2305, 384)
    canvases = (
        found.get("image_grid_pinpoints")
        or config.get("image_grid_pinpoints")
        or [(height, width) for height in default_edges for width in default_edges]
    )
    budget = str(config.get("vision_aspect_ratio", "anyres_max_9"))
    geometry = LlavaOnevisionGeometry(
        tile_px=tile_px,
        patch_px=vision.patch_px,
        canvases_px=tuple((height, width) for height, width in canvases),
        budget_tiles=int(budget.removeprefix("anyres_max_")),
    )
    return ModelShape(config["model_type"], text, vision, connector, geometry)


def _linear(inputs: int, outputs: int, *, bias: bool = True) -> int:
    return inputs * outputs + (outputs if bias else 0)


def _px(edge: Any) -> int:
    """An edge in pixels from a number or a (height, width) pair of equal numbers."""
    if isinstance(edge, (list, tuple)):
        if len(set(edge)) != 1:
            raise ValueError(f"tiles and patches must be square, not {edge}")
        edge = edge[0]
    if not isinstance(edge, int) or edge < 1:
        raise ValueError(f"{edge!r} is not an edge in pixels")
    return edge


_FAMILIES: dict[str, Callable[[Config, Config | None], ModelShape]] = {
    "idefics3": _idefics,
    "smolvlm": _idefics,
    "qwen2_5_vl": _qwen,
    "internvl": _internvl,
    "llava_onevision": _llava_onevision,
}
