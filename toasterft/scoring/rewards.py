"""Rewards of completions: plain functions `(completion, example) -> float`, and a table of them.

Weights are the recipe's (`rewards: {accuracy: 1.0, format: 0.5}`); a name with a colon is a user's own
function, `my.module:fn`. One that takes its time is a `Slow` one.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from toasterft.data.chat import Parsed
from toasterft.data.example import Example
from toasterft.errors import RecipeError, RunFailed, did_you_mean
from toasterft.scoring.tasks import right
from toasterft.scoring.traces import check, lemma_f1

# A run whose rewards raise more often than this is measuring nothing.
MAX_ERROR_SHARE = 0.05
# ... judged once there is something to judge by.
MIN_CALLS = 20


@dataclass(frozen=True)
class Completion:
    """One sampled completion, as rewards read it.

    Attributes:
        text: as decoded, special tokens left out.
        parsed: reasoning, answer, and whether the tags were kept.
        tokens: its length, the end token included.
        finished: it ended by itself rather than at `limit` tokens.
    """

    text: str
    parsed: Parsed
    tokens: int
    finished: bool
    limit: int


Reward = Callable[[Completion, Example], float]


@runtime_checkable
class Slow(Protocol):
    """A reward that waits for another service, such as a judge behind an API.

    `start` is called for every completion of a step before the first of them is asked for, so that all are
    on their way at once while others are still being sampled.
    """

    def start(self, completion: Completion, example: Example) -> None: ...

    def __call__(self, completion: Completion, example: Example) -> float: ...


def accuracy(completion: Completion, example: Example) -> float:
    """1 where the evaluation's headline scorer, that of the example's task, finds the answer right."""
    return float(right(completion.parsed.answer, example))


def formatted(completion: Completion, example: Example) -> float:
    """1 where both tags occur once, in order, filled, with nothing around them."""
    parsed = completion.parsed
    return float(parsed.well_formed and bool((parsed.reasoning or "").strip()) and bool(parsed.answer))


def length(completion: Completion, example: Example) -> float:
    """1 up to half of the limit, from there in a straight line to 0 (cut off)."""
    if not completion.finished:
        return 0.0
    return min(1.0, 2 * (1 - completion.tokens / completion.limit))


def thinking(completion: Completion, example: Example) -> float:
    """Score the reasoning: against the facts, else the reference trace, else on its own."""
    trace = completion.parsed.reasoning or ""
    if not example.facts and example.reasoning:
        return lemma_f1(trace, example.reasoning)
    return check(trace, example.facts, example.question_in_context, example.answer).score


def thinking_lemma(completion: Completion, example: Example) -> float:
    """`lemma_f1` against the reference trace, the reward of "Pure DyME"; 0 where there is none."""
    return lemma_f1(completion.parsed.reasoning or "", example.reasoning or "")


REWARDS: dict[str, Reward] = {
    "accuracy": accuracy,
    "format": formatted,
    "length": length,
    "thinking": thinking,
    "thinking_lemma": thinking_lemma,
}
# Belongs to a run, which names the model that judges: `judge` of a dyme recipe.
JUDGED = "thinking_judge"


def load(name: str) -> Reward:
    """A reward by its name in the table, or a user's `my.module:fn`.

    Raises:
        RecipeError: no such name, module or function.
    """
    if name in REWARDS:
        return REWARDS[name]
    if name == JUDGED:
        raise RecipeError(f"{JUDGED} needs a judge", why="only dyme has one", next_step="judge=NAME")
    module, colon, function = name.partition(":")
    if not colon:
        raise RecipeError(
            f"no reward is called {name!r}{did_you_mean(name, list(REWARDS))}",
            why=f"there are {', '.join([*REWARDS, JUDGED])}; your own is named like my.module:fn",
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # a user's file beside the recipe
    try:
        found: Reward = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise RecipeError(f"the reward {name!r} cannot be loaded", why=str(error)) from error
    return found


@dataclass
class Rewards:
    """The rewards of a recipe with their weights, and a count of those that raised.

    Args:
        own: functions that only this run has, by name.

    Raises:
        RunFailed: from `__call__`, when more than 5 % of the calls raise.
    """

    weights: dict[str, float]
    own: Mapping[str, Reward] = field(default_factory=dict)
    functions: dict[str, Reward] = field(init=False)
    calls: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.functions = {name: self.own.get(name) or load(name) for name in self.weights}

    def start(self, completion: Completion, example: Example) -> None:
        """Let slow rewards begin; to be called once for each call."""
        for function in self.functions.values():
            if isinstance(function, Slow):
                function.start(completion, example)

    def __call__(self, completion: Completion, example: Example) -> dict[str, float]:
        """Each reward by name, unweighted; NaN where its function raised."""
        earned = {}
        for name, function in self.functions.items():
            self.calls += 1
            try:
                earned[name] = float(function(completion, example))
            except Exception as error:
                self.errors[f"{name}: {type(error).__name__}: {error}"[:200]] += 1
                earned[name] = float("nan")
        failed = sum(self.errors.values())
        if self.calls >= MIN_CALLS and failed > MAX_ERROR_SHARE * self.calls:
            kinds = [f"{count} × {what}" for what, count in self.errors.most_common(3)]
            raise RunFailed(
                f"{failed} of {self.calls} reward calls raised an error", why="; ".join(kinds),
                next_step="mend the reward function, then start again",
            )  # fmt: skip
        return earned

    def total(self, earned: dict[str, float]) -> float:
        """The weighted sum; a reward that raised adds nothing."""
        return sum(self.weights[name] * value for name, value in earned.items() if not math.isnan(value))
