"""What every training method shares: the way from the first row to the last answer, guarded trainers, endings.

`run` is the whole job from the top; a method brings `make_trainer` and nothing else.
"""

from __future__ import annotations

import math
import pickle
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.trainer_callback import PrinterCallback

from toasterft import paths
from toasterft.data.example import Example
from toasterft.engine import Engine, adapters
from toasterft.engine import open_model as opening
from toasterft.engine.open_model import ModelSession
from toasterft.errors import CapReached, Interrupted, ModelError, OutOfMemory, RunFailed, UserError
from toasterft.evaluation import answer as answering
from toasterft.jobs.prepare import Job
from toasterft.progress import Reporter
from toasterft.recipe import Trained
from toasterft.runs import distributed, plots, run_folder
from toasterft.runs.meter import Meter
from toasterft.runs.run_folder import Run
from toasterft.training import setup
from toasterft.training.monitor import MAX_NON_FINITE, RunMonitor


@dataclass
class TrainingContext:
    """One training run in progress: what a method's `make_trainer` is given.

    Attributes:
        train: the samples that are trained on, all within `max_length`.
        evaluation: rows of the evaluation split; empty where the data has none.
    """

    job: Job
    recipe: Trained
    session: ModelSession
    record: Run
    train: list[Example]
    evaluation: list[Example]
    monitor: RunMonitor
    report: Reporter


MakeTrainer = Callable[[TrainingContext], transformers.Trainer]


def run(job: Job, engine: Engine, report: Reporter, make_trainer: MakeTrainer) -> Run:
    """Load, encode, train, save, evaluate; everything lands in the run's folder.

    Several processes come here together: pictures and questions to answer are dealt out among them, one keeps the
    folder, and they end alike.

    Raises:
        UserError: the data or model is at fault; the run folder is removed again.
        RunFailed: the losses are not finite.
        Interrupted: Ctrl-C or SIGTERM; checkpoint and adapter are saved.
        CapReached: the budget or the hours are used up; checkpoint and adapter are saved.
    """
    recipe = job.recipe
    assert isinstance(recipe, Trained)
    meter = Meter(job.usd_per_hour, job.budget_usd, job.max_seconds)
    with distributed.as_one():
        data, evaluation = setup.read_data(recipe, report)
    record = setup.open_run_folder(job, data)
    meter.attach(record.path, keep=distributed.is_main())
    monitor = RunMonitor(record, report, meter)
    if record.record.get("fitted"):
        words = " ".join(f"{key}={value}" for key, value in record.record["fitted"].items())
        report.say(f"made to fit: {words}")
    ending: dict[str, Any] = {}
    try:
        with monitor:
            with distributed.as_one():
                session = opening.open_model(job, engine, report, _with_image(data.examples), train=True)
                train = setup.drop_too_long(data.examples, session, job, report)
            ending["notes"] = session.loaded.notes
            ending["train_count"] = len(train)
            setup.encode(session, [*train, *evaluation], monitor)
            with distributed.as_one():
                report.sample(setup.shown_sample(session, train[0]))
                context = TrainingContext(job, recipe, session, record, train, evaluation, monitor, report)
                trainer = make_trainer(context)
                trainer.remove_callback(PrinterCallback)
                trainer.add_callback(NoInputGradients())
                keep_float32(session.loaded.model)
                if monitor.stopping_for_the_cap():
                    raise CapReached("before the first step")
            train_from(trainer, last_state(record))
            with distributed.as_one():
                require_finite(record, monitor)
                if distributed.is_main():
                    save(context)
            encoder = session.encoder
            ending["images_encoded"] = None if encoder is None else sum(distributed.gathered(encoder.encoded))
            monitor.agree()
            if monitor.signal_number is None and not monitor.capped:
                ending["eval"] = evaluate(context)
                monitor.agree()
    except UserError:
        if job.resume is None:
            meter.close()
            record.discard()
        else:
            close(record, monitor, "failed", "refused")
        raise
    except CapReached as reached:
        close(record, monitor, "capped", meter.cap, **ending)
        raise _capped(record, meter, reached.what) from None
    except Interrupted as stopped:
        close(record, monitor, "interrupted", stopped.what, **ending)
        raise
    except torch.OutOfMemoryError:
        close(record, monitor, "failed", "out of memory", **ending)
        raise OutOfMemory(
            "out of GPU memory",
            where=str(record.path),
            why="a step needed more than the estimate said",
            next_step=f"{distributed.command()} {recipe.method} --resume {record.path} --fit exact",
        ) from None
    except BaseException as error:
        if distributed.lost(error):
            close(record, monitor, "failed", "another process ended", **ending)
            raise RunFailed(
                "another process of this training ended, and a step needs all of them",
                where=str(record.path),
                next_step=f"{distributed.command()} {recipe.method} --resume {record.path}",
            ) from None
        close(record, monitor, "failed", f"{type(error).__name__}: {error}"[:500], **ending)
        raise
    finally:
        report.done()
    with distributed.as_one():
        if monitor.signal_number is not None:
            name = signal.Signals(monitor.signal_number).name
            close(record, monitor, "interrupted", name, **ending)
            raise Interrupted(
                f"stopped by {name}; checkpoint and adapter are in {record.path}",
                exit_code=128 + monitor.signal_number,
                next_step=f"{distributed.command()} {recipe.method} --resume {record.path}",
            )
        if monitor.capped:
            close(record, monitor, "capped", meter.cap, **ending)
            raise _capped(record, meter, f"at step {trainer.state.global_step} of {trainer.state.max_steps}")
        close(record, monitor, "done", None, **ending)
    return record


