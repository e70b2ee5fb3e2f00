"""What it costs to have a teacher write reasoning for a data set: tokens of the data times a dated price."""

from __future__ import annotations

import datetime
from dataclasses import asdict, dataclass
from typing import Any

from toasterft.catalog import Teacher
from toasterft.data.survey import Sizes
from toasterft.estimate import money
from toasterft.estimate.spread import Spread

# Tokens of a simplified trace, one or two sentences, where the data has none to count. Assumed.
TRACE_TOKENS = 45


@dataclass(frozen=True)
class Lesson:
    """What one teacher takes for a data set.

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
    usd: Spread
    batch_usd: Spread | None
    price: dict[str, Any]
    flag: str | None
    usable: bool
    affordable_rows: int | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def of_cot(
    sizes: Sizes, rows: int, teacher: Teacher, *, budget_usd: float | None, today: datetime.date
) -> Lesson:
    """One trace for each of `rows` rows like those measured."""
    priced = teacher.at(today)
    count = sum(sizes.rows.values())
    images = sum(
        times * priced.tokens_of_image(*size) for row, times in sizes.rows.items() for size in row.images_px
    )
    prompt = money.INSTRUCTION_TOKENS + _mean(sizes, count, "prompt_tokens")
    completion = _mean(sizes, count, "completion_tokens") + (0 if sizes.with_reasoning else TRACE_TOKENS)
    usd = money.of_api(rows, prompt, images / count, completion, priced)
    factor = priced.batch_factor
    return Lesson(
        teacher=priced.name,
        rows=rows,
        prompt_tokens=prompt,
        image_tokens=images / count,
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


def ranked(lessons: list[Lesson]) -> list[Lesson]:
    """Cheapest first; teachers that are gone, or may be, after all others."""
    return sorted(lessons, key=lambda lesson: (not lesson.usable, lesson.usd.likely))


def _mean(sizes: Sizes, count: int, name: str) -> float:
    total: int = sum(times * getattr(row, name) for row, times in sizes.rows.items())
    return total / count
