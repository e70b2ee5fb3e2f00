"""What a build will do and probably cost, before the first request leaves."""

from __future__ import annotations

import hashlib
import math
import random
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from toasterft.data import arrow, sources, token_stats
from toasterft.data.example import ImageRef
from toasterft.data.sources import Dataset
from toasterft.errors import BudgetError
from toasterft.estimation import prices
from toasterft.recipe import Prompt
from toasterft.teachers.api import Service
from toasterft.teachers.panel import VERDICT_TOKENS
from toasterft.teachers.styles import Style
from toasterft.units import Range

# Tokens of a written trace by style: a simplified one as published sets have it; six headings run to about
# four times that. Of one's own: the simplified figure doubled. Assumed.
TRACE_TOKENS = {"simplified": 45, "structured": 180}
CUSTOM_TRACE_TOKENS = 90


# Rows of each held-out split that go along; `eval_limit` of a training is 200 by default.
HELD_OUT_ROWS = 500
FACTS_PROMPT = (Path(__file__).parent / "prompts" / "facts.txt").read_text(encoding="utf-8").strip()
# Output tokens of one picture's facts: a dozen marks of about 20 tokens of JSON. Assumed.
FACTS_TOKENS = 250

Images = tuple[ImageRef, ...]


@dataclass(frozen=True, kw_only=True)
class BuildPlan:
    """What `cot build` and `cot facts` have in common.

    Attributes:
        tries: how often a row is asked for before it is given up.
        max_tokens: longest answer, thinking included.
    """

    name: str
    folder: Path
    data_name: str
    data: Dataset
    budget_usd: float | None = None
    concurrency: int = 8
    tries: int = 2
    max_tokens: int = 8192


@dataclass(frozen=True, kw_only=True)
class TracesPlan(BuildPlan):
    """One `cot build`.

    Attributes:
        n: traces wanted.
        teachers: who writes; none for the rules. `judges` are given for self-supervised construction only.
    """

    style: Style
    n: int
    teachers: tuple[Service, ...] = ()
    judges: tuple[Service, ...] = ()
    blind: bool = False
    temperature: float = 0.7
    seed: int = 0

    @property
    def identity(self) -> dict[str, Any]:
        """What two builds must share for one to resume the other; how many and how fast may change."""
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
            "teachers": [service.identity for service in self.teachers] or ["rules"],
            "judges": [service.identity for service in self.judges],
        }

    @property
    def services(self) -> tuple[Service, ...]:
        return (*self.teachers, *self.judges)


@dataclass(frozen=True, kw_only=True)
class FactsPlan(BuildPlan):
    """One `cot facts`; `most` images at most, None for all."""

    teacher: Service
    most: int | None = None

    @cached_property
    def images(self) -> list[Images]:
        """The images of rows without facts, each once, in the data's order."""
        wanted = (one.images for one in self.data.examples if one.images and not one.facts)
        return list({images_key(images): images for images in wanted}.values())

    @property
    def n(self) -> int:
        """How many will be read."""
        return len(self.images) if self.most is None else min(self.most, len(self.images))

    @property
    def identity(self) -> dict[str, Any]:
        """What two runs must share for one to resume the other; how many and how fast may change."""
        return {
            "kind": "facts",
            "data": self.data.name,
            "data_sha256": self.data.sha256,
            "split": self.data.split,
            "prompt_sha256": hashlib.sha256(FACTS_PROMPT.encode()).hexdigest(),
            "tries": self.tries,
            "max_tokens": self.max_tokens,
            "teachers": [self.teacher.identity],
        }

    @property
    def services(self) -> tuple[Service, ...]:
        return (self.teacher,)


def images_key(images: Images) -> str:
    """One row's images by their content, in their order."""
    return " ".join(image.sha256 for image in images)


@dataclass(frozen=True)
class Expected:
    """The likely bill; `usd` is None for the rules, which cost nothing.

    Attributes:
        requests: where every row gives a trace at once.
        most_requests: where none of them ever does.
    """

    requests: int
    usd: Range | None
    most_requests: int = 0

    @property
    def high_requests(self) -> int:
        """What the upper end of `usd` rests on."""
        return min(self.most_requests, math.ceil(self.requests * prices.REQUESTS_PER_ROW.high))


def expect_traces(plan: TracesPlan) -> Expected:
    """Requests and dollars of a build, images as tokens too, thinking as output."""
    if not plan.teachers:
        return Expected(0, None)
    sizes = token_stats.measure(plan.data.examples, Prompt(), None)
    trace = TRACE_TOKENS.get(plan.style.name, CUSTOM_TRACE_TOKENS)

    def bill(service: Service, *, extra: float, written: float) -> Range:
        text, images, _ = prices.of_rows(sizes, service.price)
        prompt = prices.INSTRUCTION_TOKENS + text + extra
        return prices.of_api(plan.n, prompt, images, written, service.price, plan.max_tokens)

    parts = []
    for writer in plan.teachers:
        parts.append(bill(writer, extra=0, written=trace + prices.of_rows(sizes, writer.price)[2]))
        others = [judge for judge in plan.judges if judge.model_id != writer.model_id]
        parts += [bill(judge, extra=trace, written=VERDICT_TOKENS / 2) for judge in others]
    return Expected(plan.n * len(parts), Range.sum(parts), len(plan.data) * plan.tries * len(parts))


def expect_facts(plan: FactsPlan) -> Expected:
    """Requests and dollars of reading every image once.

    Raises:
        DataError: an image cannot be read.
    """
    if not plan.n:
        return Expected(0, None)
    price = plan.teacher.price
    tokens = [sum(price.tokens_of_image(*image.size_px) for image in images) for images in plan.images]
    usd = prices.of_api(plan.n, prices.INSTRUCTION_TOKENS, sum(tokens) / len(tokens), FACTS_TOKENS, price)
    return Expected(plan.n, usd, plan.n * plan.tries)


def require_within_budget(
    plan: TracesPlan | FactsPlan, expected: Expected, *, yes: bool, things: str = "traces", fewer: str = "--n"
) -> None:
    """Refuse a job whose likely bill exceeds its budget.

    Args:
        fewer: the flag that asks for fewer of the things.

    Raises:
        BudgetError: the likely bill exceeds the budget without --yes; or there is a bill and no budget.
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
    """The order in which rows are taken: the same for every `n`, so that a larger one resumes a smaller one."""
    order = list(range(len(data.examples)))
    random.Random(f"toasterft cot, {seed}").shuffle(order)
    return order


def held_out(
    name: str, seed: int, *, images: sources.Images, most: int | None = HELD_OUT_ROWS
) -> dict[str, Dataset]:
    """The validation and test rows that go with the traces, unchanged, so that a training can be measured.

    Args:
        images: as `sources.load`.
        most: rows of each split; None for all.
    """
    found: dict[str, Dataset] = {}
    if sources.has_split(name, "validate"):
        purposes: tuple[sources.Purpose, ...] = ("validate", "evaluate")
        for purpose in purposes:
            data = sources.load(name, purpose=purpose, limit=most, seed=seed, images=images)
            split = next((own for own, names in arrow.SPLITS.items() if data.split in names), "validation")
            found.setdefault(split, data)
    return found
