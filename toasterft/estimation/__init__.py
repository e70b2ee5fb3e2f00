"""The plan of a run: memory, time and dollars before it starts. Arithmetic alone, no torch.

    work        what a recipe makes the model do, in passes and tokens
    memory      bytes by item: what stays, a step, the tower
    phases      which phases a run has, and the bytes of each
    seconds     time by phase
    money       dollars of a GPU's hours, and of a teacher's tokens
    plan        these beside a GPU: `Plan.on(gpu)` → `Estimate`
    ladder      what to change when a run does not fit a GPU
    budget      what to change when it costs too much
    teaching    what it costs to have a teacher write reasoning

All of it is closed-form and, on CUDA, unverified: time comes as low, likely and high.
"""

from __future__ import annotations

from toasterft.estimation.plan import Estimate, Plan
from toasterft.units import Range

__all__ = ["Estimate", "Plan", "Range"]
