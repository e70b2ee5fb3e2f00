"""What a row means, whoever laid it out: its pictures, its turns, its options, its accepted answers.

Columns and roles come under many names, answers as objects or lists, options as lists, letters or columns, and tags
of somebody's training format inside the cells. `read` turns all of that into one `Meaning`; what it cannot turn into
one it refuses with the reason. Nothing is opened and nothing is fetched here.
"""

from __future__ import annotations

import json
import math
import re
import string
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from toasterft.errors import DataError

Row = Mapping[str, Any]

QUESTION_KEYS = ("question", "query", "problem", "prompt", "instruction")
ANSWER_KEYS = (
    "answer", "multiple_choice_answer", "label", "labels", "answers", "output", "response", "solution", "completion",
    "target", "ground_truth", "gt",
)  # fmt: skip
REASONING_KEYS = ("reasoning", "hint", "cot", "rationale", "rationales", "think", "solution", "explanation")
CONVERSATION_KEYS = ("messages", "conversations", "conversation", "texts")
OPTION_KEYS = ("choices", "options")
# What a question needs to be understood; it is never the reasoning.
CONTEXT_KEYS = ("context", "passage", "hint", "lecture")
# `image`, `images`, `img_path`, `file_name`, `picture`, `photo_filename`, `image_0`
PICTURE_KEY = re.compile(
    r"(?:image|img|picture|photo|pic)s?(?:[ _-]?(?:paths?|files?|names?|file[ _-]?names?|url|bytes|base64|data|\d+))?"
    r"|file[ _-]?names?",
    re.IGNORECASE,
)
_PICTURE_FILE = re.compile(r".+\.(?:png|jpe?g|jfif|gif|bmp|webp|tiff?|ppm|avif|heic)", re.IGNORECASE)
# `<image>`, `<image_1>`, `<image 2>`, `<|image_1|>`, `<IMAGE>`
PLACEHOLDER = re.compile(r"<\|?image(?:[ _](\d{1,3}))?\|?>", re.IGNORECASE)
ROLES = {
    "user": ("user", "human", "prompter", "customer", "question", "instruction", "q"),
    "assistant": ("assistant", "gpt", "model", "bot", "chatgpt", "ai", "answer", "response", "output", "a"),
    "system": ("system", "developer"),
}
_ROLE_OF = {spelling: role for role, spellings in ROLES.items() for spelling in spellings}
_LETTERS = string.ascii_uppercase


@dataclass(frozen=True)
class Turn:
    """One message of a conversation; `pictures` counts those that stand in it."""

    role: str
    text: str
    pictures: int = 0


@dataclass(frozen=True)
class Asked:
    """One question with its accepted answers; the first of them is what is taught."""

    question: str
    answers: tuple[str, ...]
    reasoning: str | None = None


@dataclass(frozen=True)
class Meaning:
    """What a row says.

    Attributes:
        pictures: as they are given: paths, data URLs, bytes, objects.
        options: what may be chosen from, in order, where the question was completed with them here.
        unwrapped: kinds of tags that were taken off, for the report of an import or a check.
        used: the columns that were read.
    """

    items: tuple[Asked, ...]
    pictures: tuple[Any, ...] = ()
    options: tuple[str, ...] = ()
    unwrapped: frozenset[str] = frozenset()
    used: frozenset[str] = frozenset()


@dataclass
class _Notes:
    used: set[str] = field(default_factory=set)
    unwrapped: set[str] = field(default_factory=set)


def read(row: Row) -> Meaning:
    """What a row means.

    Raises:
        DataError: it has no question or answer, its placeholders and pictures differ, or its turns make no sense.
    """
    notes = _Notes()
    pictures = _pictures(row, notes)
    conversation = _conversation(row, notes)
    if conversation is not None:
        turns, own = _turns(conversation)
        if own and pictures:
            raise DataError("pictures stand in the messages and in a column as well")
        pictures = tuple(own) or pictures
        _require_places(sum(turn.pictures for turn in turns), len(pictures))
        items = tuple(_answered(turns, notes))
        options: tuple[str, ...] = ()
    else:
        item, options = _flat(row, notes)
        found = PLACEHOLDER.findall(item.question)
        numbered = {number for number in found if number}
        _require_places(len(numbered) or len(found), len(pictures))
        items = (_without_places(item),)
    return Meaning(items, pictures, options, frozenset(notes.unwrapped), frozenset(notes.used))


@lru_cache(maxsize=1024)
def looks_like_picture(column: str) -> bool:
    """Whether a column's name says that it holds pictures."""
    return PICTURE_KEY.fullmatch(column) is not None


