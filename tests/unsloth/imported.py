"""A process that imports Unsloth once, under the stand-in, and runs every command in a fork of itself.

Importing it takes half a minute; a fork starts at once, with libraries as they were after the import. Other than the
forks of `tests/forks.py` it listens on a socket: all test processes share it, and it ends with the last of them.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

from tests.forks import become

LINGERING_SECONDS = 5.0


def serve(address: Path) -> None:
    """Answer requests until nobody has been connected for a while."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(f"{address}.new")
    listening.listen()
    _import()
    os.rename(f"{address}.new", address)  # whoever finds it is answered
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for forks here
    selector = selectors.DefaultSelector()
    selector.register(listening, selectors.EVENT_READ)
    while True:
        events = selector.select(LINGERING_SECONDS)
        if not events and len(selector.get_map()) == 1:
            address.unlink()
            return
        for key, _ in events:
            if key.fileobj is listening:
                selector.register(listening.accept()[0], selectors.EVENT_READ)
                continue
            connection: Any = key.fileobj
            asked = connection.recv(1 << 20)
            if not asked:
                selector.unregister(connection)
                connection.close()
            elif not os.fork():
                _answer(connection, **json.loads(asked))


def _import() -> None:
    """The engine before everything else, as a run does; then what runs import."""
    from toasterft.engine import open_engine
    from toasterft.recipe import MODULES

    gc.disable()
    open_engine("unsloth")
    for name in MODULES.values():
        importlib.import_module(name)
    sys.path.insert(0, str(Path(__file__).parents[1]))
    importlib.import_module("recomputations").install()
    # Unsloth collects garbage dozens of times while it loads a model: half of a fork's time, and none is here.
    gc.freeze()
    gc.enable()


def _answer(connection: socket.socket, words: list[str], env: dict[str, str], said: list[str]) -> None:
    """Run a command in a fork of its own, which may be killed: say its number, then how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    process = os.fork()
    if not process:
        try:
            become(words, os.environ | env, [Path(path) for path in said])
        except BaseException:
            traceback.print_exc()
        os._exit(1)  # a command ends the process itself where all is well
    connection.sendall(f"{process}\n".encode())
    _, status = os.waitpid(process, 0)
    connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
