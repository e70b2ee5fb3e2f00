"""What `gpu.py` sees of a training from inside its process, beyond what the run's own ledger says. Heavy."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

import torch
import transformers

from toasterft.training import monitor, run

# Of a context and libraries' workspaces; anything else is another process that came or went in the meantime.
PLAUSIBLE_OUTSIDE_BYTES = (50e6, 3e9)


def synchronize() -> None:
    """Wait for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def outside_bytes(used_bytes: int | None) -> int | None:
    """What this process holds of the GPU outside torch's allocator; None where that cannot be told.

    Args:
        used_bytes: of the GPU, before this process began.
    """
    if used_bytes is None or not torch.cuda.is_available():
        return None
    free, total = torch.cuda.mem_get_info()
    found = int(total - free - used_bytes - torch.cuda.memory_reserved())
    low, high = PLAUSIBLE_OUTSIDE_BYTES
    return found if low < found < high else None


class StepClock(transformers.TrainerCallback):
    """Seconds of an optimizer step, reading its data included, whoever's trainer it is.

    Args:
        warm: first steps that do not count.
    """

    def __init__(self, warm: int) -> None:
        self.warm, self.ends = warm, [0.0]

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._now(start=True)

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self._now()

    def _now(self, *, start: bool = False) -> None:
        synchronize()
        self.ends = [time.perf_counter()] if start else [*self.ends, time.perf_counter()]

    @property
    def step_seconds(self) -> float:
        """Mean over the steps that count.

        Raises:
            ValueError: there were none.
        """
        counted = self.ends[self.warm :]
        if len(counted) < 2:
            raise ValueError(
                f"{len(self.ends) - 1} optimizer steps: none is left after {self.warm} for warming up"
            )
        return (counted[-1] - counted[0]) / (len(counted) - 1)


class Watched:
    """While it is entered, a run of ours is timed like its peers' and its allocator is watched by phase.

    Attributes:
        allocated_bytes: by phase, the peak of what tensors asked for; empty without a GPU. The ledger's is what the
            allocator reserved for them.
        four_bit_layers: linear layers that hold 4-bit weights.
        optimizer: class, bits of its states, and whether they are paged.
        checkpointing: the function that recomputes activations.
    """

    def __init__(self, warm: int) -> None:
        self.clock = StepClock(warm)
        self.allocated_bytes: dict[str, int] = {}
        self.four_bit_layers = 0
        self.optimizer: dict[str, Any] = {}
        self.checkpointing: str | None = None

    def __enter__(self) -> Watched:
        outer, allocated = self, self.allocated_bytes

        class Phases(monitor.Phases):
            def _note(self) -> None:
                super()._note()
                if torch.cuda.is_available():
                    now = int(torch.cuda.max_memory_allocated())
                    allocated[self._name] = max(allocated.get(self._name, 0), now)

        def train_from(trainer: transformers.Trainer, checkpoint: str | None) -> None:
            trainer.add_callback(outer.clock)
            outer._original[1](trainer, checkpoint)
            outer._look_at(trainer)

        self._original = monitor.Phases, run.train_from
        monitor.Phases, run.train_from = Phases, train_from  # type: ignore[misc]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        monitor.Phases, run.train_from = self._original  # type: ignore[misc]

    def _look_at(self, trainer: transformers.Trainer) -> None:
        """What the run was really made of."""
        modules = list(trainer.model.modules())
        self.four_bit_layers = sum(type(module).__name__ == "Linear4bit" for module in modules)
        inner = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
        self.optimizer = {
            "class": f"{type(inner).__module__.split('.')[0]}.{type(inner).__name__}",
            "bits": getattr(getattr(inner, "args", None), "optim_bits", None),
            "paged": getattr(inner, "is_paged", None),
        }
        functions = [getattr(module, "_gradient_checkpointing_func", None) for module in modules]
        used = next((each for each in functions if each is not None), None)
        if used is not None:
            plain = getattr(used, "func", used)
            self.checkpointing = f"{plain.__module__}.{plain.__qualname__}"