def _require_places(places: int, pictures: int) -> None:
    if places and places != pictures:
        raise DataError(f"{places} `<image>` for {pictures} picture{'s' * (pictures != 1)}")


# --- pictures --------------------------------------------------------------------------------


def _pictures(row: Row, notes: _Notes) -> tuple[Any, ...]:
    """Pictures of the first column that holds some; `images` and `image` before other names."""
    columns = sorted(filter(looks_like_picture, row), key=lambda name: (name != "images", name != "image"))
    numbered = [name for name in columns if re.search(r"\d$", name)]
    found: list[Any] = []
    for name in [each for each in columns if each not in numbered]:
        items = [item for item in _listed(row[name]) if not _nothing(item)]
        if name.lower().startswith("file"):  # of anything; only pictures are meant here
            items = [item for item in items if isinstance(item, str) and _PICTURE_FILE.fullmatch(item)]
        notes.used.add(name)
        if items and not found:
            found = items
    if not found:
        for name in numbered:
            notes.used.add(name)
            found += [item for item in _listed(row[name]) if not _nothing(item)]
    return tuple(found)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _nothing(value: Any) -> bool:
    """A cell that holds nothing: null, NaN, an empty text or object, or an object of empty cells."""
    if value is None or isinstance(value, str | bytes | list | tuple):
        return not value
    if isinstance(value, Mapping):
        return all(_nothing(each) for each in value.values())
    return isinstance(value, float) and math.isnan(value)


# --- conversations ---------------------------------------------------------------------------


def _conversation(row: Row, notes: _Notes) -> list[Any] | None:
    """The row's messages, of TRL's prompt and completion too; None for a flat row."""
    for name in CONVERSATION_KEYS:
        value = row.get(name)
        if isinstance(value, str) and value.lstrip().startswith("["):
            value = _json(value)
        if isinstance(value, list) and value:
            notes.used.add(name)
            return value
    prompt, chosen = row.get("prompt"), row.get("chosen")
    if isinstance(prompt, list):
        completion = row.get("completion", chosen)
        notes.used |= {"prompt", "completion", "chosen"}
        messages = (
            completion if isinstance(completion, list) else [{"role": "assistant", "content": completion}]
        )
        return [*prompt, *(messages or [])]
    if isinstance(chosen, list):
        notes.used.add("chosen")
        return chosen
    return None


def _turns(messages: Iterable[Any]) -> tuple[list[Turn], list[Any]]:
    """Turns with roles under their usual names, and pictures that stand in them; neighbours of one role are joined."""
    turns: list[Turn] = []
    pictures: list[Any] = []
    for message in messages:
        if not isinstance(message, Mapping):
            raise DataError(f"a message must be an object, this is {type(message).__name__}")
        for role, content in _said(message):
            text, places, own = _content(content)
            pictures += own
            if turns and turns[-1].role == role:
                last = turns.pop()
                text, places = f"{last.text}\n{text}".strip(), last.pictures + places
            turns.append(Turn(role, text, places))
    return turns, pictures


