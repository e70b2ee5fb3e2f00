"""Packed (prefix-shared) attention: one prompt, many completions, one forward pass.

A group of completions shares its prompt, and with images the prompt is nearly all of the sequence. Packed
as a tree, the prompt is computed once, forward and backward, whatever the size of the group:

    [ prompt (P) | branch 1 (L) | branch 2 (L) | … | branch G (L) ]

A branch sees the prompt and itself, and its positions continue the prompt's. The attention below never
builds the (P + G·L)² mask: the prompt attends to itself, then each branch to prompt and branch, which is
P² + G·L·(P + L) instead.

Questions about one image share less (the image), and differ in number and length. Their branches lie in one block, of
which a mask makes a tree: `tree_states`. It costs pairs of positions that see nothing of each other, and in turn the
shared keys are there once and nothing is padded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from toasterft.engine.batching import padded
from toasterft.engine.forward import EMBEDS, GRID, TYPES, placed
from toasterft.engine.loaded import LoadedModel

NAME = "toasterft_tree"


@dataclass(frozen=True)
class Layout:
    """Where prompt and branches lie in a packed batch.

    Attributes:
        prompt_mask: [B, 1, P, P], True where a prompt position may look; None where no prompt is padded.
        branch_mask: [B·G, 1, L, P + L] likewise for the branches.
    """

    prompt: int
    branches: int
    length: int
    prompt_mask: torch.Tensor | None
    branch_mask: torch.Tensor


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    tree: Layout | None = None,
    slots: Any = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """SDPA over a tree, or one token of each row in `slots`; without either, transformers' own SDPA.

    Args:
        query: [B, heads, T, head_dim]; key and value may have fewer heads.
    """
    if slots is not None:
        return slots.attend(module.layer_idx, query, scaling or query.shape[-1] ** -0.5), None
    if tree is None:
        out: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return out
    groups = getattr(module, "num_key_value_groups", 1)
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    batch, heads, _, width = query.shape
    count, length, split = tree.branches, tree.length, [tree.prompt, tree.branches * tree.length]
    (query_p, query_b), (key_p, key_b), (value_p, value_b) = (
        tensor.split(split, dim=2) for tensor in (query, key, value)
    )
    options: dict[str, Any] = {"dropout_p": dropout, "scale": scaling}
    prompt = scaled_dot_product_attention(
        query_p, key_p, value_p, tree.prompt_mask, is_causal=tree.prompt_mask is None, **options
    )

    def apart(branches: torch.Tensor) -> torch.Tensor:
        """[B, heads, G·L, d] → [B·G, heads, L, d]"""
        rows = branches.view(batch, heads, count, length, width).transpose(1, 2)
        return rows.reshape(batch * count, heads, length, width)

    def after(shared: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        """The prompt's keys before each branch's own: [B·G, heads, P + L, d]"""
        return torch.cat([shared.repeat_interleave(count, dim=0), apart(own)], dim=2)

    branches = scaled_dot_product_attention(
        apart(query_b), after(key_p, key_b), after(value_p, value_b), tree.branch_mask, **options
    )
    branches = branches.view(batch, count, heads, length, width).transpose(2, 3)
    flat = branches.reshape(batch, count * length, heads, width)
    return torch.cat([prompt.transpose(1, 2), flat], dim=1), None


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


def install(inner: Any) -> None:
    """Make this the language model's attention; inputs that are not packed still go through plain SDPA.

    For good rather than around a call: with gradient checkpointing the backward pass attends again.
    """
    inner.config.get_text_config()._attn_implementation = NAME


@contextmanager
def installed(inner: Any) -> Iterator[None]:
    """`install` for a while."""
    config = inner.config.get_text_config()
    before = config._attn_implementation
    install(inner)
    try:
        yield
    finally:
        config._attn_implementation = before


def hidden(
    loaded: LoadedModel,
    prompts: Sequence[list[int]],
    branches: Sequence[Sequence[list[int]]],
    visual: dict[str, torch.Tensor],
    pad: int,
) -> torch.Tensor:
    """Last hidden states that predict each branch token, from one forward pass.

    Args:
        loaded: a model prepared by `install`.
        prompts: B lists of token ids, image tokens expanded.
        branches: B lists of G non-empty lists of token ids.
        visual: cached features of all prompts, as `Batcher.prompts` gives them.

    Returns:
        [B, G, L, hidden]; position t predicts token t. Beyond a branch's length: anything.
    """
    long, count = max(len(ids) for group in branches for ids in group), len(branches[0])
    tails = [[token for ids in group for token in ids + [pad] * (long - len(ids))] for group in branches]
    own = torch.ones(long, long, dtype=torch.bool).tril().expand(len(prompts), count, long, long)
    places = [list(range(long)) * count] * len(prompts)
    states, layout = _forward(loaded, prompts, tails, places, visual, own, pad)
    return predicting(states, layout)


@dataclass(frozen=True)
class Tree:
    """Token ids of a prefix and of the branches behind it.

    Attributes:
        predicted: of each branch, how many of its last tokens count.
    """

    prefix: list[int]
    branches: list[list[int]]
    predicted: list[int]


def tree_states(
    loaded: LoadedModel, trees: Sequence[Tree], visual: dict[str, torch.Tensor], pad: int
) -> torch.Tensor:
    """[N, hidden]: the state before each token that counts, tree after tree and branch after branch.

    Trees may have any number of branches of any lengths.

    Args:
        visual: cached features of all prefixes, in order.
    """
    wide = max(len(tree.prefix) for tree in trees)
    long = max(sum(map(len, tree.branches)) for tree in trees)
    # Which branch a position belongs to; what fills a row up is one more.
    owners = torch.full((len(trees), long), -1)
    tails, places, before = [], [], []
    for place, tree in enumerate(trees):
        tail: list[int] = []
        within: list[int] = []
        first = place * (wide + long)
        for number, (ids, count) in enumerate(zip(tree.branches, tree.predicted)):
            start, end = len(tail), len(tail) + len(ids)
            owners[place, start:end] = number
            # The first token of a branch follows the prefix, not the branch before.
            before += [first + wide - 1 + (at if at > start else 0) for at in range(end - count, end)]
            tail += ids
            within += range(len(ids))
        tails.append(tail + [pad] * (long - len(tail)))
        places.append(within + [0] * (long - len(within)))
    own = (owners[:, :, None] == owners[:, None, :]).tril().unsqueeze(1)
    prefixes = [tree.prefix for tree in trees]
    states, _ = _forward(loaded, prefixes, tails, places, visual, own, pad)
    return states.flatten(0, 1)[torch.tensor(before, device=states.device)]


def _forward(
    loaded: LoadedModel,
    prefixes: Sequence[list[int]],
    tails: list[list[int]],
    places: list[list[int]],
    visual: dict[str, torch.Tensor],
    own: torch.Tensor,
    pad: int,
) -> tuple[torch.Tensor, Layout]:
    """Last hidden states of a packed batch, [B, P + G·L, hidden], and where what lies in it.

    Args:
        tails: token ids of all branches behind each prefix, equally many.
        places: of each of them, its place in its branch.
        own: [B, G, L, L], which tokens of a branch see which.
    """
    device = loaded.inner.device
    ids = padded(prefixes, pad, "left").to(device)
    real = padded([[1] * len(prefix) for prefix in prefixes], 0, "left").to(device)
    batch = {"input_ids": ids, "attention_mask": real}
    batch |= {name: value.to(device) for name, value in visual.items()}
    if GRID in visual:
        batch[TYPES] = (ids == loaded.image_token_id).long()
    layout = _layout(real.bool(), own.to(device))
    embed = loaded.inner.get_input_embeddings()
    ready = {"position_ids": (real.cumsum(-1) - 1).clamp(min=0), **placed(loaded, batch)}
    before = ready[EMBEDS] if EMBEDS in ready else embed(ids)
    # Where an image counts along three axes, a branch goes on behind the furthest of them, on all three.
    positions = ready["position_ids"]
    furthest = positions.amax(-1).view(-1, len(ids)).amax(0)
    behind = furthest[:, None] + 1 + torch.tensor(places, device=device)
    out = loaded.inner.model(
        inputs_embeds=torch.cat([before, embed(torch.tensor(tails, device=device))], dim=1),
        position_ids=torch.cat([positions, behind.expand(*positions.shape[:-1], -1)], dim=-1),
        # Four dimensions: passed on as it is. The layout says who sees whom.
        attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device),
        use_cache=False,
        tree=layout,
    )
    return out.last_hidden_state, layout


def predicting(states: torch.Tensor, layout: Layout) -> torch.Tensor:
    """[B, G, L, hidden] from a packed pass' [B, P + G·L, hidden]: the state before each branch token."""
    last = states[:, layout.prompt - 1 : layout.prompt].unsqueeze(1).expand(-1, layout.branches, -1, -1)
    own = states[:, layout.prompt :].unflatten(1, (layout.branches, layout.length))
    return torch.cat([last, own[:, :, :-1]], dim=2)


def _layout(real: torch.Tensor, own: torch.Tensor) -> Layout:
    """Masks from which prompt positions are real, [B, P] bool (padding on the left), and what branches see of their
    own block, [B, G, L, L]."""
    (batch, wide), (_, count, long, _) = real.shape, own.shape
    prompt_mask = None
    if not bool(real.all()):
        causal = torch.ones(wide, wide, dtype=torch.bool, device=real.device).tril()
        # A padded position sees itself, so that its softmax is not 0/0.
        itself = torch.eye(wide, dtype=torch.bool, device=real.device)
        prompt_mask = (causal & real[:, None, :] | itself).unsqueeze(1)
    shared = real[:, None, None, :].expand(batch, count, long, wide)
    branch_mask = torch.cat([shared, own], dim=-1).reshape(batch * count, 1, long, wide + long)
    return Layout(wide, count, long, prompt_mask, branch_mask)
