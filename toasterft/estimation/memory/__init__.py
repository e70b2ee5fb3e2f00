"""Bytes of a run by phase and item: arithmetic on a `ModelShape` and a recipe.

A phase is a dict of items whose sum is the phase's peak. A training step has several moments that can be its
peak (the loss, the last layer's backward pass, the optimizer's step …): each is summed up tensor by tensor,
and the items are those of the highest. Which tensors are alive in it was read off a replay of the real model on
the `meta` device (`estimation/simulate/`, 2026-11-21, transformers 5.17, PEFT 0.21, bitsandbytes 0.50, TRL 1.14);
`benchmarks/memory_grid.py` holds these sums to that replay: 324 configurations, 0.3 % apart at worst. Neither has
been held to a CUDA device yet.

In the formulas: h hidden size, i intermediate size, q and k width of all query and of all key heads, w bytes of a
number in the compute dtype, n positions.
"""

from __future__ import annotations

from toasterft.estimation.memory.generation import PROMPT_STEP, PROMPTS_AHEAD, of_generation
from toasterft.estimation.memory.resident import (
    NF4_BLOCK,
    NF4_SCALE_BLOCK,
    checkpoint_bytes,
    resident,
    trainable_params,
)
from toasterft.estimation.memory.step import (
    BIAS_ALIGNMENT,
    KEPT_LOGITS_BYTES,
    LOGIT_CHUNK_TOKENS,
    Sequences,
    of_step,
)
from toasterft.estimation.memory.vision import of_encoding, tile_patches

__all__ = [
    "ALLOCATOR_SLACK",
    "BIAS_ALIGNMENT",
    "CUDA_CONTEXT_BYTES",
    "KEPT_LOGITS_BYTES",
    "LOGIT_CHUNK_TOKENS",
    "NF4_BLOCK",
    "NF4_SCALE_BLOCK",
    "PROCESS_BYTES",
    "PROMPTS_AHEAD",
    "PROMPT_STEP",
    "Sequences",
    "checkpoint_bytes",
    "of_encoding",
    "of_generation",
    "of_step",
    "resident",
    "tile_patches",
    "trainable_params",
]

# CUDA context and cuBLAS workspaces. Assumed, not measured.
CUDA_CONTEXT_BYTES = 500_000_000
# Python, torch, transformers and what a first step brings in: resident memory of a process whose model is negligible.
# Measured: toast-tiny's sft and grpo on Linux, torch 2.13, 0.59 to 0.64 GB, 2026-11-21.
PROCESS_BYTES = 600_000_000
# What the caching allocator holds beyond what is asked of it, as a share of the tensors. Assumed, not measured.
ALLOCATOR_SLACK = 0.10
