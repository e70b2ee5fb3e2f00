"""Generate completions: greedy or sampled, in batches, never an image token."""

from __future__ import annotations

from typing import Any

import torch

from toasterft.engine.forward import CACHE, placed
from toasterft.engine.loaded import LoadedModel


def generate(
    loaded: LoadedModel,
    inputs: dict[str, torch.Tensor],
    *,
    end_ids: list[int],
    max_completion_length: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
) -> list[list[int]]:
    """Completions of left-padded prompts, each with its end token where it ended by itself.

    Args:
        inputs: `input_ids` and `attention_mask` [B, T] with the images' features or pixels.
        end_ids: ids that end a completion.
        max_completion_length: tokens, the end token included.
        temperature: 0 takes the likeliest token.

    Returns:
        B lists of token ids.
    """
    sampling: dict[str, Any] = (
        {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0} if temperature > 0 else {}
    )
    with loaded.evaluating() as model:
        out = model.generate(
            **{**placed(loaded, inputs), "input_ids": inputs["input_ids"]},
            max_new_tokens=max_completion_length,
            eos_token_id=end_ids,
            pad_token_id=end_ids[0],
            suppress_tokens=loaded.never_sampled or None,
            use_cache=True,
            **({"do_sample": False, "temperature": None, "top_p": None, "top_k": None} | sampling),
        )
    rows = out[:, inputs["input_ids"].shape[1] :].tolist()
    return [_until_end(row, end_ids) for row in rows]


def _until_end(ids: list[int], end_ids: list[int]) -> list[int]:
    for place, token in enumerate(ids):
        if token in end_ids:
            return ids[: place + 1]
    return ids


def sample_groups(
    loaded: LoadedModel,
    inputs: dict[str, torch.Tensor],
    *,
    num_generations: int,
    end_ids: list[int],
    max_completion_length: int,
    temperature: float,
    top_p: float,
) -> list[list[list[int]]]:
    """G completions of each prompt; every prompt is read once, and its keys and values are shared.

    Args:
        inputs: `input_ids` and `attention_mask` [B, T], left-padded, with the images' features.

    Returns:
        B lists of G lists of token ids.
    """
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    with loaded.evaluating():
        # All but the last token: `generate` reads that one itself, and starts from its logits.
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        begun = {**inputs, "input_ids": ids[:, :-1], "attention_mask": mask[:, :-1]}
        out = loaded.inner.model(**placed(loaded, begun), position_ids=positions[:, :-1], use_cache=True)
        past = out[CACHE]
        past.batch_repeat_interleave(num_generations)
    repeated = {
        "input_ids": ids.repeat_interleave(num_generations, dim=0),
        "attention_mask": mask.repeat_interleave(num_generations, dim=0),
        CACHE: past,
    }
    rows = generate(
        loaded,
        repeated,
        end_ids=end_ids,
        max_completion_length=max_completion_length,
        temperature=temperature,
        top_p=top_p,
    )
    return [rows[start : start + num_generations] for start in range(0, len(rows), num_generations)]
