"""A process that imports Unsloth once, under the stand-in, and runs every command in a fork of itself.

Importing it takes half a minute; a fork starts at once, with libraries as they were after the import. The process
listens on a socket, so that several test processes share it, and ends with the last of them.
"""

from __future__ import annotations

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


def serve(address: Path) -> None:
    """Answer requests until nobody is connected any more."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(f"{address}.new")
    listening.listen()
    _imports()
    os.rename(f"{address}.new", address)  # whoever finds it is answered
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for forks here
    selector = selectors.DefaultSelector()
    selector.register(listening, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is listening:
                connection, _ = listening.accept()
                selector.register(connection, selectors.EVENT_READ)
                continue
            connection = key.fileobj
            asked = connection.recv(1 << 20)
            if not asked:
                selector.unregister(connection)
                connection.close()
            elif not os.fork():
                listening.close()
                _answer(connection, json.loads(asked))
        if len(selector.get_map()) == 1:
            return


def _imports() -> None:
    """The engine before everything else, as a run does; then what runs import."""
    from toasterft.engine import open_engine
    from toasterft.recipe import MODULES

    open_engine("unsloth")
    for name in MODULES.values():
        importlib.import_module(name)


def _answer(connection: socket.socket, asked: dict[str, Any]) -> None:
    """Run what was asked in a fork of its own, which may be killed: say its number, then how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    process = os.fork()
    if not process:
        _run(asked)
    connection.sendall(f"{process}\n".encode())
    _, status = os.waitpid(process, 0)
    connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _run(asked: dict[str, Any]) -> None:
    code: Any = 70
    try:
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(asked[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        os.chdir(asked["folder"])
        os.environ.update(asked["environment"])
        sys.argv = ["toasterft", *asked["words"]]
        from toasterft import cli

        cli.main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