def _said(message: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(role, content) of a message; of both sides where one object holds a question and its answer."""
    named = next((message[key] for key in ("role", "from", "speaker") if message.get(key) is not None), None)
    if named is None:
        sides = [(_ROLE_OF[key.lower()], value) for key, value in message.items() if key.lower() in _ROLE_OF]
        if not sides:
            raise DataError(f"a message without a role ({', '.join(map(str, message))})")
        yield from sides
        return
    role = _ROLE_OF.get(str(named).strip().lower())
    if role is None:
        tool = str(named).lower() in ("tool", "function", "observation", "ipython", "tool_call")
        raise DataError(f"{'tool turns are' if tool else f'the role {named!r} is'} not supported")
    yield (
        role,
        next((message[key] for key in ("content", "value", "text") if message.get(key) is not None), ""),
    )


def _content(content: Any) -> tuple[str, int, list[Any]]:
    """Text without placeholders, how many pictures stand in it, and those that it carries itself."""
    if not isinstance(content, list):
        text = "" if content is None else str(content)
        return PLACEHOLDER.sub("", text).strip(), len(PLACEHOLDER.findall(text)), []
    texts, places, own = [], 0, []
    for part in content:
        if isinstance(part, str):
            part = {"type": "text", "text": part}
        if not isinstance(part, Mapping):
            raise DataError(f"a part of a message must be an object or text, this is {type(part).__name__}")
        kind = str(part.get("type") or ("text" if "text" in part else "image"))
        if kind == "text":
            text, inside, _ = _content(part.get("text"))
            texts.append(text)
            places += inside
        elif kind in ("image", "image_url", "input_image"):
            places += 1
            given = next(
                (part[key] for key in ("image", "image_url", "url", "path", "bytes") if part.get(key)), None
            )
            own += [] if given is None else [given.get("url", given) if isinstance(given, Mapping) else given]
        else:
            raise DataError(f"a part of type {kind!r} is not supported")
    return "\n".join(filter(None, texts)), places, own


def message_text(message: Mapping[str, Any]) -> str:
    """The text of one message, without placeholders."""
    return next(
        (text for _, content in _said({"role": "assistant", **message}) for text in [_content(content)[0]]),
        "",
    )


def _answered(turns: Sequence[Turn], notes: _Notes) -> Iterator[Asked]:
    """Every question with the answer behind it; all are about the pictures of the first."""
    if turns and turns[-1].role != "assistant":
        raise DataError("the last turn is not answered")
    asked = [place for place, turn in enumerate(turns) if turn.role == "user"]
    if any(turns[place].pictures for place in asked[1:]):
        raise DataError("a later turn brings a picture of its own; such conversations are not supported")
    if not asked:
        raise DataError("no turn of a user")
    for place in asked:
        reasoning, answer = unwrap(turns[place + 1].text, notes.unwrapped)
        yield Asked(turns[place].text, (answer,), reasoning)


# --- flat rows -------------------------------------------------------------------------------


def _flat(row: Row, notes: _Notes) -> tuple[Asked, tuple[str, ...]]:
    """Question, accepted answers and reasoning of a row without messages, and its options."""
    question = _question(row, notes)
    options = _options(row, notes)
    answers = _answers(row, notes)
    if not answers and isinstance(row.get("chosen"), str):
        answers = (str(row["chosen"]),)
    if question is None and any(isinstance(row.get(name), str) for name in QUESTION_KEYS):
        raise DataError("empty question")
    if question is None:
        raise DataError(f"no question (looked for {', '.join(QUESTION_KEYS)}, messages, conversations)")
    if not answers and any(isinstance(row.get(name), str) for name in ANSWER_KEYS):
        raise DataError("empty answer")
    if not answers:
        raise DataError(f"no answer (looked for {', '.join(ANSWER_KEYS)})")
    reasoning, first = unwrap(answers[0], notes.unwrapped)
    answers = (first, *(unwrap(each, notes.unwrapped)[1] for each in answers[1:]))
    given = _reasoning(row, bool(options), notes)
    if given is not None:
        reasoning = unwrap(given, notes.unwrapped)[0] or given
    if options and all(option.lower() in question.lower() for option in options):
        options = ()  # the question names them already, as rows of ours do
    elif options:
        answers = (_chosen(answers[0], options),)
        question = with_options(question, options)
    return Asked(question, tuple(dict.fromkeys(answers)), reasoning), options


def _question(row: Row, notes: _Notes) -> str | None:
    """The question; what an instruction is about, and a context that it needs, stand before and behind it."""
    name = next((key for key in QUESTION_KEYS if text_of(row.get(key)) is not None), None)
    if name is None:
        return None
    parts = [str(text_of(row[name]))]
    notes.used.add(name)
    if name == "instruction" and isinstance(row.get("input"), str) and row["input"].strip():
        parts.append(str(row["input"]))
        notes.used.add("input")
    if any(key in row for key in OPTION_KEYS) and ("lecture" in row or "context" in row):
        # ScienceQA: `hint` and `lecture` are what the question builds on.
        context = [
            str(row[key]).strip()
            for key in CONTEXT_KEYS
            if isinstance(row.get(key), str) and row[key].strip()
        ]
        notes.used.update(CONTEXT_KEYS)
        parts = [*context[:1], *parts]
    return "\n".join(part.strip() for part in parts)


def text_of(value: Any) -> str | None:
    """A cell as people write it: 2010.0 is 2010; None for nothing and for what is no text or number."""
    if _nothing(value):
        return None
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value) if isinstance(value, str | int | float | bool) else None


def _texts(value: Any) -> list[str]:
    """Every answer in a cell: a text, a list, an object with `answer` or `text`, a list of objects."""
    if isinstance(value, Mapping):
        inner = next(
            (value[key] for key in ("answer", "text", "value", "label", "content") if key in value), None
        )
        return _texts(inner)
    if isinstance(value, list | tuple):
        return [text for each in value for text in _texts(each)]
    text = text_of(value)
    return [] if text is None or not text.strip() else [text]


def _answers(row: Row, notes: _Notes) -> tuple[str, ...]:
    """Every accepted answer, the one that most give first; columns with one before columns with several."""
    for name in ANSWER_KEYS:
        if found := _texts(row.get(name)):
            notes.used.add(name)
            others = _texts(row.get("answers")) if name in ("answer", "multiple_choice_answer") else []
            objects = isinstance(row[name], list) and any(isinstance(each, Mapping) for each in row[name])
            if objects:  # ten people's answers (VQA): the commonest is the answer
                found = [text for text, _ in Counter(found).most_common()]
            return tuple(dict.fromkeys([*found, *others]))
    return ()


def _reasoning(row: Row, has_options: bool, notes: _Notes) -> str | None:
    science = has_options and ("lecture" in row or "context" in row)
    for name in REASONING_KEYS:
        if (name == "hint" and science) or (name == "solution" and "solution" in notes.used):
            continue
        if found := _texts(row.get(name)):
            notes.used.add(name)
            return found[0]
    return None


def _options(row: Row, notes: _Notes) -> tuple[str, ...]:
    """Options of a list, of an object by letter, of a text of a list, or of the columns A, B, C …"""
    for name in OPTION_KEYS:
        value = row.get(name)
        if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
            value = _json(value.replace("'", '"')) or value
        if isinstance(value, Mapping):
            value = value.get("text", list(value.values()))
        if isinstance(value, list) and value:
            notes.used.add(name)
            lettered = re.compile(r"^\(?([A-Z])\s*[).:]\s+")  # `A. red`
            texts = [text_of(each) or "" for each in value]
            return tuple(lettered.sub("", each).strip() for each in texts)
    columns = [letter for letter in _LETTERS if text_of(row.get(letter)) is not None] if "B" in row else []
    if columns[:2] == ["A", "B"] and columns == list(_LETTERS[: len(columns)]):
        notes.used.update(columns)
        return tuple(str(text_of(row[letter])).strip() for letter in columns)
    return ()


def _chosen(answer: str, options: Sequence[str]) -> str:
    """The right option's words, whether the answer is those, its letter or its index."""
    answer = answer.strip()
    if answer in options:
        return answer
    letter = re.fullmatch(r"\(?([A-Za-z])\)?[.:]?", answer)
    place = _LETTERS.index(letter[1].upper()) if letter else int(answer) if answer.isdecimal() else None
    if place is None:
        alike = [option for option in options if option.lower() == answer.lower()]
        if len(alike) == 1:
            return alike[0]
        raise DataError(f"the answer {answer!r} is none of the {len(options)} options")
    if place >= len(options):
        raise DataError(f"option {answer} of {len(options)} is none")
    return options[place]


def with_options(question: str, options: Sequence[str]) -> str:
    """The question with its options, one a line behind their letters."""
    return "\n".join(
        [question, "Choices:", *(f"{letter}: {each}" for letter, each in zip(_LETTERS, options))]
    )


def _without_places(item: Asked) -> Asked:
    return Asked(PLACEHOLDER.sub("", item.question).strip(), item.answers, item.reasoning)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


# --- tags of somebody's training format -----------------------------------------------------

_THINK = re.compile(r"\s*<think(?:ing)?>(.*?)</think(?:ing)?>\s*", re.DOTALL | re.IGNORECASE)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_CONCLUSION = re.compile(r"<CONCLUSION>(.*?)(?:</CONCLUSION>|$)", re.DOTALL)
_REASONING = re.compile(r"<REASONING>(.*?)</REASONING>", re.DOTALL)
_BOXED = re.compile(r"\s*\$?\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}\$?\s*\.?\s*")


def unwrap(text: str, found: set[str] | None = None) -> tuple[str | None, str]:
    """(reasoning, answer) of a completion: `<think>`, `<answer>`, LLaVA-CoT's four tags and `\\boxed{}` taken off.

    Args:
        found: where the kinds of tags that were taken off are added.
    """
    found = set() if found is None else found
    reasoning: str | None = None
    if conclusion := _CONCLUSION.search(text):
        found.add("<CONCLUSION>")
        thought = _REASONING.search(text)
        reasoning = thought[1].strip() if thought else text[: conclusion.start()].strip() or None
        text = conclusion[1]
    if thought := _THINK.match(text):
        found.add("<think>")
        reasoning, text = thought[1].strip() or None, text[thought.end() :]
    answers = _ANSWER.findall(text)
    if len(answers) == 1:
        found.add("<answer>")
        before = text[: _ANSWER.search(text).start()].strip()  # type: ignore[union-attr]
        reasoning = reasoning or before or None
        text = answers[0]
    if boxed := _BOXED.fullmatch(text):
        found.add("\\boxed")
        text = boxed[1]
    return reasoning, text.strip()
