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

from toasterft.engine.forward import placed
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
    device = loaded.inner.device
    wide, long = max(map(len, prompts)), max(len(ids) for group in branches for ids in group)
    count = len(branches[0])
    rows, positions, real = [], [], torch.zeros(len(prompts), wide, dtype=torch.bool)
    for place, (prompt, group) in enumerate(zip(prompts, branches)):
        padding = wide - len(prompt)
        real[place, padding:] = True
        rows.append([pad] * padding + prompt)
        positions.append([0] * padding + list(range(len(prompt))))
        for ids in group:
            rows[-1] += ids + [pad] * (long - len(ids))
            positions[-1] += range(len(prompt), len(prompt) + long)
    own = torch.ones(long, long, dtype=torch.bool).tril().expand(len(prompts), count, long, long)
    layout = _layout(real.to(device), own.to(device))
    return predicting(_forward(loaded, rows, positions, visual, layout), layout)


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
    real = torch.zeros(len(trees), wide, dtype=torch.bool)
    # Which branch a position belongs to; what fills a row up is one more.
    owners = torch.full((len(trees), long), -1)
    rows, positions, before = [], [], []
    for place, tree in enumerate(trees):
        begin, padding = len(tree.prefix), wide - len(tree.prefix)
        real[place, padding:] = True
        row, position = [pad] * padding + tree.prefix, [0] * padding + list(range(begin))
        first = place * (wide + long)
        for number, (ids, count) in enumerate(zip(tree.branches, tree.predicted)):
            start, end = len(row), len(row) + len(ids)
            owners[place, start - wide : end - wide] = number
            # The first token of a branch follows the prefix, not the branch before.
            before += [first + (at - 1 if at > start else wide - 1) for at in range(end - count, end)]
            row += ids
            position += range(begin, begin + len(ids))
        rows.append(row + [pad] * (wide + long - len(row)))
        positions.append(position + [0] * (wide + long - len(position)))
    own = (owners[:, :, None] == owners[:, None, :]).tril()
    layout = _layout(real.to(loaded.inner.device), own.unsqueeze(1).to(loaded.inner.device))
    states = _forward(loaded, rows, positions, visual, layout)
    return states.flatten(0, 1)[torch.tensor(before, device=states.device)]


def _forward(
    loaded: LoadedModel,
    rows: list[list[int]],
    positions: list[list[int]],
    visual: dict[str, torch.Tensor],
    layout: Layout,
) -> torch.Tensor:
    """[B, P + G·L, hidden]: last hidden states of a packed batch."""
    device = loaded.inner.device
    batch = {"input_ids": torch.tensor(rows, device=device), **visual}
    states: torch.Tensor = loaded.inner.model(
        **placed(loaded, batch),
        position_ids=torch.tensor(positions, device=device),
        # Four dimensions: passed on as it is. The layout says who sees whom.
        attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device),
        use_cache=False,
        tree=layout,
    ).last_hidden_state
    return states


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
