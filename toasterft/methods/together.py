"""What several processes of one training must do at the same time: share values, average gradients, stop."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import transformers
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


class StopTogether(transformers.TrainerCallback):
    """What one process decides by its own clock or signal, all do: else the others would wait for it forever."""

    def __init__(self) -> None:
        self.accelerator: Accelerator | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        assert self.accelerator is not None
        wishes = torch.tensor([[int(control.should_training_stop), int(control.should_save)]])
        stop, save = gathered(self.accelerator, wishes).amax(dim=0).tolist()
        control.should_training_stop, control.should_save = bool(stop), bool(save)
