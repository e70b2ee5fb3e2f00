"""Processes that start with the heavy libraries imported: each is a fork of one that did nothing but import them.

To whoever kills, signals or waits for it, such a process is like any other; what is saved is importing torch and its
kin over and over, most of what a short training takes. A test of the start itself starts `python` instead.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from multiprocessing.context import ForkServerProcess
from pathlib import Path

IMPORTED = (
    "matplotlib.pyplot", "toasterft.cli.train", "toasterft.engine.transformers_engine",
    "toasterft.evaluation.evaluate", "toasterft.training.dpo", "toasterft.training.dyme", "toasterft.training.grpo",
    "toasterft.training.sft", "transformers.models.idefics3.modeling_idefics3",
)  # fmt: skip


class Forked:
    """`python WORDS…` as a fork, with what tests ask of a `subprocess.Popen`; its texts are there once it has ended."""

    def __init__(self, words: list[str], env: dict[str, str]) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(IMPORTED))
        self._folder = tempfile.TemporaryDirectory()
        self._said = [Path(self._folder.name, name) for name in ("out", "err")]
        self._process: ForkServerProcess = context.Process(target=_become, args=(words, env, self._said))
        self._process.start()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("a fork", timeout or 0)
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self.wait(timeout)
        out, err = (path.read_text() for path in self._said)
        return out, err

    def send_signal(self, number: int) -> None:
        assert self._process.pid
        os.kill(self._process.pid, number)


def _become(words: list[str], env: dict[str, str], said: list[Path]) -> None:
    assert set(IMPORTED) <= sys.modules.keys(), "nothing is saved"
    become(words, env, said)


def become(words: list[str], env: dict[str, str], said: list[Path]) -> None:
    """In a fork: what Python does between its start and its end, its output in two files."""
    for number, path in enumerate(said, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ |= env
    signal.signal(signal.SIGINT, signal.default_int_handler)
    kind, *rest = words
    try:
        if kind == "-m":
            sys.argv = rest
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        elif kind == "-c":
            exec(rest[0], {"__name__": "__main__"})
        else:
            sys.argv = words
            runpy.run_path(kind, run_name="__main__")
    finally:
        atexit._run_exitfuncs()
