"""Counts how often a run's decoder layers ran, and how often a backward pass ran them again: with gradient checkpointing
as often as forward passes of training, without it never."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from toasterft.engine.loaded import LoadedModel
from toasterft.training import run as route

# The file to count in; runs without it are left alone.
FILE = "TOASTERFT_PASSES"


def install() -> None:
    """Count in every training of this process from now on."""
    opened = route.open_model

    def counted(*args: Any, **kwargs: Any) -> Any:
        session = opened(*args, **kwargs)
        if FILE in os.environ:
            _count(session.loaded, Path(os.environ[FILE]))
        return session

    route.open_model = counted


def read(file: Path) -> Counter[str]:
    """Passes of a layer by kind: `forward` in training, `again` in a backward pass, `other` for everything else."""
    return Counter(file.read_text().split())


def _count(loaded: LoadedModel, file: Path) -> None:
    def counted(layer: torch.nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            kind = "forward" if layer.training else "other"
            in_backward = torch._C._current_graph_task_id() != -1
            with file.open("a") as lines:
                lines.write("again\n" if in_backward else f"{kind}\n")
            return forward(*args, **kwargs)

        return run

    for layer in loaded.part(loaded.family.text).layers:
        layer.forward = counted(layer, layer.forward)
