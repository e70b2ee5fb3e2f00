"""Supervised fine-tuning on TRL's SFTTrainer, from cached image features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import datasets
import torch
import trl

from toasterft.engine import Engine
from toasterft.engine.forward import placed
from toasterft.engine.loaded import LoadedModel
from toasterft.jobs.endings import Ending
from toasterft.jobs.prepare import Job
from toasterft.runs.run_folder import Run
from toasterft.training import run as route
from toasterft.training.arguments import arguments
from toasterft.training.trainer_base import GuardedTrainer, TrainingContext


def run(job: Job, engine: Engine, end: Ending) -> Run:
    """Next-token loss on reasoning and answer, nothing else."""
    return route.run(job, engine, end, make_trainer)


class Trainer(GuardedTrainer, trl.SFTTrainer):
    """TRL's trainer as it is, guarded; cached features are placed before each pass."""

    loaded: LoadedModel

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        return super().compute_loss(model, placed(self.loaded, inputs), *args, **kwargs)


def make_trainer(context: TrainingContext) -> Trainer:
    """TRL's SFTTrainer fed with row numbers; the collator looks the examples up.

    TRL trains on whatever a custom collator returns, so batches start from cached features.
    """
    rows = [*context.train, *context.held_out]
    inputs, loaded = context.session.inputs, context.session.loaded

    def collate(batch: list[dict[str, int]]) -> dict[str, torch.Tensor]:
        return inputs.training([rows[item["row"]] for item in batch])

    def numbers(start: int, stop: int) -> datasets.Dataset:
        return datasets.Dataset.from_dict({"row": list(range(start, stop))})

    # TRL casts an adapter on 4-bit weights to bfloat16: one that was trained before would start rounded.
    adapter = {name: value.detach().clone() for name, value in _adapter(loaded)}
    trainer = Trainer(
        model=loaded.model,
        args=trl.SFTConfig(
            **arguments(context),
            dataset_kwargs={"skip_prepare_dataset": True},
            max_length=None,
            # Logits of completion tokens alone, 256 at a time: the whole sequence times a vocabulary
            # of 49,280 in float32 would be the largest tensor of the step. Unsloth has its own fused loss.
            loss_type="nll" if loaded.engine == "unsloth" else "chunked_nll",
        ),
        data_collator=collate,
        train_dataset=numbers(0, len(context.train)),
        eval_dataset=numbers(len(context.train), len(rows)) if context.held_out else None,
        processing_class=loaded.tokenizer,
        callbacks=[context.monitor],
    )
    for name, value in _adapter(loaded):
        value.data = adapter[name]
    trainer.monitor, trainer.loaded = context.monitor, loaded
    return trainer


def _adapter(loaded: LoadedModel) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """What learns of an adapter; nothing for a model that is tuned fully, which TRL leaves as it is."""
    for name, value in loaded.model.named_parameters() if loaded.has_adapter else ():
        if value.requires_grad:
            yield name, value
