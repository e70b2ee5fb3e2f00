"""Cost of API models: tokens times a dated price, for teachers that write traces, judges and refiners."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from toasterft.catalog import Teacher
from toasterft.data.token_stats import RawSizes, TokenStats
from toasterft.estimation import prices
from toasterft.estimation.passes import Workload
from toasterft.recipe import Dyme
from toasterft.units import Range

# Tokens of a simplified trace, one or two sentences, where the data has none to count. Assumed.
TRACE_TOKENS = 45
# Facts of one picture in a judge's or refiner's prompt: about a dozen rows of JSON. Assumed.
FACTS_TOKENS = 150
# Longest answers that DyME's judge and refiner are allowed, room for thinking included: one word, and a trace.
JUDGE_TOKENS, REFINER_TOKENS = 1024, 2048
# Share of the rows that are memorised, and so refined, at least once. Nobody has published one. Assumed.
MEMORISED = Range(0.1, 0.5, 1.0)


@dataclass(frozen=True)
class TeacherCost:
    """Cost of one teacher for a data set.

    Attributes:
        prompt_tokens, image_tokens, completion_tokens: means per row, as the teacher counts them.
        batch_usd: the same through the provider's batch interface; None where it states no price for that.
        flag: why the price or the teacher itself should be checked; None where it is fresh.
        affordable_rows: rows that the likely cost leaves within a budget; None without one.
    """

    teacher: str
    rows: int
    prompt_tokens: float
    image_tokens: float
    completion_tokens: float
    usd: Range
    batch_usd: Range | None
    price: dict[str, Any]
    flag: str | None
    usable: bool
    affordable_rows: int | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def of_cot(
    sizes: RawSizes, rows: int, teacher: Teacher, *, budget_usd: float | None, today: datetime.date
) -> TeacherCost:
    """One trace for each of `rows` rows like those measured."""
    priced = teacher.at(today)
    text, images, completion = prices.of_rows(sizes, priced)
    prompt = prices.INSTRUCTION_TOKENS + text
    completion += 0 if sizes.with_reasoning else TRACE_TOKENS
    usd = prices.of_api(rows, prompt, images, completion, priced)
    factor = priced.batch_factor
    return TeacherCost(
        teacher=priced.name,
        rows=rows,
        prompt_tokens=prompt,
        image_tokens=images,
        completion_tokens=completion,
        usd=usd,
        batch_usd=usd.times(factor) if factor is not None else None,
        price={
            "input_usd_per_mtok": priced.input_usd_per_mtok,
            "output_usd_per_mtok": priced.output_usd_per_mtok,
            "source": priced.source,
            "as_of": priced.as_of,
            "status": priced.status,
        },
        flag=priced.flag(today),
        usable=priced.gone is None or today < priced.gone,
        affordable_rows=None if budget_usd is None else int(budget_usd / (usd.likely / rows)),
    )


def of_live_teachers(
    stats: TokenStats, recipe: Dyme, work: Workload, live_teachers: Mapping[str, Teacher]
) -> Range:
    """Dollars of the API models that a DyME run calls, never more than its `teachers_usd`.

    The judge reads every sampled trace; the refiner every memorised row once (again where the template
    changes, which is rare).

    Args:
        live_teachers: prices of `judge` and `refiner`, as far as the recipe names any.
    """
    assert work.rollouts is not None
    prompt = prices.INSTRUCTION_TOKENS + FACTS_TOKENS + stats.prompt_tokens - stats.image_tokens
    different = min(stats.kept, work.rollouts.completions / recipe.num_generations)
    parts = []
    if judge := live_teachers.get("judge"):
        read, sampled = prompt + work.mean.completion_tokens, work.rollouts.completions
        parts.append(
            prices.THINKING_TOKENS.each(
                lambda thought: sampled * judge.usd(read, min(1 + thought, JUDGE_TOKENS))
            )
        )
    if refiner := live_teachers.get("refiner"):
        given, trace = prompt + stats.completion_tokens, max(TRACE_TOKENS, stats.completion_tokens)
        parts.append(
            MEMORISED.each(
                lambda share, thought: (
                    different * share * refiner.usd(given, min(trace + thought, REFINER_TOKENS))
                ),
                prices.THINKING_TOKENS,
            )
        )
    most = recipe.teachers_usd
    return Range.sum(parts).each(lambda usd: usd if most is None else min(usd, most))


def ranked(lessons: list[TeacherCost]) -> list[TeacherCost]:
    """Cheapest first; teachers that are shut down, or may be, after all others."""
    return sorted(lessons, key=lambda lesson: (not lesson.usable, lesson.usd.likely))
