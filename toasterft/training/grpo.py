"""GRPO and ClipLow GRPO: the policy trainer as it is."""

from __future__ import annotations

from toasterft.engine import Engine
from toasterft.jobs.endings import Ending
from toasterft.jobs.prepare import Job
from toasterft.runs.run_folder import Run
from toasterft.training import run as route
from toasterft.training.policy.trainer import PolicyTrainer


def run(job: Job, engine: Engine, end: Ending) -> Run:
    """Sample, reward, and raise the likelihood of completions above their group's mean."""
    return route.run(job, engine, end, PolicyTrainer)
