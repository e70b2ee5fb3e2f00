"""Log-probabilities of completions: packed as a tree per prompt, or row by row where a model needs that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch.utils.checkpoint import checkpoint

from toasterft.data.example import Example
from toasterft.engine import packed_attention
from toasterft.engine.batching import padded
from toasterft.engine.forward import TYPES, placed
from toasterft.engine.open_model import ModelSession

# Completion tokens whose logits are held at a time: 128 x 49,280 x 4 bytes are 25 MB, four times over.
CHUNK_TOKENS = 128
# Below this the logits of all tokens are kept for the backward pass rather than computed twice.
KEPT_LOGITS_BYTES = 64e6
# Largest difference of a log-probability between the two ways, per compute dtype. The arithmetic is the
# same; the order of sums is not.
AGREEMENT = {torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 2e-1}


class TokenLogps(NamedTuple):
    """[N] each: log-probability (with gradient) and entropy (without), and whether no other token is likelier."""

    values: torch.Tensor
    entropy: torch.Tensor
    best: torch.Tensor


@dataclass(frozen=True)
class Branches:
    """Completions of several prompts, every prompt with as many.

    Attributes:
        ids: B lists of G lists of token ids.
    """

    examples: list[Example]
    ids: list[list[list[int]]]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each completion, prompt after prompt."""
        return [len(ids) for group in self.ids for ids in group]

    @property
    def mask(self) -> torch.Tensor:
        """[B·G, L] bool: where a token is."""
        lengths = torch.tensor(self.lengths)
        return torch.arange(int(lengths.max()))[None, :] < lengths[:, None]

    @property
    def targets(self) -> torch.Tensor:
        """All tokens, row after row, flat."""
        return torch.tensor([token for group in self.ids for ids in group for token in ids])


def joined(trees: Sequence[Branches]) -> Branches:
    """All completions of several trees, one after the other."""
    return Branches(
        [example for tree in trees for example in tree.examples], [ids for tree in trees for ids in tree.ids]
    )


def _tree(prompts: list[list[int]], completions: list[list[list[int]]]) -> packed_attention.Tree:
    """What all prompts begin with, then each completion behind the rest of its prompt."""
    shortest = min(map(len, prompts))
    shared = next(
        (place for place in range(shortest) if len({prompt[place] for prompt in prompts}) > 1), shortest
    )
    pairs = [(prompt[shared:], ids) for prompt, group in zip(prompts, completions) for ids in group]
    return packed_attention.Tree(
        prompts[0][:shared], [rest + ids for rest, ids in pairs], [len(ids) for _, ids in pairs]
    )


class LogProbs:
    """Log-probabilities under the model as it is now.

    Args:
        packed: one forward per prompt; False runs every completion with its own prompt.
    """

    def __init__(self, session: ModelSession, temperature: float, *, packed: bool) -> None:
        self.session = session
        self.temperature = temperature
        self.packed = packed
        if packed:
            packed_attention.install(session.loaded.inner)

    def __call__(self, branches: Branches) -> TokenLogps:
        """Log-probability and entropy of each token, flat, in the order of `branches.targets`."""
        loaded = self.session.loaded
        if self.packed:
            prompts = self.session.inputs.prompts(branches.examples)
            states = packed_attention.hidden(
                loaded, prompts.ids, branches.ids, prompts.visual, self.session.inputs.pad_id
            ).flatten(0, 1)
        else:
            states = self._row_states(branches)
        mask = branches.mask.to(states.device)
        targets = branches.targets.to(states.device)
        return token_logps(loaded.inner.get_output_embeddings(), states[mask], targets, self.temperature)

    def of_trees(self, trees: Sequence[Branches]) -> TokenLogps:
        """The same, where the prompts of a tree show the same images: what they share is in a forward pass once.

        All completions in one pass; in the order of `joined(trees).targets`.
        """
        whole = joined(trees)
        if not self.packed:
            return self(whole)
        inputs, loaded = self.session.inputs, self.session.loaded
        prompts = [inputs.prompts_of_one(tree.examples) for tree in trees]
        packed = [_tree(each.ids, tree.ids) for each, tree in zip(prompts, trees)]
        shown = [each.visual for each in prompts if each.visual]
        visual = {name: torch.cat([each[name] for each in shown]) for name in shown[0]} if shown else {}
        states = packed_attention.tree_states(loaded, packed, visual, inputs.pad_id)
        targets = whole.targets.to(states.device)
        return token_logps(loaded.inner.get_output_embeddings(), states, targets, self.temperature)

    def _row_states(self, branches: Branches) -> torch.Tensor:
        """[B·G, L, hidden] from rows of prompt and completion."""
        repeated = [example for example, group in zip(branches.examples, branches.ids) for _ in group]
        completions = [ids for group in branches.ids for ids in group]
        prompts = self.session.inputs.prompts(repeated)
        batch = self.session.inputs.left_padded(prompts)
        device = batch["input_ids"].device
        tail = padded(completions, self.session.inputs.pad_id).to(device)
        real = branches.mask.to(device, batch["attention_mask"].dtype)
        batch["input_ids"] = torch.cat([batch["input_ids"], tail], dim=1)
        batch["attention_mask"] = torch.cat([batch["attention_mask"], real], dim=1)
        if TYPES in batch:
            batch[TYPES] = torch.cat([batch[TYPES], torch.zeros_like(tail)], dim=1)
        else:
            batch["position_ids"] = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        loaded = self.session.loaded
        states = loaded.inner.model(**placed(loaded, batch), use_cache=False).last_hidden_state
        return states[:, -tail.shape[1] - 1 : -1]


