"""Parse one row of data into `Example`s: flat, TRL conversation, or LLaVA conversation; images stay closed.

Nothing is ever fetched from a URL in a row: a data file from a stranger must not make this machine call out
(LLaMA-Factory's CVE-2025-61784 was that).
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toasterft.data.example import TASKS, Example, ImageRef
from toasterft.errors import DataError

QUESTION_KEYS = ("question", "query", "instruction")
ANSWER_KEYS = ("answer", "label", "answers", "output")
REASONING_KEYS = ("reasoning", "hint", "cot", "rationale", "think")
SHOWN_FAULTS = 5


@dataclass(frozen=True)
class Fault:
    """A row that makes no example: where it stands, its id where it has one, and what is wrong with it."""

    where: str
    what: str
    id: str = ""
    split: str = ""


def read_rows(path: Path, faults: list[Fault] | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file:line, row) of a .jsonl file, or of the array in a .json file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read ({error})", where=str(path)) from None
    if path.suffix == ".json":
        try:
            array = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"not valid JSON ({error.msg})", where=f"{path}:{error.lineno}") from None
        if not isinstance(array, list):
            raise DataError("expected a JSON array of rows", where=str(path))
        for number, row in enumerate(array):
            yield f"{path.name}[{number}]", _require_object(row, f"{path}[{number}]")
        return
    rows: list[tuple[str, dict[str, Any]]] = []
    found: list[Fault] = []
    # By "\n" alone: str.splitlines would also cut at U+2028, which JSON allows inside a string.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path.name}:{number}"
        try:
            rows.append((where, _require_object(json.loads(line), f"{path}:{number}")))
        except json.JSONDecodeError as error:
            found.append(Fault(where, f"not valid JSON ({error.msg} at column {error.colno})"))
        except DataError as error:
            if faults is None:
                raise
            found.append(Fault(where, error.what))
    _settle(found, faults, str(path), "broken line", path.parent)
    yield from rows


def _require_object(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise DataError(f"a row must be an object, this is {type(row).__name__}", where=where)
    return row


def parse_rows(
    rows: Iterable[tuple[str, dict[str, Any]]], folder: Path, faults: list[Fault] | None = None
) -> Iterator[Example]:
    """The examples of (file:line, row) pairs; image paths are relative to `folder`.

    Args:
        faults: where rows that make no example are collected; None refuses all rows for the faults of some.
    """
    examples: list[Example] = []
    found: list[Fault] = []
    for where, row in rows:
        try:
            examples.extend(parse_row(row, where, folder))
        except DataError as error:
            found.append(Fault(where, error.what, str(row.get("id") or row.get("question_id") or "")))
    _settle(found, faults, str(folder), "bad row", Path())
    yield from examples


def _settle(found: list[Fault], faults: list[Fault] | None, where: str, noun: str, folder: Path) -> None:
    """Collect the faults in `faults`, or raise them where there is no such list."""
    if faults is not None:
        faults.extend(found)
    elif found:
        raise faults_error([f"{folder / fault.where}: {fault.what}" for fault in found], where, noun)


def require_no_url(name: str) -> None:
    """
    Raises:
        DataError: an image is named by a URL.
    """
    # A scheme and what follows it: `https://host/a.png`, `s3://bucket/a.png`.
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", name):
        raise DataError(f"images are not fetched from URLs ({name[:60]}); download it and give a path")


def faults_error(faults: list[str], where: str, noun: str) -> DataError:
    count = f"1 {noun}" if len(faults) == 1 else f"{len(faults)} {noun}s"
    return DataError(
        f"{count}; nothing was run", where=where, details=first_few(faults), next_step="mend or remove them"
    )


def first_few(lines: list[str]) -> list[str]:
    """The first lines, and how many there are beside them."""
    more = len(lines) - SHOWN_FAULTS
    return lines[:SHOWN_FAULTS] + ([f"… and {more:,} more"] if more > 0 else [])


def parse_row(row: dict[str, Any], where: str, folder: Path) -> Iterator[Example]:
    """One example per question: a conversation of several turns becomes several examples.

    Raises:
        DataError: no question, no answer, or an image that is none.
    """
    images = _images(row, where, folder)
    identity = str(row.get("id") or row.get("question_id") or where)
    turns, rejected = list(_turns(row)), _rejected(row)
    if rejected is not None and len(turns) != 1:
        raise DataError(f"a preference pair of {len(turns)} turns; one question and one answer make a pair")
    for number, (question, answer, reasoning) in enumerate(turns):
        if not question.strip():
            raise DataError("empty question")
        if not answer.strip():
            raise DataError("empty answer")
        yield Example(
            id=identity if len(turns) == 1 else f"{identity}#{number}",
            question=question.strip(),
            answer=answer.strip(),
            images=images,
            reasoning=reasoning.strip() if reasoning and reasoning.strip() else None,
            kind=str(row["kind"]) if row.get("kind") else _human(row),
            facts=_facts(row.get("facts") if row.get("facts") is not None else row.get("table")),
            where=where,
            extra=_extra(row),
            rejected=rejected,
        )


def _facts(value: Any) -> Any:
    # Parquet has no column of free form: `data push` writes rows of facts as JSON.
    if isinstance(value, str) and value.startswith("["):
        with contextlib.suppress(json.JSONDecodeError):
            return json.loads(value)
    return value


def _extra(row: dict[str, Any]) -> dict[str, Any]:
    """What the scorer needs beside the answer; a row may be of another task than its card."""
    found: dict[str, Any] = {"task": row["task"]} if row.get("task") in TASKS else {}
    if isinstance(row.get("choices"), list) and row["choices"]:
        found["choices"] = [str(choice) for choice in row["choices"]]
    return found


def _human(row: dict[str, Any]) -> str | None:
    # The hub's ChartQA marks who wrote the question with a 0/1 flag.
    flag = row.get("human_or_machine")
    return None if flag is None else ("human" if flag in (0, "0", "human") else "augmented")


def _turns(row: dict[str, Any]) -> Iterator[tuple[str, str, str | None]]:
    """(question, answer, reasoning) of a flat row, a TRL conversation or a LLaVA conversation."""
    conversation = row.get("messages") or row.get("conversations")
    chosen = row.get("chosen")  # TRL's name for the better completion of a pair
    if conversation is None and isinstance(row.get("prompt"), list):
        completion = row.get("completion", chosen)
        as_text = isinstance(completion, str)
        answers = [{"role": "assistant", "content": completion}] if as_text else completion or []
        conversation = [*row["prompt"], *answers]
    elif conversation is None and isinstance(chosen, list):
        conversation = chosen
    if conversation is not None:
        yield from _conversation(conversation)
        return
    question = _first(row, QUESTION_KEYS) or (row["prompt"] if isinstance(row.get("prompt"), str) else None)
    answer, reasoning = _first(row, ANSWER_KEYS), _first(row, REASONING_KEYS)
    if question is not None and answer is None and isinstance(chosen, str):
        reasoning, answer = _split_reasoning(chosen)
    if question is None:
        raise DataError(f"no question (looked for {', '.join(QUESTION_KEYS)}, messages, conversations)")
    if answer is None:
        raise DataError(f"no answer (looked for {', '.join(ANSWER_KEYS)})")
    yield question, answer, reasoning


def _conversation(messages: Iterable[dict[str, Any]]) -> Iterator[tuple[str, str, str | None]]:
    question: str | None = None
    for message in messages:
        role, text = str(message.get("role") or message.get("from")), _text(message)
        if role in ("user", "human"):
            question = text
        elif role in ("assistant", "gpt") and question is not None:
            reasoning, answer = _split_reasoning(text)
            yield question, answer, reasoning
            question = None


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
    reasoning, answer = _split_reasoning(text)
    thought = "" if reasoning is None else f"<think>{reasoning}</think>"
    return f"{thought}<answer>{answer.strip()}</answer>"


def _last(completion: Any) -> str:
    """The text of a completion: itself, or that of its last message."""
    if isinstance(completion, list) and completion and isinstance(completion[-1], dict):
        return _text(completion[-1])
    return str(completion)


def _first(row: dict[str, Any], keys: tuple[str, ...]) -> str | None:
    for key in keys:
        value = row.get(key)
        if isinstance(value, list):
            value = value[0] if value else None
        if value is not None:
            return str(value)
    return None


def _text(message: dict[str, Any]) -> str:
    """The text of a message; image placeholders are dropped, the model's template puts its own."""
    content = message.get("content", message.get("value"))
    if isinstance(content, list):
        content = "".join(part.get("text", "") for part in content if part.get("type") == "text")
    return str(content or "").replace("<image>", "").strip()


