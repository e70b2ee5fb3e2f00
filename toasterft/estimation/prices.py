"""Dollars of a GPU's hour and of a teacher's tokens. Every price has a source and a date."""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass
from typing import Any

from toasterft.catalog import Gpu, Teacher
from toasterft.data.token_stats import RawSizes
from toasterft.units import Range

# Tokens a teacher thinks before it writes, per row; they are billed as output. Low: none. High: derived
# from a published bill, $20.48 for about 8,000 traces at $0.10 / $0.40 per million, which leaves some 6,000
# output tokens a row once a picture and a prompt are paid ("Reasoning on a Toaster"). Likely: assumed.
THINKING_TOKENS = Range(0, 1_000, 6_000)
# Requests per trace that is kept. 3 of the first 25 published ChartQA traces contradict their own answer
# (DyME's low-quality set), and a checked builder asks again. Likely and high: assumed.
REQUESTS_PER_ROW = Range(1.0, 1.15, 1.5)
# Instructions around a question: task, tags, style, one example. Assumed.
INSTRUCTION_TOKENS = 300


@dataclass(frozen=True)
class HourPrice:
    """Dollars per hour of one GPU, or of several that work together.

    Attributes:
        flag: `undated` or `N days old`; None where the price is fresh, or the user's own.
        compute_units_per_hour: Colab's currency on its paid plans.
    """

    usd_per_hour: float
    source: str
    as_of: datetime.date | None
    flag: str | None = None
    compute_units_per_hour: float | None = None

    def as_json(self) -> dict[str, Any]:
        return {"usd_per_hour": self.usd_per_hour, "source": self.source, "as_of": self.as_of}


def of_hour(gpu: Gpu, given: float | None, today: datetime.date, *, gpus: int = 1) -> HourPrice | None:
    """The price given with `--price`, which is that of all `gpus`, else the GPU's first offer in the catalog for
    each, else None."""
    if given is not None:
        return HourPrice(given, "--price", None)
    offer = gpu.default_offer
    if offer is None:
        return None
    units = offer.compute_units_per_hour
    return HourPrice(
        offer.usd_per_hour * gpus,
        ("" if gpus == 1 else f"{gpus} × ") + f"{offer.provider} ({offer.source})",
        offer.as_of,
        offer.flag(today),
        None if units is None else units * gpus,
    )


def of_run(seconds: Range, price: HourPrice | None, more: Range | None = None) -> Range | None:
    """Dollars of the machine's hours and of what else the run pays for; None where an hour has no price."""
    if price is None:
        return None
    hours = seconds.each(lambda value: value / 3600 * price.usd_per_hour)
    return hours if more is None else Range.sum([hours, more])


def of_api(
    rows: float,
    prompt_tokens: float,
    image_tokens: float,
    completion_tokens: float,
    price: Teacher,
    max_tokens: float = math.inf,
) -> Range:
    """Dollars for a teacher to write one trace per row.

    Args:
        prompt_tokens: text of one request, instructions included.
        image_tokens: what the teacher counts for one row's images.
        completion_tokens: the trace and answer that are kept; thinking comes on top, and `max_tokens` ends both.
    """

    def usd(thinking: float, requests: float) -> float:
        written = min(max_tokens, completion_tokens + thinking)
        return rows * requests * price.usd(prompt_tokens + image_tokens, written)

    return THINKING_TOKENS.each(usd, REQUESTS_PER_ROW)


def of_rows(sizes: RawSizes, price: Teacher) -> tuple[float, float, float]:
    """Tokens of a row's text, of its images as this model counts them, and of its completion, all on the average."""
    rows, count = sizes.rows.items(), sum(sizes.rows.values())
    return (
        sum(times * row.prompt_tokens for row, times in rows) / count,
        sum(times * price.tokens_of_image(*size) for row, times in rows for size in row.images_px) / count,
        sum(times * row.completion_tokens for row, times in rows) / count,
    )
