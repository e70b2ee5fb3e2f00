"""GRPO and ClipLow GRPO: the policy trainer as it is."""

from __future__ import annotations

from toasterft.engines import Engine
from toasterft.job import Job
from toasterft.ledger import Run
from toasterft.methods import training
from toasterft.methods.policy import PolicyTrainer
from toasterft.progress import Reporter


def run(job: Job, engine: Engine, report: Reporter) -> Run:
    """Sample, reward, and move towards what was better than its group."""
    return training.run(job, engine, report, PolicyTrainer)
