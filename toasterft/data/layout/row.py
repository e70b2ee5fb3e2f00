"""What a row holds, whoever laid it out, for import and training alike. Nothing is opened, nothing fetched.

Columns and roles come under many names, answers as objects or lists, options as lists, letters or columns, and tags of
somebody's training format inside the cells. What cannot be turned into questions with answers is refused with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from toasterft.data.layout.cells import Notes, Row
from toasterft.data.layout.flat import ANSWER_KEYS, INDEX_KEYS, QUESTION_KEYS, flat
from toasterft.data.layout.pictures import PLACEHOLDER, pictures_in_text, pictures_of, require_places
from toasterft.data.layout.turns import CONVERSATION_KEYS, QuestionAnswer, messages_of, question_answers
from toasterft.errors import DataError


@dataclass(frozen=True)
class RowContent:
    """What a row holds.

    Attributes:
        pictures: as they are given: paths, data URLs, bytes, objects.
        options: what may be chosen from, in order, where the question was completed with them here.
        changes: kinds of things that were taken off, joined or left out.
        used: the columns that were read.
    """

    items: tuple[QuestionAnswer, ...]
    pictures: tuple[Any, ...] = ()
    options: tuple[str, ...] = ()
    changes: frozenset[str] = frozenset()
    used: frozenset[str] = frozenset()


def usual_names(row: Row) -> dict[str, str]:
    """Each column's own name by its usual spelling: `Question` and `QUESTION ` are `question`; letters stay as they are."""
    found: dict[str, str] = {name: name for name in row}
    for name in row:
        usual = str(name).strip().lower().replace(" ", "_").replace("-", "_")
        if len(usual) > 1:
            found.setdefault(usual, name)
    return found


def has_question(row: Row) -> bool:
    """Whether a row has a column for a question or a conversation."""
    return not usual_names(row).keys().isdisjoint((*QUESTION_KEYS, *CONVERSATION_KEYS, "chosen"))


def has_answer(row: Row) -> bool:
    """Whether a row has a column for an answer, a conversation that holds some, or the place of the right option."""
    return not usual_names(row).keys().isdisjoint((*ANSWER_KEYS, *INDEX_KEYS, *CONVERSATION_KEYS, "chosen"))


def read_row(row: Row) -> RowContent:
    """What a row holds.

    Raises:
        DataError: it has no question or answer, its placeholders and pictures differ, or its turns make no sense.
    """
    names, notes = usual_names(row), Notes()
    pictures = pictures_of(row, notes)
    row = {usual: row[name] for usual, name in names.items()}
    options: tuple[str, ...] = ()
    messages = messages_of(row, notes)
    if messages is not None:
        own = [picture for message in messages for picture in message.own]
        pictures = _either(pictures, own)
        require_places(sum(message.pictures for message in messages), len(pictures))
        items = tuple(question_answers(messages, len(pictures), notes))
    else:
        item, options = flat(row, notes)
        question, own = pictures_in_text(item.question)
        pictures = _either(pictures, own)
        before = sum(turn.pictures for turn in item.history)
        _require_places_of(question, len(pictures) - before)
        items = (_without_places(replace(item, question=question), several=len(pictures) > 1),)
        options = tuple(_in_words(option, several=len(pictures) > 1) for option in options)
    used = frozenset(names.get(name, name) for name in notes.used)
    return RowContent(items, pictures, options, frozenset(notes.changes), used)


def _either(in_column: tuple[Any, ...], in_text: Sequence[Any]) -> tuple[Any, ...]:
    if in_column and in_text:
        raise DataError("pictures stand in the messages and in a column as well")
    return in_column or tuple(in_text)


def _require_places_of(question: str, pictures: int) -> None:
    if pictures < 0:
        raise DataError("the turns before the question name more pictures than the row has")
    found = PLACEHOLDER.findall(question)
    require_places(len(set(filter(None, found))) or len(found), pictures)


def _without_places(item: QuestionAnswer, *, several: bool) -> QuestionAnswer:
    answers = tuple(_in_words(answer, several=several) for answer in item.answers)
    return replace(item, question=_in_words(item.question, several=several), answers=answers)


def _in_words(text: str, *, several: bool) -> str:
    """A text without placeholders; among several pictures a numbered one is called by its number."""
    return PLACEHOLDER.sub(lambda found: f"image {found[1]}" if found[1] and several else "", text).strip()
