"""What enters a model's forward pass, under names that outlive a release of transformers.

Cached features stand in a batch under a name of our own and are placed among the embeddings of its tokens here. The
argument that models take them by is called `image_hidden_states` in transformers 5.17 and `mm_encoder_outputs` since 5.18,
and a forward that does not know a name swallows it: a run without images, which nothing would notice.
"""

from __future__ import annotations

import dataclasses

import torch
from transformers.modeling_outputs import CausalLMOutputWithPast

from toasterft.engine.loaded import LoadedModel
from toasterft.errors import ModelError

# Features of all images of a batch, in order: [image tokens, hidden].
FEATURES = "image_features"
# Where positions are counted along an image's axes (M-RoPE): its patches in time, height and width, [images, 3], and
# which tokens of a row are an image's, [B, T].
GRID, TYPES = "image_grid_thw", "mm_token_type_ids"
# The zero linear inside a connector that learns behind cached features (`adapters.add_factor`).
FACTOR = "feature_adapter"
EMBEDS = "inputs_embeds"
# What forward passes, their outputs and `generate` call the keys and values: `cache` since transformers 5.24.
_OUTPUTS = {field.name for field in dataclasses.fields(CausalLMOutputWithPast)}
CACHE = "cache" if "cache" in _OUTPUTS else "past_key_values"


def placed(loaded: LoadedModel, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The batch with `inputs_embeds` in place of `input_ids` and features; as it is where images come as pixels.

    Positions are added where the model would count them from the ids that it no longer sees (M-RoPE).

    Raises:
        ModelError: not as many features as image tokens.
    """
    if "pixel_values" in batch or CACHE in batch:  # the model places them itself, or has read them
        return batch
    places = batch["input_ids"] == loaded.image_token_id
    features = batch.get(FEATURES)
    count, given = int(places.sum()), 0 if features is None else len(features)
    if count != given:
        raise ModelError(
            f"{count:,} image tokens in a batch with features for {given:,}",
            where=loaded.base,
            why="every image token stands for one feature, so the model would answer without its images",
            next_step="clear the feature cache, and report this with the model's name if it stays",
        )
    if features is None:
        return batch
    ids = batch["input_ids"]
    embedded = loaded.inner.get_input_embeddings()(ids)
    features = adapted(loaded.part(loaded.family.connector), features.to(embedded.device))
    embedded = embedded.masked_scatter(places.unsqueeze(-1), features.to(embedded.dtype))
    rest = {name: value for name, value in batch.items() if name not in ("input_ids", FEATURES, GRID, TYPES)}
    if GRID in batch:
        rest["position_ids"], _ = loaded.inner.model.get_rope_index(
            ids, batch[TYPES], image_grid_thw=batch[GRID], attention_mask=batch["attention_mask"]
        )
    return {**rest, EMBEDS: embedded}


def adapted(connector: torch.nn.Module, features: torch.Tensor) -> torch.Tensor:
    """Features through the factor that the connector learns, where it has one."""
    factor = getattr(connector, FACTOR, None)
    if factor is None:
        return features
    added: torch.Tensor = features + factor(features.to(factor.weight.dtype))
    return added
