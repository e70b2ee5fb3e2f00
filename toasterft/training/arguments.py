"""A recipe as transformers' TrainingArguments."""

from __future__ import annotations

from typing import Any

import torch

from toasterft.training.trainer_base import TrainingContext

# Settings that are transformers' own, under its names.
PASSED_ON = (
    "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "max_grad_norm", "optim",
    "per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs", "max_steps",
    "gradient_checkpointing", "logging_steps", "eval_steps", "per_device_eval_batch_size", "save_steps",
    "save_total_limit", "seed",
)  # fmt: skip


def arguments(context: TrainingContext) -> dict[str, Any]:
    """The recipe as keyword arguments of transformers' TrainingArguments, for every method alike."""
    recipe, loaded = context.recipe, context.session.loaded
    cuda = loaded.device.type == "cuda"
    evaluates = bool(context.held_out)
    return {
        "output_dir": str(context.record.checkpoints),
        **{name: getattr(recipe, name) for name in PASSED_ON},
        "data_seed": recipe.seed,
        "bf16": loaded.dtype == torch.bfloat16,
        "fp16": loaded.dtype == torch.float16 and cuda,  # with a gradient scaler
        "use_cpu": not cuda,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "eval_strategy": "steps" if recipe.eval_steps and evaluates else "no",
        "save_strategy": "steps",
        "load_best_model_at_end": recipe.load_best_model_at_end and evaluates,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
        "report_to": list(recipe.report_to) or "none",
        "run_name": context.record.id,
        "disable_tqdm": True,
        "log_level_replica": "error",  # of the other processes; transformers lets them warn
        "remove_unused_columns": False,
        "dataloader_pin_memory": cuda,
        # Under several processes: only what acts on images can be without use in a batch.
        "ddp_find_unused_parameters": recipe.train_connector or recipe.train_vision,
    }