def token_logps(
    head: torch.nn.Module, states: torch.Tensor, targets: torch.Tensor, temperature: float
) -> TokenLogps:
    """Of each target, in chunks of tokens.

    Args:
        states: [N, hidden].
        targets: [N].
    """
    vocabulary = getattr(head, "out_features", 0) or head.weight.shape[0]
    keep = states.shape[0] * vocabulary * 4 <= KEPT_LOGITS_BYTES or not torch.is_grad_enabled()

    def of_chunk(chunk: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, ...]:
        logits = head(chunk).float() / temperature
        every = logits.log_softmax(-1)
        entropy = -(every.detach().exp() * every.detach()).sum(-1)
        found = every.gather(-1, wanted.unsqueeze(-1)).squeeze(-1)
        return found, entropy, found.detach() >= every.detach().amax(-1)

    parts = []
    for start in range(0, states.shape[0], CHUNK_TOKENS):
        chunk = (states[start : start + CHUNK_TOKENS], targets[start : start + CHUNK_TOKENS])
        parts.append(of_chunk(*chunk) if keep else checkpoint(of_chunk, *chunk, use_reentrant=False))
    return TokenLogps(*map(torch.cat, zip(*parts)))


def open_log_probs(
    session: ModelSession, temperature: float, probe: Example, *, trees: bool = False
) -> LogProbs:
    """Packed where the model allows it and one sample gives the same values; row by row elsewhere, with a note.

    Args:
        trees: prove `of_trees` instead of completions of one prompt.
    """
    rows, loaded = LogProbs(session, temperature, packed=False), session.loaded
    if session.encoder is None and probe.images:
        loaded.notes.append("prompt packing is unsupported for this model: slower path")
        return rows
    packed = LogProbs(session, temperature, packed=True)
    ids = session.chat.ids(session.chat.completion(probe))
    # Ragged on purpose: the whole target, a part of it, and one token.
    trial = Branches([probe], [[ids, ids[: len(ids) // 2 + 1], ids[:1]]])
    if trees:
        other = replace(probe, question=f"{probe.question} {probe.answer}")
        trial = Branches([probe, other], [[ids, ids[:1]], [ids[:1], ids]])
    with loaded.evaluating():
        try:
            found = packed.of_trees([trial]) if trees else packed(trial)
            difference = float((found.values - rows(trial).values).abs().max())
        except TypeError as error:  # an engine's own forward that knows no `tree`
            difference = float("inf")
            loaded.notes.append(f"prompt packing failed: {error}"[:200])
    if difference <= AGREEMENT[loaded.dtype]:
        return packed
    loaded.notes.append(
        f"packed and separate log-probabilities differ by {difference:.2g}: prompt packing is off, slower path"
    )
    return rows
