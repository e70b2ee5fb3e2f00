"""Supervised fine-tuning: next-token loss on reasoning and answer, from cached image features.

TRL's SFTTrainer is the referee of loss and gradients (`tests/heavy/test_sft.py`).
"""

from __future__ import annotations

import torch

from toasterft.data.example import Example
from toasterft.engine import Engine
from toasterft.engine.logprobs import TokenLogps, open_log_probs
from toasterft.jobs.endings import Ending
from toasterft.jobs.prepare import Job
from toasterft.runs.run_folder import Run
from toasterft.training import run as route
from toasterft.training.row_trainer import RowTrainer
from toasterft.training.trainer_base import TrainingContext


def run(job: Job, engine: Engine, end: Ending) -> Run:
    """Next-token loss on reasoning and answer, nothing else."""
    return route.run(job, engine, end, SftTrainer)


class SftTrainer(RowTrainer):
    """Every token of a step's completions weighs the same."""

    def __init__(self, context: TrainingContext) -> None:
        probe = next((example for example in context.train if example.images), context.train[0])
        log_probs = open_log_probs(context.session, 1.0, probe, trees=True)
        super().__init__(context, log_probs, context.held_out)

    def completions(self, example: Example) -> list[list[int]]:
        return [self.session.chat.ids(self.session.chat.completion(example))]

    def count(self, row: int) -> int:
        return len(self.ids[row][0])

    def loss_sum(self, rows: list[int], found: TokenLogps, lengths: list[int]) -> torch.Tensor:
        tokens = len(found.values)
        self.noted.add("entropy", float(found.entropy.sum()), tokens)
        self.noted.add("mean_token_accuracy", float(found.best.sum()), tokens)
        return -found.values.sum()
