"""Turns of a conversation, and the questions and answers in it: each sees the turns before it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from toasterft.data.example import Turn
from toasterft.data.layout.cells import Notes, Row, parsed, text_of
from toasterft.data.layout.pictures import PLACEHOLDER, pictures_in_text
from toasterft.data.layout.tags import unwrap
from toasterft.errors import DataError

CONVERSATION_KEYS = (
    "messages", "conversations", "conversation", "texts", "dialog", "dialogue", "turns",
)  # fmt: skip
ROLES = {
    "user": ("user", "human", "prompter", "customer", "question", "instruction", "q"),
    "assistant": ("assistant", "gpt", "model", "bot", "chatgpt", "chatbot", "ai", "answer", "response", "output", "a"),
    "system": ("system", "developer"),
}  # fmt: skip
_ROLE_OF = {spelling: role for role, spellings in ROLES.items() for spelling in spellings}
_TOOLS = ("tool", "function", "observation", "ipython", "tool_call", "tool_response", "function_call")
_SYSTEM_KEYS = ("system", "system_prompt", "system_message")


@dataclass(frozen=True)
class QuestionAnswer:
    """A question with its accepted answers, the first of which is taught, and the turns before it.

    Attributes:
        pictures: how many of the row's pictures stand in the history and the question; None for all.
    """

    question: str
    answers: tuple[str, ...]
    reasoning: str | None = None
    history: tuple[Turn, ...] = ()
    pictures: int | None = None


@dataclass(frozen=True)
class Message(Turn):
    """A turn as a row has it, with the pictures it carries itself, and whether it is to be learned from."""

    own: tuple[Any, ...] = ()
    taught: bool = True


def messages_of(row: Row, notes: Notes) -> list[Message] | None:
    """The row's conversation, of TRL's prompt and completion too; None for a flat row.

    Raises:
        DataError: a message is none, or of a role that is not supported.
    """
    for name in CONVERSATION_KEYS:
        value = _listed(row.get(name))
        if isinstance(value, list) and value:
            notes.used.add(name)
            return [*system_turn(row, notes), *_messages(value)]
    prompt, chosen = _listed(row.get("prompt")), _listed(row.get("chosen"))
    if isinstance(prompt, list):
        completion = _listed(row.get("completion")) or chosen
        notes.used |= {"prompt", "completion", "chosen"}
        if not isinstance(completion, list):
            completion = [{"role": "assistant", "content": completion}]
        # What stands in the prompt is read, and not learned.
        context = [replace(message, taught=False) for message in _messages(prompt)]
        return [*system_turn(row, notes), *context, *_messages(completion)]
    if isinstance(chosen, list):
        notes.used.add("chosen")
        *context, last = _messages(chosen)
        return [*(replace(message, taught=False) for message in context), last]
    return None


def _listed(value: Any) -> Any:
    """Messages as a list, of a text that holds one, and of an object with a list for each key, as tables have it."""
    value = parsed(value)
    if isinstance(value, Mapping) and value and all(isinstance(each, list) for each in value.values()):
        return [dict(zip(value, cells)) for cells in zip(*value.values())]
    return value


def system_turn(row: Row, notes: Notes) -> list[Message]:
    """The system prompt of a column of its own."""
    for name in _SYSTEM_KEYS:
        if isinstance(row.get(name), str) and row[name].strip():
            notes.used.add(name)
            return [Message("system", row[name].strip())]
    return []


def history_of(row: Row, notes: Notes) -> list[Turn]:
    """Turns before the question of a flat row: a system prompt, and `history`, as turns or as pairs of texts."""
    turns: list[Turn] = [Turn(each.role, each.text) for each in system_turn(row, notes)]
    history = _listed(row.get("history"))
    if not isinstance(history, list) or not history:
        return turns
    notes.used.add("history")
    for each in history:
        if isinstance(each, Mapping) and {"role", "text"} <= each.keys():  # as we write them
            turns.append(Turn(str(each["role"]), str(each["text"]), int(each.get("pictures") or 0)))
        elif isinstance(each, list | tuple) and len(each) == 2:  # Alpaca with a history
            for role, text in zip(("user", "assistant"), each):
                turns.append(Turn(role, *_content(text)[:2]))
        else:
            turns += [Turn(turn.role, turn.text, turn.pictures) for turn in _messages([each])]
    return turns


def _messages(messages: Iterable[Any]) -> list[Message]:
    """Messages with their roles under their usual names."""
    found = []
    for message in messages:
        if not isinstance(message, Mapping):
            raise DataError(f"a message must be an object, this is {type(message).__name__}")
        if any(message.get(key) for key in ("tool_calls", "function_call")):
            raise DataError("tool turns are not supported")
        taught = message.get("weight") != 0 and message.get("train") is not False
        for role, content in _sides(message):
            text, places, own = _content(content)
            found.append(Message(role, text, places, tuple(own), taught))
    return found


def _sides(message: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(role, content) of a message; of both sides where one object holds a question and its answer."""
    named = next((message[key] for key in ("role", "from", "speaker") if message.get(key) is not None), None)
    if named is None:
        sides = [(_ROLE_OF[key.lower()], value) for key, value in message.items() if key.lower() in _ROLE_OF]
        if not sides:
            raise DataError(f"a message without a role ({', '.join(map(str, message))})")
        yield from sides
        return
    spelled = str(named).strip().strip("<|>:").lower()
    role = _ROLE_OF.get(spelled)
    if role is None:
        raise DataError(
            f"{'tool turns are' if spelled in _TOOLS else f'the role {named!r} is'} not supported"
        )
    keys = ("content", "value", "text", "message")
    yield role, next((message[key] for key in keys if message.get(key) is not None), "")


