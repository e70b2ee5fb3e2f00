"""Ask a model questions, and say how right it was."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from toasterft import scoring
from toasterft.data.example import Example
from toasterft.data.prompt import STEP, Parsed, parse
from toasterft.engines.generate import generate
from toasterft.methods.opening import Opened
from toasterft.scoring import Scored


@dataclass(frozen=True)
class Answer:
    """One question with what the model wrote."""

    example: Example
    text: str
    parsed: Parsed
    tokens: int
    """Tokens written, the end token included."""
    finished: bool
    """It ended by itself rather than at the length limit."""

    def scored(self) -> Scored:
        gold = self.example.answer
        return Scored(
            id=self.example.id,
            kind=self.example.kind,
            correct={name: scorer(self.parsed.answer, gold) for name, scorer in scoring.SCORERS.items()},
            well_formed=self.parsed.well_formed,
            completion_tokens=self.tokens,
            pairs=scoring.table_pairs(self.parsed.answer, gold),
        )

    def as_json(self) -> dict[str, Any]:
        """One row of samples.jsonl."""
        scored = self.scored()
        return {
            "id": self.example.id,
            "kind": self.example.kind,
            "images": [image.name for image in self.example.images],
            "question": self.example.question,
            "gold": self.example.answer,
            "answer": self.parsed.answer,
            "reasoning": self.parsed.reasoning,
            "text": self.text,
            "correct": scored.correct,
            "well_formed": scored.well_formed,
            "completion_tokens": self.tokens,
            "finished": self.finished,
        }


def suffix_of(step: bool, suffix: str | None) -> str:
    """What `--step` and `--suffix` add to every question."""
    return " ".join(part for part in (suffix or "", STEP if step else "") if part)


def answers(
    opened: Opened,
    examples: Sequence[Example],
    *,
    batch_size: int,
    max_completion_length: int,
    suffix: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Answer]:
    """Greedy answers, in order, `batch_size` questions per pass."""
    end_ids = opened.chat.end_token_ids
    for start in range(0, len(examples), batch_size):
        batch = examples[start : start + batch_size]
        inputs = opened.inputs.left_padded(opened.inputs.prompts(batch, suffix))
        rows = generate(opened.loaded, inputs, end_ids=end_ids, max_completion_length=max_completion_length)
        for example, ids in zip(batch, rows):
            text = opened.chat.decode(ids)
            parsed = parse(text, opened.chat.prompt)
            yield Answer(example, text, parsed, len(ids), bool(ids) and ids[-1] in end_ids)
        if progress:
            progress(start + len(batch), len(examples))


def summary(given: Sequence[Answer]) -> dict[str, Any]:
    """Scores with intervals, format rate and mean length, as `eval --json` prints them."""
    found = scoring.summarise([answer.scored() for answer in given])
    if given and all(answer.example.extra.get("task") == "class" for answer in given):
        # Kinds are the labels here, so that accuracy by kind is recall by class.
        found["macro_recall"] = statistics.mean(row["robust"]["value"] for row in found["by_kind"].values())
    return found
