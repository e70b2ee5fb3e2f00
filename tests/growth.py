"""How the work of something grows with its input, whatever the machine: two sizes, one run, one ratio."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

TIMES = 4
# Four times the input is 16 times the work where it grows with the square, and 64 times with the cube.
MOST_TIMES_THE_WORK = 32
# Below this a clock says little; a runaway pattern is far above it at the sizes that tests take.
LEAST_SECONDS = 0.02
ATTEMPTS = 3


def times_the_work(work: Callable[[int], Any], size: int) -> float:
    """How many times the processor's seconds of `work(size / 4)` it takes for `work(size)`.

    The best of some attempts: other work on the machine makes each of them longer, never shorter. It is over
    with the first attempt whose ratio is in order.
    """
    small = large = float("inf")
    for _ in range(ATTEMPTS):
        small = min(small, _seconds(work, size // TIMES))
        large = min(large, _seconds(work, size))
        if large <= MOST_TIMES_THE_WORK * max(small, LEAST_SECONDS):
            break
    return large / max(small, LEAST_SECONDS)


def calls(work: Callable[[], Any]) -> int:
    """How many functions are called, Python's and C's: the same on every machine."""
    count = 0

    def one(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(one)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def _seconds(work: Callable[[int], Any], size: int) -> float:
    began = time.thread_time()
    work(size)
    return time.thread_time() - began
