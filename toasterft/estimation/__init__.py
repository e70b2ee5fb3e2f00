"""Memory, time and dollars of a run before it starts: closed-form arithmetic, no torch.

    passes       what a recipe makes the model do, in passes and tokens
    memory       bytes by item: what stays, a training step, generation, the vision tower
    phases       the phases of a run, and the bytes of each
    seconds      time by phase
    prices       dollars of a GPU's hours, and of an API model's tokens
    plan         these for one GPU: `Plan.on(gpu)` → `Estimate`
    fit          what to change when a run does not fit a GPU
    suggest      what to change when it costs too much
    teachers     cost of API models: teachers, judges, refiners
    calibration  measurements of a machine, which replace the assumed speed
    simulate     the steps replayed on torch's meta device (heavy: imports torch)

All of it is unverified on CUDA: time comes as low, likely and high.
"""

from __future__ import annotations

from toasterft.estimation.plan import Estimate, Plan
from toasterft.units import Range

__all__ = ["Estimate", "Plan", "Range"]
