"""Tensors that the processes of one training share while it runs: values of all, gradients averaged."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from accelerate import Accelerator


def gathered(accelerator: Accelerator, values: torch.Tensor) -> torch.Tensor:
    """The rows of all processes in their order, [processes · rows, …]; every process has as many rows."""
    if accelerator.num_processes == 1:
        return values
    found: torch.Tensor = accelerator.gather(values.to(accelerator.device))
    return found.to(values.device)


def share_gradients(accelerator: Accelerator, parameters: Iterable[torch.nn.Parameter]) -> None:
    """Average gradients over processes, as DDP does where the model is called through it.

    A parameter that one process had no use for counts as zero there.
    """
    if accelerator.num_processes == 1:
        return
    every = list(parameters)
    gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in every]
    flat = torch.cat([each.flatten().float() for each in gradients])
    mean: torch.Tensor = accelerator.reduce(flat, "mean")
    for parameter, gradient in zip(every, mean.split([each.numel() for each in every])):
        parameter.grad = gradient.view_as(parameter).to(parameter.dtype)
