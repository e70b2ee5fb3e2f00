"""Rows with a column for each part: question, context, options, accepted answers, reasoning."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence

from toasterft.data.layout.cells import Notes, Row, as_list, is_empty, parsed, text_of, texts_of
from toasterft.data.layout.tags import unwrap
from toasterft.data.layout.turns import QuestionAnswer, history_of
from toasterft.errors import DataError

QUESTION_KEYS = (
    "question", "query", "problem", "prompt", "instruction", "question_text", "user", "human",
)  # fmt: skip
ANSWER_KEYS = (
    "answer", "multiple_choice_answer", "label", "labels", "answers", "output", "response", "solution", "completion",
    "target", "ground_truth", "gt", "gt_answer", "gold", "gold_answer", "correct_answer", "final_answer", "answer_text",
    "assistant", "gpt",
)  # fmt: skip
# The place of the right option, counted from 0.
INDEX_KEYS = (
    "correct_choice_idx", "answer_index", "answer_idx", "correct_option_index", "correct_index", "correct_answer_idx",
)  # fmt: skip
REASONING_KEYS = (
    "reasoning", "hint", "cot", "rationale", "rationales", "think", "thinking", "thought", "reasoning_content",
    "chain_of_thought", "solution", "explanation",
)  # fmt: skip
OPTION_KEYS = ("choices", "options", "candidates", "multiple_choices")
# What a question needs to be understood; it is never the reasoning.
CONTEXT_KEYS = ("context", "passage", "hint", "lecture")
_LETTERS = string.ascii_uppercase
_LETTERED = re.compile(r"^\(?([A-Z])\s*[).:]\s+")  # `A. red`
# `B`, `(b)`, `Option B.`, `The answer is B.`
_LETTER = re.compile(
    r"(?:(?:the\s+)?(?:correct\s+)?(?:answer|option|choice)(?:\s+is)?:?\s+)?\(?([A-Z])\)?[.:]?", re.I
)
# `option_a`, `option1`, `choice_B`, `A`; its last letter or digit is its place.
_OPTION_COLUMN = re.compile(r"(?:option|choice|opt)[ _-]?([a-h]|\d)", re.IGNORECASE)


def flat(row: Row, notes: Notes) -> tuple[QuestionAnswer, tuple[str, ...]]:
    """Question, accepted answers and reasoning of a row without messages, and its options.

    Raises:
        DataError: it has no question or no answer, or the answer is none of its options.
    """
    question = _question(row, notes)
    options = _options(row, notes)
    place = _index(row, options, notes) if options else None
    answers = _answers(row, notes) if place is None else (options[place],)
    if not answers and isinstance(row.get("chosen"), str):
        answers = (str(row["chosen"]),)
    if question is None:
        blank = any(isinstance(row.get(name), str) for name in QUESTION_KEYS)
        looked = f"no question (looked for {', '.join(QUESTION_KEYS[:5])}, messages, conversations)"
        raise DataError("empty question" if blank else looked)
    if not answers:
        blank = any(isinstance(row.get(name), str) for name in ANSWER_KEYS)
        raise DataError(
            "empty answer" if blank else f"no answer (looked for {', '.join(ANSWER_KEYS[:10])} …)"
        )
    reasoning, first = unwrap(answers[0], notes.changes)
    answers = (first, *(unwrap(each, notes.changes)[1] for each in answers[1:]))
    given = _reasoning(row, bool(options), notes)
    if given is not None:
        reasoning = unwrap(given, notes.changes)[0] or given
    if options and not _named(options, question):
        answers = (chosen(answers[0], options),)
        question = with_options(question, options)
    elif options:  # as rows of ours do; a letter means something only where the question shows it
        letter = _LETTER.fullmatch(answers[0])
        place = _LETTERS.index(letter[1].upper()) if letter else len(options)
        if (
            letter
            and place < len(options)
            and not re.search(rf"(?<!\w){letter[1]}\s*[).:]", question, re.IGNORECASE)
        ):
            answers = (options[place],)
        options = ()
    return QuestionAnswer(
        question, tuple(dict.fromkeys(answers)), reasoning, tuple(history_of(row, notes))
    ), options


def _named(options: Sequence[str], question: str) -> bool:
    """Whether the question names all options already."""
    return all(re.search(rf"(?<!\w){re.escape(option)}(?!\w)", question, re.IGNORECASE) for option in options)


def _index(row: Row, options: Sequence[str], notes: Notes) -> int | None:
    """The place of the right option, from a column of such places, or from a number beside options that are texts."""
    name = next((key for key in INDEX_KEYS if text_of(row.get(key)) is not None), None)
    if name is None:
        name = next((key for key in ANSWER_KEYS if not is_empty(row.get(key))), None)
        if name is None:
            return None
        value = row[name]
        numbers = any(
            isinstance(each, int | float) for key in OPTION_KEYS for each in as_list(parsed(row.get(key)))
        )
        if isinstance(value, bool) or not isinstance(value, int | float) or numbers:
            return None
    text = text_of(row[name]) or ""
    if not text.isdecimal():
        return None
    place = int(text)
    if place >= len(options):
        if name in ANSWER_KEYS and text in options:
            return options.index(text)
        raise DataError(f"option {place} of {len(options)} is none, counted from 0")
    notes.used.add(name)
    return place


def _question(row: Row, notes: Notes) -> str | None:
    """The question; what an instruction is about, and a context that it needs, stand before and behind it."""
    name = next((key for key in QUESTION_KEYS if text_of(row.get(key)) is not None), None)
    if name is None:
        return None
    parts = [str(text_of(row[name]))]
    notes.used.add(name)
    if name == "instruction" and isinstance(row.get("input"), str) and row["input"].strip():
        parts.append(str(row["input"]))
        notes.used.add("input")
    if _is_science(row):
        # ScienceQA: `hint` and `lecture` are what the question builds on.
        texts = [row[key].strip() for key in CONTEXT_KEYS if isinstance(row.get(key), str)]
        notes.used.update(CONTEXT_KEYS)
        parts = [*list(filter(None, texts))[:1], *parts]
    return "\n".join(part.strip() for part in parts)


def _is_science(row: Row) -> bool:
    return any(key in row for key in OPTION_KEYS) and ("lecture" in row or "context" in row)


def _answers(row: Row, notes: Notes) -> tuple[str, ...]:
    """Every accepted answer, the one that most give first; columns with one before columns with several."""
    for name in filter(row.__contains__, ANSWER_KEYS):
        # A text in a column of one answer is that answer: ChartQA has `[13, 44]`, extraction has `{"total": "12"}`.
        value = parsed(row.get(name)) if name.endswith("s") else row.get(name)
        if found := texts_of(value):
            notes.used.add(name)
            others = (
                texts_of(parsed(row.get("answers"))) if name in ("answer", "multiple_choice_answer") else []
            )
            notes.used |= {"answers"} if others else set()
            if isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
                # Ten people's answers (VQA): the commonest is the answer.
                found = [text for text, _ in Counter(found).most_common()]
            return tuple(dict.fromkeys([*found, *others]))
    return ()


def _reasoning(row: Row, has_options: bool, notes: Notes) -> str | None:
    science = has_options and _is_science(row)
    for name in filter(row.__contains__, REASONING_KEYS):
        if (name == "hint" and science) or (name == "solution" and "solution" in notes.used):
            continue
        if found := texts_of(parsed(row.get(name))):
            notes.used.add(name)
            return found[0]
    return None


def _options(row: Row, notes: Notes) -> tuple[str, ...]:
    """Options of a list, of an object by letter, of a text of a list, or of columns (A, B … or option_1, option_2 …)."""
    for name in OPTION_KEYS:
        value = parsed(row.get(name))
        if isinstance(value, Mapping):
            value = value.get("text", list(value.values()))
        if isinstance(value, str) and value.strip():  # `A. red; B. blue`
            value = re.split(r"\s*[\n;|]\s*", value.strip())
            if len(value) < 2:
                raise DataError(f"the options cannot be read: {value[0][:60]!r}")
        if isinstance(value, list | tuple) and len(value):
            notes.used.add(name)
            texts = [text for each in value for text in texts_of(each)]
            return tuple(_LETTERED.sub("", text).strip() for text in texts)
    named = {found[1].upper(): key for key in row if (found := _OPTION_COLUMN.fullmatch(key))}
    columns = named or {letter: letter for letter in _LETTERS[:8] if letter in row}
    filled = sorted(letter for letter, key in columns.items() if text_of(row[key]) is not None)
    starts = (_LETTERS, "123456789", "0123456789")
    if len(filled) < 2 or not any(start.startswith("".join(filled)) for start in starts):
        return ()
    notes.used.update(columns[letter] for letter in filled)
    return tuple(str(text_of(row[columns[letter]])).strip() for letter in filled)


def chosen(answer: str, options: Sequence[str]) -> str:
    """The right option's words, whether the answer is those, its letter, its index, or both (`B. blue`).

    Raises:
        DataError: it is none of them.
    """
    answer = answer.strip()
    if answer in options:
        return answer
    letter = _LETTER.fullmatch(answer)
    place = _LETTERS.index(letter[1].upper()) if letter else int(answer) if answer.isdecimal() else None
    if place is None:
        bare = _LETTERED.sub("", answer).strip().rstrip(".")
        alike = [option for option in options if option.lower().rstrip(".") in (answer.lower(), bare.lower())]
        if len(alike) == 1:
            return alike[0]
        raise DataError(f"the answer {answer!r} is none of the {len(options)} options")
    if place >= len(options):
        counted = "" if letter else ", counted from 0"
        raise DataError(f"option {answer} of {len(options)} is none{counted}")
    return options[place]


def with_options(question: str, options: Sequence[str]) -> str:
    """The question with its options, one a line behind their letters."""
    return "\n".join(
        [question, "Choices:", *(f"{letter}: {each}" for letter, each in zip(_LETTERS, options))]
    )