def _split_reasoning(text: str) -> tuple[str | None, str]:
    # `<think>2 + 3</think><answer>5</answer>`, also without the trace, or without the answer's tags.
    pattern = r"\s*(?:<think>(.*?)</think>)?\s*(?:<answer>(.*?)</answer>|(.*?))\s*"
    reasoning, tagged, plain = re.fullmatch(pattern, text, re.DOTALL).groups()  # type: ignore[union-attr]
    return reasoning, plain if tagged is None else tagged


def _images(row: dict[str, Any], where: str, folder: Path) -> tuple[ImageRef, ...]:
    value = row.get("images") if row.get("images") is not None else row.get("image")
    items = value if isinstance(value, list) else [] if value is None else [value]
    return tuple(_image(item, where, folder) for item in items)


def _image(item: Any, where: str, folder: Path) -> ImageRef:
    if callable(item):
        return ImageRef(name=where, read=item)
    if isinstance(item, dict):
        data = item.get("bytes")
        if data:
            return ImageRef(name=str(item.get("path") or where), read=lambda: data)
        item = item.get("path")
    if not isinstance(item, str) or not item:
        raise DataError("the image is neither a path nor bytes")
    require_no_url(item)
    path = Path(item)
    return ImageRef(name=item, path=path if path.is_absolute() else folder / path)
