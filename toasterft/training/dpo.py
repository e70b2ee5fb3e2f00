"""Direct preference optimisation from cached image features, each pair behind one reading of its prompt.

TRL's DPOTrainer sends every picture of a batch through the tower four times (chosen and rejected, under the policy
and under the reference) and refuses to compute the reference beforehand where there are pictures. Here:

    every image encoded once → every pair once through the model as it was found (`reference.jsonl`)
                             → each step: prompt once, both completions as branches of it, a loss of `preference_loss`

transformers' Trainer does the rest: batches, optimizer, schedule, checkpoints, resuming. TRL's trainer is the referee
of loss and gradients (`tests/heavy/test_dpo.py`).

The model is called directly, not through DDP, so gradients are averaged over processes here.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from accelerate.utils import gather_object
from torch.nn.functional import logsigmoid

from toasterft.engine import Engine
from toasterft.engine.logprobs import Branches, open_log_probs
from toasterft.errors import CapReached
from toasterft.jobs.endings import Ending
from toasterft.jobs.prepare import Job
from toasterft.recipe import Dpo
from toasterft.runs import distributed
from toasterft.runs.journal import Journal
from toasterft.runs.run_folder import Run
from toasterft.training import run as route
from toasterft.training.arguments import arguments
from toasterft.training.metrics import MetricLog
from toasterft.training.trainer_base import GuardedTrainer, TrainingContext

REFERENCE_FILE = "reference.jsonl"
SHOWN_CHARACTERS = 200


def run(job: Job, engine: Engine, end: Ending) -> Run:
    """Make the better completion of each pair likelier than the worse one, as far as `beta` lets it."""
    return route.run(job, engine, end, DpoTrainer)


class DpoTrainer(GuardedTrainer, transformers.Trainer):
    """Preference losses over the pairs of a `TrainingContext`.

    The reference is the policy as this run found it, the adapter it started from included. A resumed run reads it
    from the run's folder; as far as it is not there, the weights are still those: checkpoints load later.
    """

    def __init__(self, context: TrainingContext) -> None:
        assert isinstance(context.recipe, Dpo)
        self.context, self.recipe, self.monitor = context, context.recipe, context.monitor
        self.session = context.session
        if self.recipe.disable_dropout:
            _without_dropout(self.session.loaded.model)
        words, held_out = arguments(context), []
        if self.recipe.eval_steps:
            held_out = [example for example in context.held_out if example.rejected]
            if not held_out:
                context.report.say("no held-out row carries `rejected`: eval_steps measures nothing")
                words |= {"eval_strategy": "no", "load_best_model_at_end": False}
        args = transformers.TrainingArguments(**words)
        seen = _rows_needed(len(context.train), self.recipe, args.world_size)
        self.examples = [*(context.train[row] for row in seen), *held_out]
        chat = self.session.chat
        self.ids = [
            [chat.ids(chat.completion(example)), chat.ids(chat.rejected(example))]
            for example in self.examples
        ]
        self.log_probs = open_log_probs(self.session, 1.0, context.train[0])
        self.metrics = {"": MetricLog(), "eval_": MetricLog()}  # by prefix of a name
        super().__init__(
            model=self.session.loaded.model,
            args=args,
            train_dataset=list(range(len(seen))),
            eval_dataset=list(range(len(seen), len(self.examples))) if held_out else None,
            data_collator=lambda rows: {"rows": torch.tensor(rows)},
            processing_class=self.session.loaded.tokenizer,
            callbacks=[context.monitor],
        )
        # The loss is a mean over pairs, not over tokens: the Trainer divides it by the steps of accumulation.
        self.model_accepts_loss_kwargs = False
        context.report.say(f"rejected beside it: {self.examples[0].rejected}"[:SHOWN_CHARACTERS])
        self.reference = self._reference()

    # --- a step

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        if self.accelerator.sync_gradients:
            self.average_gradients()
        return loss

    def compute_loss(self, model: Any, inputs: dict[str, torch.Tensor], *_: Any, **__: Any) -> torch.Tensor:
        rows = inputs["rows"].tolist()
        policy, entropy = self._log_probs(rows)
        lengths = torch.tensor([[len(ids) for ids in self.ids[row]] for row in rows], device=policy.device)
        pairs = Pairs(policy, self.reference[rows].to(policy.device), lengths)
        kinds = self.recipe.loss_type
        total = torch.zeros((), device=policy.device)
        for kind, weight in zip(kinds, self.recipe.loss_weights or (1.0,) * len(kinds)):
            total = total + weight * preference_loss(
                kind, pairs, self.recipe.beta, self.recipe.label_smoothing
            )
        self._note("" if self.model.training else "eval_", pairs, entropy.mean())
        return total

    def prediction_step(
        self, model: Any, inputs: dict[str, torch.Tensor], *_: Any, **__: Any
    ) -> tuple[torch.Tensor, None, None]:
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.compute_loss(model, inputs).detach(), None, None

    def _log_probs(self, rows: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """[B, 2] summed over tokens, and the entropy of every token."""
        branches = Branches([self.examples[row] for row in rows], [self.ids[row] for row in rows])
        values, entropy = self.log_probs(branches)
        each = [part.sum() for part in values.split(branches.lengths)]
        return torch.stack(each).view(len(rows), 2), entropy

    # --- the policy this run found

    def _reference(self) -> torch.Tensor:
        """[rows, 2]: log-probabilities of all pairs under the model as it is now, before the first step.

        Each batch is on disk before the next, so that a killed run goes on.

        Raises:
            CapReached: between two batches.
        """
        processes = self.accelerator.num_processes
        mine = range(len(self.examples))[self.accelerator.process_index :: processes]
        file = self.context.record.path / f"{self.file_prefix}{REFERENCE_FILE}"
        with Journal(file) as journal:
            # Cut back to whole batches: the rest is then scored as it would have been.
            scored = journal.whole_batches(mine, self.recipe.per_device_train_batch_size, lambda row: row[0])
            values = [pair for _, pair in scored]
            self._score(mine, values, journal)
        found = torch.zeros(len(self.examples), 2)
        for process, theirs in enumerate(gather_object([values])):
            found[process::processes] = torch.tensor(theirs).view(-1, 2)
        return found

    def _score(self, mine: Sequence[int], values: list[list[float]], journal: Journal) -> None:
        """Add what is missing to `values`, as many pairs at a time as in training."""
        monitor, report, size = self.monitor, self.context.report, self.recipe.per_device_train_batch_size
        # Processes that have fewer to do come along: what stops one of them stops all.
        rounds = max(gather_object([-(-(len(mine) - len(values)) // size)]))
        if not rounds:
            return
        report.phase("reference", len(mine))
        monitor.phases.turn()
        monitor.phases.enter("train")
        with self.session.loaded.evaluating():
            for _ in range(rounds):
                with distributed.share_errors():
                    if monitor.meter.reached():
                        raise CapReached(f"after {len(values)} of {len(mine)} pairs of the reference")
                    rows = mine[len(values) : len(values) + size]
                    with self.compute_loss_context_manager():
                        found = self._log_probs(rows)[0].tolist() if rows else []
                journal.append(zip(rows, found))
                values += found
                report.advance(
                    len(values), len(mine), memory_bytes=monitor.phases.peak_bytes, usd=monitor.meter.usd
                )

    # --- what a user sees

    def _note(self, prefix: str, pairs: Pairs, entropy: torch.Tensor) -> None:
        """Figures of one batch, under TRL's names; averaged over the steps of a log row."""
        chosen, rejected = (self.recipe.beta * pairs.ratios.detach()).unbind(-1)
        policy = pairs.policy.detach().mean(dim=0)
        facts = {
            "rewards/chosen": chosen.mean(),
            "rewards/rejected": rejected.mean(),
            "rewards/accuracies": (chosen > rejected).float().mean(),
            "rewards/margins": (chosen - rejected).mean(),
            "logps/chosen": policy[0],
            "logps/rejected": policy[1],
            "entropy": entropy,
        }
        values = torch.stack([*facts.values()]).tolist()
        self.metrics[prefix].note(dict(zip(facts, values)))

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        prefix = "eval_" if any(name.startswith("eval_") for name in logs) else ""
        super().log({**logs, **self.metrics[prefix].drain(prefix)}, *args, **kwargs)


