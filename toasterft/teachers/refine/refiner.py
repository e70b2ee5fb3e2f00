"""Refine the references of a run, by rules or by a model, and count the outcomes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from toasterft.data.example import Example
from toasterft.teachers.refine.api_writer import Writer
from toasterft.teachers.refine.rewrite import refine, sound
from toasterft.teachers.refine.template import Template, learn

Outcome = Literal["refined", "kept", "dropped", "failed"]
OUTCOMES: tuple[Outcome, ...] = ("refined", "kept", "dropped", "failed")


@dataclass
class Refiner:
    """The refiner of one run: its template, and a cache of what it has written.

    Attributes:
        template: the shape of traces from now on.
        writer: the model that rewrites; None for the rules.
        cache: by (example id, template hash): what came out. A failed request is repeated next time.
        counts: of calls by outcome. `refined` gave a rewritten trace. The others leave the reference as it
            is: `kept` where it holds (or there is nothing to rewrite it from), `dropped` where what was
            written will not do (by rules: where the reference itself will not, or is missing), `failed`
            where the model gave no answer.
    """

    template: Template = field(default_factory=Template)
    writer: Writer | None = None
    cache: dict[tuple[str, str], tuple[Outcome, str | None]] = field(default_factory=dict)
    counts: Counter[Outcome] = field(default_factory=Counter)

    def start(self, example: Example) -> None:
        """Send the model its request; `__call__` waits for the answer. Rules need none."""
        if self.writer is not None and self._key(example) not in self.cache:
            self.writer.start(example, self.template)

    def __call__(self, example: Example) -> str | None:
        """The refined trace of `example`, or None where its reference is to be used as it is."""
        key = self._key(example)
        outcome, trace = self.cache.get(key) or self._refine(example)
        if outcome != "failed":
            self.cache[key] = outcome, trace
        self.counts[outcome] += 1
        return trace

    def learn(self, good_traces: Iterable[str]) -> None:
        """Let traces that scored high shape those that will be refined from now on."""
        self.template = learn(self.template, good_traces)

    def _key(self, example: Example) -> tuple[str, str]:
        return example.id, self.template.hash

    def _refine(self, example: Example) -> tuple[Outcome, str | None]:
        if self.writer is not None:
            return self.writer(example, self.template)
        if not example.facts:
            return "kept" if example.reasoning else "dropped", None
        trace = refine(example.facts, example.question, example.answer, example.reasoning, self.template)
        if trace is not None:
            return "refined", trace
        holds = sound(example.reasoning or "", example.facts, example.question, example.answer)
        return "kept" if holds else "dropped", None
