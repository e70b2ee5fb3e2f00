"""State of a policy training beside weights and optimizer: samples in use, and the reference's weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from accelerate import Accelerator

from toasterft import paths
from toasterft.data.example import Example
from toasterft.engine.open_model import ModelSession
from toasterft.training.policy.rollout import Group, Rollout, read

REFERENCE_FILE = "reference.safetensors"
# Samples of a step that a checkpoint falls into, with what later iterations need of them.
SAMPLES_FILE, TENSORS_FILE = "rollout.json", "rollout.safetensors"


class ReferenceWeights:
    """The policy as the run found it: its trainable weights, kept in the run's folder, swapped in where needed.

    Args:
        parameters: what learns, by name; its values are stored where the folder has none yet.
    """

    def __init__(
        self, parameters: Mapping[str, torch.nn.Parameter], folder: Path, accelerator: Accelerator
    ) -> None:
        self._parameters = parameters
        file = folder / REFERENCE_FILE
        with accelerator.main_process_first():
            if not file.exists():
                values = {name: value.detach().cpu().contiguous() for name, value in parameters.items()}
                safetensors.torch.save_file(values, file)
        device = next(iter(parameters.values())).device
        self._values = safetensors.torch.load_file(file, device=str(device))

    @contextlib.contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Let the model be the reference for a while."""
        now = {name: value.data for name, value in self._parameters.items()}
        try:
            for name, value in self._parameters.items():
                value.data = self._values[name]
            yield
        finally:
            for name, value in self._parameters.items():
                value.data = now[name]


def save_rollout(rollout: Rollout, folder: Path, own: str) -> None:
    """Write the samples of an unfinished set of iterations beside the weights they are used on.

    Args:
        own: put before the names, where several processes have samples each.
    """
    tensors: dict[str, torch.Tensor] = {}
    kept = []
    for place, group in enumerate(rollout.groups):
        kept.append({"row": group.row, "ids": group.ids, "counted": group.counted, "target": group.target})
        tensors[f"{place}.advantage"] = group.advantage.contiguous()
        for name in ("old", "reference"):
            values = getattr(group, name)
            if values is not None:
                tensors[f"{place}.{name}"] = torch.cat(values).cpu().contiguous()
    safetensors.torch.save_file(tensors, folder / f"{own}{TENSORS_FILE}")
    paths.write_json(folder / f"{own}{SAMPLES_FILE}", {"groups": kept})


def load_rollout(
    folder: Path, own: str, session: ModelSession, rows: Sequence[Example], limit: int
) -> Rollout | None:
    """Read what `save_rollout` wrote; None where the checkpoint fell between two batches of samples.

    Args:
        rows: the data that is trained on.
        limit: the recipe's `max_completion_length`.
    """
    stored = paths.read_json(folder / f"{own}{SAMPLES_FILE}")
    if stored is None:
        return None
    tensors = safetensors.torch.load_file(folder / f"{own}{TENSORS_FILE}")
    groups = []
    for place, kept in enumerate(stored["groups"]):
        group = Group(
            kept["row"],
            rows[kept["row"]],
            kept["ids"],
            [read(session, ids, limit) for ids in kept["ids"]],
            counted=kept["counted"],
            target=kept.get("target"),
            advantage=tensors[f"{place}.advantage"],
        )
        sizes = [len(ids) for ids in group.ids]
        for name in ("old", "reference"):
            if f"{place}.{name}" in tensors:
                setattr(group, name, list(tensors[f"{place}.{name}"].split(sizes)))
        groups.append(group)
    return Rollout(groups, 0.0, 0)
