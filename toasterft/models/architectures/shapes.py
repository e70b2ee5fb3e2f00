"""Configuration files become a shape, family by family.

To add a family: write its function and enter it in `_FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Callable

from toasterft.errors import ModelError, did_you_mean
from toasterft.models.architectures.common import Config, decoder, edge_px, linear, section, siglip
from toasterft.models.geometry import IdeficsGeometry, InternVLGeometry, LlavaOnevisionGeometry, QwenGeometry
from toasterft.models.shape import ConnectorShape, ModelShape, VisionShape


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


# ---- Idefics3, SmolVLM -------------------------------------------------------------------------


def _idefics(config: Config, preprocessor: Config | None) -> ModelShape:
    text_config = section(config, "text_config")
    # transformers 5 reads the outer key alone; one inside text_config is without effect.
    tied = bool(config.get("tie_word_embeddings", False))
    text = decoder(text_config, text_config.get("model_type", "llama"), tied)
    vision = siglip(
        section(config, "vision_config"),
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
        tile_px = edge_px(vision.image_px)
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


# ---- Qwen2.5-VL --------------------------------------------------------------------------------


def _qwen(config: Config, preprocessor: Config | None) -> ModelShape:
    # The hub's files of this family keep the language model's keys on the outer level.
    text_config = config["text_config"] if isinstance(config.get("text_config"), dict) else config
    tied = bool(config.get("tie_word_embeddings") or text_config.get("tie_word_embeddings"))
    text = decoder(text_config, "qwen2_5_vl_text", tied)

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
        **section(config, "vision_config"),
    }
    layers, hidden, intermediate = get["depth"], get["hidden_size"], get["intermediate_size"]
    patch_px, merge = edge_px(get["patch_size"]), get["spatial_merge_size"]
    attention = linear(hidden, 3 * hidden) + linear(hidden, hidden)
    mlp = 2 * linear(hidden, intermediate) + linear(intermediate, hidden)
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
    merger = hidden + linear(merged, merged) + linear(merged, get["out_hidden_size"])

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
    text_config = section(config, "text_config")
    # Tied unless the outer level denies it; what text_config says is without effect.
    tied = bool(config.get("tie_word_embeddings", True))
    text = decoder(text_config, text_config.get("model_type", "qwen2"), tied)

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
        **section(config, "vision_config"),
    }
    hidden, intermediate, layers = get["hidden_size"], get["intermediate_size"], get["num_hidden_layers"]
    image_px, patch_px = edge_px(get["image_size"]), edge_px(get["patch_size"])
    norm = hidden if get["norm_type"] == "rms_norm" else 2 * hidden
    attention = 3 * linear(hidden, hidden, bias=bool(get.get("attention_bias"))) + linear(hidden, hidden)
    query_key_norms = 2 * hidden if get.get("use_qk_norm") else 0
    mlp = linear(hidden, intermediate) + linear(intermediate, hidden)
    layer_scales = 2 * hidden
    class_and_mask = 2 * hidden if get.get("use_mask_token") else hidden
    patches = linear(get["num_channels"] * patch_px**2, hidden)
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
    projector = 2 * shuffled + linear(shuffled, text.hidden) + linear(text.hidden, text.hidden)

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
    text_config = section(config, "text_config")
    tied = bool(config.get("tie_word_embeddings") or text_config.get("tie_word_embeddings"))
    text = decoder(text_config, text_config.get("model_type", "qwen2"), tied)
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
    vision = siglip(tower, siglip_defaults, head=tower.get("vision_use_head", True))
    taps = config.get("vision_feature_layer", -1)
    inputs = vision.hidden * (1 if isinstance(taps, int) else len(taps))
    bias = config.get("multimodal_projector_bias", True)
    projector = linear(inputs, text.hidden, bias=bias) + linear(text.hidden, text.hidden, bias=bias)
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


_FAMILIES: dict[str, Callable[[Config, Config | None], ModelShape]] = {
    "idefics3": _idefics,
    "smolvlm": _idefics,
    "qwen2_5_vl": _qwen,
    "internvl": _internvl,
    "llava_onevision": _llava_onevision,
}
