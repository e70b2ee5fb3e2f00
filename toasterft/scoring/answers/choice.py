"""Which of several options a text names: by its letter, by its words, or not at all."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from toasterft.scoring.answers.values import gold_number, same_amount, stated, tidy

# An option is looked for inside a text of at most this many words: a long one mentions them all.
SHORT_WORDS = 20

_MARKS = " \t\n\"'*[]"
_LETTER_ALONE = re.compile(r"(?:(?:option|choice)\s+)?\(?([a-z])[).:\s]*", re.IGNORECASE)
# "(B) …", "B. …", and a bare capital with words beside it: "B 45".
_LETTER_FIRST = re.compile(
    r"(?:\(([A-Za-z])\)\s*|([A-Za-z])\s*[).:](?:\s+|(?=\d))|([A-Z])\s+)(?=\S)(.+)", re.DOTALL
)
_LETTERS_INSIDE = re.compile(r"\(([A-Za-z])\)|\b(?:[Oo]ption|[Cc]hoice)s?\s+(?:is\s+)?\(?([A-Z])\b")
# Beside one of these a mentioned option is not what is meant: "not (B)", "A or B".
_NOT_MEANT = re.compile(
    r".*n't|not?|never|none|neither|nor|cannot|wrong|incorrect|or|except|without|than|unlike"
)


def letter_of(text: str) -> str | None:
    """The capital letter that `text` gives as its answer: `B`, "(b)", "B.", "option B", "B. 45 cm"."""
    answer = stated(text).strip(_MARKS)
    if alone := _LETTER_ALONE.fullmatch(answer):
        return alone[1].upper()
    letters = {(one or other).upper() for one, other in _LETTERS_INSIDE.findall(answer)}
    first = _LETTER_FIRST.fullmatch(answer)
    if first and not first[3]:
        letters.add((first[1] or first[2]).upper())
    elif _denied(answer, ()):
        return None
    return letters.pop() if len(letters) == 1 else None


def named(text: str, options: Sequence[str], *, lettered: bool) -> int | None:
    """The place in `options` of the one that `text` names; None in doubt.

    A text that is an option names it; so does its letter (A is the first) where they are `lettered`, unless
    the words beside the letter are another option's; and so does a short text in which one option's words
    stand, no other's, and no denial.
    """
    answer = stated(text).strip(_MARKS)
    same = [place for place, option in enumerate(options) if answer == option.strip()]
    if same:
        return _only(same)
    first = _LETTER_FIRST.fullmatch(answer) if lettered else None
    if first is not None:
        place = _place(first[1] or first[2] or first[3], options)
        in_words = named(first[4], options, lettered=False)
        if place is not None and place == in_words:
            return place
        # Marked as a letter it is one, unless what follows contradicts it; a bare "A" may be an article.
        if not first[3]:
            return place if letter_of(answer) and in_words is None else None
    if (one := _only([place for place, option in enumerate(options) if _same(answer, option)])) is not None:
        return one
    letter = letter_of(answer) if lettered else None
    return _mentioned(answer, options) if letter is None else _place(letter, options)


def _place(letter: str, options: Sequence[str]) -> int | None:
    place = ord(letter.upper()) - ord("A")
    return place if place < len(options) else None


def _same(answer: str, option: str) -> bool:
    """Equal once made comparable; a number must be the same number exactly."""
    if (number := gold_number(option)) is not None:
        return same_amount(answer, number)
    return bool(tidy(option)) and tidy(answer) == tidy(option)


def _only(places: list[int]) -> int | None:
    return places[0] if len(places) == 1 else None


def _mentioned(answer: str, options: Sequence[str]) -> int | None:
    """The only option whose words stand in `said`; "red car" is not a mention of "car"."""
    words: list[str | None] = [*_words(answer)]
    if len(words) > SHORT_WORDS:
        return None
    found: list[int] = []
    of_option = [_words(option) for option in options]
    for place in sorted(range(len(options)), key=lambda place: -len(of_option[place])):
        size = len(of_option[place])
        for start in range(len(words) - size + 1 if size else 0):
            if words[start : start + size] == of_option[place]:
                words[start : start + size] = [None] * size
                found.append(place)
    one = _only(sorted(set(found)))
    return None if one is None or _denied(answer, of_option[one]) else one


def _words(text: str) -> list[str]:
    return tidy(text).replace("=", " = ").split()


def _denied(answer: str, allowed: Sequence[str]) -> bool:
    """Whether a word of denial stands in `said`, beyond those of the option itself."""
    words = (word.strip(".,;:!?()[]\"'*") for word in answer.lower().replace("’", "'").split())
    return any(_NOT_MEANT.fullmatch(word) for word in Counter(words) - Counter(allowed))
