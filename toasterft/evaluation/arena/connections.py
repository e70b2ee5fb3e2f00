"""What connections may do before anything of them is understood: a time limit, a number limit, and the right names.

A page on another site can make a browser send requests to this machine, even under a name of its own that it points
here (DNS rebinding); and any program on this machine can open connections and leave them hanging.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

import h11
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

# Votes are a few hundred bytes: even over a slow tunnel a request is here in a second.
REQUEST_SECONDS = 10.0
# A browser opens six; beyond this, the one that has kept the arena waiting longest is closed.
MAX_CONNECTIONS = 100
LOOPBACK_NAMES = ("127.0.0.1", "localhost")


class TimedConnection(H11Protocol):
    """uvicorn's connection that is closed where a request takes too long to arrive, or where there are too many."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        waiting = [one for one in self.connections if isinstance(one, TimedConnection) and one._deadline]
        if len(self.connections) >= MAX_CONNECTIONS and waiting:
            min(waiting, key=lambda one: one._deadline.when() if one._deadline else 0.0)._hang_up()
        super().connection_made(transport)
        self._watch()
        if len(self.connections) > MAX_CONNECTIONS:
            self._hang_up()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_watching()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Start the clock with the first byte of a request, and stop it with the last."""
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._stop_watching()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(REQUEST_SECONDS, self._hang_up)

    def _stop_watching(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _hang_up(self) -> None:
        self._stop_watching()
        self.connections.discard(self)
        self.transport.abort()


class KnownNames:
    """Refuse requests under another host's name, and those that another site's page makes.

    Args:
        names: host names beside this machine's own under which the page is reached, such as a tunnel's.
    """

    def __init__(self, app: ASGIApp, names: Collection[str] = ()) -> None:
        self.app = app
        self._tunnels = {name.lower() for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = self._problem(Headers(scope=scope)) if scope["type"] == "http" else None
        answer = self.app if problem is None else JSONResponse({"error": problem}, status_code=403)
        await answer(scope, receive, send)

    def _problem(self, headers: Headers) -> str | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        name = _host_name(f"//{host}")
        if len(headers.getlist("host")) != 1 or name not in {*LOOPBACK_NAMES, *self._tunnels}:
            return f"not served as {name[:80]!r}: a tunnel's name is given when the arena starts, with --host"
        # A tunnel may write this machine's name into `Host`, and leaves `Origin` as the browser sent it.
        if (
            origin is not None
            and origin.partition("://")[2] != host
            and _host_name(origin) not in self._tunnels
        ):
            return "not from another site"
        return None


def _host_name(address: str) -> str:
    try:
        return (urlsplit(address).hostname or "").lower()
    except ValueError:
        return ""
