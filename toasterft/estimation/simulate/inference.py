"""Peaks of passes without gradients: writing completions, and the vision tower on its own."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch.nn import functional

from toasterft.engine.forward import CACHE
from toasterft.estimation.simulate import meta
from toasterft.estimation.simulate.counting import Tracker, report
from toasterft.estimation.simulate.cuda import Cuda
from toasterft.estimation.simulate.meta import META
from toasterft.models.architectures import Config, shape_from_config
from toasterft.recipe import Sft, Trained


def generate_peak(
    config: Config,
    recipe: Trained,
    *,
    prompts: int,
    generations: int,
    prompt_tokens: int,
    image_tokens: int,
    completion_tokens: int,
    top_p: float = 1.0,
    flash: bool = True,
) -> dict[str, Any]:
    """Peak bytes of sampling `generations` completions of each prompt: one prefill, then the last token.

    More than one prompt are taken to be padded.

    Returns:
        Bytes of `weights`, `adapter`, `image_features`, `kv_cache` (full) and `activations` (the rest) at the
        peak; their sum `peak`; its `phase` (`prefill`, `decode`), and the peak of every phase in `phases`.
    """
    loaded = meta.build(config, recipe, train=False)
    text, head = loaded.part(loaded.family.text), loaded.inner.get_output_embeddings()
    rows, length = prompts * generations, prompt_tokens + completion_tokens
    ids = torch.zeros(prompts, prompt_tokens, dtype=torch.long, device=META)
    features = meta.features(loaded, prompts * image_tokens)
    masked = prompts > 1
    tracker = Tracker()
    adapter = [weight for name, weight in loaded.model.named_parameters() if "lora_" in name]
    items = {
        "weights": tracker.add(meta.frozen(loaded, adapter, tower=False)),
        "adapter": tracker.add(adapter),
        "image_features": tracker.add([features]),
    }
    tracker.add([ids])
    with torch.no_grad(), tracker, Cuda(torch.float32, flash=flash):
        with tracker.phase("prefill"):
            past = transformers.DynamicCache(config=text.config)
            mask = meta.mask(prompts, prompt_tokens, prompt_tokens) if masked else torch.ones_like(ids)
            meta.last_hidden(loaded, ids, features, attention_mask=mask, use_cache=True, **{CACHE: past})
            past.batch_repeat_interleave(generations)
            del mask
        with tracker.phase("decode"):
            for layer in past.layers:  # as many steps later
                layer.keys = layer.keys.new_empty(*layer.keys.shape[:2], length - 1, layer.keys.shape[3])
                layer.values = torch.empty_like(layer.keys)
            token = torch.zeros(rows, 1, dtype=torch.long, device=META)
            mask = meta.mask(rows, 1, length) if masked else torch.ones(rows, length, device=META)
            states = meta.last_hidden(
                loaded, token, features[:0], attention_mask=mask, use_cache=True, **{CACHE: past}
            )
            cached = [part for layer in past.layers for part in (layer.keys, layer.values)]
            items["kv_cache"] = sum(part.nbytes for part in cached)
            _sample(head(states[:, -1:]), token, top_p)
    return report(tracker, items)


def _sample(logits: torch.Tensor, ids: torch.Tensor, top_p: float) -> torch.Tensor:
    """Sample from logits [rows, 1, vocabulary] as `generate` does, image tokens suppressed."""
    scores = logits[:, -1].to(copy=True, dtype=torch.float32)
    scores = transformers.SuppressTokensLogitsProcessor([0], device=META)(ids, scores)
    if top_p < 1:
        scores = transformers.TopPLogitsWarper(top_p)(ids, scores)
    return torch.multinomial(functional.softmax(scores, dim=-1), num_samples=1)


def encode_peak(config: Config, *, tiles: int) -> dict[str, Any]:
    """Peak bytes of the vision tower on `tiles` tiles, and of the connector where its output is cached.

    Not for Qwen2.5-VL, whose tower reads the pictures' sizes from values.

    Returns:
        Bytes of `weights` (tower and connector), `pixels` and `activations` at the peak, and their sum `peak`.
    """
    loaded = meta.build(config, Sft(load_in_4bit=False), train=False)
    vision, connector = loaded.part(loaded.family.vision), loaded.part(loaded.family.connector)
    pixels = meta.pixels(loaded, tiles)
    tracker = Tracker()
    items = {
        "weights": tracker.add([*vision.parameters(), *connector.parameters()]),
        "pixels": tracker.add([pixels]),
    }
    with torch.no_grad(), tracker, Cuda(torch.float32), tracker.phase("encode"):
        if loaded.family.takes_features:
            meta.encode(loaded, pixels)
        else:
            every = (
                {"output_hidden_states": True} if shape_from_config(config).vision.all_hidden_states else {}
            )
            vision(pixel_values=pixels.to(meta.DTYPE), **every)
    return report(tracker, items)