def _without_dropout(model: torch.nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


def _rows_needed(rows: int, recipe: Dpo, processes: int) -> list[int]:
    """Rows that the run reaches: `max_steps` may end it before it has seen all, and a reference is needed for no
    others."""
    size = recipe.per_device_train_batch_size * recipe.gradient_accumulation_steps * processes
    if recipe.max_steps <= 0 or recipe.max_steps * size >= rows:
        return list(range(rows))
    return sorted(random.Random(recipe.seed).sample(range(rows), recipe.max_steps * size))


# --- losses, as functions of log-probabilities alone; definitions are TRL 1.14's DPOTrainer's, which tests compare


@dataclass(frozen=True)
class Pairs:
    """Log-probabilities of B pairs; the last axis is (chosen, rejected).

    Attributes:
        policy: [B, 2], log-probability of each completion, its tokens summed, under the model as it is.
        reference: [B, 2], the same under the model as it was found.
        lengths: [B, 2], tokens of each completion.
    """

    policy: torch.Tensor
    reference: torch.Tensor
    lengths: torch.Tensor

    @property
    def ratios(self) -> torch.Tensor:
        """[B, 2], log of policy over reference."""
        return self.policy - self.reference

    @property
    def margins(self) -> torch.Tensor:
        """[B], how much more the chosen completion has gained than the rejected one."""
        chosen, rejected = self.ratios.unbind(-1)
        return chosen - rejected


def preference_loss(kind: str, pairs: Pairs, beta: float, label_smoothing: float = 0.0) -> torch.Tensor:
    """The mean over pairs of one loss.

    Args:
        kind: a value of the recipe's `loss_type`.
    """
    if kind == "sft":
        # The chosen completion's own likelihood, over all tokens of the batch (as in MPO, arXiv 2411.10442).
        return -pairs.policy[:, 0].sum() / pairs.lengths[:, 0].sum()
    return _loss_of_each(kind, pairs, beta, label_smoothing).mean()


def _loss_of_each(kind: str, pairs: Pairs, beta: float, smoothing: float) -> torch.Tensor:
    """[B]: one loss per pair."""
    chosen, rejected = (beta * pairs.ratios).unbind(-1)
    margin = beta * pairs.margins
    if kind == "sigmoid":  # DPO, arXiv 2305.18290, equation 7
        return -logsigmoid(margin)
    if kind == "hinge":  # SLiC, arXiv 2305.10425
        return torch.relu(1 - margin)
    if kind == "ipo":  # arXiv 2310.12036, equation 17, per token: TRL asked its authors
        per_token = pairs.ratios / pairs.lengths
        return (per_token[:, 0] - per_token[:, 1] - 1 / (2 * beta)) ** 2
    if kind == "robust":  # arXiv 2403.00409, equation 12: a share of the pairs is the wrong way round
        clean, flipped = -logsigmoid(margin), -logsigmoid(-margin)
        return ((1 - smoothing) * clean - smoothing * flipped) / (1 - 2 * smoothing)
    if kind == "bco_pair":  # arXiv 2404.04656, without its moving threshold
        return -logsigmoid(chosen) - logsigmoid(-rejected)
    if kind == "apo_zero":  # APO, arXiv 2408.06266, equation 7: the chosen up, the rejected down
        return 1 - torch.sigmoid(chosen) + torch.sigmoid(rejected)
    raise ValueError(kind)
