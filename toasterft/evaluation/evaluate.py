"""Accuracy of a model on a data set, every answer kept."""

from __future__ import annotations

import gc
import os
from typing import Any

import torch

from toasterft.data import control_tokens
from toasterft.data.example import Example
from toasterft.data.selection import evaluation_rows
from toasterft.data.sources import Dataset
from toasterft.engine import Engine
from toasterft.engine.open_model import ModelSession, open_model
from toasterft.engine.phases import Phases
from toasterft.errors import OutOfMemory, UserError
from toasterft.evaluation import dedupe
from toasterft.evaluation.answer import Answer, Lead, answers, question_suffix, summary
from toasterft.jobs.begin import begin, data_facts
from toasterft.jobs.prepare import Job, prepare_use
from toasterft.progress import Reporter
from toasterft.recipe import Eval, Prompt
from toasterft.runs import run_folder
from toasterft.runs.journal import Journal
from toasterft.runs.meter import Meter
from toasterft.runs.records import Evaluated
from toasterft.runs.run_folder import Run

# Beside the model's settings, what of a recipe decides how it is opened; evaluations that agree can share one.
OPENING = {"dtype", "cache_limit_gb", "encode_batch_size"}

Kept = list[tuple[Any, ModelSession]]
"""The model that was opened last, with its settings; or nothing."""


def run(job: Job, engine: Engine, report: Reporter, *, kept: Kept | None = None) -> Run:
    """Answer every question of a split, greedily unless the recipe samples; scores in run.json, answers in samples.jsonl.

    `job.resume` is an evaluation that was interrupted: what it has answered is not asked again.

    Args:
        kept: where the model is left for the next evaluation, and found if the one before needed the same.

    Raises:
        UserError: model or data cannot be had; the folder of a new run is removed again.
        OutOfMemory: a batch did not fit.
    """
    recipe = job.recipe
    assert isinstance(recipe, Eval)
    kept = [] if kept is None else kept
    data = evaluation_rows(recipe)
    if len(data) < data.available:
        report.say(f"{len(data):,} of {data.available:,} rows, drawn by seed {recipe.seed}")
    thought = _reason(job, data, engine, report, kept) if recipe.reasoner is not None else None
    meter = Meter(job.usd_per_hour)
    phases = Phases(meter.session_seconds)
    leads = (
        None if thought is None else {row["item"]: Lead.of_json(row) for row in thought.answers(Evaluated)}
    )
    record = _begin(job, data, thought)
    meter.attach(record.path)
    try:
        session = _open(job, engine, report, data, kept)
        if note := control_tokens.note(data.examples, session.chat.control):
            report.say(note)
        _encode(session, data, report, phases)
        given = _answered_before(
            record, data.examples, recipe.per_device_eval_batch_size, session.chat.prompt
        )
        before = len(given)
        report.phase("answering", len(data))
        phases.turn()
        phases.enter("evaluate")
        for answer in answers(
            session,
            data.examples[before:],
            batch_size=recipe.per_device_eval_batch_size,
            max_completion_length=recipe.max_completion_length,
            suffix=question_suffix(recipe.step, recipe.suffix),
            leads=leads,
            temperature=recipe.temperature,
            seed=recipe.seed + before,  # a pass begins from the number of its first question
            progress=lambda done, _: report.advance(before + done, len(data)),
        ):
            record.sample(answer.as_json())
            given.append(answer)
    except UserError as error:
        meter.close()
        if job.resume is None:
            record.discard()
        else:
            record.update(status="failed", stop_reason=error.what)
        raise
    except torch.OutOfMemoryError as error:
        record.update(status="failed", stop_reason="out of memory")
        raise OutOfMemory(
            "the GPU's memory did not hold a batch",
            where=str(record.path),
            next_step=f"per_device_eval_batch_size={max(1, recipe.per_device_eval_batch_size // 2)}",
        ) from error
    except BaseException as error:
        record.update(status="failed", stop_reason=f"{type(error).__name__}: {error}"[:500])
        raise
    finally:
        report.done()
        meter.close()
        record.unlock()
    spent = phases.as_json()
    record.update(
        status="done",
        measured={
            "seconds": round(meter.seconds, 2),
            "usd": meter.usd,
            "peak_memory_bytes": phases.peak_bytes,
            "phases": spent,
            "seconds_per_1000_answers": _per_1000(spent["evaluate"]["seconds"], len(given) - before, thought),
        },
        notes=session.loaded.notes,
        eval=summary(given),
    )
    return record


