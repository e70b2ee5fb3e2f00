"""Build a data set of reasoning traces: ask, filter, and write a folder that `--data NAME` finds.

<data folder>/NAME/
    train.jsonl        kept rows, with `reasoning`; their images lie in images/
    validation.jsonl   test.jsonl      held-out rows of the source, unchanged
    rejects.jsonl      rows without a trace, and why
    hard.jsonl         self-supervised only: rows on which no rationale survived, with every vote
    votes.jsonl        self-supervised only: the votes on the kept rows
    card.json          teacher, prompt, prices, counts, hashes; `complete: false` while it is being built
    answers.ledger     every paid answer, written before it was used
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from toasterft.data.example import Example
from toasterft.data.write import row
from toasterft.errors import ToasterError
from toasterft.progress import Reporter
from toasterft.scoring import right
from toasterft.scoring.traces import strict_faults
from toasterft.teachers import batch, filters, panel
from toasterft.teachers.api import Endpoint, EndpointError, EndpointRefused, Request, SpendCapReached
from toasterft.teachers.batch import REJECTS, TRAIN, Endpoints, model_of
from toasterft.teachers.panel import Candidate, Panel
from toasterft.teachers.plan import Expected, TracesPlan, held_out, shuffled
from toasterft.teachers.rules.write import can_read
from toasterft.teachers.rules.write import write as write_trace


@dataclass(frozen=True)
class Outcome:
    """What came of one row: `reason` is None for a kept trace, "endpoint" where the API failed."""

    example: Example
    reason: str | None
    teacher: str = ""
    reasoning: str = ""
    detail: str = ""
    said: str = ""
    tries: int = 1
    candidates: tuple[Candidate, ...] = ()


def run(plan: TracesPlan, expected: Expected, report: Reporter) -> dict[str, Any]:
    """Build, or resume, and return the card; raises as `batch.run`."""
    apart = held_out(plan.data_name, plan.seed, images=plan.data.images)
    return batch.run(TracesBuild(plan), expected.usd, apart, report)


@dataclass
class TracesBuild:
    """Outcomes so far, by place in the order of rows."""

    plan: TracesPlan
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    ended: ToasterError | None = None
    done: int = 0
    """Kept traces, of the `n` wanted."""

    phase, unit, use = "writing", "traces", "train on what there is"

    @property
    def nothing(self) -> tuple[str, str]:
        hint = "" if self.plan.teachers else "; the rules need rows with a table (`facts` or `table`)"
        return "no trace survived", hint

    @property
    def in_order(self) -> list[Outcome]:
        return [self.outcomes[place] for place in sorted(self.outcomes)]

    @property
    def kept(self) -> list[Outcome]:
        """The first `n` kept rows, in order, so that how fast answers came does not decide what is in."""
        return [one for one in self.in_order if one.reason is None][: self.plan.n]

    @property
    def good(self) -> int:
        return len(self.kept)

    @property
    def complete(self) -> bool:
        """There are enough traces, or all rows are processed."""
        if self.done >= self.plan.n:
            return True
        return len(self.outcomes) == len(self.plan.data) and batch.finished(self.outcomes.values())

    def items(self) -> Iterator[Example]:
        return (self.plan.data.examples[row] for row in shuffled(self.plan.data, self.plan.seed))

    def wants_more(self, in_flight: int) -> bool:
        return self.done + in_flight < self.plan.n

    async def ask(self, example: Example, endpoints: Endpoints) -> Outcome:
        plan = self.plan
        if not plan.teachers:
            return _by_rule(plan, example)
        writers = tuple(endpoints[model_of(service)] for service in plan.teachers)
        judges = tuple(endpoints[model_of(service)] for service in plan.judges)
        if not judges:
            return await _by_teacher(writers[0], plan, example)
        return await _by_panel(Panel(writers, judges, plan.style, plan.temperature, plan.max_tokens), example)

    def damaged(self, example: Example, what: str) -> Outcome:
        return Outcome(example, "picture", detail=what)

    def add(self, place: int, outcome: Outcome) -> None:
        self.outcomes[place] = outcome
        self.done += outcome.reason is None

    def summary(self) -> dict[str, Any]:
        kept = self.kept
        reasons = Counter(one.reason for one in self.in_order if one.reason is not None)
        tokens = [filters.trace_tokens(one.reasoning) for one in kept]
        return {
            "prompt": self.plan.style.prompt if self.plan.teachers else None,
            "counts": {
                "wanted": self.plan.n,
                "rows": len(self.plan.data),
                "asked": len(self.outcomes),
                "kept": len(kept),
                "kept_beyond_n": self.done - len(kept),
                "rejected": sum(reasons.values()),
            },
            "rejects": dict(reasons.most_common()),
            "mean_trace_tokens": sum(tokens) / len(tokens) if tokens else 0.0,
        }

    def files(self, task: str) -> dict[str, list[dict[str, Any]]]:
        folder, kept = self.plan.folder, self.kept
        hard = [one for one in self.in_order if one.reason == "hard"]
        files = {
            TRAIN: [
                row(folder, one.example, task=task, link=True, reasoning=one.reasoning, teacher=one.teacher)
                for one in kept
            ],
            REJECTS: [_reject(one) for one in self.in_order if one.reason not in (None, "hard")],
        }
        if hard or any(one.candidates for one in kept):
            files["hard.jsonl"] = [
                {**row(folder, one.example, task=task, link=True), "why": one.detail, **_candidates(one)}
                for one in hard
            ]
            # Votes on what was kept: beside the rows, which hold only what is learned from.
            files["votes.jsonl"] = [{"id": one.example.id, **_candidates(one)} for one in kept]
        return files


def _reject(one: Outcome) -> dict[str, Any]:
    return {
        "id": one.example.id,
        "question": one.example.question,
        "answer": one.example.answer,
        "reason": one.reason,
        "detail": one.detail,
        "teacher": one.teacher,
        "tries": one.tries,
        "said": one.said or one.reasoning,
        **_candidates(one),
    }


def _candidates(one: Outcome) -> dict[str, Any]:
    """Every rationale with its votes, where there was a panel."""
    return {"candidates": [asdict(candidate) for candidate in one.candidates]} if one.candidates else {}


# --- one row ---------------------------------------------------------------------------------


async def _by_teacher(writer: Endpoint, plan: TracesPlan, example: Example) -> Outcome:
    """One row by one teacher: asked again where the trace is rejected, up to `tries` times."""
    name, said = writer.service.name, ""
    verdict: filters.Verdict | None = None
    for attempt in range(plan.tries):
        request = Request(
            plan.style.ask(example, blind=plan.blind),
            example.images,
            max_tokens=plan.max_tokens,
            temperature=plan.temperature,
            attempt=attempt,
        )
        try:
            said = (await writer.ask(request)).text
        except (EndpointRefused, SpendCapReached):
            raise
        except EndpointError as problem:
            return Outcome(example, "endpoint", name, detail=problem.kind, tries=attempt + 1)
        verdict = filters.judge(said, example, plan.style)
        if verdict.kept:
            return Outcome(example, None, name, verdict.reasoning, tries=attempt + 1)
    assert verdict is not None
    return Outcome(example, verdict.reason, name, verdict.reasoning, verdict.detail, said, plan.tries)


async def _by_panel(judged_by: Panel, example: Example) -> Outcome:
    """One row by several generators and their judges."""
    found = tuple(await panel.candidates(judged_by, example))
    best = found[0]  # survivors come first
    if best.reason is None:
        return Outcome(example, None, best.teacher, best.reasoning, best.detail, candidates=found)
    if missing := next((one for one in found if one.reason == "endpoint"), None):
        # The row is hard only once everybody has answered.
        return Outcome(example, "endpoint", missing.teacher, detail=missing.detail, candidates=found)
    why = "; ".join(f"{one.teacher}: {one.reason} {one.detail}".rstrip() for one in found)
    return Outcome(example, "hard", detail=why, candidates=found)


def _by_rule(plan: TracesPlan, example: Example) -> Outcome:
    """One row by the rules, held to the same form as a teacher's, and recomputed."""
    written = write_trace(example, blind=plan.blind)
    if written is None:
        return Outcome(example, "no way" if can_read(example) else "no table", "rules")
    trace = written.structured if plan.style.headings else written.simplified
    tokens = filters.trace_tokens(trace)
    if plan.blind and not right(written.answer, example):
        return Outcome(example, "answer", "rules", trace, f"{written.answer} is not {example.answer}")
    if tokens > plan.style.max_trace_tokens:
        return Outcome(example, "length", "rules", trace, f"{tokens} tokens of {plan.style.max_trace_tokens}")
    if faults := strict_faults(trace, example.facts, example.question, written.answer):
        return Outcome(example, "arithmetic", "rules", trace, faults[0])
    return Outcome(example, None, "rules", trace)
