"""Sends requests, and takes in replies that may be endless, swollen by compression, or on their way to somebody else."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Coroutine
from typing import Any

# A reply of 8,192 tokens with its thinking is some 50 kB.
MOST_REPLY_BYTES = 8 * 1024**2
OPENAI_HOST = "api.openai.com"


class TooLarge(Exception):
    """A reply was larger than `MOST_REPLY_BYTES`, before or after decompression."""

    def __init__(self) -> None:
        super().__init__(f"the reply is larger than {MOST_REPLY_BYTES // 1024**2} MiB; the rest was not read")


def http_client(
    timeout_seconds: float, book: Callable[[Callable[[], Coroutine[Any, Any, Any]]], Coroutine[Any, Any, Any]]
) -> Any:
    """What the openai client sends with.

    Args:
        book: sends one try, and books it before the openai client sees what came of it.
    """
    import openai

    class BookedClient(openai.DefaultAsyncHttpxClient):
        async def send(self, request: Any, **kwargs: Any) -> Any:
            _prepare(request)
            # A redirect would carry pictures and key to whom nobody has named.
            kwargs |= {"stream": True, "follow_redirects": False}
            return await book(lambda: super(BookedClient, self).send(request, **kwargs))

    return BookedClient(timeout=timeout_seconds)


def _prepare(request: Any) -> None:
    """Ask for what `take_in` can bound, and keep OpenAI's own identifiers from everybody else."""
    request.headers["accept-encoding"] = "gzip"
    if request.url.host != OPENAI_HOST:
        # The openai client takes these from the environment, for whatever address.
        for name in ("openai-organization", "openai-project"):
            request.headers.pop(name, None)


async def take_in(response: Any) -> tuple[str, Any]:
    """Read a streamed reply: its text, and a reply of the same status that holds it.

    Raises:
        TooLarge: it is closed unread from there on.
    """
    received = bytearray()
    try:
        async for chunk in response.aiter_raw():
            received += chunk
            if len(received) > MOST_REPLY_BYTES:
                raise TooLarge
    finally:
        await response.aclose()
    data = bytes(received)
    if "gzip" in response.headers.get("content-encoding", "").lower():
        data = _inflated(data)
    text = data.decode("utf-8-sig", "replace")
    kept = {
        name: value
        for name, value in response.headers.items()
        if name in ("retry-after", "retry-after-ms", "location")
    } | {"content-type": "application/json"}
    whole = type(response)(
        response.status_code, headers=kept, content=text.encode(), request=response.request
    )
    return text, whole


def _inflated(data: bytes) -> bytes:
    inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        found = inflate.decompress(data, MOST_REPLY_BYTES + 1)
    except zlib.error:
        return data  # the header is wrong about it
    if len(found) > MOST_REPLY_BYTES:
        raise TooLarge
    return found
