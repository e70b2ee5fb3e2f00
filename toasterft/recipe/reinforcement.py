"""Recipes that learn from the model's own samples: grpo (ClipLow is a setting of it) and dyme."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, model_validator

from toasterft.recipe.supervised import Trained

# A stop rule: a figure of metrics.jsonl, a direction, a number.
UNTIL = re.compile(r"\s*([\w/]+)\s*(>=|<=)\s*([-+.\deE]+)\s*")


class Policy(Trained):
    """What methods that learn from their own samples have in common; names and meanings are TRL's."""

    learning_rate: float = Field(1e-5, gt=0.0, le=100.0)
    """Peak learning rate."""
    per_device_train_batch_size: int = Field(8, ge=1)
    """Completions per forward pass and device; exact in any split with gradient_accumulation_steps."""
    gradient_accumulation_steps: int = Field(4, ge=1)
    """Forward passes per optimizer step."""
    num_generations: int = Field(8, ge=2, le=256)
    """Completions sampled per prompt (G)."""
    num_iterations: int = Field(1, ge=1)
    """Optimizer steps per batch of samples."""
    epsilon: float = Field(0.2, gt=0.0, lt=1.0)
    """Clip range below: the ratio new/old stays above 1 - epsilon."""
    epsilon_high: float | None = Field(None, gt=0.0)
    """Clip range above; epsilon when unset. ClipLow sets it lower than epsilon."""
    delta: float | None = Field(None, gt=1.0)
    """Cap of the unclipped ratio."""
    beta: float = Field(0.0, ge=0.0)
    """Weight of the KL distance to the policy this run started from."""
    use_bias_correction_kl: bool = False
    """Multiply the KL term by new/old: its gradient is then unbiased. On by default in TRL; the GRPO paper is without."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """Divide advantages by the standard deviation of the group, of the whole step, or not."""
    loss_type: Literal["grpo", "bnpo", "dr_grpo", "dapo"] = "grpo"
    """How token losses are averaged."""
    temperature: float = Field(1.0, gt=0.0)
    """Sampling temperature; log-probabilities are taken at it."""
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    """Nucleus sampling."""
    mask_truncated_completions: bool = False
    """Leave completions that hit max_completion_length out of the loss."""
    branches_per_forward: int | None = Field(None, ge=1)
    """Completions of one prompt per forward pass at most; all of a group when unset."""
    rollout_batch_size: int = Field(64, ge=1)
    """Completions written side by side; no effect on what is sampled."""
    rewards: dict[str, float] = Field({"accuracy": 1.0, "format": 0.5})
    """Weights of reward functions: accuracy, format, length, or your own as my.module:fn."""
    until: str | None = None
    """Stop early once a logged figure, averaged over ten steps, meets this: `format_rate >= 0.98`."""
    log_completions_steps: int = Field(10, ge=1)
    """Show and keep sampled completions every N optimizer steps."""

    @property
    def prompts_per_step(self) -> int:
        """Groups per optimizer step and device."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps // self.num_generations

    @property
    def updates_differ(self) -> bool:
        """Whether a sample is used after the policy moved; only then can the ratio leave 1."""
        return self.num_iterations > 1

    @model_validator(mode="after")
    def _groups_are_whole(self) -> Policy:
        completions = self.per_device_train_batch_size * self.gradient_accumulation_steps
        if completions % self.num_generations:
            raise ValueError(
                f"per_device_train_batch_size x gradient_accumulation_steps ({completions}) must be a multiple of "
                f"num_generations ({self.num_generations}): groups are never split over steps"
            )
        large, small = self.per_device_train_batch_size, self.num_generations
        if max(large, small) % min(large, small):
            raise ValueError(
                f"per_device_train_batch_size ({large}) must divide num_generations ({small}) or be a multiple of it"
            )
        if self.until is not None and not UNTIL.fullmatch(self.until):
            raise ValueError(f"until={self.until!r} is not `figure >= number` or `figure <= number`")
        if not self.rewards:
            raise ValueError("rewards is empty: nothing would be learned")
        clips = self.epsilon != 0.2 or self.epsilon_high is not None or self.delta is not None
        if clips and not self.updates_differ:
            raise ValueError(
                "this clip range cannot act: with one update per sample the ratio is exactly 1; "
                "num_iterations=2 makes it act"
            )
        if self.use_bias_correction_kl and not self.beta:
            raise ValueError("use_bias_correction_kl cannot act: there is no KL term; beta=0.04 adds one")
        return self


class Grpo(Policy):
    """Group-relative policy optimisation on sampled answers."""

    method: Literal["grpo"] = "grpo"


# What `refiner` may say instead of a teacher's name.
LOCAL_REFINERS = ("local", "none")


class Dyme(Policy):
    """DyME: per prompt group, memorise the reference where every sample is wrong, else explore."""

    method: Literal["dyme"] = "dyme"
    model: str = "SmolVLM-500M"
    """Folder, earlier run, catalog name, or hub id."""
    rewards: dict[str, float] = Field({"accuracy": 1.0, "format": 1.0, "thinking": 1.0})
    """Weights of accuracy, format, length, thinking (facts), thinking_lemma (reference), thinking_judge, my.module:fn."""
    sft_weight: float | None = Field(None, ge=0.0)
    """Advantage of a memorised row: num_generations when unset (the paper's equation 8); 1 is the official code's."""
    soft_power: float | None = Field(None, gt=0.0)
    """Memorise in partly solved groups too, with weight sft_weight·(1 - c/G)^soft_power; unset is binary."""
    switch_threshold: float | None = Field(None, gt=0.0, lt=1.0)
    """An answer counts as right where the weighted mean of all rewards is above this; accuracy when unset."""
    anneal: bool = False
    """Memorise in every group and explore beside it, with a weight that falls to 0 along a cosine (ablation)."""
    memorise: bool = True
    """False: groups without a right answer teach nothing (ablation)."""
    memorise_until: float = Field(1.0, gt=0.0, le=1.0)
    """Memorise only in this first share of the optimizer steps (ablation)."""
    explore: bool = True
    """False: groups with a right answer teach nothing (ablation)."""
    refiner: str = "local"
    """Who rewrites the reference of a memorised group from the facts: local, none, or a teacher (see judge)."""
    judge: str | None = None
    """Teacher whose verdict is the reward thinking_judge: a catalog name or a .yaml row, as in `cot build`."""
    teachers_usd: float | None = Field(None, gt=0.0)
    """Dollars that judge and refiner may cost; they count towards --budget, which caps them when this is unset."""

    @model_validator(mode="after")
    def _switch_can_act(self) -> Dyme:
        if "accuracy" not in self.rewards:
            raise ValueError("rewards needs accuracy: it decides between memorising and exploring")
        if self.switch_threshold is not None and sum(self.rewards.values()) <= 0:
            raise ValueError("switch_threshold needs rewards of positive weight in sum")
        if self.anneal and self.soft_power is not None:
            raise ValueError("anneal and soft_power both weigh the reference: choose one")
        if not (self.memorise or self.explore):
            raise ValueError("neither memorise nor explore: nothing would be learned")
        if ("thinking_judge" in self.rewards) != (self.judge is not None):
            raise ValueError(
                "judge and the reward thinking_judge need each other: judge=NAME rewards.thinking_judge=1"
            )
        return self
