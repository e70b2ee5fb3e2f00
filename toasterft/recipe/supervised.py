"""Recipes that learn from given rows: sft from references, dpo from pairs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from toasterft.recipe.base import Lora, Prompt, Recipe


class Trained(Recipe):
    """What every training method has in common."""

    data: str = "smolcot-7k"
    """Folder, .jsonl/.json file, set built here, catalog name, or hub id."""
    split: str | None = None
    """Rows to train on; `train` where the data names splits, else all."""
    eval_data: str | None = None
    """Data to evaluate on; the same data's validation split when unset."""
    eval_split: str | None = None
    """Rows to evaluate on; `validation`, else `test`, where the data names splits."""
    eval_limit: int | None = Field(200, ge=1)
    """Evaluate on at most N rows (chosen by seed); null for all."""
    prompt: Prompt = Prompt()
    """Prompt template, tags, system message."""
    load_in_4bit: bool = True
    """NF4 with double quantisation for the language model's linear layers; false is 16-bit."""
    rows_without_reasoning: Literal["keep", "drop"] = "keep"
    """Rows that carry no trace train on the answer alone, or are left out."""
    max_length: int = Field(2048, ge=16)
    """Longest sequence in tokens, images included; longer samples are dropped and counted."""
    lora: Lora | None = Lora()
    """Adapter settings; null trains the whole language model (16-bit weights)."""
    train_connector: bool = False
    """Also adapt the vision-language connector (Idefics3/SmolVLM), behind the cached features."""
    train_vision: bool = False
    """Also train the vision tower; turns the feature cache off."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass."""
    learning_rate: float = Field(3e-4, gt=0.0, le=100.0)
    """Peak learning rate."""
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "linear"
    """Learning-rate schedule."""
    warmup_steps: float = Field(0, ge=0.0)
    """Steps of warm-up; a number below 1 is a share of all steps."""
    weight_decay: float = Field(0.0, ge=0.0)
    """Weight decay."""
    max_grad_norm: float = Field(1.0, ge=0.0)
    """Gradient clipping norm."""
    optim: Literal["paged_adamw_8bit", "adamw_8bit", "adamw_torch"] = "paged_adamw_8bit"
    """Optimizer."""
    per_device_train_batch_size: int = Field(1, ge=1)
    """Sequences per forward pass and device."""
    gradient_accumulation_steps: int = Field(32, ge=1)
    """Forward passes per optimizer step."""
    num_train_epochs: float = Field(1.0, gt=0.0)
    """Passes over the data."""
    max_steps: int = -1
    """Optimizer steps; overrides epochs when positive."""
    logging_steps: int = Field(1, ge=1)
    """Write metrics every N optimizer steps."""
    eval_steps: int | None = Field(None, ge=1)
    """Measure the loss on the evaluation rows every N optimizer steps; only at the end when unset."""
    per_device_eval_batch_size: int = Field(8, ge=1)
    """Sequences per forward pass in evaluation and generation."""
    save_steps: int = Field(50, ge=1)
    """Write a checkpoint every N optimizer steps, and one at the end."""
    save_total_limit: int = Field(2, ge=1)
    """Keep at most N checkpoints."""
    load_best_model_at_end: bool = False
    """End with the checkpoint of the lowest evaluation loss (needs eval_steps)."""
    report_to: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    """Further places the metrics go; the ledger has them always."""
    max_completion_length: int = Field(256, ge=1)
    """Longest generated answer in tokens."""

    @property
    def rows_per_step(self) -> int:
        """Sequences of an optimizer step in one process."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps

    @model_validator(mode="after")
    def _settings_agree(self) -> Trained:
        if self.load_best_model_at_end and not self.eval_steps:
            raise ValueError("load_best_model_at_end needs eval_steps")
        if self.load_best_model_at_end and self.save_steps % (self.eval_steps or 1):
            raise ValueError(
                f"load_best_model_at_end needs save_steps ({self.save_steps}) to be a multiple of "
                f"eval_steps ({self.eval_steps})"
            )
        if self.lora is None and self.load_in_4bit:
            raise ValueError("4-bit weights cannot be trained themselves: lora=null needs load_in_4bit=false")
        return self


class Sft(Trained):
    """Supervised fine-tuning on question → reasoning → answer."""

    method: Literal["sft"] = "sft"
    branches_per_forward: int | None = Field(None, ge=1)
    """Rows about one image per forward pass at most; 1,024 tokens of them when unset. 1 keeps rows apart."""


class Dpo(Trained):
    """Direct preference optimisation on pairs of a better and a worse completion; names and meanings are TRL's."""

    method: Literal["dpo"] = "dpo"
    learning_rate: float = Field(1e-5, gt=0.0, le=100.0)
    """Peak learning rate."""
    per_device_train_batch_size: int = Field(1, ge=1)
    """Pairs per forward pass and device."""
    branches_per_forward: int | None = Field(None, ge=1)
    """Pairs about one image per forward pass at most; 1,024 tokens of them when unset. 1 keeps pairs apart."""
    beta: float = Field(0.1, gt=0.0)
    """How dear it is to leave the policy this run started from; the paper's τ for ipo."""
    loss_type: tuple[Literal["sigmoid", "hinge", "ipo", "robust", "bco_pair", "apo_zero", "sft"], ...] = (
        "sigmoid",
    )
    """One loss, or several that are added: [sigmoid, bco_pair, sft] is MPO."""
    loss_weights: tuple[float, ...] | None = None
    """A factor for each loss; 1 each when unset. MPO's are [0.8, 0.2, 1.0]."""
    label_smoothing: float = Field(0.0, ge=0.0, lt=0.5)
    """Share of the pairs that are taken to be the wrong way round (loss_type robust)."""
    disable_dropout: bool = True
    """Train without dropout, so that the policy differs from its reference by what it learned alone."""

    @field_validator("loss_type", mode="before")
    @classmethod
    def _one_loss_is_a_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _losses_can_act(self) -> Dpo:
        if not self.loss_type:
            raise ValueError("loss_type is empty: nothing would be learned")
        if self.loss_weights is not None and len(self.loss_weights) != len(self.loss_type):
            raise ValueError(
                f"loss_weights needs one number for each of {len(self.loss_type)} losses, got {len(self.loss_weights)}"
            )
        if self.label_smoothing and "robust" not in self.loss_type:
            raise ValueError("label_smoothing acts in loss_type=robust alone")
        if self.disable_dropout and self.lora is not None and self.lora.lora_dropout:
            raise ValueError("lora.lora_dropout acts with disable_dropout=false alone")
        return self
