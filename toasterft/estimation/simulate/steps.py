"""Peaks of a training step: forward, backward and optimizer, for `sft` and for policy updates on trees."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import bitsandbytes
import torch
from torch.utils.checkpoint import checkpoint
from trl.trainer.sft_trainer import _CHUNKED_LM_HEAD_CHUNK_SIZE, _chunk

from toasterft.engine import packed_attention
from toasterft.engine.loaded import LoadedModel
from toasterft.engine.logprobs import token_logps
from toasterft.estimation.simulate import meta
from toasterft.estimation.simulate.counting import Tracker, report
from toasterft.estimation.simulate.cuda import Cuda
from toasterft.estimation.simulate.meta import META, Config
from toasterft.training.run import NoInputGradients


def peak(
    config: Config,
    *,
    batch: int,
    tokens: int,
    image_tokens: int,
    completion_tokens: int,
    rank: int | None = 16,
    lora_dropout: float = 0.0,
    checkpointing: bool = True,
    load_in_4bit: bool = True,
    dtype: torch.dtype = torch.bfloat16,
    optim: str = "paged_adamw_8bit",
    flash: bool = True,
    tower: bool = False,
    tiles: int = 0,
    train_vision: bool = False,
) -> dict[str, Any]:
    """Peak bytes of a micro-step of `sft` in the middle of a run, the optimizer's step included.

    Args:
        batch: sequences of `tokens` tokens; more than one need a mask, because some are padded.
        image_tokens: positions per sequence that hold image features.
        completion_tokens: positions per sequence that the loss is taken on.
        rank: of the LoRA; None trains the language model itself.
        flash: the GPU has flash attention.
        tower: the vision tower stays on the GPU.
        tiles: through pixels instead of features, so many tiles in all (families whose features are cached).
        train_vision: the tower learns too.

    Returns:
        Bytes of `weights`, `adapter`, `gradients`, `optimizer`, `given` (features or pixels) and `activations`
        at the peak; their sum `peak`; its `phase`, and the peak of every phase in `phases`.
    """
    loaded = meta.build(
        config,
        rank=rank,
        lora_dropout=lora_dropout,
        load_in_4bit=load_in_4bit,
        dtype=dtype,
        train_vision=train_vision,
    )
    cuda = Cuda(dtype, flash=flash)
    if checkpointing:
        loaded.inner.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": cuda.again})
    ids = torch.zeros(batch, tokens, dtype=torch.long, device=META)
    mask = meta.mask(batch, tokens, tokens) if batch > 1 else torch.ones_like(ids)
    visual = meta.pixels(loaded, tiles) if tiles else meta.features(loaded, batch * image_tokens)
    chunks = -(-batch * completion_tokens // _CHUNKED_LM_HEAD_CHUNK_SIZE)

    def loss() -> torch.Tensor:
        features = meta.encode(loaded, visual) if tiles else visual
        states = meta.last_hidden(loaded, ids, features, attention_mask=mask)
        return chunked_loss(states, loaded.inner.get_output_embeddings().weight, ids, chunks, cuda)

    return _step(loaded, loss, cuda, optim, [visual, ids, mask], tower=tower or bool(tiles))


def chunked_loss(
    states: torch.Tensor, head: torch.Tensor, labels: torch.Tensor, chunks: int, cuda: Cuda
) -> torch.Tensor:
    """TRL's `_chunked_cross_entropy_loss` with the number of chunks given: it reads it from the labels."""
    hidden = states[..., :-1, :].reshape(-1, states.shape[-1])
    labels = labels[..., 1:].reshape(-1)
    order = (labels != -100).to(torch.int8).argsort(descending=True, stable=True)
    hidden, labels = hidden[order], labels[order]
    total = hidden.new_zeros((), dtype=torch.float32)
    for start in range(0, chunks * _CHUNKED_LM_HEAD_CHUNK_SIZE, _CHUNKED_LM_HEAD_CHUNK_SIZE):
        place = slice(start, start + _CHUNKED_LM_HEAD_CHUNK_SIZE)
        values = (hidden[place], head, None, labels[place], 1.0, None)
        total = total + checkpoint(_chunk, *values, use_reentrant=False, context_fn=cuda.again)[0]
    return total / len(labels)


