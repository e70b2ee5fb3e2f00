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

import importlib
import sys
from types import ModuleType
from typing import Any

from toasterft.estimate.plan import Estimate, Plan
from toasterft.estimate.spread import Spread

__all__ = ["Estimate", "Plan", "Spread"]


class _Callable(ModuleType):
    """`from toasterft import estimate` finds this package; the API's function of that name is called through it."""

    def __call__(self, *args: Any, **settings: Any) -> Estimate:
        """What a training takes: see `toasterft.api.estimate`."""
        found: Estimate = importlib.import_module("toasterft.api").estimate(*args, **settings)
        return found


sys.modules[__name__].__class__ = _Callable
