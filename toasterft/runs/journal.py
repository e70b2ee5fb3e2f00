"""Journals: append-only files of JSON lines, from which whatever was killed resumes.

A run's metrics and answers, the paid answers of `cot build`, `cot facts` and DyME's teachers, the samples of
`cot pairs` and DPO's reference are such files. A line ends at "\\n" alone: `str.splitlines` would also break an answer
at U+2028, U+2029 or U+0085, which JSON leaves as they are.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, repeat, takewhile
from pathlib import Path
from typing import IO, Any

from toasterft import paths
from toasterft.errors import UserError
from toasterft.paths import Typed


def read(path: Path, types: type[Typed] | None = None) -> Iterator[Any]:
    """Every line that is whole; a kill or a power cut may have torn one. None of a file that does not exist.

    Args:
        types: what the fields of its objects must be; a line with others counts as torn.

    Raises:
        UserError: the file cannot be read.
    """
    if path.exists():
        try:
            lines = path.read_bytes().split(b"\n")
        except OSError as error:
            raise UserError(f"cannot be read ({error.strerror})", where=str(path)) from None
        for line in lines:
            try:
                row = json.loads(line)
                if types is not None:
                    types.model_validate(row)
            except (ValueError, RecursionError):
                continue
            yield row


def append(path: Path, row: Any) -> None:
    """Append one line, which then survives a kill of the process."""
    try:
        with open(path, "ab") as file:
            file.write(_encode(row))
    except OSError as error:
        raise paths.disk_error(error, path) from error


def rewrite(path: Path, rows: Iterable[Any]) -> None:
    """Replace all lines at once: readers see the old ones or the new ones."""
    paths.write_atomic(path, b"".join(map(_encode, rows)))


def lock(file: IO[Any], what: str, **facts: Any) -> None:
    """Keep every other process off a file until it is closed.

    Raises:
        UserError: `what`, because another process has locked it; the file is closed.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise UserError(what, **facts) from None


class Journal:
    """A journal that is this process's own until it is closed.

    Raises:
        UserError: from the constructor: another process writes it, or the disk does not let us.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "a+b", buffering=0)  # noqa: SIM115 - closing it unlocks
        except OSError as error:
            raise paths.disk_error(error, path) from error
        lock(
            self._file,
            f"another process is writing {path.name}",
            where=str(path),
            next_step="wait for it, or end it: what it has written is kept",
        )
        content = path.read_bytes()
        if content and not content.endswith(b"\n"):
            self._write(b"\n")  # half a line must not swallow the next one

    def rows(self) -> Iterator[Any]:
        """Every whole line."""
        return read(self.path)

    def append(self, rows: Iterable[Any], *, sync: bool = True) -> None:
        """Append lines; with `sync` they are on the disk when this returns, and survive a power cut too."""
        self._write(b"".join(map(_encode, rows)))
        if sync:
            os.fsync(self._file.fileno())

    def whole_batches(
        self,
        keys: Sequence[Any],
        size: int | Sequence[int],
        key: Callable[[Any], Any],
        types: type[Typed] | None = None,
    ) -> list[Any]:
        """Cut the file back to whole batches and return its rows: what follows then comes out as if undisturbed.

        Args:
            keys: of all rows in order; the first row with another key, and what follows it, is dropped.
            size: rows of a batch, or of each of them. The last batch of all may be smaller.
            types: what the fields of a row must be; one with others counts as torn.
        """
        found: list[Any] = []
        lines = self.path.read_bytes().split(b"\n")
        for line, expected in zip(lines, keys):
            try:
                row = json.loads(line)
                if types is not None:
                    types.model_validate(row)
            except (ValueError, RecursionError):
                break
            if key(row) != expected:
                break
            found.append(row)
        ends = accumulate(repeat(size) if isinstance(size, int) else size, initial=0)
        whole = max(takewhile(lambda end: end <= len(found), ends))
        count = len(found) if len(found) == len(keys) else whole
        self._file.truncate(sum(len(line) + 1 for line in lines[:count]))
        return found[:count]

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, data: bytes) -> None:
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            raise paths.disk_error(error, self.path) from error


def _encode(row: Any) -> bytes:
    return (json.dumps(row, ensure_ascii=False, default=str) + "\n").encode()
