"""Columns that hold pictures, cells that look like some, and the places of pictures in a text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from toasterft.data.layout.cells import Notes, Row, as_list, is_empty
from toasterft.errors import DataError

# `image`, `images`, `img_path`, `file_name`, `picture`, `photo_filename`, `image_0`
_COLUMN = re.compile(
    r"(?:image|img|picture|photo|pic)s?(?:[ _-]?(?:paths?|files?|names?|file[ _-]?names?|url|bytes|base64|data|\d+))?"
    r"|file[ _-]?names?",
    re.IGNORECASE,
)
_FILE = re.compile(r".+\.(?:png|jpe?g|jfif|gif|bmp|webp|tiff?|ppm|avif|heic)", re.IGNORECASE)
# `<image>`, `<image_1>`, `<image 2>`, `<|image_1|>`, `<IMAGE>`
PLACEHOLDER = re.compile(r"<\|?image(?:[ _](\d{1,3}))?\|?>", re.IGNORECASE)
# Qwen-VL's and ms-swift's: `Picture 1: <img>images/a.png</img>`
_IN_TEXT = re.compile(r"(?:Picture \d+:\s*)?<img>([^<>]+)</img>\s*")
# How the encoded files of PNG, JPEG, GIF, BMP, WebP and TIFF begin.
MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"RIFF", b"II*\x00", b"MM\x00*")
# The same as base64.
_BASE64 = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR", "data:image/")


@lru_cache(maxsize=1024)
def looks_like_picture(column: str) -> bool:
    """Whether a column's name says that it holds pictures."""
    return _COLUMN.fullmatch(column) is not None


def is_picture_cell(value: Any) -> bool:
    """Whether a cell holds what a picture is kept as: a file's name, encoded bytes, base64, or an object with those."""
    if isinstance(value, list | tuple):
        return bool(value) and all(map(is_picture_cell, value))
    if isinstance(value, Mapping):
        return any(is_picture_cell(value.get(key)) for key in ("bytes", "path", "url"))
    if isinstance(value, bytes):
        return value.startswith(MAGIC)
    return isinstance(value, str) and bool(_FILE.fullmatch(value) or value.startswith(_BASE64))


def pictures_of(row: Row, notes: Notes) -> tuple[Any, ...]:
    """Pictures of the first column that holds some; `images` and `image` before other names."""
    columns = sorted(filter(looks_like_picture, row), key=lambda name: (name != "images", name != "image"))
    numbered = [name for name in columns if re.search(r"\d$", name)]
    for name in [each for each in columns if each not in numbered]:
        items = [item for item in as_list(row[name]) if not is_empty(item)]
        if name.lower().startswith("file"):  # of anything; only pictures are meant here
            items = [item for item in items if isinstance(item, str) and _FILE.fullmatch(item)]
        if items:
            notes.used.add(name)
            return tuple(items)
    notes.used.update(numbered)
    return tuple(item for name in numbered for item in as_list(row[name]) if not is_empty(item))


def pictures_in_text(text: str) -> tuple[str, list[str]]:
    """A text without the paths of pictures that it names, and those paths."""
    return _IN_TEXT.sub("", text).strip(), _IN_TEXT.findall(text)


def require_places(places: int, pictures: int) -> None:
    """
    Raises:
        DataError: a text has places for pictures, but not as many as there are.
    """
    if places and places != pictures:
        raise DataError(f"{places} `<image>` for {pictures} picture{'s' * (pictures != 1)}")