def policy_peak(
    config: Config,
    *,
    groups: int,
    branches: int,
    prompt_tokens: int,
    image_tokens: int,
    completion_tokens: int,
    rank: int = 16,
    checkpointing: bool = True,
    load_in_4bit: bool = True,
    dtype: torch.dtype = torch.bfloat16,
    optim: str = "paged_adamw_8bit",
    flash: bool = True,
    tower: bool = False,
) -> dict[str, Any]:
    """Peak bytes of a policy update on trees: each of `groups` prompts once, then its `branches` completions.

    Arguments and result otherwise as those of `peak`; more than one group is taken to be padded.
    """
    loaded, cuda = (
        meta.build(config, rank=rank, load_in_4bit=load_in_4bit, dtype=dtype),
        Cuda(dtype, flash=flash),
    )
    packed_attention.install(loaded.inner)
    if checkpointing:
        loaded.inner.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": cuda.again})
    width = prompt_tokens + branches * completion_tokens
    ids = torch.zeros(groups, width, dtype=torch.long, device=META)
    features = meta.features(loaded, groups * image_tokens)
    layout = packed_attention.Layout(
        prompt_tokens,
        branches,
        completion_tokens,
        meta.mask(groups, prompt_tokens, prompt_tokens) if groups > 1 else None,
        meta.mask(groups * branches, completion_tokens, prompt_tokens + completion_tokens),
    )
    targets = torch.zeros(groups * branches * completion_tokens, dtype=torch.long, device=META)
    masks = [layout.branch_mask, *([layout.prompt_mask] if layout.prompt_mask is not None else [])]

    def loss() -> torch.Tensor:
        states = meta.last_hidden(
            loaded, ids, features, attention_mask=meta.mask(1, 1, 1), position_ids=ids, tree=layout
        )
        last = states[:, prompt_tokens - 1 : prompt_tokens].unsqueeze(1).expand(-1, branches, -1, -1)
        own = states[:, prompt_tokens:].unflatten(1, (branches, completion_tokens))
        predicting = torch.cat([last, own[:, :, :-1]], dim=2).flatten(0, 2)
        logps = token_logps(loaded.inner.get_output_embeddings(), predicting, targets, 1.0)[0]
        return -(logps.exp() / logps.detach().exp()).mean()

    return _step(loaded, loss, cuda, optim, [features, ids, targets, *masks], tower=tower)


def _step(
    loaded: LoadedModel,
    loss: Callable[[], torch.Tensor],
    cuda: Cuda,
    optim: str,
    given: list[torch.Tensor],
    *,
    tower: bool,
) -> dict[str, Any]:
    """Forward, backward and optimizer under the tracker, with gradients and states there from before.

    Args:
        given: the batch; features or pixels come first.
    """
    learned = [parameter for parameter in loaded.model.parameters() if parameter.requires_grad]
    optimizers = _optimizers(loaded, learned, optim)
    for parameter in learned:
        parameter.grad = torch.zeros_like(parameter)
    for optimizer in optimizers:
        optimizer.step()  # makes the states
    NoInputGradients().on_train_begin(None, None, None, model=loaded.model)
    tracker = Tracker()
    items = {
        "weights": tracker.add(meta.frozen(loaded, learned, tower=tower)),
        "adapter": tracker.add(learned),
        "gradients": tracker.add(parameter.grad for parameter in learned if parameter.grad is not None),
        "optimizer": tracker.add(_states(optimizers)),
        "given": tracker.add(given[:1]),
    }
    if not loaded.has_adapter:
        items["weights"] += items.pop("adapter")
    tracker.add(given)
    with tracker, cuda, cuda.autocast():
        with tracker.phase("forward"), cuda.forward():
            value = loss()
        with tracker.phase("backward"):
            value.backward()
        del value
        with tracker.phase("optimizer"):
            torch.nn.utils.clip_grad_norm_(learned, 1.0)
            for optimizer in optimizers:
                optimizer.step()
    return report(tracker, items)


def _optimizers(
    loaded: LoadedModel, learned: list[torch.nn.Parameter], optim: str
) -> list[torch.optim.Optimizer]:
    """What transformers' Trainer makes of `optim`; pages cannot be had on `meta`."""
    if optim == "adamw_torch":
        return [torch.optim.AdamW(learned, foreach=True)]
    # Overrides are kept by a parameter's place in its optimizer, for the whole process: without this the next
    # optimizer would inherit those of the last (bitsandbytes 0.50.2, `GlobalOptimManager.index2config`).
    bitsandbytes.optim.GlobalOptimManager.get_instance().initialize()
    # transformers keeps 32-bit states for embeddings.
    embedded = {
        id(weight)
        for module in loaded.model.modules()
        if isinstance(module, torch.nn.Embedding)
        for weight in module.parameters()
    }
    parts = {
        8: [weight for weight in learned if id(weight) not in embedded],
        32: [weight for weight in learned if id(weight) in embedded],
    }
    return [bitsandbytes.optim.AdamW(weights, optim_bits=bits) for bits, weights in parts.items() if weights]


def _states(optimizers: list[torch.optim.Optimizer]) -> Iterator[torch.Tensor]:
    for optimizer in optimizers:
        for state in optimizer.state.values():
            yield from (
                value for value in state.values() if isinstance(value, torch.Tensor) and value.device == META
            )
