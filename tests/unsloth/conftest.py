"""The real Unsloth for tests: commands of the package, run in forks of one process that has imported it."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unsloth import standin

STARTING_SECONDS = 300.0


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Address of the process that has imported Unsloth; several test processes share it."""
    if not standin.WHEELS.is_dir():
        pytest.skip(f"Unsloth's wheels are not in {standin.WHEELS} (make puts them there)")
    root = tmp_path_factory.getbasetemp()
    folder = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    address, log = folder / "unsloth.socket", folder / "unsloth.log"
    with (folder / "unsloth.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not address.exists():
            env = os.environ | standin.environment() | {"UNSLOTH_COMPILE_LOCATION": str(folder / "compiled")}
            words = [sys.executable, str(Path(__file__).parent / "imported.py"), str(address)]
            with log.open("w") as said:
                process = subprocess.Popen(words, env=env, cwd=folder, stdout=said, stderr=said)
            ends = time.monotonic() + STARTING_SECONDS
            while not address.exists():
                if process.poll() is not None or time.monotonic() > ends:
                    process.kill()
                    pytest.fail(
                        f"Unsloth could not be imported under the stand-in:\n{log.read_text()[-4000:]}"
                    )
                time.sleep(0.05)
        # It ends with the last who is connected.
        staying = socket.socket(socket.AF_UNIX)
        staying.connect(str(address))
    yield address
    staying.close()


class Running:
    """`python WORDS…` in a fork. `wait` for it: `.code`, `.out`, `.err`, and `.json()` of stdout."""

    def __init__(self, address: Path, folder: Path, words: tuple[Any, ...]) -> None:
        self._said = [folder / f"unsloth{time.monotonic_ns()}.{name}" for name in ("out", "err")]
        env = {name: value for name, value in os.environ.items() if name.startswith("TOASTERFT_")}
        # A cache of its own: features that the plain engine encoded would prove nothing.
        env["TOASTERFT_CACHE"] = str(folder / "unsloth-cache")
        asked = {
            "words": list(map(str, words)),
            "env": env,
            "said": list(map(str, self._said)),
        }
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(str(address))
        self._connection.sendall(json.dumps(asked).encode())
        self._lines = self._connection.makefile()
        self.pid = int(self._lines.readline())

    def alive(self) -> bool:
        with suppress(ProcessLookupError):
            os.kill(self.pid, 0)
            return True
        return False

    def wait(self) -> SimpleNamespace:
        code = int(self._lines.readline())
        self._lines.close()
        self._connection.close()
        out, err = (path.read_text() for path in self._said)
        return SimpleNamespace(code=code, out=out, err=err, json=lambda: json.loads(out))


@pytest.fixture
def start_unsloth(forks: Path, homes: Path) -> Callable[..., Running]:
    """Start a command of the package where Unsloth is imported and a CUDA device seems to be there."""
    return lambda *words: Running(forks, homes, ("-m", "toasterft", *words))


@pytest.fixture
def unsloth_cli(start_unsloth: Callable[..., Running]) -> Callable[..., SimpleNamespace]:
    """Like `run_cli`, where Unsloth is imported and a CUDA device seems to be there."""
    return lambda *words: start_unsloth(*words).wait()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Loss and gradient norm of the last step, of every training that ran on both engines."""
    rows = [
        (report.nodeid.partition("::")[2].removeprefix("test_"), *[steps[max(steps)] for steps in value])
        for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
        for name, value in report.user_properties
        if name == "figures" and report.when == "call"
    ]
    if rows:
        terminalreporter.section("the last step's loss and gradient norm: plain engine, Unsloth")
    for name, plain, unsloth in rows:
        terminalreporter.write_line(
            f"{name:<50} {plain[0]:10.6f} {unsloth[0]:10.6f}   {plain[1]:9.5f} {unsloth[1]:9.5f}"
        )
