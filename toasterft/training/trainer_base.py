"""The trainers' shared inputs (`TrainingContext`) and guards."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.trainer_utils import rotate_checkpoints

from toasterft.data.example import Example
from toasterft.engine.adapters import non_finite
from toasterft.engine.open_model import ModelSession
from toasterft.progress import Reporter
from toasterft.recipe import Trained
from toasterft.runs import checkpoints, distributed
from toasterft.runs.run_folder import Run
from toasterft.training.monitor import MAX_NON_FINITE, RunMonitor


@dataclass
class TrainingContext:
    """Inputs of a trainer.

    Attributes:
        train: the samples that are trained on, all within `max_length`.
        held_out: rows of the evaluation split; empty where the data has none.
    """

    recipe: Trained
    session: ModelSession
    record: Run
    train: list[Example]
    held_out: list[Example]
    monitor: RunMonitor
    report: Reporter


class GuardedTrainer:
    """Mixed into a Trainer: stops at non-finite losses, and keeps pickles out of checkpoints."""

    monitor: RunMonitor
    model: Any
    args: Any
    state: Any
    control: Any
    accelerator: Any

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        return self.drop_if_non_finite(super().training_step(*args, **kwargs))  # type: ignore[misc]

    def drop_if_non_finite(self, loss: Any) -> Any:
        """Return the loss of one step; its gradients are dropped where it is not finite in any process."""
        self.monitor.add_loss(float(loss))
        [poisoned] = distributed.all_reduce_max([not math.isfinite(float(loss))])
        if not poisoned:
            self.monitor.non_finite = 0
            return loss
        # The window's gradients are poisoned: without them the optimizer step changes nothing.
        self.model.zero_grad(set_to_none=True)
        self.monitor.non_finite += 1
        if self.monitor.non_finite >= MAX_NON_FINITE:
            step = self.state.global_step
            self.monitor.failed = f"{MAX_NON_FINITE} non-finite losses in a row at step {step}"
            self.control.should_training_stop = True
        return loss

    def trainable(self) -> dict[str, torch.nn.Parameter]:
        """Parameters that learn, by name."""
        return {name: value for name, value in self.model.named_parameters() if value.requires_grad}

    @property
    def file_prefix(self) -> str:
        """What this process puts before the names of files that are its own; nothing where it is the only one."""
        return f"{self.accelerator.process_index}-" if self.accelerator.num_processes > 1 else ""

    def gather_rows(self, values: torch.Tensor) -> torch.Tensor:
        """Rows of all processes in their order, [processes · rows, …]; every process has as many."""
        found: torch.Tensor = self.accelerator.gather(values.to(self.accelerator.device))
        return found.to(values.device)

    def no_gradients(self) -> None:
        """A backward pass of zeros: the optimizer, and fp16's scaler above all, expect gradients in every step."""
        zeros = [value.sum() * 0 for value in self.trainable().values()]
        self.accelerator.backward(torch.stack(zeros).sum())

    def average_gradients(self) -> None:
        """Average gradients over processes, as DDP does where the model is called through it.

        A parameter that one process had no use for counts as zero there.
        """
        if self.accelerator.num_processes == 1:
            return
        parameters = list(self.trainable().values())
        gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in parameters]
        flat = torch.cat([each.flatten().float() for each in gradients])
        mean = self.accelerator.reduce(flat, "mean")
        for parameter, gradient in zip(parameters, mean.split([each.numel() for each in parameters])):
            parameter.grad = gradient.view_as(parameter).to(parameter.dtype)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)  # type: ignore[misc]
        # A pickle: never needed to resume, and never to be loaded from a stranger's folder.
        (Path(output_dir or self.args.output_dir) / "training_args.bin").unlink(missing_ok=True)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)  # type: ignore[misc]
        # The manifest lists the files of all processes.
        self.accelerator.wait_for_everyone()

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Save finite weights alone, and older checkpoints go once this one has its manifest."""
        found = non_finite_weights(self.model)
        if distributed.all_reduce_max([found is not None])[0]:
            self.monitor.failed = found or "weights are not finite in another process"
            self.control.should_training_stop = True
            return
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
        finally:
            self.args.save_total_limit = limit
        if self.args.should_save:
            checkpoints.seal(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}")
            if not self.monitor.run.record.get("checkpointed"):
                self.monitor.run.update(checkpointed=True)
            best = self.state.best_model_checkpoint
            rotate_checkpoints(self.args.output_dir, limit, best_model_checkpoint=best, use_mtime=True)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """The run's folder says more than TRL's card template."""


def non_finite_weights(model: torch.nn.Module) -> str | None:
    """What is wrong where a trained weight is a NaN or an infinity; None where all are finite."""
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    found = non_finite(trained)
    return (
        f"{len(found)} of {len(trained)} trained tensors are not finite, {found[0]} first" if found else None
    )


def keep_float32(model: torch.nn.Module) -> None:
    """Trainable weights back to float32: TRL makes them bfloat16 for 4-bit models, where a small
    update rounds away. Called before the optimizer is made."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)
