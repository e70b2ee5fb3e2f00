"""`toasterft arena` in a process of its own, as a user would start it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx


class Server:
    """A running arena.

    Attributes:
        info: what `--json` printed; `url` is the one-time link.
        address: the same without the key.
    """

    def __init__(self, *words: Any, log: Path | None = None) -> None:
        command = [sys.executable, "-m", "toasterft", "arena", *map(str, words), "--no-browser", "--json"]
        errors = log.open("ab") if log else None
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert self.process.stdout is not None
        told = ""
        for line in self.process.stdout:
            told += line
            if line.rstrip() == "}":
                break
        assert told, "the arena ended before it began"
        self.info = json.loads(told)
        self.address, _, self.key = self.info["url"].partition("#key=")
        self.port = int(self.address.rsplit(":", 1)[1].strip("/"))

    def client(self) -> httpx.Client:
        """A browser's worth of HTTP, not yet let in."""
        return httpx.Client(base_url=self.address, headers={"sec-fetch-site": "same-origin"}, trust_env=False)

    def kill(self) -> None:
        """As `kill -9` does."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """As Ctrl-C does; the exit code."""
        self.process.send_signal(2)
        return self.process.wait(timeout=20)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()


def until(condition: Any, seconds: float = 10.0) -> Any:
    """What `condition()` returns once it is true."""
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found or time.monotonic() > end:
            assert found, condition
            return found
        time.sleep(0.02)
