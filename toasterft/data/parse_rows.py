"""Parse one row of data into `Example`s, in whatever layout `layout.row` reads; images stay closed.

Nothing is ever fetched from a URL in a row: a data file from a stranger must not make this machine call out
(LLaMA-Factory's CVE-2025-61784 was that).
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from toasterft.data.chat import untagged
from toasterft.data.example import TASKS, Example, ImageRef
from toasterft.data.layout.cells import is_empty
from toasterft.data.layout.pictures import MAGIC
from toasterft.data.layout.row import RowContent, read_row
from toasterft.data.layout.tags import unwrap
from toasterft.data.layout.turns import message_text
from toasterft.data.pictures import PictureFinder
from toasterft.data.reading import Fault, Reading, settle
from toasterft.errors import DataError
from toasterft.recipe import Prompt
from toasterft.units import shorten

# A word that can be a file's name: `train`, `dev-v1.1`; no path.
_SPLIT = re.compile(r"\w[\w. -]{0,60}")


def named_split(row: dict[str, Any]) -> str:
    """The split that a row names for itself, '' for none; `parse_row` refuses what is no name."""
    split = row.get("split")
    return split.strip() if isinstance(split, str) and _SPLIT.fullmatch(split.strip()) else ""


def parse_rows(
    rows: Iterable[tuple[str, dict[str, Any]]],
    folder: Path | None,
    finder: PictureFinder,
    reading: Reading | None = None,
) -> Iterator[Example]:
    """The examples of (file:line, row) pairs; image paths are relative to `folder`.

    Args:
        folder: that of the rows' file; None where they have none (the hub).
        reading: where rows that make no example are collected, and what was changed and left aside is counted. All
            rows are refused for the faults of some where it collects none.
    """
    examples: list[Example] = []
    found: list[Fault] = []
    find = partial(finder.named, beside=folder)
    for where, row in rows:
        try:
            examples.extend(parse_row(row, where, folder or Path(), find, reading))
        except Exception as error:  # cells hold whatever somebody's program wrote; a row never ends a command
            what = (
                error.what
                if isinstance(error, DataError)
                else f"cannot be read ({type(error).__name__}: {error})"
            )
            found.append(Fault(where, what, str(row.get("id") or row.get("question_id") or "")))
    settle(found, reading.faults if reading else None, str(folder or ""), "bad row", Path(), finder.remedy)
    yield from examples


Find = Callable[[str], ImageRef]


def parse_row(
    row: dict[str, Any],
    where: str,
    folder: Path,
    find: Find | None = None,
    reading: Reading | None = None,
) -> Iterator[Example]:
    """One example per question: a conversation of several turns becomes several examples.

    Args:
        find: the picture that a path in the row means; by default one in or below `folder`.

    Raises:
        DataError: no question, no answer, an image that is none, or what else `read_row` refuses.
    """
    if not named_split(row) and not is_empty(row.get("split")):
        raise DataError(f"the column `split` names no split: {shorten(repr(row['split']), 60)}")
    content = read_row(row)
    if reading is not None:
        reading.add(row, content)
    find = find or partial(PictureFinder(folder).named, beside=folder)
    images = tuple(_image(item, where, find) for item in content.pictures)
    identity = str(row.get("id") or row.get("question_id") or where)
    rejected = _rejected(row)
    if rejected is not None and len(content.items) != 1:
        raise DataError(
            f"a preference pair of {len(content.items)} turns; one question and one answer make a pair"
        )
    for number, item in enumerate(content.items):
        # Half of a pair of tags: `unwrap` took the whole ones off, and training would end the answer at it.
        answers = tuple(untagged(answer, Prompt()).strip() for answer in item.answers)
        if reading is not None and answers != tuple(map(str.strip, item.answers)):
            reading.changes["half a pair of tags taken off"] += 1
        if not item.question.strip():
            raise DataError("empty question")
        if not answers[0]:
            raise DataError("empty answer")
        yield Example(
            id=identity if len(content.items) == 1 else f"{identity}#{number}",
            question=item.question.strip(),
            answer=answers[0],
            images=images[: item.pictures],
            reasoning=item.reasoning.strip() if item.reasoning and item.reasoning.strip() else None,
            kind=str(row["kind"]) if row.get("kind") else _human(row),
            facts=_facts(row.get("facts") if row.get("facts") is not None else row.get("table")),
            where=where,
            extra=_extra(row, content, answers),
            rejected=rejected,
            history=item.history,
        )


def _facts(value: Any) -> Any:
    # Parquet has no column of free form: `data push` writes rows of facts as JSON.
    if isinstance(value, str) and value.startswith("["):
        with contextlib.suppress(json.JSONDecodeError):
            return json.loads(value)
    return value


def _extra(row: dict[str, Any], content: RowContent, answers: tuple[str, ...]) -> dict[str, Any]:
    """What the scorer needs beside the answer; a row may be of another task than its card."""
    found: dict[str, Any] = {"task": row["task"]} if row.get("task") in TASKS else {}
    if content.options:
        found = {"task": "choice", **found, "choices": list(content.options)}
    elif isinstance(row.get("choices"), list) and row["choices"]:
        found["choices"] = [str(choice) for choice in row["choices"]]
    if len(answers) > 1:
        found["answers"] = list(answers)
    return found


def _human(row: dict[str, Any]) -> str | None:
    # The hub's ChartQA marks who wrote the question with a 0/1 flag.
    flag = row.get("human_or_machine")
    return None if flag is None else ("human" if flag in (0, "0", "human") else "augmented")


def _rejected(row: dict[str, Any]) -> str | None:
    """The worse completion of a preference pair, as it is; None where the row is none.

    A pair of TRL's whose `chosen` has no tags gets the same tags on both sides: else the form would tell them apart.
    """
    given, chosen = row.get("rejected"), row.get("chosen")
    if given is None:
        return None
    text = _last(given)
    if not text.strip():
        raise DataError("empty rejected completion")
    if chosen is None or "<answer>" in _last(chosen):
        return text
    reasoning, answer = unwrap(text)
    thought = "" if reasoning is None else f"<think>{reasoning}</think>"
    return f"{thought}<answer>{answer.strip()}</answer>"


def _last(completion: Any) -> str:
    """The text of a completion: itself, or that of its last message."""
    if isinstance(completion, list) and completion and isinstance(completion[-1], dict):
        return message_text(completion[-1])
    return str(completion)


# --- pictures --------------------------------------------------------------------------------

_DATA_URL = re.compile(r"data:image/[\w.+-]+;base64,", re.IGNORECASE)  # `data:image/png;base64,iVBOR…`
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{64,}={0,2}")


def _image(item: Any, where: str, find: Find) -> ImageRef:
    """An image from whatever a cell holds: a path, encoded bytes, base64 or a data URL, or an object around one."""
    if callable(item):
        return ImageRef(name=where, read=item)
    if isinstance(item, bytes | bytearray):
        return ImageRef(name=where, read=partial(bytes, item))
    if isinstance(item, dict):
        keys = ("bytes", "base64", "data", "path", "image", "url", "file_name")
        inner = next((item[key] for key in keys if item.get(key)), None)
        if isinstance(inner, dict):
            raise DataError("the image is an object in an object")
        found = _image(inner, where, find)
        return replace(found, name=str(item["path"])) if item.get("path") and found.path is None else found
    if not isinstance(item, str) or not item:
        raise DataError("the image is neither a path nor bytes")
    if (data := _decoded(item)) is not None:
        return ImageRef(name=where, read=partial(bytes, data))
    return find(item)


def _decoded(text: str) -> bytes | None:
    """The bytes of a data URL, or of base64 text that is a picture's; None for a path."""
    head = _DATA_URL.match(text)
    body = "".join(text[head.end() if head else 0 :].split())
    if head is None and not _BASE64.fullmatch(body):
        return None
    try:
        data = base64.b64decode(body.replace("-", "+").replace("_", "/") + "=" * (-len(body) % 4))
    except ValueError:
        data = b""
    if data.startswith(MAGIC):
        return data
    if head is not None:
        raise DataError("the data URL holds no image")
    return None
