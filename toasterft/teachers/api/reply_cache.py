"""Replies that any job has paid for, in the cache folder by the key of their request."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from toasterft import paths
from toasterft.errors import UserError
from toasterft.teachers.api.types import Reply


class ReplyCache:
    """A file for each reply, named by its request's key; what is damaged is not there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str) -> Reply | None:
        try:
            record = paths.read_json(self._file(key))
        except UserError:
            return None
        return Reply.of_record(record)

    def put(self, key: str, reply: Reply, endpoint: str) -> None:
        """
        Args:
            endpoint: the address, without its password.
        """
        self._file(key).parent.mkdir(parents=True, exist_ok=True)
        paths.write_json(self._file(key), {"endpoint": endpoint, **asdict(reply)})

    def _file(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"
