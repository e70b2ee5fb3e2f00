"""A model on the `meta` device: its weights, its inputs, and the passes that would look at values."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from typing import Any

import bitsandbytes
import torch
import transformers
from torch.fx.experimental import _config as fx_config
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface

from toasterft.engine import Request, adapters
from toasterft.engine.loaded import LoadedModel
from toasterft.models.architectures import Config, architecture
from toasterft.recipe import Trained

META = torch.device("meta")
# transformers' SDPA, and no mask unless one is given in four dimensions: whether one is needed is read from its
# values otherwise, and `meta` has none.
NAME = "toasterft_simulated"
AttentionInterface.register(NAME, sdpa_attention_forward)
AttentionMaskInterface.register(NAME, lambda **_: None)
DTYPE = torch.bfloat16


def build(config: Config, recipe: Trained, *, train: bool = True) -> LoadedModel:
    """The architecture that `config` (of the catalog, or a config.json) describes, on `meta`, computing in bfloat16."""
    config = copy.deepcopy(config)
    kind = architecture(config["model_type"])
    full = recipe.lora is None
    with META:
        model = transformers.AutoModelForImageTextToText.from_config(
            transformers.CONFIG_MAPPING[kind.model_type](**config),
            dtype=torch.float32 if full else DTYPE,
            attn_implementation=NAME,
        )
        loaded = LoadedModel(model, None, kind, DTYPE, META, "simulated", kind.model_type)
        if recipe.load_in_4bit and not full:
            pack(loaded.part(kind.text), DTYPE)
            model.is_loaded_in_4bit = True
        request = Request(
            base=kind.model_type,
            family=kind,
            lora=recipe.lora,
            train=train,
            full=full,
            train_vision=recipe.train_vision,
        )
        adapters.prepare(loaded, request)
    return loaded


def pack(part: torch.nn.Module, dtype: torch.dtype) -> None:
    """Replace the linears below `part` by 4-bit ones."""
    for name, linear in list(part.named_modules()):
        if isinstance(linear, torch.nn.Linear):
            owner, _, last = name.rpartition(".")
            setattr(part.get_submodule(owner), last, _four_bit(linear, dtype))


def _four_bit(linear: torch.nn.Linear, dtype: torch.dtype) -> bitsandbytes.nn.Linear4bit:
    """bitsandbytes cannot quantise on `meta`: zeros are quantised on the CPU, and the result moved."""
    data, state = _quantised(linear.weight.shape, dtype)
    state = copy.deepcopy(state)
    state.to(META)
    packed = bitsandbytes.nn.Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=False,
        compute_dtype=dtype,
        quant_type="nf4",
        device=META,
    )
    packed.weight = bitsandbytes.nn.Params4bit(
        torch.empty_like(data, device=META),
        quant_state=state,
        quant_type="nf4",
        bnb_quantized=True,
        module=packed,
    )
    packed.bias, packed.quant_state = linear.bias, state
    return packed


@functools.cache
def _quantised(shape: torch.Size, dtype: torch.dtype) -> tuple[torch.Tensor, Any]:
    with torch.device("cpu"):
        zeros = torch.zeros(shape, dtype=dtype)
        data, state = bitsandbytes.functional.quantize_4bit(zeros, quant_type="nf4", compress_statistics=True)
    return data, state


def frozen(loaded: LoadedModel, learned: list[torch.nn.Parameter], *, tower: bool) -> Iterator[torch.Tensor]:
    """Frozen tensors, 4-bit constants included; the tower's too under `tower`.

    Args:
        learned: the trainable ones.
    """
    away = set() if tower else {id(weight) for weight in loaded.part(loaded.family.vision).parameters()}
    away |= {id(weight) for weight in learned}
    yield from (weight for weight in loaded.model.parameters() if id(weight) not in away)
    yield from loaded.model.buffers()
    for module in loaded.model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            state = module.quant_state
            yield from (state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code)


# --- what it is given, and how it is run -----------------------------------------------------


def features(loaded: LoadedModel, count: int) -> torch.Tensor:
    """As the connector gives them, [count, hidden]."""
    hidden = loaded.part(loaded.family.text).config.hidden_size
    return torch.empty(count, hidden, dtype=loaded.dtype, device=META)


def pixels(loaded: LoadedModel, tiles: int) -> torch.Tensor:
    """As the processor gives them, [tiles, 3, height, width]."""
    edge = loaded.part(loaded.family.vision).config.image_size
    size = edge if isinstance(edge, (list, tuple)) else (edge, edge)
    return torch.empty(tiles, 3, *size, device=META)


def mask(batch: int, queries: int, keys: int) -> torch.Tensor:
    """An attention mask [batch, 1, queries, keys], all True."""
    return torch.ones(batch, 1, queries, keys, dtype=torch.bool, device=META)


def last_hidden(
    loaded: LoadedModel, ids: torch.Tensor, features: torch.Tensor, **options: Any
) -> torch.Tensor:
    """The language model's output with `features` [positions, hidden] in place of image tokens: [B, T, hidden].

    The model's own forward looks at values to find those places, and `meta` has none.
    """
    text = loaded.part(loaded.family.text)
    embedded = text.get_input_embeddings()(ids)
    places = (ids == 0).unsqueeze(-1)
    embedded = embedded.masked_scatter(places, features.to(embedded.dtype))
    out = text(inputs_embeds=embedded, **{"use_cache": False, **options})
    states: torch.Tensor = out.last_hidden_state
    return states


def encode(loaded: LoadedModel, pixels: torch.Tensor) -> torch.Tensor:
    """Features [positions, hidden] of an Idefics3 or SmolVLM."""
    # What their `get_image_features` does behind its search for empty tiles, which looks at values.
    pixels = pixels.to(loaded.dtype, copy=True)
    # Positions are set through a mask. `meta` then takes every element for a true one, as it is for our tiles.
    with fx_config.patch(meta_nonzero_assume_all_nonzero=True):
        states = loaded.part(loaded.family.vision)(pixel_values=pixels).last_hidden_state
    features: torch.Tensor = loaded.part(loaded.family.connector)(states)
    return features.flatten(0, 1)
