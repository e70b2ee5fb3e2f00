"""Keys and passwords, taken out of whatever is shown or written."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

# A key as endpoints echo it in their messages, in part or starred: "sk-ab**********yz", "Bearer abc".
_KEY = re.compile(r"\b(?:sk-|AIza|key-|hf_)[\w*.-]{4,}|(?<=Bearer )\S+")


class Mask:
    """Takes one service's secrets out of texts.

    Args:
        key: the API key, where there is one.
        url: the service's address; what stands before its `@` is a secret too, also a name alone.
    """

    def __init__(self, key: str | None, url: str) -> None:
        parts = urlsplit(url)
        self._secrets = [each for each in (key, unquote(parts.password or parts.username or "")) if each]

    def __call__(self, text: str) -> str:
        """The first 300 characters of a text, without any key or password, not even in part."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return _KEY.sub("***", text)[:300]
