"""Live bytes: every tensor that an operator returns, every storage that dies, and the highest sum of them."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Tracker(TorchDispatchMode):
    """Bytes of live storages while it is entered: now, at most, and at most per phase.

    A storage counts once, from the operator that returned it to its last reference. Tensors that were there
    before are counted when they are given to `add`, or when a view of them is a result.

    Attributes:
        now_bytes, peak_bytes: live at the moment, and at most.
        peak_phase: name of the phase in which `peak_bytes` was reached.
        phases: highest bytes per phase.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now_bytes = self.peak_bytes = 0
        self.phase_name = self.peak_phase = "start"
        self.phases: dict[str, int] = {}
        self._live: dict[int, tuple[Any, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.add(leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor))
        return out

    def add(self, tensors: Iterable[torch.Tensor]) -> int:
        """Count the storages of existing tensors; returns the bytes of those not yet counted."""
        before = self.now_bytes
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key not in self._live:
                size = storage.nbytes()
                self._live[key] = weakref.ref(storage, functools.partial(self._gone, key)), size
                self.now_bytes += size
        if self.now_bytes > self.phases.get(self.phase_name, 0):
            self.phases[self.phase_name] = self.now_bytes
        if self.now_bytes > self.peak_bytes:
            self.peak_bytes, self.peak_phase = self.now_bytes, self.phase_name
        return self.now_bytes - before

    def _gone(self, key: int, _reference: Any) -> None:
        self.now_bytes -= self._live.pop(key)[1]

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Peaks within belong to `name` (and not to the phase around it)."""
        outer, self.phase_name = self.phase_name, name
        try:
            yield
        finally:
            self.phase_name = outer


def report(tracker: Tracker, items: dict[str, int]) -> dict[str, Any]:
    """The result of a replay; `items` were counted before it."""
    return {
        **items,
        "activations": tracker.peak_bytes - sum(items.values()),
        "peak": tracker.peak_bytes,
        "phase": tracker.peak_phase,
        "phases": tracker.phases,
    }
