"""Which checks there are, in which order their turns come, and when one has to be left out. No torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

MODELS, ENGINES = ("256M", "500M", "tiny"), ("plain", "unsloth")
UNSLOTH = ("unsloth", "unsloth_zoo")
# A process that has just begun may need so long to import torch and to fail.
LEAST_SECONDS = 20.0


@dataclass(frozen=True)
class Part:
    """A kind of check.

    Attributes:
        seconds: it is stopped after as many.
        tiers: when its turn comes: for the first model, and for the others.
        engines: those it runs on.
        packages: what must be installed beside the engine.
        cuda: it cannot run without.
    """

    seconds: float
    tiers: tuple[int, int]
    engines: tuple[str, ...] = ("plain",)
    packages: tuple[str, ...] = ()
    cuda: bool = False


# In the order of their turns within a tier.
PARTS = {
    "build": Part(120, (0, 1)),
    "agree": Part(120, (0, 1), ENGINES),
    "sft": Part(120, (0, 1), ENGINES),
    "trl_sft": Part(120, (0, 3), packages=("trl",)),
    "notebook": Part(150, (0, 3), ("unsloth",), ("trl",), cuda=True),
    "grpo": Part(120, (0, 1), ENGINES),
    "trl_grpo": Part(120, (0, 3), packages=("trl",)),
    "dyme": Part(120, (0, 1), ENGINES),
    "simulate": Part(90, (0, 1)),
    "decode": Part(120, (0, 3), ENGINES),
    "vllm": Part(240, (2, 3), ("unsloth",), ("vllm",), cuda=True),
}


@dataclass(frozen=True)
class Turn:
    """One check to make."""

    kind: str
    model: str
    engine: str

    @property
    def name(self) -> str:
        return f"{self.kind} {self.model} {self.engine}"


def in_order(models: list[str], engines: list[str], only: list[str] | None) -> list[Turn]:
    """Every check that was asked for, the most telling first; models are built whatever is asked."""
    found = []
    for place, model in enumerate(models):
        for number, (kind, part) in enumerate(PARTS.items()):
            for engine in part.engines:
                built = kind == "build"
                if built or (engine in engines and kind in (only or PARTS)):
                    # A model is built when its first check comes.
                    found.append((part.tiers[min(place, 1)], place, number, Turn(kind, model, engine)))
    return [turn for *_, turn in sorted(found, key=lambda row: row[:3])]


def missing(turn: Turn, device: str, installed: Callable[[str], bool]) -> str | None:
    """Why a check cannot be made here; None where it can."""
    part = PARTS[turn.kind]
    for package in (*(UNSLOTH if turn.engine == "unsloth" else ()), *part.packages):
        if not installed(package):
            return f"{package} is not installed"
    if device != "cuda" and (part.cuda or turn.engine == "unsloth"):
        return "it needs a CUDA GPU"
    return None


def is_installed(package: str) -> bool:
    """Whether a package could be imported; importing is the part's business."""
    return importlib.util.find_spec(package) is not None


def allowance(limit_seconds: float, left_seconds: float) -> float | None:
    """Seconds a check may take; None where too few are left to begin it."""
    return None if left_seconds < LEAST_SECONDS else min(limit_seconds, left_seconds)
