"""Generate answers and score them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from toasterft import scoring
from toasterft.data import control_tokens
from toasterft.data.chat import STEP, Chat, Parsed, parse, untagged
from toasterft.data.example import Example
from toasterft.data.write import columns
from toasterft.engine.batching import Prompts
from toasterft.engine.generate import Writing, complete, with_beginnings
from toasterft.engine.open_model import ModelSession
from toasterft.recipe import Prompt
from toasterft.scoring import Scored
from toasterft.scoring.traces import quality
from toasterft.scoring.traces.quality import Trace


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

    reasoning_tokens: int = 0
    """Tokens of the reasoning between its tags."""
    reasoner_tokens: int = 0
    """Tokens that another model wrote for this answer; they are not among `tokens`."""

    @cached_property
    def scored(self) -> Scored:
        verdict = scoring.judge(self.parsed.answer, self.example)
        return Scored(
            id=self.example.id,
            kind=self.example.kind,
            correct=verdict.correct,
            well_formed=self.parsed.well_formed,
            completion_tokens=self.tokens + self.reasoner_tokens,
            pairs=scoring.table_pairs(self.parsed.answer, self.example.answer),
            task=scoring.task_of(self.example),
            gold=self.example.answer,
            picked=verdict.picked,
            choices=tuple(scoring.options_of(self.example)),
            token_recall=verdict.token_recall,
        )

    @cached_property
    def trace(self) -> Trace:
        return quality.measure(self.text, self.parsed, self.reasoning_tokens, self.example)

    def as_json(self) -> dict[str, Any]:
        """One row of samples.jsonl."""
        scored, checked = self.scored, self.trace.checked
        return {
            "id": self.example.id,
            "item": self.example.key,
            "kind": self.example.kind,
            "task": scored.task,
            "images": [image.name for image in self.example.images],
            **({"history": columns(self.example)["history"]} if self.example.history else {}),
            "question": self.example.question,
            "gold": self.example.answer,
            "answer": self.parsed.answer,
            "picked": scored.picked,
            "reasoning": self.parsed.reasoning,
            "text": self.text,
            "correct": scored.correct,
            "token_recall": scored.token_recall,
            "well_formed": scored.well_formed,
            "completion_tokens": self.tokens + self.reasoner_tokens,
            "reasoning_tokens": self.reasoning_tokens,
            **({"reasoner_tokens": self.reasoner_tokens} if self.reasoner_tokens else {}),
            "finished": self.finished,
            "faults": None if checked is None else list(checked.faults),
        }

    @classmethod
    def of_json(cls, row: dict[str, Any], example: Example, prompt: Prompt) -> Answer:
        """A row of samples.jsonl, scored anew."""
        others = row.get("reasoner_tokens", 0)
        return cls(
            example,
            row["text"],
            parse(row["text"], prompt),
            row["completion_tokens"] - others,
            row["finished"],
            row["reasoning_tokens"],
            others,
        )


@dataclass(frozen=True)
class Lead:
    """Another model's reasoning on a question, and its tokens; None where it wrote none."""

    reasoning: str | None
    tokens: int

    @classmethod
    def of_json(cls, row: dict[str, Any]) -> Lead:
        """From a row of that model's samples.jsonl: between its think tags, or all of it where it used no tags."""
        thought = (row["reasoning"] or "").strip()
        if not thought and row["answer"].strip() == row["text"].strip():
            thought = row["text"].strip()
        return cls(thought or None, row["completion_tokens"])


def question_suffix(step: bool, suffix: str | None) -> str:
    """The text that `--step` and `--suffix` add to every question."""
    return " ".join(part for part in (suffix or "", STEP if step else "") if part)


def answers(
    session: ModelSession,
    examples: Sequence[Example],
    *,
    batch_size: int,
    max_completion_length: int,
    suffix: str = "",
    leads: Mapping[str, Lead] | None = None,
    temperature: float = 0.0,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Answer]:
    """Generate answers in order, `batch_size` at a time; greedy at temperature 0.

    Args:
        leads: by `Example.key`, reasoning that the answers continue as if it were the model's own.
        seed: of what is sampled above temperature 0; each row draws from its own, so that an interrupted
            evaluation goes on with the samples it would have had.
    """
    chat = session.chat
    writing = Writing(chat.end_token_ids, max_completion_length, temperature)

    def given(example: Example) -> Lead | None:
        return leads[example.key] if leads else None

    def prompts(rows: Sequence[Example]) -> Prompts:
        begun = [chat.ids(_completion_start(chat, example, given(example))) for example in rows]
        return with_beginnings(session.inputs.prompts(rows, suffix), begun)

    found = complete(
        session.inputs,
        examples,
        prompts,
        writing,
        rows_at_once=batch_size,
        drawn=_drawn(seed, len(examples), max_completion_length) if temperature > 0 else None,
    )
    # A row may end before one that stands before it.
    early: dict[int, list[int]] = {}
    done = 0
    for place, [ids] in found:
        early[place] = ids
        while done in early:
            example, ids = examples[done], early.pop(done)
            lead, done = given(example), done + 1
            text = control_tokens.shown(_completion_start(chat, example, lead)) + chat.decode(ids)
            parsed = parse(text, chat.prompt)
            finished = bool(ids) and ids[-1] in writing.end_ids
            thought = len(chat.ids(parsed.reasoning)) if parsed.reasoning else 0
            yield Answer(example, text, parsed, len(ids), finished, thought, lead.tokens if lead else 0)
            if progress:
                progress(done, len(examples))


def _drawn(seed: int, rows: int, tokens: int) -> torch.Tensor:
    """[rows, 1, tokens] between 0 and 1, each row from a seed of its own."""
    draws = [
        torch.rand(1, tokens, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + row))
        for row in range(rows)
    ]
    return torch.stack(draws)


def _completion_start(chat: Chat, example: Example, lead: Lead | None) -> str:
    """The completion up to where the answer is written, with the lead's reasoning as the model's own.

    The answer's opening tag is part of it: `</think><answer>` holds `><`, a token of its own in the usual
    vocabularies, so that a text which ends in `</think>` is one the model has never seen.
    """
    if lead is None or lead.reasoning is None:
        return ""
    thought = untagged(lead.reasoning, chat.prompt).strip()
    whole = chat.completion(replace(example, reasoning=thought, answer=""))
    return whole.rpartition(f"</{chat.prompt.answer_tag}>")[0]


def summary(given: Sequence[Answer]) -> dict[str, Any]:
    """Scores with intervals, format rate, mean length and the traces' quality, as `eval --json` prints them."""
    found = scoring.summarise([answer.scored for answer in given])
    return {**found, "traces": quality.summarise([answer.trace for answer in given])}
