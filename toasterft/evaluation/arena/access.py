"""Who may come in: a link works once, and is exchanged for a cookie that the browser keeps.

The secret of a link stands behind its `#`: browsers send that part to nobody, so that no log, no
referrer, and no messenger that previews links can use it up.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections.abc import Callable

from toasterft.evaluation.arena.votes import Votes

COOKIE_SECONDS = 30 * 24 * 3600


class AccessControl:
    """The open links, and the cookies given out for spent ones.

    Args:
        votes: keeps the cookies' hashes, so that they outlive the server.
        spent: called after a link was used, to show the next one.
    """

    def __init__(self, votes: Votes, spent: Callable[[], None] = lambda: None) -> None:
        self._votes, self._spent = votes, spent
        self._keys: set[str] = set()
        self._lock = threading.Lock()

    def new_key(self) -> str:
        """The secret of a new link, 192 random bits."""
        key = secrets.token_urlsafe(24)
        with self._lock:
            self._keys.add(key)
        return key

    def redeem(self, key: str) -> str | None:
        """The secret of a new cookie for the key of a link; None for a wrong or spent one."""
        with self._lock:
            known = {each for each in self._keys if hmac.compare_digest(each.encode(), key.encode())}
            if not known:
                return None
            self._keys -= known
        cookie = secrets.token_urlsafe(32)
        self._votes.open_session(_digest(cookie))
        self._spent()
        return cookie

    def admits(self, cookie: str | None) -> bool:
        """Whether a cookie was given out here, by this server or one before it."""
        return bool(cookie) and self._votes.has_session(_digest(cookie or ""))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
