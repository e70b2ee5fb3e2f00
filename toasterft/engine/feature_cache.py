"""The image-feature cache on disk: its layout, its size limit, and least-recently-used eviction.

An entry is one file named after the image's content, in a folder ("space") named after everything
else that decides its value: model weights, processor settings, dtype, engine, versions. Files are
written beside their name and renamed, so a killed process leaves no half entry. Nothing here knows
what is inside a file; `engine/image_features.py` does.
"""

from __future__ import annotations

import os
import shutil
import time
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toasterft import paths
from toasterft.errors import UserError
from toasterft.paths import Typed

SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Space:
    """One folder of the cache, and the settings its entries were made with."""

    path: Path
    about: dict[str, Any]
    entries: int
    size_bytes: int


def root() -> Path:
    return paths.cache_dir() / "features"


def default_limit_bytes() -> int:
    """Half of the disk space that is free without the cache."""
    return (paths.free_bytes(root()) + sum(space.size_bytes for space in spaces())) // 2


def spaces() -> list[Space]:
    """Every folder of the cache, with its size."""
    found = []
    for path in sorted(root().glob("*/space.json")):
        sizes = [stat.st_size for _, stat in _entries(path.parent)]
        try:
            about = paths.read_json(path, Typed) or {}
        except UserError:
            about = {}  # what it was made with is for people; its entries are known by their folder's name
        found.append(Space(path.parent, about, len(sizes), sum(sizes)))
    return found


def clear() -> int:
    """Delete the cache; returns the bytes freed."""
    freed = sum(space.size_bytes for space in spaces())
    shutil.rmtree(root(), ignore_errors=True)
    return freed


def _entries(folder: Path) -> list[tuple[Path, os.stat_result]]:
    found = []
    for path in folder.glob(f"??/*{SUFFIX}"):
        with suppress(FileNotFoundError):  # another process makes room at the same time
            if not path.name.startswith("."):
                found.append((path, path.stat()))
    return found


class Store:
    """Entries of one space, under a size limit for the whole cache.

    The least recently used entries of earlier runs make room. An entry used since this store was
    opened is never dropped: a data set larger than the limit would otherwise evict itself in every
    epoch. What does not fit is simply not stored.
    """

    def __init__(self, key: str, about: dict[str, Any], limit_bytes: int) -> None:
        self.folder = root() / key
        self.limit_bytes = limit_bytes
        self.full = False
        self._opened = time.time()
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "space.json").exists():
            paths.write_json(self.folder / "space.json", about)
        self._used = sum(space.size_bytes for space in spaces())
        self._place, self._sharers = 0, 1

    def share(self, place: int, sharers: int) -> None:
        """Fill the room that is left together with other processes: each its part, so that all keep the limit."""
        self._place, self._sharers = place, sharers
        self.limit_bytes = self._used + max(0, self.limit_bytes - self._used) // sharers

    def path(self, name: str) -> Path:
        return self.folder / name[:2] / f"{name}{SUFFIX}"

    def get(self, name: str) -> Path | None:
        """The entry's file, marked as used, or None."""
        path = self.path(name)
        try:
            os.utime(path)
        except FileNotFoundError:
            return None
        return path

    def put(self, name: str, data: bytes) -> bool:
        """Store an entry if there is room for it; whether there was."""
        if not self._make_room(len(data)):
            self.full = True
            return False
        path = self.path(name)
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            temporary.write_bytes(data)
            os.replace(temporary, path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise paths.disk_error(error, path) from error
        self._used += len(data)
        return True

    def drop(self, name: str) -> None:
        """Forget an entry that turned out to be damaged."""
        self.path(name).unlink(missing_ok=True)

    def _make_room(self, needed_bytes: int) -> bool:
        if self._used + needed_bytes <= self.limit_bytes:
            return True
        if self.full:
            return False
        old = [
            (stat.st_mtime, stat.st_size, entry)
            for space in spaces()
            for entry, stat in _entries(space.path)
            if zlib.crc32(entry.name.encode()) % self._sharers == self._place
        ]
        for used_at, size_bytes, entry in sorted(old):
            if used_at >= self._opened or self._used + needed_bytes <= self.limit_bytes:
                break
            self._used -= size_bytes
            entry.unlink(missing_ok=True)
        return self._used + needed_bytes <= self.limit_bytes
