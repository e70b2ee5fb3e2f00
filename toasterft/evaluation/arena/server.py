"""The page on 127.0.0.1, and the few addresses it talks to.

What a model wrote goes out as JSON and is put into the page as text. Should that ever fail, the content
security policy still lets nothing run, load or leave that does not come from here.
"""

from __future__ import annotations

import hashlib
import json
import socket
import sqlite3
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from toasterft.errors import DataError, UserError
from toasterft.evaluation.arena import leaderboard
from toasterft.evaluation.arena.access import COOKIE_SECONDS, AccessControl
from toasterft.evaluation.arena.connections import KnownNames, TimedConnection
from toasterft.evaluation.arena.session import LONGEST_VOTE_SECONDS, Stale, VotingSession
from toasterft.evaluation.arena.votes import AlreadyCast

HOST = "127.0.0.1"
DEFAULT_PORT = 8765
MAX_BODY_BYTES = 16_384
PAGE = Path(__file__).parent / "page"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
# What a request can run into: HTTP status and message. `ValueError` covers names that are none (`BadName`).
PROBLEMS: dict[type[Exception], tuple[int, str]] = {
    ValueError: (400, "{error}"),
    AlreadyCast: (409, "you have voted on this one before"),
    Stale: (409, "this page is out of date"),
    DataError: (404, "the picture cannot be read"),
    sqlite3.Error: (503, "the votes file cannot be used ({error})"),
}

Endpoint = Callable[[Request], Awaitable[Response]]


def build(session: VotingSession, access: AccessControl, names: Collection[str] = ()) -> Starlette:
    """The ASGI app of one arena; `names` are a tunnel's, under which it answers too."""
    # Cookies know no ports: arenas side by side need names of their own.
    cookie = f"arena-{hashlib.sha256(str(session.votes.path.resolve()).encode()).hexdigest()[:12]}"

    def guarded(endpoint: Endpoint) -> Endpoint:
        async def checked(request: Request) -> Response:
            if not access.admits(request.cookies.get(cookie)):
                raise HTTPException(403, "open the arena through a fresh link")
            return await endpoint(request)

        return checked

    async def enter(request: Request) -> Response:
        body = await _body(request)
        if access.admits(request.cookies.get(cookie)):
            return JSONResponse({})  # a link is not used up by a browser that is in already
        secret = access.redeem(_text(body, "key"))
        if secret is None:
            raise HTTPException(403, "this link has been used, or was never given out")
        answer = JSONResponse({})
        answer.set_cookie(cookie, secret, max_age=COOKIE_SECONDS, httponly=True, samesite="lax")
        return answer

    async def state(request: Request) -> Response:
        return JSONResponse(session.state())

    async def next_battle(request: Request) -> Response:
        return JSONResponse(session.show(request.query_params.get("voter", "")))

    async def vote(request: Request) -> Response:
        body = await _body(request)
        seconds: Any = body.get("seconds")
        number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if not number or not 0 <= seconds <= LONGEST_VOTE_SECONDS:  # false for NaN too
            raise HTTPException(400, f"`seconds` is a number from 0 to {LONGEST_VOTE_SECONDS:g}")
        name = _text(body, "voter")
        session.vote(name, _text(body, "battle"), _text(body, "choice"), seconds)
        return JSONResponse(session.show(name))

    async def undo(request: Request) -> Response:
        body = await _body(request)
        vote_id = body.get("vote")
        if not isinstance(vote_id, int) or not 0 <= vote_id < 2**63:
            raise HTTPException(400, "`vote` is a number")
        name = _text(body, "voter")
        return JSONResponse(session.show(name, first=session.undo(name, vote_id)))

    async def invite(request: Request) -> Response:
        await _body(request)
        return JSONResponse({"key": access.new_key()})

    async def image(request: Request) -> Response:
        key, place = request.path_params["key"], request.path_params["place"]
        found = await run_in_threadpool(session.image, key, place)
        if found is None:
            raise HTTPException(404, "no such picture")
        data, media_type = found
        # Long enough for one that was fetched ahead; a key may mean another picture after a restart.
        return Response(data, media_type=media_type, headers={"cache-control": "private, max-age=120"})

    async def ratings(request: Request) -> Response:
        built = await run_in_threadpool(leaderboard.build, session.votes.all(), session.votes.labels())
        if request.url.path.endswith(".csv"):
            return _download(leaderboard.board_csv(built), "leaderboard.csv")
        return JSONResponse(built)

    async def votes_csv(request: Request) -> Response:
        return _download(leaderboard.votes_csv(session.votes.all(), session.votes.labels()), "votes.csv")

    return Starlette(
        routes=[
            *_page_routes(),
            Route("/api/enter", enter, methods=["POST"]),
            Route("/api/state", guarded(state)),
            Route("/api/next", guarded(next_battle)),
            Route("/api/vote", guarded(vote), methods=["POST"]),
            Route("/api/undo", guarded(undo), methods=["POST"]),
            Route("/api/invite", guarded(invite), methods=["POST"]),
            Route("/api/leaderboard", guarded(ratings)),
            Route("/image/{key}/{place:int}", guarded(image)),
            Route("/leaderboard.csv", guarded(ratings)),
            Route("/votes.csv", guarded(votes_csv)),
        ],
        middleware=[Middleware(_SecurityHeaders), Middleware(KnownNames, names)],
        exception_handlers={HTTPException: _refused, **{kind: _problem(kind) for kind in PROBLEMS}},
    )


