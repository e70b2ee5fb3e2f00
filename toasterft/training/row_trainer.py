"""Learning from given rows, those about one image behind one reading of it: what SFT and DPO have in common.

    rows → `data/sharing.py`: optimizer steps in which rows about one image meet
         → each step: trees of such rows through the model, a sum of losses over each, one normalisation for all

The rows of a step, and what each weighs in it, are those of separate rows. transformers' Trainer does the rest:
optimizer, schedule, clipping, checkpoints, resuming; one batch of its loader is one optimizer step.

The model is called directly, not through DDP, so gradients are averaged over processes here.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import torch
import transformers

from toasterft.data import sharing
from toasterft.data.example import Example
from toasterft.data.sharing import Group, rows_of
from toasterft.engine.logprobs import Branches, LogProbs, TokenLogps
from toasterft.recipe import Dpo, Sft
from toasterft.training.arguments import arguments
from toasterft.training.metrics import MetricLog
from toasterft.training.trainer_base import GuardedTrainer, TrainingContext


class RowTrainer(GuardedTrainer, transformers.Trainer, ABC):
    """Optimizer steps over the rows of a `TrainingContext`.

    Attributes:
        examples: training rows, then those that the evaluation loss is taken on.
        ids: of each of them, the token ids of its completions.
        keys: of each, what it shares with others.
        steps: the rows of each process in each optimizer step, processes side by side.
    """

    def __init__(self, context: TrainingContext, log_probs: LogProbs, held_out: list[Example]) -> None:
        assert isinstance(context.recipe, Sft | Dpo)
        self.context, self.recipe, self.monitor = context, context.recipe, context.monitor
        self.session, self.log_probs = context.session, log_probs
        self.examples = [*context.train, *held_out]
        self.metrics = {"": MetricLog(), "eval_": MetricLog()}  # by prefix of a name
        chat, train = self.session.chat, len(context.train)
        self.ids = [self.completions(example) for example in self.examples]
        self.keys = self._keys()
        self.tokens = [
            sum(map(len, row)) + len(row) * len(chat.ids(chat.question(example)))
            for example, row in zip(self.examples, self.ids)
        ]
        words = arguments(context)
        if not held_out:
            words |= {"eval_strategy": "no", "load_best_model_at_end": False}
        args = transformers.TrainingArguments(
            **{
                **words,
                "per_device_train_batch_size": 1,
                "gradient_accumulation_steps": 1,
                "num_train_epochs": 1,
                # The steps are in order already, those of all processes side by side.
                "train_sampling_strategy": "sequential",
            }
        )
        self.steps_per_epoch = math.ceil(train / self.recipe.rows_per_step / args.world_size)
        self.steps = row_steps(self.keys[:train], self.recipe, args.world_size)
        super().__init__(
            model=self.session.loaded.model,
            args=args,
            train_dataset=list(range(len(self.steps))),
            eval_dataset=list(range(train, len(self.examples))) if held_out else None,
            data_collator=lambda numbers: {"numbers": torch.tensor(numbers)},
            processing_class=self.session.loaded.tokenizer,
            callbacks=[context.monitor],
        )

    def _keys(self) -> list[Hashable]:
        """Of each row, what it shares with others; nothing where rows run apart."""
        if not self.log_probs.packed or self.recipe.branches_per_forward == 1:
            return list(range(len(self.examples)))
        key = self.session.inputs.shared_key
        return [key(example) if example.images else row for row, example in enumerate(self.examples)]

    # --- what a method brings

    @abstractmethod
    def completions(self, example: Example) -> list[list[int]]:
        """Token ids of a row's completions, as many for every row."""

    @abstractmethod
    def count(self, row: int) -> int:
        """How much a row weighs in the mean of a step."""

    @abstractmethod
    def loss_sum(self, rows: list[int], found: TokenLogps, lengths: list[int]) -> torch.Tensor:
        """The losses of some rows, summed up with those weights.

        Args:
            lengths: tokens of each completion.
        """

    # --- a step

    def training_step(self, model: Any, inputs: dict[str, torch.Tensor], *_: Any, **__: Any) -> torch.Tensor:
        model.train()
        groups = self.steps[int(inputs["numbers"])]
        own = torch.tensor(sum(map(self.count, rows_of(groups))), device=self.args.device)
        whole = int(self.accelerator.gather(own).sum())
        total = torch.zeros((), device=self.args.device)
        for trees in self.forward_passes(groups, self.recipe.per_device_train_batch_size):
            # Gradients, and losses in the log, are means over processes.
            loss = self.pass_loss(trees) / whole * self.accelerator.num_processes
            self.accelerator.backward(loss)
            total += loss.detach()
        if not groups:  # the last step of an epoch may not reach all processes
            self.no_gradients()
        self.average_gradients()
        return self.drop_if_non_finite(total)

    def prediction_step(
        self, model: Any, inputs: dict[str, torch.Tensor], *_: Any, **__: Any
    ) -> tuple[torch.Tensor, None, None]:
        rows = inputs["numbers"].tolist()
        [groups] = sharing.steps(rows, self.keys, len(rows))
        with torch.no_grad():
            parts = [self.pass_loss(trees) for trees in self.forward_passes(groups, len(rows))]
        return torch.stack(parts).sum() / sum(map(self.count, rows)), None, None

    def forward_passes(self, groups: Sequence[Group], size: int) -> Iterator[list[Group]]:
        """Trees of groups, as many at a time as have `size` rows together; one alone may have more."""
        waiting: list[Group] = []
        for tree in sharing.trees(groups, self.tokens, self.recipe.branches_per_forward):
            if waiting and len(rows_of([*waiting, tree])) > size:
                yield waiting
                waiting = []
            waiting.append(tree)
        if waiting:
            yield waiting

    def pass_loss(self, trees: list[Group]) -> torch.Tensor:
        """The sum of losses over the rows of one forward pass."""
        return self.loss_sum(rows_of(trees), *self.forward(trees))

    def forward(self, trees: list[Group]) -> tuple[TokenLogps, list[int]]:
        """Log-probabilities of all completions' tokens, and the length of each completion."""
        branches = [
            Branches([self.examples[row] for row in tree], [self.ids[row] for row in tree]) for tree in trees
        ]
        with self.accelerator.autocast():
            found = self.log_probs.of_trees(branches)
        return found, [length for each in branches for length in each.lengths]

    @property
    def noted(self) -> MetricLog:
        """Where figures of a pass go, in training and in evaluation."""
        return self.metrics["" if self.model.training else "eval_"]

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        prefix = "eval_" if any(name.startswith("eval_") for name in logs) else ""
        # The loader knows a single one, of all steps.
        self.state.epoch = self.state.global_step / self.steps_per_epoch
        super().log({**logs, **self.metrics[prefix].drain(prefix)}, *args, **kwargs)


def row_steps(keys: Sequence[Hashable], recipe: Sft | Dpo, processes: int = 1) -> list[list[Group]]:
    """The rows of each process in each optimizer step, processes side by side: epochs of a seeded shuffle, in which
    every row comes once."""
    per_epoch = math.ceil(len(keys) / recipe.rows_per_step / processes)
    wanted = recipe.max_steps if recipe.max_steps > 0 else math.ceil(per_epoch * recipe.num_train_epochs)
    found: list[list[Group]] = []
    for epoch in range(math.ceil(wanted / per_epoch)):
        # The order in which transformers and accelerate deal rows that share nothing.
        generator = torch.Generator().manual_seed(recipe.seed + epoch)
        order = torch.randperm(len(keys), generator=generator).tolist()
        found += sharing.steps(order, keys, recipe.rows_per_step)
        found += [[] for _ in range(-len(found) % processes)]
    return found[: wanted * processes]