def _capped(record: Run, meter: Meter, where: str) -> CapReached:
    spent = f"{meter.seconds:,.0f} s" + ("" if meter.usd is None else f", ${meter.usd:.4f}")
    saved = (
        "checkpoint and adapter are saved" if any(record.checkpoints.glob("*")) else "nothing was trained yet"
    )
    return CapReached(
        f"stopped at the cap ({meter.cap}) {where}; {saved}",
        where=str(record.path),
        why=f"the next step would have passed it; spent so far: {spent}. Idle time of a rented machine is not counted",
        next_step=f"{distributed.command()} {record.record['method']} --resume {record.path} --budget …",
    )


# --- to the last step -------------------------------------------------------------------------


def last_state(record: Run) -> str | None:
    """The last whole checkpoint, with metrics after it forgotten; None starts from the beginning."""
    found = record.last_checkpoint()
    step = 0 if found is None else int(found.name.split("-")[1])
    record.forget_after(step)
    return None if found is None else str(found)


def train_from(trainer: transformers.Trainer, checkpoint: str | None) -> None:
    """Train to the end. From a checkpoint of the last step there is nothing left but to load it:
    transformers would train one step more."""
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


class GuardedTrainer:
    """Mixed into a Trainer: losses are watched, and checkpoints hold no pickled arguments."""

    monitor: RunMonitor

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        return self.watched(super().training_step(*args, **kwargs))  # type: ignore[misc]

    def watched(self, loss: Any) -> Any:
        """The loss of one step, its gradients thrown away where it is not finite in any process."""
        [poisoned] = distributed.largest([not math.isfinite(float(loss))])
        if not poisoned:
            self.monitor.non_finite = 0
            return loss
        # The window's gradients are poisoned: without them the optimizer step changes nothing.
        self.model.zero_grad(set_to_none=True)  # type: ignore[attr-defined]
        self.monitor.non_finite += 1
        if self.monitor.non_finite >= MAX_NON_FINITE:
            step = self.state.global_step  # type: ignore[attr-defined]
            self.monitor.failed = f"{MAX_NON_FINITE} non-finite losses in a row at step {step}"
            self.control.should_training_stop = True  # type: ignore[attr-defined]
        return loss

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)  # type: ignore[misc]
        # A pickle: never needed to resume, and never to be loaded from a stranger's folder.
        (Path(output_dir or self.args.output_dir) / "training_args.bin").unlink(missing_ok=True)  # type: ignore[attr-defined]

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)  # type: ignore[misc]
        # The state file comes next, and says that the checkpoint is whole.
        self.accelerator.wait_for_everyone()  # type: ignore[attr-defined]

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """The run's folder says more than TRL's card template."""


