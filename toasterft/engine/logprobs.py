"""Log-probabilities of completions: packed as a tree per prompt, or row by row where a model needs that."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.checkpoint import checkpoint

from toasterft.data.example import Example
from toasterft.engine import packed_attention
from toasterft.engine.batching import padded
from toasterft.engine.forward import placed
from toasterft.engine.open_model import ModelSession

# Completion tokens whose logits are held at a time: 256 x 49,280 x 4 bytes are 50 MB.
CHUNK_TOKENS = 256
# Below this the logits of all tokens are kept for the backward pass rather than computed twice.
KEPT_LOGITS_BYTES = 64e6
# Largest difference of a log-probability between the two ways, per compute dtype. The arithmetic is the
# same; the order of sums is not.
AGREEMENT = {torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 2e-1}


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

    def __call__(self, branches: Branches) -> tuple[torch.Tensor, torch.Tensor]:
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
        if "mm_token_type_ids" in batch:
            batch["mm_token_type_ids"] = torch.cat(
                [batch["mm_token_type_ids"], torch.zeros_like(tail)], dim=1
            )
        else:
            batch["position_ids"] = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        loaded = self.session.loaded
        states = loaded.inner.model(**placed(loaded, batch), use_cache=False).last_hidden_state
        return states[:, -tail.shape[1] - 1 : -1]


def token_logps(
    head: torch.nn.Module, states: torch.Tensor, targets: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability (with gradient) and entropy (without) of each target, in chunks of tokens.

    Args:
        states: [N, hidden].
        targets: [N].
    """
    vocabulary = getattr(head, "out_features", 0) or head.weight.shape[0]
    keep = states.shape[0] * vocabulary * 4 <= KEPT_LOGITS_BYTES or not torch.is_grad_enabled()

    def of_chunk(chunk: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = head(chunk).float() / temperature
        every = logits.log_softmax(-1)
        entropy = -(every.detach().exp() * every.detach()).sum(-1)
        return every.gather(-1, wanted.unsqueeze(-1)).squeeze(-1), entropy

    pairs = []
    for start in range(0, states.shape[0], CHUNK_TOKENS):
        chunk = (states[start : start + CHUNK_TOKENS], targets[start : start + CHUNK_TOKENS])
        pairs.append(of_chunk(*chunk) if keep else checkpoint(of_chunk, *chunk, use_reentrant=False))
    return torch.cat([pair[0] for pair in pairs]), torch.cat([pair[1] for pair in pairs])


def open_log_probs(session: ModelSession, temperature: float, probe: Example) -> LogProbs:
    """Packed where the model allows it and one sample gives the same values; row by row elsewhere, with a note."""
    rows, loaded = LogProbs(session, temperature, packed=False), session.loaded
    # Positions must be a plain count, and images come as features.
    if not (loaded.family.packs and (session.encoder is not None or not probe.images)):
        loaded.notes.append("prompt packing is unsupported for this model: slower path")
        return rows
    packed = LogProbs(session, temperature, packed=True)
    ids = session.chat.ids(session.chat.completion(probe))
    # Ragged on purpose: the whole target, a part of it, and one token.
    trial = Branches([probe], [[ids, ids[: len(ids) // 2 + 1], ids[:1]]])
    with loaded.evaluating():
        try:
            difference = float((packed(trial)[0] - rows(trial)[0]).abs().max())
        except TypeError as error:  # an engine's own forward that knows no `tree`
            difference = float("inf")
            loaded.notes.append(f"prompt packing failed: {error}"[:200])
    if difference <= AGREEMENT[loaded.dtype]:
        return packed
    loaded.notes.append(
        f"packed and separate log-probabilities differ by {difference:.2g}: prompt packing is off, slower path"
    )
    return rows
