"""Rows of text files: JSON lines and JSON documents, in the encodings that people keep them in."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from toasterft.data.example import LFS_POINTER
from toasterft.data.reading import Fault, settle
from toasterft.errors import DataError


def require_content(head: bytes, path: Path) -> None:
    """
    Raises:
        DataError: a file is empty, or a Git LFS pointer in the place of the file.
    """
    if not head or head.startswith(LFS_POINTER):
        raise DataError(
            "a Git LFS pointer, not the file itself" if head else "the file is empty (0 bytes)",
            where=str(path),
            next_step="git lfs pull   fetches the real files of a repository",
        )


def read_text(path: Path) -> str:
    """A text file in UTF-8 or UTF-16, with or without a mark, else in GB 18030 (GBK) where that gives Chinese text.

    Raises:
        DataError: it cannot be read, is empty, a Git LFS pointer, or in another encoding.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read ({error})", where=str(path)) from None
    require_content(data[:64], path)
    for encoding in ("utf-16",) if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "gb18030"):
        with contextlib.suppress(UnicodeDecodeError):
            text = data.decode(encoding)
            if encoding != "gb18030" or all("\u3000" <= each <= "\uffef" for each in text if ord(each) > 127):
                return text
    raise DataError("neither UTF-8 nor UTF-16 nor GBK text", where=str(path), next_step="save it as UTF-8")


def rows_of_json(found: Any) -> list[Any] | None:
    """Rows of an array, of the only array in an object, or of an object that keeps each row under a key."""
    if isinstance(found, dict):
        arrays = [value for value in found.values() if isinstance(value, list)]
        objects = all(isinstance(value, dict) for value in found.values())
        found = (
            arrays[0]
            if len(arrays) == 1 and "messages" not in found
            else [*found.values()]
            if objects
            else None
        )
    return found if isinstance(found, list) else None


def read_rows(
    path: Path, faults: list[Fault] | None = None, *, keyed: bool = False
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file:line, row) of JSON lines, or of one JSON document that holds rows, whatever the file is called.

    Args:
        faults: where lines that are no rows are collected; all rows are refused for some of them without it.
        keyed: a list is a row too, keyed by position (EmoSet's annotations).
    """
    text = read_text(path)
    if path.suffix == ".json" or text.lstrip()[:1] == "[":
        try:
            array = rows_of_json(json.loads(text))
        except (ValueError, RecursionError) as error:
            lines = [line for line in text.split("\n") if line.strip()]
            if len(lines) < 2 or not lines[0].rstrip().endswith("}"):  # else: JSON lines under another name
                where = f"{path}:{getattr(error, 'lineno', 1)}"
                raise DataError(_why_no_json(error), where=where) from None
        else:
            if array is None:
                raise DataError("expected a JSON array of rows", where=str(path))
            numbered = ((f"{path.name}[{number}]", row) for number, row in enumerate(array))
            yield from _objects(numbered, path, faults, keyed)
            return
    # By "\n" alone: str.splitlines would also cut at U+2028, which JSON allows inside a string.
    lines = text.split("\n")
    numbered = ((f"{path.name}:{number}", line) for number, line in enumerate(lines, start=1) if line.strip())
    yield from _objects(numbered, path, faults, keyed)


def _objects(
    numbered: Iterable[tuple[str, Any]], path: Path, faults: list[Fault] | None, keyed: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows, or lines of JSON that are one each; what is no object is a fault."""
    rows: list[tuple[str, dict[str, Any]]] = []
    found: list[Fault] = []
    for where, row in numbered:
        try:
            rows.append((where, _object(row, keyed)))
        except (ValueError, RecursionError) as error:
            found.append(Fault(where, _why_no_json(error)))
        except DataError as error:
            found.append(Fault(where, error.what))
    settle(found, faults, str(path), "broken line", path.parent)
    yield from rows


def _object(row: Any, keyed: bool) -> dict[str, Any]:
    text = row if isinstance(row, str) else None
    row = json.loads(text) if text is not None else row
    if keyed and isinstance(row, list):
        row = {str(place): value for place, value in enumerate(row)}
    if not isinstance(row, dict):
        raise DataError(f"a row must be an object, this is {type(row).__name__}")
    if text is None or "\\ud" in text.lower():
        json.dumps(row, ensure_ascii=False).encode()  # half a character can be read, and never be written
    return row


def _why_no_json(error: ValueError | RecursionError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON ({error.msg} at column {error.colno})"
    if isinstance(error, UnicodeEncodeError):
        return "half of a character (a lone surrogate) stands in a text"
    return (
        "not valid JSON (nested too deeply)"
        if isinstance(error, RecursionError)
        else f"not valid JSON ({error})"
    )
