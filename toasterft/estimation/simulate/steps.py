"""Peak of a training step: forward, backward and optimizer, of plain rows and of packed completions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import bitsandbytes
import torch

from toasterft.engine import packed_attention
from toasterft.engine.loaded import LoadedModel
from toasterft.engine.logprobs import token_logps
from toasterft.estimation.memory import Sequences
from toasterft.estimation.simulate import meta
from toasterft.estimation.simulate.counting import Tracker, report
from toasterft.estimation.simulate.cuda import Cuda
from toasterft.estimation.simulate.meta import META
from toasterft.models.architectures import Config
from toasterft.recipe import Trained


def peak(
    config: Config,
    recipe: Trained,
    sequences: Sequences,
    *,
    flash: bool = True,
    tower: bool = False,
    tiles: int = 0,
) -> dict[str, Any]:
    """Peak bytes of a micro-step in the middle of a run, the optimizer's step included.

    Args:
        sequences: plain rows, or prompts with completions packed behind each. More than one row are
            taken to be padded, and need a mask.
        flash: the GPU has flash attention.
        tower: the vision tower stays on the GPU.
        tiles: through pixels instead of features, so many tiles in all (families that take features).

    Returns:
        Bytes of `weights`, `adapter`, `gradients`, `optimizer`, `given` (features or pixels) and `activations`
        at the peak; their sum `peak`; its `phase`, and the peak of every phase in `phases`.
    """
    loaded = meta.build(config, recipe)
    cuda = Cuda(meta.DTYPE, flash=flash)
    if recipe.gradient_checkpointing:
        loaded.inner.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": cuda.again})
    visual = meta.pixels(loaded, tiles) if tiles else meta.features(loaded, sequences.image_tokens)

    def features() -> torch.Tensor:
        return meta.encode(loaded, visual) if tiles else visual

    forward = _packed if sequences.branches else _rows
    loss, inputs = forward(loaded, sequences, features)
    return _step(loaded, loss, cuda, recipe.optim, [visual, *inputs], tower=tower or bool(tiles))


Forward = tuple[Callable[[], torch.Tensor], list[torch.Tensor]]


def _rows(loaded: LoadedModel, sequences: Sequences, features: Callable[[], torch.Tensor]) -> Forward:
    """The loss of plain rows, and their inputs."""
    rows, tokens = sequences.rows, sequences.tokens
    ids = torch.zeros(rows, tokens, dtype=torch.long, device=META)
    mask = meta.mask(rows, tokens, tokens) if rows > 1 else torch.ones_like(ids)
    targets = torch.zeros(sequences.head_tokens, dtype=torch.long, device=META)

    def loss() -> torch.Tensor:
        states = meta.last_hidden(loaded, ids, features(), attention_mask=mask)
        predicting = states.flatten(0, 1)[targets]
        return -token_logps(loaded.inner.get_output_embeddings(), predicting, targets, 1.0).values.sum()

    return loss, [ids, mask]


def _packed(loaded: LoadedModel, sequences: Sequences, features: Callable[[], torch.Tensor]) -> Forward:
    """Each prompt once, then its branches."""
    packed_attention.install(loaded.inner)
    rows, prompt, branches = sequences.rows, sequences.tokens, sequences.branches
    length = sequences.branch_tokens
    ids = torch.zeros(rows, prompt + branches * length, dtype=torch.long, device=META)
    layout = packed_attention.Layout(
        prompt,
        branches,
        length,
        meta.mask(rows, prompt, prompt) if rows > 1 else None,
        meta.mask(rows * branches, length, prompt + length),
    )
    targets = torch.zeros(sequences.head_tokens, dtype=torch.long, device=META)

    def loss() -> torch.Tensor:
        states = meta.last_hidden(
            loaded, ids, features(), attention_mask=meta.mask(1, 1, 1), position_ids=ids, tree=layout
        )
        predicting = packed_attention.predicting(states, layout).flatten(0, 2)[: len(targets)]
        logps = token_logps(loaded.inner.get_output_embeddings(), predicting, targets, 1.0).values
        return -(logps.exp() / logps.detach().exp()).mean()

    masks = [mask for mask in (layout.branch_mask, layout.prompt_mask) if mask is not None]
    return loss, [ids, targets, *masks]


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
    """The optimizers of transformers' Trainer for `optim`, without paging, which `meta` lacks."""
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
