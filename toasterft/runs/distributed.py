"""Rank and world size of a training under `accelerate launch`, and what all ranks must agree on.

Rank 0 alone reads the command line, owns the run's folder and prints. The others receive its job, take their share of
rows and images, and print nothing. Whatever must not differ between ranks goes through here: the job and the folder,
whether to stop, and errors: what one rank meets before the first step is raised in all, so that none waits for another
that is gone.

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
# The longest that one rank may wait for another: while rank 0 reads its data, or one encodes larger images.
TIMEOUT = datetime.timedelta(hours=2)

_shared_error = False


def world_size() -> int:
    """World size: processes on all machines."""
    return _variable(COUNT, 1)


def rank() -> int:
    """Rank of this process; 0 is the main one."""
    return _variable(INDEX, 0)


def is_main() -> bool:
    return rank() == 0


def local_rank_and_size() -> tuple[int, int]:
    """Local rank and local world size."""
    return _variable(LOCAL_INDEX, 0), _variable(LOCAL_COUNT, 1)


def _variable(name: str, default: int) -> int:
    """A variable of the launcher; what is no number is refused by `require_those_asked_for`."""
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else default


def was_launched() -> bool:
    """Whether this process's parent is torchrun or `accelerate launch`, at its first attempt."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0"


def command(processes: int | None = None) -> str:
    """The launch command of this program for `processes`, by default as many as now, for messages."""
    processes = world_size() if processes is None else processes
    # Without `--multi_gpu` accelerate starts one process where it finds no second GPU.
    return (
        "toasterft"
        if processes == 1
        else f"accelerate launch --multi_gpu --num_processes {processes} -m toasterft"
    )


def env_without_ranks() -> dict[str, str]:
    """The environment without the ranks' variables, for a command that is started from here."""
    ours = (COUNT, INDEX, LOCAL_COUNT, LOCAL_INDEX, "MASTER_", "TORCHELASTIC_", "ACCELERATE_")
    return {key: value for key, value in os.environ.items() if not key.startswith(ours)}


def require_those_asked_for() -> None:
    """
    Raises:
        UserError: several were asked for, and this is the only one; or a launcher's variable is no number.
    """
    for name in (COUNT, INDEX, LOCAL_COUNT, LOCAL_INDEX):
        if not os.environ.get(name, "0").isdecimal():
            raise UserError(
                f"{os.environ[name]!r} is no number; nothing was run",
                where=name,
                why="a launcher of several processes sets this variable",
                next_step=f"unset {name}   for one process",
            )
    # accelerate 1.15 (simple_launcher): on a CPU, or with one GPU, it sets the address and starts one process.
    if {"ACCELERATE_MIXED_PRECISION", "MASTER_ADDR", "MASTER_PORT"} <= set(
        os.environ
    ) and COUNT not in os.environ:
        raise UserError(
            "accelerate started one process where several were requested; nothing was run",
            why="without `--multi_gpu` it does that where it finds fewer than two GPUs",
            next_step="accelerate launch --multi_gpu --num_processes N -m toasterft …   (on a CPU too)",
        )


def require_a_gpu_each() -> None:
    """
    Raises:
        UserError: this machine has GPUs, and fewer than processes.
    """
    import torch

    _, here = local_rank_and_size()
    gpus = torch.cuda.device_count()
    if 0 < gpus < here:
        raise UserError(
            f"{here} processes on {gpus} GPU{'s' if gpus > 1 else ''}; nothing was run",
            why="each process trains on a GPU of its own",
            next_step=f"{command(gpus)} …",
        )


def init_process_group() -> None:
    """Initialise the process group, each rank on the GPU of its local rank; nothing where that is done."""
    import torch
    from torch import distributed

    if distributed.is_initialized():
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(local_rank_and_size()[0] % torch.cuda.device_count())
    else:
        # accelerate 1.15 calls a process's CPU `cpu:0`, where torch cannot load an optimizer's state to.
        os.environ.setdefault("ACCELERATE_TORCH_DEVICE", "cpu")
    if threading.current_thread() is threading.main_thread() and not is_main():
        # While it waits in C++ for the main process, Python's own handler would not come to its turn.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=TIMEOUT)


def broadcast(value: Any = None) -> Any:
    """Broadcast rank 0's value to all ranks."""
    if world_size() == 1:
        return value
    from torch import distributed

    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def all_gather(value: Any) -> list[Any]:
    """All-gather the values of all ranks, in their order."""
    if world_size() == 1:
        return [value]
    from torch import distributed

    found = [None] * world_size()
    distributed.all_gather_object(found, value)
    return list(found)


def all_reduce_max(values: Sequence[int]) -> list[int]:
    """All-reduce: the largest of each value over all ranks."""
    if world_size() == 1:
        return list(values)
    import torch
    from torch import distributed

    found = torch.tensor(values, dtype=torch.int64)
    distributed.all_reduce(found, distributed.ReduceOp.MAX)
    return [int(value) for value in found.tolist()]


@contextmanager
def share_errors() -> Iterator[None]:
    """Raise the first error of any rank in all of them, at the end of the block.

    Inside, ranks may wait for each other only where all of them come to it.
    """
    global _shared_error
    mine: ToasterError | None = None
    try:
        yield
    except ToasterError as problem:
        mine = problem
    first = next((each for each in all_gather(mine) if each is not None), None)
    if first is None:
        return
    _shared_error = True
    raise mine if mine is not None and is_main() else first


def is_lost_rank(error: BaseException) -> bool:
    """Whether an error means that another rank has ended."""
    global _shared_error
    if world_size() == 1:
        return False
    from torch import distributed

    found = isinstance(error, distributed.DistError) or (
        isinstance(error, RuntimeError) and "gloo" in str(error)
    )
    _shared_error |= found
    return found


def prints_ending() -> bool:
    """Whether this rank prints how it ends: rank 0, and another with an error of its own."""
    return is_main() or not _shared_error


@contextmanager
def lead_ranks() -> Iterator[None]:
    """Run the command on rank 0; where it ends without a training, the other ranks, which wait for one, end too."""
    code: Any = 1
    try:
        yield
        code = 0
    except SystemExit as end:
        code = end.code or 0
        raise
    finally:
        if world_size() > 1:
            _leave(code)


def _leave(code: int) -> None:
    from torch import distributed

    with suppress(RuntimeError):  # the others may have been ended by whoever started them
        if _shared_error:
            # A launcher ends all that are left once one has failed: the main process may still have things to do.
            all_gather(None)
        elif is_main() and not distributed.is_initialized() and code != 128 + signal.SIGINT:
            init_process_group()
            broadcast(code)
    if code == 0 and distributed.is_initialized():
        distributed.destroy_process_group()