def listen(port: int | None) -> socket.socket:
    """A listening socket on 127.0.0.1: on `port`, else on the usual one, else on a free one.

    Raises:
        UserError: the port that was asked for is taken.
    """
    for wanted in (port,) if port is not None else (DEFAULT_PORT, 0):
        try:
            listening = socket.create_server((HOST, wanted))
        except OSError as error:
            why = error.strerror
            continue
        # asyncio overlooks sockets made this way, and every answer would wait 40 ms for an acknowledgement.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    raise UserError(
        f"port {port} cannot be used ({why})", where=HOST, next_step="another --port, or none for a free one"
    )


def serve(app: Starlette, listening: socket.socket) -> None:
    """Answer requests until Ctrl-C or SIGTERM."""
    config = uvicorn.Config(
        app, http=TimedConnection, log_level="error", access_log=False, server_header=False, proxy_headers=False,
        lifespan="off", ws="none", timeout_graceful_shutdown=2,
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[listening])


# --- parts -------------------------------------------------------------------------------------


def _page_routes() -> list[Route]:
    """The page's files, by name; no address is ever turned into a path."""

    def route(file: Path) -> Route:
        content = file.read_bytes()

        async def endpoint(request: Request) -> Response:
            return Response(content, headers={"content-type": MEDIA_TYPES[file.suffix]})

        return Route("/" if file.name == "page.html" else f"/{file.name}", endpoint)

    return [route(file) for file in sorted(PAGE.iterdir()) if file.suffix in MEDIA_TYPES]


async def _body(request: Request) -> dict[str, Any]:
    """A small JSON object from this very page.

    A form on another site can send no JSON, and scripts there cannot without asking first, which
    nothing here allows; that is what keeps other sites from voting with this browser's cookie.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "send JSON")
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise HTTPException(403, "not from another site")
    data = b""
    try:
        async for chunk in request.stream():
            data += chunk
            if len(data) > MAX_BODY_BYTES:
                raise HTTPException(413, "too long")
    except ClientDisconnect:
        raise HTTPException(408, "the request broke off") from None
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise HTTPException(400, "not valid JSON") from None
    if not isinstance(found, dict):
        raise HTTPException(400, "send a JSON object")
    return found


def _text(body: dict[str, Any], key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str):
        raise HTTPException(400, f"`{key}` is a text")
    # Half a surrogate pair is valid JSON, and neither UTF-8 nor anything a person types.
    return value.encode("utf-8", "replace").decode()


def _download(text: str, name: str) -> Response:
    # The mark tells spreadsheets that this is UTF-8.
    return Response(
        "\ufeff" + text,
        media_type="text/csv",
        headers={"content-disposition": f'attachment; filename="{name}"'},
    )


def _problem(kind: type[Exception]) -> Callable[[Request, Exception], Awaitable[Response]]:
    status, text = PROBLEMS[kind]

    async def handle(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": text.format(error=error)}, status_code=status)

    return handle


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, status_code=error.status_code)


class _SecurityHeaders:
    """The same headers on every answer, errors included; a route may set its own cache-control."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, secured)
