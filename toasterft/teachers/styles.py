"""The style of a trace: the teacher's prompt, and the form its answers must have.

Two are shipped (`prompts/simplified.txt`, `structured.txt`);
any other is a text file with `{question}` and, where the answer is given away, `{answer}` in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from toasterft.data.charts.phrases import HEADINGS
from toasterft.data.example import Example
from toasterft.errors import UserError

HERE = Path(__file__).parent / "prompts"
GIVEN = (
    "The correct answer is: {answer}\n"
    "Reason towards exactly this answer as if you had found it yourself. Never say or hint that it was given."
)
WITHHELD = "Work out the answer from the picture alone."
# Longest traces in tokens of the student, whose sequence must hold the picture too. 45 is a usual simplified
# trace; the structured ones of the first experiments ran to several hundred and made the student worse.
LIMITS = {"simplified": 110, "structured": 360}
CUSTOM_LIMIT = 512
# "{question}", "{answer}", "{given}"
_BLANK = re.compile(r"\{(\w+)\}")


def fill(prompt: str, **words: str) -> str:
    """The prompt with its blanks filled; other braces stay as they are."""
    return _BLANK.sub(lambda found: words.get(found[1], found[0]), prompt)


@dataclass(frozen=True)
class Style:
    """A prompt with blanks, and the form its answers must have."""

    name: str
    prompt: str
    max_trace_tokens: int
    headings: tuple[str, ...] = ()

    def ask(self, example: Example, *, blind: bool) -> str:
        """The prompt for one example; a file of one's own places the answer itself."""
        given = WITHHELD if blind else GIVEN.format(answer=example.answer)
        return fill(self.prompt, question=example.question_in_context, answer=example.answer, given=given)


def load(name: str, *, blind: bool, max_trace_tokens: int | None = None) -> Style:
    """Load a shipped style, or a prompt file.

    Raises:
        UserError: there is none, or its blanks do not suit.
    """
    if name in LIMITS:
        prompt = (HERE / f"{name}.txt").read_text(encoding="utf-8").strip()
        headings = HEADINGS if name == "structured" else ()
        return Style(name, prompt, max_trace_tokens or LIMITS[name], headings)
    path = Path(name).expanduser()
    try:
        prompt = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise UserError(
            f"no style {name!r}",
            where="--style",
            why=f"it is neither one of {', '.join(LIMITS)} nor a text file that can be read",
        ) from None
    blanks = set(_BLANK.findall(prompt))
    if "question" not in blanks:
        raise UserError("the prompt lacks {question}", where=str(path), next_step="put {question} into it")
    if blind and "answer" in blanks:
        raise UserError(
            "the prompt gives the {answer} away",
            where=str(path),
            why="--blind withholds it",
            next_step="use {given}, which fits both cases, or leave --blind out",
        )
    return Style(path.stem, prompt, max_trace_tokens or CUSTOM_LIMIT)
