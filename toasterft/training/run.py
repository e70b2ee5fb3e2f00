"""The route of every training method, from its rows to the last answer; a method brings `make_trainer` alone."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers
from transformers.trainer_callback import PrinterCallback

from toasterft import paths
from toasterft.engine import Engine, adapters
from toasterft.engine.open_model import open_model
from toasterft.errors import ModelError, RunFailed
from toasterft.evaluation import answer
from toasterft.jobs.begin import saved_thing
from toasterft.jobs.endings import Ending
from toasterft.jobs.prepare import Job
from toasterft.recipe import Trained
from toasterft.runs import checkpoints, distributed, plots, run_folder
from toasterft.runs.run_folder import Run
from toasterft.training import setup
from toasterft.training.monitor import EvaluationCutShort, RunMonitor
from toasterft.training.trainer_base import (
    TrainingContext,
    keep_float32,
    non_finite_weights,
)

MakeTrainer = Callable[[TrainingContext], transformers.Trainer]


def run(job: Job, engine: Engine, end: Ending, make_trainer: MakeTrainer) -> Run:
    """Load, encode, train, save, evaluate; everything lands in the run's folder.

    Several processes come here together: images and questions are dealt out among them, one keeps the folder, and
    they end alike.

    Raises:
        UserError: the data or model is at fault; the run folder is removed again.
        RunFailed: the losses are not finite.
        Interrupted: Ctrl-C or SIGTERM; checkpoint and adapter are saved.
        CapReached: the budget or the hours are used up; checkpoint and adapter are saved.
    """
    recipe, rows = job.recipe, job.rows
    assert isinstance(recipe, Trained)
    assert rows is not None
    assert rows.train is not None
    assert rows.held_out is not None
    report, record = end.report, end.run
    for note in rows.notes:
        report.say(note)
    setup.settle_data(job, record, rows.train)
    monitor = RunMonitor(record, report, end.meter, end.stop)
    end.figures = monitor.figures
    if fitted := record.record.get("fitted"):
        report.say("made to fit: " + " ".join(f"{key}={value}" for key, value in fitted.items()))
    with distributed.share_errors():
        probe = next((example for example in rows.train.examples if example.images), None)
        session = open_model(job.settings, recipe, engine, report, probe, train=True)
        train = setup.drop_too_long(rows.train.examples, session, job.settings, recipe, report)
    end.facts |= {"notes": session.loaded.notes, "train_count": len(train)}
    setup.encode(session, [*train, *rows.held_out], monitor)
    context = TrainingContext(recipe, session, record, train, rows.held_out, monitor, report)
    with distributed.share_errors():
        report.sample(setup.shown_sample(session, train[0]))
        trainer = make_trainer(context)
        trainer.remove_callback(PrinterCallback)
        keep_float32(session.loaded.model)
    try:
        train_from(trainer, last_state(record))
    except EvaluationCutShort:
        trainer._save_checkpoint(trainer.model, trial=None)
    end.steps = (trainer.state.global_step, trainer.state.max_steps)
    with distributed.share_errors():
        require_finite(monitor, session.loaded.model)
        if distributed.is_main():
            save(job, context)
    monitor.saved(saved_thing(job))
    encoder = session.encoder
    end.facts["images_encoded"] = None if encoder is None else sum(distributed.all_gather(encoder.encoded))
    monitor.agree()
    if not monitor.stop.stopped:
        end.facts["eval"] = evaluate(context)
        monitor.agree()
    return record


def last_state(record: Run) -> str | None:
    """The checkpoint to start from, with metrics after it dropped; None starts from the beginning."""
    record.forget_after(0 if record.start is None else checkpoints.step_of(record.start))
    return None if record.start is None else str(record.start)


def train_from(trainer: transformers.Trainer, checkpoint: str | None) -> None:
    """Train to the last step, or to the cap.

    From a checkpoint of the last step there is nothing left but to load it: transformers would train one step more.
    """
    state = paths.read_json(Path(checkpoint) / "trainer_state.json") if checkpoint else {}
    if checkpoint and state["global_step"] >= state["max_steps"]:
        trainer._load_from_checkpoint(checkpoint)
        trainer.state.global_step = trainer.state.max_steps = state["global_step"]
        return
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    except pickle.UnpicklingError as error:
        raise ModelError(
            "this checkpoint cannot be loaded",
            where=checkpoint,
            why=f"its files ask for more than numbers: {str(error).splitlines()[-1]}"[:300],
            next_step="resume only runs of your own; --model <run> starts anew from its adapter",
        ) from None


def require_finite(monitor: RunMonitor, model: Any) -> None:
    """
    Raises:
        RunFailed: losses or weights are not finite; names the last good checkpoint.
    """
    if monitor.failed is None:
        monitor.failed = non_finite_weights(model)
    if monitor.failed is None:
        return
    saved = checkpoints.newest(monitor.run.checkpoints)
    raise RunFailed(
        monitor.failed,
        where=str(monitor.run.path),
        why="the learning rate is too high for this precision, or a sample is damaged",
        next_step=f"the last good checkpoint is {saved}" if saved else "no checkpoint was written before it",
    )


def save(job: Job, context: TrainingContext) -> None:
    """Write adapter, processor, model settings and the loss plot."""
    folder, loaded = context.record.path, context.session.loaded
    try:
        adapters.save(loaded, folder, job.model.base_name)
    except OSError as error:
        raise paths.disk_error(error, folder) from error
    paths.write_json(folder / run_folder.ADAPTER_NOTES_FILE, job.settings.adapter_notes(Path(loaded.base)))
    plots.of_run(context.record.metrics(), folder)


def evaluate(context: TrainingContext) -> dict[str, Any] | None:
    """Accuracy on the held-out rows, each answered by one process and kept in samples.jsonl; None without rows."""
    rows, monitor, processes = context.held_out, context.monitor, distributed.world_size()
    if not rows:
        return None
    context.report.phase("evaluating", len(rows))
    monitor.phases.turn()
    monitor.phases.enter("evaluate")
    size, limit = context.recipe.per_device_eval_batch_size, context.recipe.max_completion_length
    # Every n-th batch, so that each question is answered in the company in which one process would answer it.
    shares = [
        [
            row
            for start in range(first * size, len(rows), size * processes)
            for row in rows[start : start + size]
        ]
        for first in range(processes)
    ]
    given: list[answer.Answer] = []
    stop = monitor.stop
    stop.arm(monitor.meter.seconds_left)
    try:
        for one in answer.answers(
            context.session,
            shares[distributed.rank()],
            batch_size=size,
            max_completion_length=limit,
            progress=lambda done, _: context.report.advance(min(done * processes, len(rows)), len(rows)),
        ):
            with stop.held():
                context.record.sample(one.as_json())
                given.append(one)
            if stop.stopped:
                break
    except KeyboardInterrupt:
        if not stop.capped:
            raise
    finally:
        stop.disarm()
    if stop.stopped:
        context.report.say(
            f"the evaluation ends after {len(given)} of {len(shares[distributed.rank()])} answers"
        )
    answered = distributed.all_gather([one.as_json() for one in given])
    for index in set(range(processes)) - {distributed.rank()}:
        for example, row in zip(shares[index], answered[index]):
            context.record.sample(row)
            given.append(answer.Answer.of_json(row, example, context.session.chat.prompt))
    return answer.summary(given) if given else None
