"""One trainer for every method that learns from its own samples: GRPO, ClipLow GRPO, and DyME.

An optimizer step, from the top:

    rows of the data → `roll_out`: G completions each, decoded and rewarded
                     → `advantage`: how much better than its group each one is (DyME decides here)
                     → `update`: log-probabilities of all completions of a prompt from one packed forward,
                       clipped loss, backward; in as many parts as memory asks for, with equal sums

transformers' Trainer does the rest: optimizer, schedule, clipping, checkpoints, resuming.

Under several processes each takes whole groups of a step. The model is called directly, not through DDP, so
gradients are averaged here, once per step.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import transformers
from accelerate.utils import gather_object, set_seed

from toasterft.engine.logprobs import Branches, open_log_probs, per_row
from toasterft.recipe import UNTIL, Policy
from toasterft.scoring.rewards import Rewards
from toasterft.training import run
from toasterft.training.policy import collectives
from toasterft.training.policy import loss as objective
from toasterft.training.policy import rollout as rollouts
from toasterft.training.policy.loss import Clip
from toasterft.training.policy.rollout import Group, Rollout, roll_out
from toasterft.training.policy.warnings import SamplingWarnings
from toasterft.training.run import GuardedTrainer, TrainingContext

REFERENCE_FILE = "reference.safetensors"
SHOWN_COMPLETIONS = 4


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
        self.alarms = SamplingWarnings(context.report.say)
        self._seen: dict[str, list[float]] = defaultdict(list)
        args = transformers.TrainingArguments(
            **{
                **run.arguments(context),
                # One batch of the loader is one optimizer step; it is split up in `_update`.
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
        self.start_values = self._reference() if self.recipe.beta > 0 else None

    def make_rewards(self) -> Rewards:
        """The recipe's rewards; a method may bring some of its own."""
        return Rewards(dict(self.recipe.rewards))

    # --- one optimizer step

    def training_step(self, model: Any, inputs: dict[str, torch.Tensor], *_: Any, **__: Any) -> torch.Tensor:
        model.train()
        if self.rollout is None or self.state.global_step % self.recipe.num_iterations == 0:
            rows = inputs["rows"].tolist()
            examples = [self.context.train[row] for row in rows]
            self.context.monitor.phases.enter("rollout")
            self.rollout = roll_out(self.session, rows, examples, self.recipe, self.rewards)
            self.context.monitor.phases.enter("train")
            self._tell(self.rollout)
            self.advantage(self.rollout.groups)
            self._score(self.rollout.groups)
        began = time.monotonic()
        loss = self._update(self.rollout.groups)
        collectives.share_gradients(self.accelerator, self._trainable().values())
        self.note("seconds/update", time.monotonic() - began)
        return self.watched(loss)

    def advantage(self, groups: list[Group]) -> None:
        """Set each group's advantages from its rewards; a method may also replace completions here."""
        totals = collectives.gathered(self.accelerator, torch.stack([group.total for group in groups]))
        mine = slice(self.accelerator.process_index * len(groups), None)
        for group, row in zip(groups, objective.advantages(totals, self.recipe.scale_rewards)[mine]):
            group.advantage = row

    def _score(self, groups: list[Group]) -> None:
        """Log-probabilities that stay fixed while these samples are used: the old ones and the reference's."""
        if self.recipe.updates_differ:
            for group, rows in zip(groups, self._fixed_log_probs(groups)):
                group.old = rows
        if self.start_values is not None:
            with self._as_at_the_start():
                for group, rows in zip(groups, self._fixed_log_probs(groups)):
                    group.reference = rows

    def _fixed_log_probs(self, groups: list[Group]) -> list[list[torch.Tensor]]:
        found: list[list[torch.Tensor]] = [[] for _ in groups]
        with torch.no_grad(), self.compute_loss_context_manager():
            for part in self._parts([list(range(len(group.ids))) for group in groups]):
                branches = _branches(groups, part)
                rows = per_row(self.log_probs(branches)[0], branches.ids)
                for (place, _), row in zip(_flat(part), rows):
                    found[place].append(row)
        return found

    def _update(self, groups: list[Group]) -> torch.Tensor:
        """Forward and backward over all groups; the loss of the whole step, detached."""
        lengths = torch.tensor(
            [
                len(ids) * counted
                for group in groups
                for ids, counted in zip(group.ids, group.counted, strict=True)
            ]
        )
        everywhere = float(self.accelerator.gather(lengths.sum().to(self.args.device)).sum())
        weights = objective.token_weights(
            lengths,
            self.recipe.loss_type,
            max_completion_length=self.recipe.max_completion_length,
            all_tokens=everywhere,
            processes=self.accelerator.num_processes,
        ).split([len(group.ids) for group in groups])
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
        for part in self._parts(active):
            loss = self._part_loss(groups, part, weights, everywhere)
            self.accelerator.backward(loss)
            total += loss.detach()
        if not any(active):
            # The optimizer, and fp16's scaler above all, expect gradients in every step.
            nothing = sum((value.sum() * 0 for value in self._trainable().values()), torch.zeros(()))
            self.accelerator.backward(nothing)
        return total

    def _part_loss(
        self, groups: list[Group], part: Part, weights: Sequence[torch.Tensor], everywhere: float
    ) -> torch.Tensor:
        branches = _branches(groups, part)
        with self.compute_loss_context_manager():
            new, entropy = self.log_probs(branches)
        chosen = _flat(part)
        device = new.device
        sizes = [len(ids) for group in branches.ids for ids in group]

        def spread(values: list[torch.Tensor] | torch.Tensor) -> torch.Tensor:
            """One value per completion → one per token."""
            each = torch.stack(list(values)).to(device)
            return each.repeat_interleave(torch.tensor(sizes, device=device))

        def fixed(name: str) -> torch.Tensor:
            return torch.cat([getattr(groups[place], name)[branch] for place, branch in chosen]).to(device)

        old = fixed("old") if groups[0].old is not None else new.detach()
        reference = fixed("reference") if groups[0].reference is not None else None
        terms = objective.token_loss(
            new,
            old,
            reference,
            spread([groups[place].advantage[branch] for place, branch in chosen]),
            self.clip,
            self.recipe.beta,
        )
        for (place, branch), row in zip(chosen, new.detach().split(sizes)):
            if groups[place].target == branch:
                self.note("switch/sft_loss", -float(row.mean()))
        share = len(new) * self.accelerator.num_processes / max(1.0, everywhere)
        self._add("entropy", float(entropy.mean()) * share)
        self._add("clip_ratio/low", float(terms.clipped_low.float().mean()) * share)
        self._add("clip_ratio/high", float(terms.clipped_high.float().mean()) * share)
        if terms.kl is not None:
            self._add("kl", float(terms.kl.mean()) * share)
        return (terms.loss * spread([weights[place][branch] for place, branch in chosen])).sum()

    def _parts(self, chosen: list[list[int]]) -> Iterator[Part]:
        """What one forward pass carries: whole groups where they fit, else some branches of one group."""
        recipe = self.recipe
        width = min(recipe.per_device_train_batch_size, recipe.num_generations)
        width = min(width, recipe.branches_per_forward or width)
        at_once = max(1, recipe.per_device_train_batch_size // recipe.num_generations)
        cut = [
            (place, branches[start : start + width])
            for place, branches in enumerate(chosen)
            for start in range(0, len(branches), width)
        ]
        # A packed batch has as many branches for every prompt, so groups of one size go together.
        by_size: dict[int, Part] = defaultdict(list)
        for place, branches in cut:
            by_size[len(branches)].append((place, branches))
        for same in by_size.values():
            yield from (same[start : start + at_once] for start in range(0, len(same), at_once))

    # --- the policy this run found

    def _trainable(self) -> dict[str, torch.Tensor]:
        return {name: value for name, value in self.model.named_parameters() if value.requires_grad}

    def _reference(self) -> dict[str, torch.Tensor]:
        """Trainable weights as they were at the start, from the run's folder where it has them."""
        file = self.context.record.path / REFERENCE_FILE
        with self.accelerator.main_process_first():
            if not file.exists():
                values = {
                    name: value.detach().cpu().contiguous() for name, value in self._trainable().items()
                }
                safetensors.torch.save_file(values, file)
        return safetensors.torch.load_file(file, device=str(self.session.loaded.device))

    @contextlib.contextmanager
    def _as_at_the_start(self) -> Iterator[None]:
        assert self.start_values is not None
        now = {name: value.data for name, value in self._trainable().items()}
        try:
            for name, value in self._trainable().items():
                value.data = self.start_values[name]
            yield
        finally:
            for name, value in self._trainable().items():
                value.data = now[name]

    # --- what a user sees

    def _tell(self, rollout: Rollout) -> None:
        """Notes on one batch of samples, and some of them in full now and then."""
        groups = rollout.groups
        for name in self.recipe.rewards:
            values = torch.tensor([each[name] for group in groups for each in group.earned])
            values = values[~values.isnan()]
            if len(values):
                self.note(f"rewards/{name}/mean", float(values.mean()))
                self.note(f"rewards/{name}/std", float(values.std()) if len(values) > 1 else 0.0)
        totals = torch.stack([group.total for group in groups])
        spread = totals.max(dim=1).values > totals.min(dim=1).values
        completions = [each for group in groups for each in group.completions]
        correct = torch.tensor(
            [[float(each.get("accuracy", math.nan)) for each in group.earned] for group in groups]
        )
        facts = {
            "reward": float(totals.mean()),
            "reward_std": float(totals.std(dim=1).mean()),
            "groups/alike": 1 - float(spread.float().mean()),
            "completions/mean_length": sum(each.tokens for each in completions) / len(completions),
            "completions/truncated": sum(not each.finished for each in completions) / len(completions),
            "format_rate": sum(each.parsed.well_formed for each in completions) / len(completions),
            "seconds/rollout": rollout.seconds,
            "rollout_tokens_per_second": rollout.tokens / max(1e-6, rollout.seconds),
        }
        if "accuracy" in self.recipe.rewards:
            facts["groups/none_right"] = float((correct.sum(1) == 0).float().mean())
            facts["groups/all_right"] = float((correct.mean(1) == 1).float().mean())
            facts["groups/some_right"] = 1 - facts["groups/none_right"] - facts["groups/all_right"]
        for name, value in facts.items():
            self.note(name, value)
        figures = torch.tensor([list(facts.values())], dtype=torch.float64)
        means = collectives.gathered(self.accelerator, figures).mean(dim=0).tolist()
        self.alarms.check(dict(zip(facts, means)))
        if self.recipe.until is not None and self._met(self.recipe.until):
            self.control.should_training_stop = True
            self.context.report.say(f"{self.recipe.until}: met at step {self.state.global_step}")
        if self.state.global_step % self.recipe.log_completions_steps == 0:
            self._keep_samples(groups[0])

    def _met(self, rule: str) -> bool:
        """Whether the rule's figure, averaged over the last ten batches of samples, is where it should be."""
        match = UNTIL.fullmatch(rule)
        assert match is not None
        figure, direction, number = match.groups()
        recent = self.alarms.history.get(figure, [])[-SamplingWarnings.PATIENCE :]
        if len(recent) < SamplingWarnings.PATIENCE:
            return False
        mean = sum(recent) / len(recent)
        return mean >= float(number) if direction == ">=" else mean <= float(number)

    def _keep_samples(self, group: Group) -> None:
        written = list(zip(group.completions, group.earned, group.total))[:SHOWN_COMPLETIONS]
        self.context.report.completions(
            self.state.global_step,
            group.example.question,
            group.example.answer,
            [(completion.text, float(total)) for completion, _, total in written],
        )
        for completion, earned, total in written:
            self.context.record.sample(
                {
                    "step": self.state.global_step,
                    "id": group.example.id,
                    "question": group.example.question,
                    "gold": group.example.answer,
                    "text": completion.text,
                    "rewards": earned,
                    "reward": float(total),
                }
            )

    def note(self, name: str, value: float) -> None:
        """Averaged over the steps of a log row."""
        self._seen[name].append(value)

    def _add(self, name: str, value: float) -> None:
        """A part of one step's value; the step's sum is averaged like a note."""
        key = f"{name}@{self.state.global_step}"
        self._seen[key] = [sum(self._seen.get(key, [])) + value]

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        merged: dict[str, list[float]] = defaultdict(list)
        for seen in gather_object([dict(self._seen)]):
            for key, values in seen.items():
                merged[key.partition("@")[0]] += values
        self._seen.clear()
        super().log(
            {**logs, **{name: sum(each) / len(each) for name, each in merged.items()}}, *args, **kwargs
        )

    # --- checkpoints between two updates on the same samples

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        # Before the state file, whose presence says that a checkpoint is whole.
        super()._save_optimizer_and_scheduler(output_dir)
        self.save_state(Path(output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, *args: Any, **kwargs: Any) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, *args, **kwargs)
        self.load_state(Path(resume_from_checkpoint))

    def save_state(self, folder: Path) -> None:
        """What a method needs beside weights and optimizer to go on exactly."""
        folder.mkdir(parents=True, exist_ok=True)  # another process may be the one that makes it
        if self.rollout is not None and self.state.global_step % self.recipe.num_iterations:
            rollouts.save(self.rollout, folder, self._own)

    def load_state(self, folder: Path) -> None:
        """The counterpart of `save_state`."""
        limit = self.recipe.max_completion_length
        self.rollout = rollouts.load(folder, self._own, self.session, self.context.train, limit)

    @property
    def _own(self) -> str:
        """What this process puts before the names of files that are its own."""
        return f"{self.accelerator.process_index}-" if self.accelerator.num_processes > 1 else ""


# A forward pass: (place of the group, its branches) for groups of as many branches.
Part = list[tuple[int, list[int]]]


def _flat(part: Part) -> list[tuple[int, int]]:
    return [(place, branch) for place, branches in part for branch in branches]


def _branches(groups: Sequence[Group], part: Part) -> Branches:
    return Branches(
        [groups[place].example for place, _ in part],
        [[groups[place].ids[branch] for branch in branches] for place, branches in part],
    )


def prompt_order(rows: int, recipe: Policy, processes: int = 1) -> list[int]:
    """Row numbers of every optimizer step, one after the other: epochs of a seeded shuffle, each batch
    repeated for every iteration on it. Processes take the prompts of a step in turn, so many at a time."""
    prompts = recipe.prompts_per_step * processes
    size = min(rows, prompts)
    per_epoch = max(1, rows // size)
    batches = math.ceil(per_epoch * recipe.num_train_epochs)
    if recipe.max_steps > 0:
        batches = math.ceil(recipe.max_steps / recipe.num_iterations)
    order: list[int] = []
    made = 0
    for epoch in range(math.ceil(batches / per_epoch)):
        shuffled = torch.randperm(rows, generator=torch.Generator().manual_seed(recipe.seed + epoch)).tolist()
        for start in range(0, per_epoch * size, size):
            if made < batches:
                # A data set smaller than one step's prompts fills it by going round.
                batch = [shuffled[(start + place) % rows] for place in range(prompts)]
                order += batch * recipe.num_iterations
                made += 1
    return order