def _content(content: Any) -> tuple[str, int, list[Any]]:
    """Text without placeholders, how many pictures stand in it, and those that it carries itself."""
    content = [content] if isinstance(content, Mapping) else content
    if not isinstance(content, list):
        text, named = pictures_in_text(text_of(content) or "")
        return PLACEHOLDER.sub("", text).strip(), len(PLACEHOLDER.findall(text)) + len(named), list(named)
    texts, places, own = [], 0, []
    for part in content:
        if isinstance(part, str):
            part = {"type": "text", "text": part}
        if not isinstance(part, Mapping):
            raise DataError(f"a part of a message must be an object or text, this is {type(part).__name__}")
        kind = str(part.get("type") or ("text" if part.get("text") is not None else "image"))
        if kind in ("text", "input_text", "output_text"):
            text, inside, named = _content(part.get("text", part.get("content")))
            texts.append(text)
            places += inside
            own += named
        elif kind in ("image", "image_url", "input_image"):
            places += 1
            keys = ("image", "image_url", "url", "path", "bytes", "base64", "data")
            given = next((part[key] for key in keys if part.get(key)), None)
            own += [] if given is None else [given.get("url", given) if isinstance(given, Mapping) else given]
        else:
            raise DataError(f"a part of type {kind!r} is not supported")
    return "\n".join(filter(None, texts)), places, own


def question_answers(messages: Sequence[Message], pictures: int, notes: Notes) -> Iterator[QuestionAnswer]:
    """Every question with the answer behind it, the turns before it, and the pictures up to it.

    Args:
        pictures: of the row; they belong to the first question where no turn says where they stand.

    Raises:
        DataError: the turns make no conversation: no question, no answer, a system prompt in the middle.
    """
    turns = _joined(messages, notes)
    system = [turn for turn in turns[:1] if turn.role == "system"]
    turns = turns[len(system) :]
    if any(turn.role == "system" for turn in turns):
        raise DataError("a system prompt in the middle of the conversation is not supported")
    if any(turn.pictures for turn in turns if turn.role == "assistant") or any(t.pictures for t in system):
        raise DataError("a picture stands in a turn that is not the user's")
    if turns and turns[0].role == "assistant":
        notes.changes.add("an opening turn of the assistant left out")
        turns = turns[1:]
    if not turns:
        raise DataError("no turn of a user")
    if len(turns) == 1:
        raise DataError("the last turn is not answered")
    if len(turns) % 2:
        notes.changes.add("a last question without an answer left out")
    if not any(turn.pictures for turn in turns):
        turns[0] = replace(turns[0], pictures=pictures)
    history, seen = [Turn(turn.role, turn.text) for turn in system if turn.text], 0
    if not any(turn.taught for turn in turns[1::2]):
        raise DataError("no answer of it is to be learned (weight 0, or train false)")
    for user, assistant in zip(turns[::2], turns[1::2]):
        reasoning, answer = unwrap(assistant.text, notes.changes)
        seen += user.pictures
        if assistant.taught:
            yield QuestionAnswer(user.text, (answer,), reasoning, tuple(history), seen)
        history += [Turn("user", user.text, user.pictures), Turn("assistant", answer)]


def _joined(messages: Sequence[Message], notes: Notes) -> list[Message]:
    """Messages, neighbours of one role as one."""
    turns: list[Message] = []
    for message in messages:
        if turns and turns[-1].role == message.role:
            notes.changes.add(f"neighbouring turns of one role ({message.role}) joined")
            last = turns.pop()
            message = replace(
                message,
                text=f"{last.text}\n{message.text}".strip(),
                pictures=last.pictures + message.pictures,
                own=last.own + message.own,
            )
        turns.append(message)
    return turns


def message_text(message: Mapping[str, Any]) -> str:
    """The text of one message, without placeholders."""
    return "\n".join(each.text for each in _messages([{"role": "assistant", **message}]))
