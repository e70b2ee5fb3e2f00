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

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from toasterft.data.example import Example
from toasterft.data.write import row
from toasterft.progress import Reporter
from toasterft.scoring import right
from toasterft.scoring.traces import strict_faults
from toasterft.teachers import batch, filters, panel
from toasterft.teachers.api import Endpoint, Reply, Request
from toasterft.teachers.batch import REJECTS, TRAIN
from toasterft.teachers.build import Build, Endpoints, Outcome, ask_until_good, model_of
from toasterft.teachers.panel import Panel
from toasterft.teachers.plan import Expected, TracesPlan, held_out, shuffled
from toasterft.teachers.rules.write import can_read
from toasterft.teachers.rules.write import write as write_trace


def run(plan: TracesPlan, expected: Expected, report: Reporter) -> dict[str, Any]:
    """Build, or resume, and return the card; raises as `batch.run`."""
    apart = held_out(plan.data_name, plan.seed, images=plan.data.images)
    return batch.run(TracesBuild(plan), expected, apart, report)


@dataclass
class TracesBuild(Build):
    """Traces of the data's rows, in the order of `shuffled`."""

    plan: TracesPlan

    phase, unit, use = "writing", "traces", "train on what there is"

    @property
    def nothing(self) -> tuple[str, str]:
        hint = "" if self.plan.teachers else "; the rules need rows with a table (`facts` or `table`)"
        return "no trace survived", hint

    @property
    def done(self) -> int:
        return self.passed

    @property
    def kept(self) -> list[Outcome]:
        """The first `n` kept rows, in order, so that how fast answers came does not decide what is in."""
        return [one for one in self.in_order if one.reason is None][: self.plan.n]

    @property
    def complete(self) -> bool:
        """There are enough traces, or all rows are processed."""
        return self.passed >= self.plan.n or self.finished(len(self.plan.data))

    def items(self) -> Iterator[Example]:
        return (self.plan.data.examples[row] for row in shuffled(self.plan.data, self.plan.seed))

    def wants_more(self, in_flight: int) -> bool:
        return self.passed + in_flight < self.plan.n

    async def ask(self, example: Example, endpoints: Endpoints) -> Outcome:
        plan = self.plan
        if not plan.teachers:
            return _by_rule(plan, example)
        writers = tuple(endpoints[model_of(service)] for service in plan.teachers)
        judges = tuple(endpoints[model_of(service)] for service in plan.judges)
        if not judges:
            return await _by_teacher(writers[0], plan, example)
        return await _by_panel(Panel(writers, judges, plan.style, plan.temperature, plan.max_tokens), example)

    def summary(self) -> dict[str, Any]:
        kept = self.kept
        tokens = [filters.trace_tokens(one.written) for one in kept]
        return {
            "prompt": self.plan.style.prompt if self.plan.teachers else None,
            "counts": {
                "wanted": self.plan.n,
                "rows": len(self.plan.data),
                "asked": len(self.outcomes),
                "kept": len(kept),
                "kept_beyond_n": self.passed - len(kept),
                "rejected": len(self.outcomes) - self.passed,
            },
            "rejects": self.rejects(),
            "mean_trace_tokens": sum(tokens) / len(tokens) if tokens else 0.0,
        }

    def files(self, task: str) -> dict[str, list[dict[str, Any]]]:
        folder, kept = self.plan.folder, self.kept
        hard = [one for one in self.in_order if one.reason == "hard"]
        files = {
            TRAIN: [
                row(folder, one.item, task=task, link=True, reasoning=one.written, teacher=one.teacher)
                for one in kept
            ],
            REJECTS: [_reject(one) for one in self.in_order if one.reason not in (None, "hard")],
        }
        if hard or any(one.candidates for one in kept):
            files["hard.jsonl"] = [
                {**row(folder, one.item, task=task, link=True), "why": one.detail, **_candidates(one)}
                for one in hard
            ]
            # Votes on what was kept: beside the rows, which hold only what is learned from.
            files["votes.jsonl"] = [{"id": one.item.id, **_candidates(one)} for one in kept]
        return files


def _reject(one: Outcome) -> dict[str, Any]:
    return {
        "id": one.item.id,
        "question": one.item.question,
        "answer": one.item.answer,
        "reason": one.reason,
        "detail": one.detail,
        "teacher": one.teacher,
        "tries": one.tries,
        "said": one.said or one.written,
        **_candidates(one),
    }


def _candidates(one: Outcome) -> dict[str, Any]:
    """Every rationale with its votes, where there was a panel."""
    return {"candidates": [asdict(candidate) for candidate in one.candidates]} if one.candidates else {}


# --- one row ---------------------------------------------------------------------------------


async def _by_teacher(writer: Endpoint, plan: TracesPlan, example: Example) -> Outcome:
    """One row by one teacher: asked again where the trace is rejected, up to `tries` times."""
    prompt = plan.style.ask(example, blind=plan.blind)
    requests = (
        Request(
            prompt, example.images, max_tokens=plan.max_tokens, temperature=plan.temperature, attempt=attempt
        )
        for attempt in range(plan.tries)
    )

    def read(reply: Reply) -> Outcome:
        verdict = filters.judge_reply(reply, example, plan.style)
        kept = "" if verdict.kept else reply.text
        return Outcome(example, verdict.reason, "", verdict.reasoning, verdict.detail, kept)

    return await ask_until_good(example, writer, requests, read)


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