def _reason(job: Job, data: Dataset, engine: Engine, report: Reporter, kept: Kept) -> Run:
    """Evaluate the model that writes the reasoning: a run of its own, with its own prompt settings."""
    recipe = job.recipe
    assert isinstance(recipe, Eval)
    own = recipe.model_copy(update={"model": recipe.reasoner, "reasoner": None, "prompt": None})
    report.say(f"reasoning by {recipe.reasoner}")
    return dedupe.reuse_or_evaluate(
        prepare_use(own, job.runs_dir, data_name=job.data_name),
        data,
        lambda own_job: run(own_job, engine, report, kept=kept),
    )


def _begin(job: Job, data: Dataset, thought: Run | None) -> Run:
    """Create the run's folder, or go on in that of `job.resume`; locked."""
    if job.resume is not None:
        record = job.resume
        record.lock()
        record.update(status="running", stop_reason=None, process_id=os.getpid())
        return record
    reasoner = {} if thought is None else {"reasoner": _reasoner_facts(thought)}
    return begin(job, **data_facts(data), identity=dedupe.identity(job, data), **reasoner)


def _reasoner_facts(thought: Run) -> dict[str, Any]:
    """Which run wrote the reasoning, and how many answers it left without any."""
    leads = [Lead.of_json(row) for row in thought.answers(Evaluated)]
    return {
        "run": str(thought.path),
        "model_base": thought.record["model_base"],
        "model_adapter": thought.record["model_adapter"],
        "without_reasoning": sum(lead.reasoning is None for lead in leads),
    }


def _open(job: Job, engine: Engine, report: Reporter, data: Dataset, kept: Kept) -> ModelSession:
    """Open the model, or take the one that was left open where it is the same; only one is in memory."""
    wanted = job.settings, job.engine, job.recipe.model_dump(include=OPENING)
    if not kept or kept[0][0] != wanted:
        kept.clear()
        gc.collect()  # a model and its adapter refer to each other
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        probe = next((example for example in data.examples if example.images), None)
        kept.append((wanted, open_model(job.settings, job.recipe, engine, report, probe, train=False)))
    return kept[0][1]


def _encode(session: ModelSession, data: Dataset, report: Reporter, phases: Phases) -> None:
    """Encode every image once."""
    if session.encoder is None:
        return
    images = [image for example in data.examples for image in example.images]
    report.phase("encoding", len(images))
    phases.enter("encode")

    def progress(done: int, total: int) -> None:
        phases.turn()
        report.advance(done, total)

    session.encoder.encode_all(images, progress)


def _answered_before(record: Run, examples: list[Example], batch_size: int, prompt: Prompt) -> list[Answer]:
    """Answers of an interrupted run, cut back to whole batches."""
    with Journal(record.path / run_folder.SAMPLES_FILE) as samples:
        rows = samples.whole_batches(
            [one.key for one in examples], batch_size, lambda row: row["item"], Evaluated
        )
    return [Answer.of_json(row, example, prompt) for row, example in zip(rows, examples)]


def _per_1000(seconds: float, count: int, thought: Run | None) -> float | None:
    """Seconds of answering per 1,000 answers, the reasoner's included; loading and encoding are not.

    None where this process answered nothing.
    """
    others = 0.0 if thought is None else thought.record["measured"]["seconds_per_1000_answers"]
    return None if not count or others is None else round(1000 * seconds / count + others, 3)
