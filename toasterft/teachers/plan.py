"""What a build will do and probably cost, before the first request leaves."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from toasterft.data import arrow, sources, token_stats
from toasterft.data.sources import Dataset
from toasterft.data.token_stats import RawSizes
from toasterft.errors import BudgetError
from toasterft.estimation import prices
from toasterft.recipe import Prompt
from toasterft.teachers.api import Service
from toasterft.teachers.batch import who
from toasterft.teachers.panel import VERDICT_TOKENS
from toasterft.teachers.styles import Style
from toasterft.units import Range

# Tokens of a written trace by style: a simplified one as published sets have it; six headings run to about
# four times that. Of one's own: the simplified figure doubled. Assumed.
TRACE_TOKENS = {"simplified": 45, "structured": 180}
CUSTOM_TRACE_TOKENS = 90


@dataclass(frozen=True)
class Plan:
    """One build.

    Attributes:
        n: traces wanted.
        teachers: who writes; none for the rules. `judges` are given for self-supervised construction only.
        tries: how often a row is asked for before it is given up.
        max_tokens: longest answer, thinking included.
    """

    name: str
    folder: Path
    data_name: str
    data: Dataset
    style: Style
    n: int
    teachers: tuple[Service, ...] = ()
    judges: tuple[Service, ...] = ()
    blind: bool = False
    budget_usd: float | None = None
    concurrency: int = 8
    tries: int = 2
    max_tokens: int = 8192
    temperature: float = 0.7
    seed: int = 0

    @property
    def identity(self) -> dict[str, Any]:
        """What two builds must share for one to go on where the other stopped; how many and how fast may change."""
        return {
            "data": self.data.name,
            "data_sha256": self.data.sha256,
            "split": self.data.split,
            "style": self.style.name,
            "prompt_sha256": hashlib.sha256(self.style.prompt.encode()).hexdigest(),
            "max_trace_tokens": self.style.max_trace_tokens,
            "blind": self.blind,
            "seed": self.seed,
            "tries": self.tries,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "teachers": [who(service) for service in self.teachers] or ["rules"],
            "judges": [who(service) for service in self.judges],
        }


@dataclass(frozen=True)
class Expected:
    """The likely bill; `usd` is None for the rules, which cost nothing."""

    requests: int
    usd: Range | None
    notes: tuple[str, ...] = ()


def expect(plan: Plan) -> Expected:
    """Requests and dollars of a build, pictures as tokens too, thinking as output."""
    if not plan.teachers:
        return Expected(0, None)
    sizes = token_stats.measure(plan.data.examples, Prompt(), None)
    trace = TRACE_TOKENS.get(plan.style.name, CUSTOM_TRACE_TOKENS)
    parts = [
        _bill(plan, sizes, service, extra=0, written=trace + _answer_tokens(sizes))
        for service in plan.teachers
    ]
    requests = plan.n * len(plan.teachers)
    for writer in plan.teachers:
        for judge in plan.judges:
            if judge.model_id != writer.model_id:
                parts.append(_bill(plan, sizes, judge, extra=trace, written=VERDICT_TOKENS / 2))
                requests += plan.n
    return Expected(requests, Range.sum(parts))


class Priced(Protocol):
    """A job that asks for `n` things within a budget."""

    @property
    def n(self) -> int: ...

    @property
    def budget_usd(self) -> float | None: ...


def hold_against(
    plan: Priced, expected: Expected, *, yes: bool, things: str = "traces", fewer: str = "--n"
) -> None:
    """Refuse a job whose likely bill exceeds its budget.

    Args:
        fewer: the flag that asks for fewer of the things.

    Raises:
        BudgetError: the likely bill exceeds the budget, and nobody said yes; or there is a bill and no budget.
    """
    if expected.usd is None or not expected.usd.high:
        return
    if plan.budget_usd is None:
        raise BudgetError(
            "a teacher behind an API needs a budget",
            why=f"this would take ${expected.usd.likely:.2f} (${expected.usd.low:.2f} to ${expected.usd.high:.2f})",
            next_step=f"--budget {max(0.01, expected.usd.likely * 1.2):.2f}",
        )
    if expected.usd.likely > plan.budget_usd and not yes:
        affordable = int(plan.n * plan.budget_usd / expected.usd.likely)
        fits = f"{fewer} {affordable} fits, " if affordable else ""
        raise BudgetError(
            f"{plan.n:,} {things} would take ${expected.usd.likely:.2f} "
            f"(${expected.usd.low:.2f} to ${expected.usd.high:.2f}), the budget is ${plan.budget_usd:g}",
            next_step=f"{fits}--budget {expected.usd.likely * 1.2:.2f} allows it, "
            "--yes starts anyway and stops at the budget",
        )


def shuffled(data: Dataset, seed: int) -> list[int]:
    """The order in which rows are asked for: the same for every `n`, so that a larger one goes on."""
    order = list(range(len(data.examples)))
    random.Random(f"toasterft cot, {seed}").shuffle(order)
    return order


def held_out(name: str, seed: int, most: int | None) -> dict[str, Dataset]:
    """The validation and test rows that go with the traces, unchanged, so that a training can be measured.

    Args:
        most: rows of each split; None for all.
    """
    found: dict[str, Dataset] = {}
    if sources.has_split(name, "validate"):
        purposes: tuple[sources.Purpose, ...] = ("validate", "evaluate")
        for purpose in purposes:
            data = sources.load(name, purpose=purpose, limit=most, seed=seed)
            split = next((own for own, names in arrow.SPLITS.items() if data.split in names), "validation")
            found.setdefault(split, data)
    return found


def _bill(plan: Plan, sizes: RawSizes, service: Service, *, extra: float, written: float) -> Range:
    """Dollars of one request per trace wanted, and of those that are asked again.

    Args:
        extra: text tokens beside question and instructions.
        written: output tokens that are kept; thinking comes on top, and `max_tokens` ends both.
    """
    count = sum(sizes.rows.values())
    prompt = sum(times * row.prompt_tokens for row, times in sizes.rows.items()) / count
    images = sum(
        times * service.price.tokens_of_image(*size)
        for row, times in sizes.rows.items()
        for size in row.images_px
    )
    read = prices.INSTRUCTION_TOKENS + prompt + extra + images / count

    def usd(thinking: float, requests: float) -> float:
        return plan.n * requests * service.usd(read, min(plan.max_tokens, written + thinking))

    thinking, requests = prices.THINKING_TOKENS, prices.REQUESTS_PER_ROW
    return Range(
        usd(thinking.low, requests.low),
        usd(thinking.likely, requests.likely),
        usd(thinking.high, requests.high),
    )


def _answer_tokens(sizes: RawSizes) -> float:
    count = sum(sizes.rows.values())
    return sum(times * row.completion_tokens for row, times in sizes.rows.items()) / count
