"""Direct preference optimisation from cached image features, each pair behind one reading of its prompt.

TRL's DPOTrainer sends every picture of a batch through the tower four times (chosen and rejected, under the policy
and under the reference) and refuses to compute the reference beforehand where there are pictures. Here:

    every image encoded once → every pair once through the model as it was found (`reference.jsonl`)
                             → each step: prompt once, both completions as branches of it, a loss of `preference_loss`

TRL's trainer is the referee of loss and gradients (`tests/heavy/test_dpo.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import gather_object
from torch.nn.functional import logsigmoid

from toasterft.data import sharing
from toasterft.data.example import Example
from toasterft.data.sharing import Group, rows_of
from toasterft.engine import Engine
from toasterft.engine.logprobs import TokenLogps, open_log_probs
from toasterft.errors import CapReached
from toasterft.jobs.endings import Ending
from toasterft.jobs.prepare import Job
from toasterft.recipe import Dpo
from toasterft.runs import distributed
from toasterft.runs.journal import Journal
from toasterft.runs.run_folder import Run
from toasterft.training import run as route
from toasterft.training.row_trainer import RowTrainer
from toasterft.training.trainer_base import TrainingContext

REFERENCE_FILE = "reference.jsonl"
SHOWN_CHARACTERS = 200


def run(job: Job, engine: Engine, end: Ending) -> Run:
    """Make the better completion of each pair likelier than the worse one, as far as `beta` lets it."""
    return route.run(job, engine, end, DpoTrainer)


class DpoTrainer(RowTrainer):
    """Preference losses over the pairs of a `TrainingContext`.

    The reference is the policy as this run found it, the adapter it started from included. A resumed run reads it
    from the run's folder; as far as it is not there, the weights are still those: checkpoints load later.
    """

    def __init__(self, context: TrainingContext) -> None:
        assert isinstance(context.recipe, Dpo)
        if context.recipe.disable_dropout:
            _without_dropout(context.session.loaded.model)
        held_out: list[Example] = []
        if context.recipe.eval_steps:
            held_out = [example for example in context.held_out if example.rejected]
            if not held_out:
                context.report.say("no held-out row carries `rejected`: eval_steps measures nothing")
        log_probs = open_log_probs(context.session, 1.0, context.train[0], trees=True)
        super().__init__(context, log_probs, held_out)
        context.report.say(f"rejected beside it: {self.examples[0].rejected}"[:SHOWN_CHARACTERS])
        self.reference = self._reference()

    def completions(self, example: Example) -> list[list[int]]:
        chat = self.session.chat
        return [chat.ids(chat.completion(example)), chat.ids(chat.rejected(example))]

    def count(self, row: int) -> int:
        return 1

    def loss_sum(self, rows: list[int], found: TokenLogps, lengths: list[int]) -> torch.Tensor:
        policy, device = _summed(found, lengths), found.values.device
        every = Pairs(
            policy, self.reference[rows].to(device), torch.tensor(lengths, device=device).view(-1, 2)
        )
        self._note(every, found.entropy.mean())
        recipe, total = self.recipe, torch.zeros((), device=device)
        assert isinstance(recipe, Dpo)
        # Pairs that share an image are no larger a batch to the loss than those that do not.
        for pairs in every.split(recipe.per_device_train_batch_size):
            for kind, weight in zip(recipe.loss_type, recipe.loss_weights or (1.0,) * len(recipe.loss_type)):
                loss = preference_loss(kind, pairs, recipe.beta, recipe.label_smoothing)
                total = total + weight * loss * len(pairs.policy)
        return total

    # --- the policy this run found

    def _reference(self) -> torch.Tensor:
        """[rows, 2]: log-probabilities of all pairs under the model as it is now, before the first step.

        Of those that the run reaches: `max_steps` may end it before it has seen all. Each batch is on disk before the
        next, so that a killed run goes on.

        Raises:
            CapReached: between two batches.
        """
        reached = {row for groups in self.steps for row in rows_of(groups)}
        rows = [row for row in range(len(self.examples)) if row in reached or row >= len(self.context.train)]
        [groups] = sharing.steps(rows, self.keys, len(rows))
        passes = list(self.forward_passes(groups, self.recipe.per_device_train_batch_size))
        mine = passes[self.accelerator.process_index :: self.accelerator.num_processes]
        file = self.context.record.path / f"{self.file_prefix}{REFERENCE_FILE}"
        with Journal(file) as journal:
            # Cut back to whole batches: the rest is then scored as it would have been.
            batches = [rows_of(trees) for trees in mine]
            scored = journal.whole_batches(rows_of(batches), [*map(len, batches)], lambda row: row[0])
            self._score(mine, scored, journal)
        found = torch.zeros(len(self.examples), 2)
        for row, pair in gather_object(scored):
            found[row] = torch.tensor(pair)
        return found

    def _score(self, passes: list[list[Group]], scored: list[Any], journal: Journal) -> None:
        """Add what is missing to `scored`, as many pairs at a time as in training."""
        monitor, report, known = self.monitor, self.context.report, {row for row, _ in scored}
        total = sum(len(rows_of(trees)) for trees in passes)
        passes = [trees for trees in passes if not known.issuperset(rows_of(trees))]
        # Processes that have fewer to do come along: what stops one of them stops all.
        rounds = max(gather_object([len(passes)]))
        if not rounds:
            return
        report.phase("reference", total)
        monitor.phases.turn()
        monitor.phases.enter("train")
        with self.session.loaded.evaluating():
            for number in range(rounds):
                with distributed.share_errors():
                    if monitor.meter.reached():
                        raise CapReached(f"after {len(scored)} of {total} pairs of the reference")
                    trees = passes[number] if number < len(passes) else []
                    found = _summed(*self.forward(trees)).tolist() if trees else []
                rows = [*zip(rows_of(trees), found)]
                journal.append(rows)
                scored += rows
                report.advance(
                    len(scored), total, memory_bytes=monitor.phases.peak_bytes, usd=monitor.meter.usd
                )

    # --- what a user sees

    def _note(self, pairs: Pairs, entropy: torch.Tensor) -> None:
        """Figures of one batch, under TRL's names; averaged over the pairs of a log row."""
        assert isinstance(self.recipe, Dpo)
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
        for name, value in zip(facts, torch.stack([*facts.values()]).tolist()):
            self.noted.add(name, value * len(pairs.policy), len(pairs.policy))


def _summed(found: TokenLogps, lengths: list[int]) -> torch.Tensor:
    """[B, 2] summed over the tokens of each completion."""
    return torch.stack([part.sum() for part in found.values.split(lengths)]).view(-1, 2)


def _without_dropout(model: torch.nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


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

    def split(self, size: int) -> Iterator[Pairs]:
        """So many pairs at a time."""
        parts = (self.policy.split(size), self.reference.split(size), self.lengths.split(size))
        yield from map(Pairs, *parts)

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