def arguments(context: TrainingContext) -> dict[str, Any]:
    """The recipe in the words of transformers' TrainingArguments, for every method alike."""
    recipe, loaded = context.recipe, context.session.loaded
    cuda = loaded.device.type == "cuda"
    evaluates = bool(context.evaluation)
    return {
        "output_dir": str(context.record.checkpoints),
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "bf16": loaded.dtype == torch.bfloat16,
        "fp16": loaded.dtype == torch.float16 and cuda,  # with a gradient scaler
        "use_cpu": not cuda,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": recipe.lr_scheduler_type,
        "warmup_steps": recipe.warmup_steps,
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.max_grad_norm,
        "optim": recipe.optim,
        "per_device_train_batch_size": recipe.per_device_train_batch_size,
        "gradient_accumulation_steps": recipe.gradient_accumulation_steps,
        "num_train_epochs": recipe.num_train_epochs,
        "max_steps": recipe.max_steps,
        "gradient_checkpointing": recipe.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "logging_steps": recipe.logging_steps,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "eval_strategy": "steps" if recipe.eval_steps and evaluates else "no",
        "eval_steps": recipe.eval_steps,
        "per_device_eval_batch_size": recipe.per_device_eval_batch_size,
        "save_strategy": "steps",
        "save_steps": recipe.save_steps,
        "save_total_limit": recipe.save_total_limit,
        "load_best_model_at_end": recipe.load_best_model_at_end and evaluates,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
        "report_to": list(recipe.report_to) or "none",
        "run_name": context.record.id,
        "disable_tqdm": True,
        "log_level_replica": "error",  # of the other processes; transformers lets them warn
        "remove_unused_columns": False,
        "dataloader_pin_memory": cuda,
        # Under several processes: only what acts on images can be without use in a batch.
        "ddp_find_unused_parameters": recipe.train_connector or recipe.train_vision,
    }


def keep_float32(model: torch.nn.Module) -> None:
    """Trainable weights back to float32: TRL makes them bfloat16 for 4-bit models, where a small
    update rounds away. Called before the optimizer is made."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)


class NoInputGradients(transformers.TrainerCallback):
    """Remove the hooks that make embeddings require a gradient, at the start of training."""

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        adapters.remove_input_gradients(model)


def require_finite(record: Run, monitor: RunMonitor) -> None:
    """Raise if the run went wrong, naming the last good checkpoint."""
    if monitor.failed is None:
        return
    saved = sorted(record.checkpoints.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    raise RunFailed(
        monitor.failed,
        where=str(record.path),
        why="the learning rate is too high for this precision, or a sample is damaged",
        next_step=f"the last good checkpoint is {saved[-1]}"
        if saved
        else "no checkpoint was written before it",
    )


# --- afterwards ------------------------------------------------------------------------------


def save(context: TrainingContext) -> None:
    """Adapter, processor, prompt settings and the loss plot."""
    record, session = context.record, context.session
    try:
        adapters.save(session.loaded, record.path, context.job.model.base_name)
    except OSError as error:
        raise paths.disk_error(error, record.path) from error
    paths.write_json(record.path / run_folder.ADAPTER_NOTES_FILE, opening.adapter_notes(context.job, session))
    plots.of_run(record.metrics(), record.path)


def evaluate(context: TrainingContext) -> dict[str, Any] | None:
    """Accuracy on the evaluation rows, each answered by one process and kept in samples.jsonl."""
    rows = context.evaluation
    if not rows:
        return None
    context.report.phase("evaluating", len(rows))
    context.monitor.phases.turn()
    context.monitor.phases.enter("evaluate")
    size, sharers = context.recipe.per_device_eval_batch_size, distributed.count()
    shares = [_share(rows, size, index, sharers) for index in range(sharers)]
    given: list[answering.Answer] = []
    for answer in answering.answers(
        context.session,
        shares[distributed.index()],
        batch_size=size,
        max_completion_length=context.recipe.max_completion_length,
        progress=lambda done, _: context.report.advance(min(done * sharers, len(rows)), len(rows)),
    ):
        context.record.sample(answer.as_json())
        given.append(answer)
        if context.monitor.meter.reached():
            context.monitor.capped = True
            context.report.say(f"the cap ends the evaluation after {len(given) * sharers} answers")
            break
    answered = distributed.gathered([answer.as_json() for answer in given])
    for index in set(range(sharers)) - {distributed.index()}:
        for example, row in zip(shares[index], answered[index]):
            context.record.sample(row)
            given.append(answering.Answer.of_json(row, example, context.session.chat.prompt))
    return answering.summary(given)


def _share(rows: list[Example], size: int, index: int, sharers: int) -> list[Example]:
    """Every n-th batch, so that each question is answered in the company in which one process would answer it."""
    return [
        row for start in range(index * size, len(rows), size * sharers) for row in rows[start : start + size]
    ]


def close(record: Run, monitor: RunMonitor, status: str, reason: str | None, **more: Any) -> None:
    """The figures the estimate is held against."""
    meter, phases = monitor.meter, monitor.phases
    meter.close()
    measured = {
        "seconds": round(meter.seconds, 2),
        "usd": meter.usd,
        "peak_memory_bytes": phases.peak_bytes,
        "phases": phases.as_json(),
    }
    record.update(status=status, stop_reason=reason, measured=measured, **more)
    record.unlock()


def _with_image(examples: list[Example]) -> Example | None:
    return next((example for example in examples if example.images), None)
