"""The processes of one training, as `accelerate launch` starts them: which one this is, and what they agree on.

The main process alone reads the command line, owns the run's folder and speaks. The others are handed its job, take
their share of rows and pictures, and say nothing. Whatever must not differ between them goes through here: the job
and the folder, whether to stop, and problems: what one of them meets before the first step is raised in all, so that
none waits for another that is gone.

With one process all of this does nothing, and torch is not imported.
"""

from __future__ import annotations

import datetime
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from toasterft.errors import ToasterError, UserError

# As torchrun sets them (docs.pytorch.org/docs/stable/elastic/run.html); `accelerate launch` is torchrun.
COUNT, INDEX, LOCAL_COUNT, LOCAL_INDEX = "WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE", "LOCAL_RANK"
# The longest that one may wait for another: while the main process reads its data, or one encodes larger pictures.
PATIENCE = datetime.timedelta(hours=2)

_shared_problem = False


def count() -> int:
    """How many processes train together, on all machines."""
    return int(os.environ.get(COUNT, "1"))


def index() -> int:
    """Which of them this one is; 0 is the main one."""
    return int(os.environ.get(INDEX, "0"))


def is_main() -> bool:
    return index() == 0


def on_this_machine() -> tuple[int, int]:
    """(which, of how many) processes of this machine this one is."""
    return int(os.environ.get(LOCAL_INDEX, "0")), int(os.environ.get(LOCAL_COUNT, "1"))


def command(processes: int | None = None) -> str:
    """How to start this program with as many processes as now, or with so many, for messages."""
    processes = count() if processes is None else processes
    # Without `--multi_gpu` accelerate starts one process where it finds no second GPU.
    return (
        "toasterft"
        if processes == 1
        else f"accelerate launch --multi_gpu --num_processes {processes} -m toasterft"
    )


def alone() -> dict[str, str]:
    """The environment for a command that is started from here: it is not one of the processes."""
    ours = (COUNT, INDEX, LOCAL_COUNT, LOCAL_INDEX, "MASTER_", "TORCHELASTIC_", "ACCELERATE_")
    return {key: value for key, value in os.environ.items() if not key.startswith(ours)}


def require_those_asked_for() -> None:
    """
    Raises:
        UserError: several were asked for, and this is the only one.
    """
    # accelerate 1.15 (simple_launcher): on a CPU, or with one GPU, it sets the address and starts one process.
    if {"ACCELERATE_MIXED_PRECISION", "MASTER_ADDR", "MASTER_PORT"} <= set(
        os.environ
    ) and COUNT not in os.environ:
        raise UserError(
            "accelerate was asked for several processes and started one; nothing was run",
            why="without `--multi_gpu` it does that where it finds fewer than two GPUs",
            next_step="accelerate launch --multi_gpu --num_processes N -m toasterft …   (on a CPU too)",
        )


def require_a_gpu_each() -> None:
    """
    Raises:
        UserError: this machine has GPUs, and fewer than processes.
    """
    import torch

    _, here = on_this_machine()
    gpus = torch.cuda.device_count()
    if 0 < gpus < here:
        raise UserError(
            f"{here} processes on {gpus} GPU{'s' if gpus > 1 else ''}; nothing was run",
            why="each process trains on a GPU of its own",
            next_step=f"{command(gpus)} …",
        )


def join() -> None:
    """Meet the other processes; each turns to the GPU of its number. Once is enough."""
    import torch
    from torch import distributed

    if distributed.is_initialized():
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(on_this_machine()[0] % torch.cuda.device_count())
    else:
        # accelerate 1.15 calls a process's CPU `cpu:0`, where torch cannot load an optimizer's state to.
        os.environ.setdefault("ACCELERATE_TORCH_DEVICE", "cpu")
    if threading.current_thread() is threading.main_thread() and not is_main():
        # While it waits in C++ for the main process, Python's own handler would not come to its turn.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)


def from_main(value: Any = None) -> Any:
    """What the main process gives, in every process."""
    if count() == 1:
        return value
    from torch import distributed

    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def gathered(value: Any) -> list[Any]:
    """The values of all processes, in their order."""
    if count() == 1:
        return [value]
    from torch import distributed

    found = [None] * count()
    distributed.all_gather_object(found, value)
    return list(found)


def largest(values: Sequence[int]) -> list[int]:
    """Each value as large as in the process where it is largest."""
    if count() == 1:
        return list(values)
    import torch
    from torch import distributed

    found = torch.tensor(values, dtype=torch.int64)
    distributed.all_reduce(found, distributed.ReduceOp.MAX)
    return [int(value) for value in found.tolist()]


@contextmanager
def as_one() -> Iterator[None]:
    """What goes wrong for one process inside goes wrong for all: each raises the first one's problem, at the end.

    Inside, processes may wait for each other only where all of them come to it.
    """
    global _shared_problem
    mine: ToasterError | None = None
    try:
        yield
    except ToasterError as problem:
        mine = problem
    first = next((each for each in gathered(mine) if each is not None), None)
    if first is None:
        return
    _shared_problem = True
    raise mine if mine is not None and is_main() else first


def lost(error: BaseException) -> bool:
    """Whether this is what waiting for a process that is gone raises."""
    global _shared_problem
    if count() == 1:
        return False
    from torch import distributed

    found = isinstance(error, distributed.DistError) or (
        isinstance(error, RuntimeError) and "gloo" in str(error)
    )
    _shared_problem |= found
    return found


def speaks() -> bool:
    """Whether this process tells its user how it ends: the main one, and another with a problem of its own."""
    return is_main() or not _shared_problem


@contextmanager
def led() -> Iterator[None]:
    """All that the main process does. Where it ends without a training the others still wait for one: they end too."""
    code: Any = 1
    try:
        yield
        code = 0
    except SystemExit as end:
        code = end.code or 0
        raise
    finally:
        if count() > 1:
            _part(code)


def _part(code: int) -> None:
    from torch import distributed

    with suppress(RuntimeError):  # the others may have been ended by whoever started them
        if _shared_problem:
            # A launcher ends all that are left once one has failed: the main process may still have things to do.
            gathered(None)
        elif is_main() and not distributed.is_initialized() and code != 128 + signal.SIGINT:
            join()
            from_main(code)
    if code == 0 and distributed.is_initialized():
        distributed.destroy_process_group()
