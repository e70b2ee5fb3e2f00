"""Types of what a run leaves on the disk: run.json, spend.json, and the rows of its journals.

A run folder may be cut, edited, or somebody else's. Fields of newer versions are let through; a field of the wrong type
makes one run damaged, never a command that lists many.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from toasterft.paths import Typed

Count = Annotated[int, Field(ge=0, le=10**15)]
Amount = Annotated[float, Field(ge=0, le=1e15)]


class Spend(Typed):
    """spend.json: the bill so far."""

    seconds: Amount = 0.0
    usd: Amount | None = None
    teachers_usd: Amount | None = None
    start_seconds: Amount | None = None
    step_seconds: Amount | None = None
    save_seconds: Amount | None = None


class Interval(Typed):
    """A quantity with its bounds; of a share `value`, of an estimate `likely` lies between them."""

    low: float
    high: float


class Share(Interval):
    value: float


class Estimated(Interval):
    likely: float


class PhaseTaken(Typed):
    seconds: Amount
    peak_bytes: Amount | None = None


class Peak(Typed):
    peak: float | None = None


class Price(Typed):
    usd_per_hour: Amount | None = None


class Estimate(Typed):
    gpu: str
    vram_bytes: Peak
    phase_bytes: dict[str, Peak]
    seconds: Estimated
    phase_seconds: dict[str, Estimated]
    usd: Estimated | None = None


class Measured(Typed):
    seconds: Amount
    usd: Amount | None = None
    peak_memory_bytes: Amount | None = None
    phases: dict[str, PhaseTaken] | None = None
    seconds_per_1000_answers: Amount | None = None


class OfKind(Typed):
    n: Count
    robust: Share


class OfClass(Typed):
    n: Count
    recall: Share


class OfOpen(OfKind):
    token_recall: float | None = None


class PairsRead(Share):
    n: Count


class Lengths(Typed):
    median: float
    p90: float


class Checked(Typed):
    n: Count
    facts_right: Share
    faultless: Share
    valid: Share


class Traces(Typed):
    n: Count
    without_reasoning: Share
    repeating: Share
    tokens: Lengths | None = None
    arithmetic_right: Share
    checked: Checked | None = None


class Confusion(Typed):
    labels: list[str]
    counts: list[list[Count]]


class Scores(Typed):
    """What `scoring.summarise` found of a run's answers."""

    n: Count
    task: str | None = None
    scores: dict[str, Share]
    by_kind: dict[str, OfKind] | None = None
    per_class: dict[str, OfClass] | None = None
    confusion: Confusion | None = None
    format_rate: Share | None = None
    mean_completion_tokens: float | None = None
    macro_recall: float | None = None
    pairs: PairsRead | None = None
    closed: OfKind | None = None
    open: OfOpen | None = None
    parse_failures: Share | None = None
    traces: Traces | None = None


class Machine(Typed):
    python: str | None = None
    platform: str | None = None
    cpus: Count | None = None


class Reasoner(Typed):
    run: str | None = None
    without_reasoning: Count | None = None


class Record(Typed):
    """run.json."""

    id: str
    method: str
    status: str
    toasterft: str | None = None
    stop_reason: str | None = None
    started_at: str | None = None
    resumed_at: list[str] | None = None
    process_id: int | None = None
    processes: Annotated[int, Field(ge=1, le=65_536)] | None = None
    machine: Machine | None = None
    versions: dict[str, str] | None = None
    git_commit: str | None = None
    model_base: str | None = None
    model_adapter: str | None = None
    model_run: str | None = None
    data_sha256: str | None = None
    data_count: Count | None = None
    data_split: str | None = None
    train_count: Count | None = None
    engine: str | None = None
    gpu: str | None = None
    usd_per_hour: Amount | None = None
    budget_usd: Amount | None = None
    max_seconds: Amount | None = None
    notes: list[str] | None = None
    fitted: dict[str, Any] | None = None
    reasoner: Reasoner | None = None
    estimate: Estimate | None = None
    measured: Measured | None = None
    eval: Scores | None = None


class Metric(Typed):
    """A row of metrics.jsonl; a loss may be a NaN, and is what the row was kept for."""

    model_config = ConfigDict(allow_inf_nan=True)

    step: Count | None = None


class Sample(Typed):
    """A row of samples.jsonl; answers have a verdict, samples of a training have none."""

    id: str | None = None
    item: str | None = None
    kind: str | None = None
    task: str | None = None
    images: list[str] | None = None
    question: str | None = None
    gold: str | None = None
    answer: str | None = None
    reasoning: str | None = None
    text: str | None = None
    correct: dict[str, bool] | None = None
    finished: bool | None = None
    faults: list[str] | None = None
    completion_tokens: Count | None = None
    reasoning_tokens: Count | None = None


class Answer(Sample):
    """A row of samples.jsonl with a verdict: what comparisons and reports read."""

    id: str
    question: str
    gold: str
    answer: str
    correct: dict[str, bool]


class Evaluated(Answer):
    """A row of an evaluation's samples.jsonl: what a resumed one, or one that reads its reasoning, goes on from."""

    item: str
    text: str
    finished: bool
    completion_tokens: Count
    reasoning_tokens: Count
    reasoner_tokens: Count = 0
