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
from toasterft.engine.generate import generate
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
    """Generate answers in order, `batch_size` questions per pass; greedy at temperature 0.

    Args:
        leads: by `Example.key`, reasoning that the answers continue as if it were the model's own.
        seed: of what is sampled above temperature 0; each pass begins from its own, so that an interrupted
            evaluation goes on with the samples it would have had.
    """
    chat, end_ids = session.chat, session.chat.end_token_ids
    for start in range(0, len(examples), batch_size):
        batch = examples[start : start + batch_size]
        given = [leads[example.key] if leads else None for example in batch]
        begun = [_completion_start(chat, example, lead) for example, lead in zip(batch, given)]
        prompts = _with_starts(session.inputs.prompts(batch, suffix), [chat.ids(text) for text in begun])
        inputs = session.inputs.left_padded(prompts)
        if temperature > 0:
            torch.manual_seed(seed + start)
        rows = generate(
            session.loaded,
            inputs,
            end_ids=end_ids,
            max_completion_length=max_completion_length,
            temperature=temperature,
        )
        for example, lead, beginning, ids in zip(batch, given, begun, rows):
            text = control_tokens.shown(beginning) + chat.decode(ids)
            parsed = parse(text, chat.prompt)
            finished = bool(ids) and ids[-1] in end_ids
            thought = len(chat.ids(parsed.reasoning)) if parsed.reasoning else 0
            yield Answer(example, text, parsed, len(ids), finished, thought, lead.tokens if lead else 0)
        if progress:
            progress(start + len(batch), len(examples))


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


def _with_starts(prompts: Prompts, begun: list[list[int]]) -> Prompts:
    """Prompts with the beginnings of their completions behind them."""
    types = prompts.token_types
    return replace(
        prompts,
        ids=[ids + more for ids, more in zip(prompts.ids, begun)],
        token_types=types and [row + [0] * len(more) for row, more in zip(types, begun)],
    )


def summary(given: Sequence[Answer]) -> dict[str, Any]:
    """Scores with intervals, format rate, mean length and the traces' quality, as `eval --json` prints them."""
    found = scoring.summarise([answer.scored for answer in given])
    return {**found, "traces": quality.summarise([answer.trace for answer in given])}
