"""One trainer for every method that learns from its own samples: GRPO, ClipLow GRPO, and DyME.

An optimizer step, from the top:

    rows of the data → `roll_out`: G completions each, decoded and rewarded
                     → `set_advantages`: how much better than its group each one is (DyME decides here)
                     → `update`: log-probabilities of all completions of a prompt from one packed forward,
                       clipped loss, backward; in as many parts as memory asks for, with equal sums

transformers' Trainer does the rest: optimizer, schedule, clipping, checkpoints, resuming.

Under several processes each takes whole groups of a step. The model is called directly, not through DDP, so
gradients are averaged here, once per step.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate.utils import set_seed

from toasterft.engine.logprobs import open_log_probs
from toasterft.recipe import Policy
from toasterft.scoring.rewards import Rewards
from toasterft.training.arguments import arguments
from toasterft.training.metrics import MetricLog
from toasterft.training.policy.loss import Clip, advantages, token_loss, token_weights
from toasterft.training.policy.metrics import log_completions, reward_figures, rollout_figures
from toasterft.training.policy.microbatch import MicroBatch, micro_batches, prompt_order
from toasterft.training.policy.rollout import Group, Rollout, roll_out
from toasterft.training.policy.state import ReferenceWeights, load_rollout, save_rollout
from toasterft.training.policy.warnings import SamplingWarnings
from toasterft.training.trainer_base import GuardedTrainer, TrainingContext


class PolicyTrainer(GuardedTrainer, transformers.Trainer):
    """Rollouts, advantages and clipped updates for the examples of a `TrainingContext`."""

    def __init__(self, context: TrainingContext) -> None:
        assert isinstance(context.recipe, Policy)
        self.context, self.recipe, self.monitor = context, context.recipe, context.monitor
        self.session = context.session
        self.rewards = self.make_rewards()
        self.log_probs = open_log_probs(self.session, self.recipe.temperature, context.train[0])
        self.clip = Clip(
            self.recipe.epsilon, self.recipe.epsilon_high or self.recipe.epsilon, self.recipe.delta
        )
        self.rollout: Rollout | None = None
        self.metrics = MetricLog()
        self.warnings = SamplingWarnings(context.report.say)
        args = transformers.TrainingArguments(
            **{
                **arguments(context),
                # One batch of the loader is one optimizer step; it is split up in `update`.
                "per_device_train_batch_size": self.recipe.prompts_per_step,
                "gradient_accumulation_steps": 1,
                "num_train_epochs": 1,
                "eval_strategy": "no",
                # The rows are in order already: those of one step stand side by side.
                "train_sampling_strategy": "sequential",
            }
        )
        super().__init__(
            model=self.session.loaded.model,
            args=args,
            train_dataset=prompt_order(len(context.train), self.recipe, args.world_size),
            data_collator=lambda rows: {"rows": torch.tensor(rows)},
            processing_class=self.session.loaded.tokenizer,
            callbacks=[context.monitor],
        )
        if self.accelerator.num_processes > 1:
            set_seed(self.recipe.seed, device_specific=True)  # else all would draw the same samples
        self.reference = None
        if self.recipe.beta > 0:
            self.reference = ReferenceWeights(self.trainable(), context.record.path, self.accelerator)

    def make_rewards(self) -> Rewards:
        """The recipe's rewards; a method may bring some of its own."""
        return Rewards(dict(self.recipe.rewards))

    # --- one optimizer step

    def training_step(self, model: Any, inputs: dict[str, torch.Tensor], *_: Any, **__: Any) -> torch.Tensor:
        model.train()
        if self.rollout is None or self.state.global_step % self.recipe.num_iterations == 0:
            rows = inputs["rows"].tolist()
            examples = [self.context.train[row] for row in rows]
            self.monitor.phases.enter("rollout")
            self.rollout = roll_out(self.session, rows, examples, self.recipe, self.rewards)
            self.monitor.phases.enter("train")
            self.log_rollout(self.rollout)
            self.set_advantages(self.rollout.groups)
            self.set_fixed_log_probs(self.rollout.groups)
        began = time.monotonic()
        loss = self.update(self.rollout.groups)
        self.average_gradients()
        self.metrics.note({"seconds/update": time.monotonic() - began})
        return self.drop_if_non_finite(loss)

    def set_advantages(self, groups: list[Group]) -> None:
        """Set each group's advantages from its rewards; a method may also replace completions here."""
        totals = self.gather_rows(torch.stack([group.total for group in groups]))
        own = slice(self.accelerator.process_index * len(groups), None)
        for group, row in zip(groups, advantages(totals, self.recipe.scale_rewards)[own]):
            group.advantage = row

    def set_fixed_log_probs(self, groups: list[Group]) -> None:
        """Set log-probabilities that stay fixed while these samples are used: the old ones and the reference's."""
        if self.recipe.updates_differ:
            for group, rows in zip(groups, self._fixed_log_probs(groups)):
                group.old = rows
        if self.reference is not None:
            with self.reference.swapped_in():
                for group, rows in zip(groups, self._fixed_log_probs(groups)):
                    group.reference = rows

    def _fixed_log_probs(self, groups: list[Group]) -> list[list[torch.Tensor]]:
        found: dict[int, list[torch.Tensor]] = {id(group): [] for group in groups}
        every = [list(range(len(group.ids))) for group in groups]
        with torch.no_grad(), self.compute_loss_context_manager():
            for batch in micro_batches(groups, every, self.recipe):
                rows = self.log_probs(batch.branches)[0].split(batch.branches.lengths)
                for (group, _), row in zip(batch.rows, rows):
                    found[id(group)].append(row)
        return list(found.values())

    def update(self, groups: list[Group]) -> torch.Tensor:
        """Forward and backward over all groups; the loss of the whole step, detached."""
        self._set_weights(groups)
        # Without a KL term a completion of zero advantage has zero gradient: it need not be run.
        active = [
            [
                branch
                for branch in range(len(group.ids))
                if group.counted[branch] and (self.recipe.beta > 0 or float(group.advantage[branch]) != 0)
            ]
            for group in groups
        ]
        total = torch.zeros((), device=self.args.device)
        for batch in micro_batches(groups, active, self.recipe):
            loss = self._loss(batch)
            self.accelerator.backward(loss)
            total += loss.detach()
        if not any(active):
            self.no_gradients()
        return total

    def _set_weights(self, groups: list[Group]) -> None:
        """Set what each group's tokens count in the loss."""
        lengths = torch.tensor(
            [
                len(ids) * counted
                for group in groups
                for ids, counted in zip(group.ids, group.counted, strict=True)
            ]
        )
        all_tokens = float(self.accelerator.gather(lengths.sum().to(self.args.device)).sum())
        weights = token_weights(
            lengths,
            self.recipe.loss_type,
            max_completion_length=self.recipe.max_completion_length,
            all_tokens=all_tokens,
            processes=self.accelerator.num_processes,
        )
        for group, weight in zip(groups, weights.split([len(group.ids) for group in groups])):
            group.weight = weight
        # No token of an advantage of zero is clipped: those of skipped groups count here, as in TRL's figures.
        for side in ("low", "high"):
            self.metrics.add(f"clip_ratio/{side}", 0.0, int(lengths.sum()))

    def _loss(self, batch: MicroBatch) -> torch.Tensor:
        """The part of the step's loss that these completions are."""
        with self.compute_loss_context_manager():
            new, entropy, _ = self.log_probs(batch.branches)
        terms = token_loss(
            new,
            self._old(batch, new.detach()),
            batch.tokens("reference", new.device),
            batch.per_token("advantage", new.device),
            self.clip,
            self.recipe.beta,
            use_bias_correction_kl=self.recipe.use_bias_correction_kl,
        )
        for (group, branch), row in zip(batch.rows, new.detach().split(batch.branches.lengths)):
            if group.target == branch:
                self.metrics.note({"switch/sft_loss": -float(row.mean())})
        # Entropy is known of the tokens that are run alone; with a KL term those are all that count.
        self.metrics.add("entropy", float(entropy.sum()), len(new))
        if terms.kl is not None:
            self.metrics.add("kl", float(terms.kl.sum()), len(new))
        self.metrics.add("clip_ratio/low", float(terms.clipped_low.sum()), 0)
        self.metrics.add("clip_ratio/high", float(terms.clipped_high.sum()), 0)
        return (terms.loss * batch.per_token("weight", new.device)).sum()

    def _old(self, batch: MicroBatch, now: torch.Tensor) -> torch.Tensor:
        """Log-probabilities of the policy that sampled: today's, where it has not moved.

        A completion that a reference took the place of was not sampled: with a ratio of 1, nothing clips it away.
        """
        rows = [
            row if group.old is None or group.target == branch else group.old[branch].to(now.device)
            for (group, branch), row in zip(batch.rows, now.split(batch.branches.lengths))
        ]
        return torch.cat(rows)

    # --- what a user sees

    def log_rollout(self, rollout: Rollout) -> None:
        """Note figures of one batch of samples, warn of known failures, and keep some samples now and then."""
        step = self.state.global_step
        figures = rollout_figures(rollout, accuracy="accuracy" in self.recipe.rewards)
        self.metrics.note(reward_figures(rollout.groups, self.recipe.rewards), figures)
        everywhere = self.gather_rows(torch.tensor([list(figures.values())], dtype=torch.float64))
        self.warnings.check(dict(zip(figures, everywhere.mean(dim=0).tolist())))
        if self.recipe.until is not None and self.warnings.reached(self.recipe.until):
            self.control.should_training_stop = True
            self.context.report.say(f"{self.recipe.until}: met at step {step}")
        if step % self.recipe.log_completions_steps == 0:
            log_completions(self.context, step, rollout.groups[0])

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        super().log({**logs, **self.metrics.drain()}, *args, **kwargs)

    # --- checkpoints between two updates on the same samples

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        # Before the state file, whose presence says that a checkpoint is whole.
        super()._save_optimizer_and_scheduler(output_dir)
        self.save_state(Path(output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, *args: Any, **kwargs: Any) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, *args, **kwargs)
        self.load_state(Path(resume_from_checkpoint))

    def save_state(self, folder: Path) -> None:
        """Write what a method needs beside weights and optimizer to go on exactly."""
        folder.mkdir(parents=True, exist_ok=True)  # another process may be the one that makes it
        if self.rollout is not None and self.state.global_step % self.recipe.num_iterations:
            save_rollout(self.rollout, folder, self.file_prefix)

    def load_state(self, folder: Path) -> None:
        """Read what `save_state` wrote."""
        limit = self.recipe.max_completion_length
        self.rollout = load_rollout(folder, self.file_prefix, self.session, self.context.train, limit)
