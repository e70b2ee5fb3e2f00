"""What every training method shares: data, ledger, encoding, guarding, saving, evaluating.

`run` is the whole job from the top; a method brings `make_trainer` and nothing else.
"""

from __future__ import annotations

import math
import os
import pickle
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.trainer_callback import PrinterCallback

from toasterft import job as jobs
from toasterft import ledger, places, plots, processes
from toasterft.data import sources
from toasterft.data.example import Example
from toasterft.data.pairs import paired
from toasterft.engines import Engine, adapters
from toasterft.errors import CapReached, DataError, Interrupted, ModelError, OutOfMemory, RunFailed, UserError
from toasterft.job import Job
from toasterft.ledger import Run
from toasterft.meter import Meter
from toasterft.methods import answering, opening
from toasterft.methods.inputs import IGNORE
from toasterft.methods.opening import Opened
from toasterft.methods.watch import MAX_NON_FINITE, Watch
from toasterft.progress import Reporter
from toasterft.recipe import Dpo, Trained, dump


@dataclass
class Course:
    """One training run in progress: what a method's `make_trainer` is given.

    Attributes:
        train: the samples that are trained on, all within `max_length`.
        evaluation: rows of the evaluation split; empty where the data has none.
    """

    job: Job
    recipe: Trained
    opened: Opened
    record: Run
    train: list[Example]
    evaluation: list[Example]
    watch: Watch
    report: Reporter


MakeTrainer = Callable[[Course], transformers.Trainer]


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
    with processes.as_one():
        data, evaluation = read_data(recipe, report)
    record = open_ledger(job, data)
    meter.attach(record.path, keep=processes.is_main())
    watch = Watch(record, report, meter)
    if record.record.get("fitted"):
        words = " ".join(f"{key}={value}" for key, value in record.record["fitted"].items())
        report.say(f"made to fit: {words}")
    ending: dict[str, Any] = {}
    try:
        with watch:
            with processes.as_one():
                opened = opening.open_model(job, engine, report, _with_image(data.examples), train=True)
                train = keep_short(data.examples, opened, job, report)
            ending["notes"] = opened.loaded.notes
            ending["train_count"] = len(train)
            encode(opened, [*train, *evaluation], watch)
            with processes.as_one():
                report.sample(shown_sample(opened, train[0]))
                course = Course(job, recipe, opened, record, train, evaluation, watch, report)
                trainer = make_trainer(course)
                trainer.remove_callback(PrinterCallback)
                trainer.add_callback(NoInputGradients())
                keep_float32(opened.loaded.model)
                if watch.stopping_for_the_cap():
                    raise CapReached("before the first step")
            train_from(trainer, start_of(record))
            with processes.as_one():
                require_finite(record, watch)
                if processes.is_main():
                    save(course)
            if opened.eyes is not None:
                ending["images_encoded"] = sum(processes.gathered(opened.eyes.encoded))
            watch.agree()
            if watch.signal_number is None and not watch.capped:
                ending["eval"] = evaluate(course)
                watch.agree()
    except UserError:
        if job.resume is None:
            meter.close()
            record.discard()
        else:
            close(record, watch, "failed", "refused")
        raise
    except CapReached as reached:
        close(record, watch, "capped", meter.cap, **ending)
        raise _capped(record, meter, reached.what) from None
    except Interrupted as stopped:
        close(record, watch, "interrupted", stopped.what, **ending)
        raise
    except torch.OutOfMemoryError:
        close(record, watch, "failed", "out of memory", **ending)
        raise OutOfMemory(
            "out of GPU memory",
            where=str(record.path),
            why="a step needed more than the estimate said",
            next_step=f"{processes.command()} {recipe.method} --resume {record.path} --fit exact",
        ) from None
    except BaseException as error:
        if processes.lost(error):
            close(record, watch, "failed", "another process ended", **ending)
            raise RunFailed(
                "another process of this training ended, and a step needs all of them",
                where=str(record.path),
                next_step=f"{processes.command()} {recipe.method} --resume {record.path}",
            ) from None
        close(record, watch, "failed", f"{type(error).__name__}: {error}"[:500], **ending)
        raise
    finally:
        report.done()
    with processes.as_one():
        if watch.signal_number is not None:
            name = signal.Signals(watch.signal_number).name
            close(record, watch, "interrupted", name, **ending)
            raise Interrupted(
                f"stopped by {name}; checkpoint and adapter are in {record.path}",
                exit_code=128 + watch.signal_number,
                next_step=f"{processes.command()} {recipe.method} --resume {record.path}",
            )
        if watch.capped:
            close(record, watch, "capped", meter.cap, **ending)
            raise _capped(record, meter, f"at step {trainer.state.global_step} of {trainer.state.max_steps}")
        close(record, watch, "done", None, **ending)
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
        next_step=f"{processes.command()} {record.record['method']} --resume {record.path} --budget …",
    )


# --- data and ledger -------------------------------------------------------------------------


def read_data(recipe: Trained, report: Reporter) -> tuple[sources.Dataset, list[Example]]:
    """Training rows, and the rows to evaluate on (none where the data has no such split)."""
    data = sources.load(recipe.data, purpose="train", split=recipe.split, limit=recipe.limit)
    if isinstance(recipe, Dpo):
        pairs = paired(data.examples, recipe.data)
        if len(pairs) < len(data):
            report.say(f"{len(data) - len(pairs)} of {len(data)} rows carry no `rejected`: left out")
        data = replace(data, examples=pairs)
    without = [example for example in data.examples if example.reasoning is None]
    if without and recipe.rows_without_reasoning == "drop":
        data = replace(data, examples=[example for example in data.examples if example.reasoning is not None])
        report.say(f"{len(without)} rows without reasoning left out")
    elif without and len(without) < len(data):
        report.say(
            f"{len(without)} of {len(data)} rows carry no reasoning and train on the answer alone "
            "(rows_without_reasoning=drop leaves them out)"
        )
    where = recipe.eval_data or recipe.data
    if recipe.eval_data is None and recipe.eval_split is None and not sources.has_split(where, "validate"):
        report.say(
            f"{data.name} has no validation split: nothing is evaluated (eval_data=… names other data)"
        )
        return data, []
    held_out = sources.load(
        where, purpose="validate", split=recipe.eval_split, limit=recipe.eval_limit, seed=recipe.seed
    )
    return data, held_out.examples


def open_ledger(job: Job, data: sources.Dataset) -> Run:
    """The run's folder, with everything that is known before the start; locked until the main process ends.

    Raises:
        DataError: the data of a resumed run is not what it began with, or not the same in all processes.
        UserError: another process works on this run.
    """
    read = set(processes.gathered(data.sha256))
    record: Run | None = None
    with processes.as_one():
        if len(read) > 1:
            raise DataError("the processes of this run read different data", where=job.data_name)
        if processes.is_main():
            record = _open_ledger(job, data)
    told = processes.from_main((record.path, record.record) if record is not None else None)
    return record or ledger.Followed(*told)


def _open_ledger(job: Job, data: sources.Dataset) -> Run:
    if job.resume is not None:
        record = job.resume
        record.lock()
        if record.record.get("data_sha256") != data.sha256:
            raise DataError(
                "the data changed since this run began",
                where=job.recipe.data if isinstance(job.recipe, Trained) else None,
                next_step=f"start anew from its adapter: --model {record.path}",
            )
        times = [*record.record.get("resumed_at", []), ledger.now()]
        record.update(status="running", stop_reason=None, process_id=os.getpid(), resumed_at=times)
        return record
    record = ledger.create(
        job.runs_dir,
        method=job.recipe.method,
        model=job.model.name,
        data=job.data_name,
        out=job.out,
        model_base=job.model.base_name,
        model_adapter=str(job.model.adapter) if job.model.adapter else None,
        model_run=job.model.run,
        data_sha256=data.sha256,
        data_count=len(data),
        data_split=data.split,
        engine=job.engine,
        processes=processes.count(),
        gpu=job.target.gpu.name if job.target.present else None,
        usd_per_hour=job.usd_per_hour,
        estimate=job.estimate.as_json() if job.estimate else None,
        fitted=job.fitted,
    )
    record.lock()
    places.write_atomic(record.path / ledger.RECIPE_FILE, dump(job.recipe))
    return record


def start_of(record: Run) -> str | None:
    """The last whole checkpoint, with metrics after it forgotten; None starts from the beginning."""
    found = record.last_checkpoint()
    step = 0 if found is None else int(found.name.split("-")[1])
    record.forget_after(step)
    return None if found is None else str(found)


def train_from(trainer: transformers.Trainer, checkpoint: str | None) -> None:
    """Train to the end. From a checkpoint of the last step there is nothing left but to load it:
    transformers would train one step more."""
    state = places.read_json(Path(checkpoint) / "trainer_state.json") if checkpoint else {}
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


def keep_short(examples: list[Example], opened: Opened, job: Job, report: Reporter) -> list[Example]:
    """Samples that fit `max_length`; the others are dropped, counted and named, never cut.

    Raises:
        DataError: more than 5 % would be dropped.
    """
    recipe = job.recipe
    assert isinstance(recipe, Trained)
    geometry = job.model.shape.geometry.with_longest_edge(opening.longest_edge(job))
    chat, longest = opened.chat, 0
    kept: list[Example] = []
    dropped: list[Example] = []
    for example in examples:
        # The prompt holds one placeholder per image, which the image's own tokens replace.
        images = sum(geometry.image_tokens(*image.size_px) - 1 for image in example.images)
        written = len(chat.ids(chat.completion(example)))
        if isinstance(recipe, Dpo):
            written = max(written, len(chat.ids(chat.rejected(example))))
        length = len(chat.ids(chat.question(example))) + images + written
        longest = max(longest, length)
        (kept if length <= recipe.max_length else dropped).append(example)
    if len(dropped) > jobs.MAX_DROPPED * len(examples):
        raise jobs.too_many_dropped(len(dropped), len(examples), longest, recipe)
    if dropped:
        names = ", ".join(example.id for example in dropped[:5]) + (" …" if len(dropped) > 5 else "")
        report.say(
            f"{len(dropped)} of {len(examples)} samples exceed max_length={recipe.max_length}: left out {names}"
        )
    return kept


def encode(opened: Opened, examples: list[Example], watch: Watch) -> None:
    """Every image through the tower once, in one of the processes; afterwards the tower may leave the GPU.

    Raises:
        CapReached: between two images; those encoded so far stay in the cache.
    """
    if opened.eyes is None:
        return
    report, store = watch.report, opened.eyes.store
    images = list({image.sha256: image for example in examples for image in example.images}.values())
    report.phase("encoding", len(images))
    watch.phases.turn()
    watch.phases.enter("encode")
    # Each machine has a cache of its own, or they share one and some work is done twice.
    place, sharers = processes.on_this_machine()
    store.share(place, sharers)

    def progress(done: int, total: int) -> None:
        watch.phases.turn()
        done, total = min(done * sharers, len(images)), len(images)  # the others are about as far
        report.advance(done, total, memory_bytes=watch.phases.peak_bytes)
        if watch.meter.reached():
            raise CapReached(f"after encoding {done} of {total} images")

    with processes.as_one():
        opened.eyes.encode_all(images[place::sharers], progress)
    store.full = bool(processes.largest([store.full])[0])
    if store.full:
        report.say(
            "the feature cache is full: the other images are encoded again in every epoch (cache_limit_gb)"
        )
    elif opened.loaded.device.type == "cuda":
        opened.loaded.part(opened.loaded.family.vision).to("cpu")
        torch.cuda.empty_cache()


def shown_sample(opened: Opened, example: Example) -> list[tuple[str, bool]]:
    """One sample as (text, trained?) runs, read back from the labels themselves."""
    batch = opened.inputs.training([example])
    tokenizer, image = opened.loaded.tokenizer, opened.chat.image_token_id
    runs: list[tuple[list[int], bool]] = []
    for token, label in zip(batch["input_ids"][0].tolist(), batch["labels"][0].tolist()):
        trained = label != IGNORE
        if not runs or runs[-1][1] != trained:
            runs.append(([], trained))
        runs[-1][0].append(token)
    shown = []
    for tokens, trained in runs:
        # Hundreds of image tokens say nothing; their number does.
        count = tokens.count(image)
        first = tokens.index(image) if count else 0
        short = [token for place, token in enumerate(tokens) if token != image or place == first]
        text = tokenizer.decode(short).replace(opened.chat.image_token, f"[{count} image tokens]", 1)
        shown.append((text, trained))
    return shown


# --- the trainer -----------------------------------------------------------------------------


class Guarded:
    """Mixed into a Trainer: losses are watched, and checkpoints hold no pickled arguments."""

    watch: Watch

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        return self.watched(super().training_step(*args, **kwargs))  # type: ignore[misc]

    def watched(self, loss: Any) -> Any:
        """The loss of one step, its gradients thrown away where it is not finite in any process."""
        [poisoned] = processes.largest([not math.isfinite(float(loss))])
        if not poisoned:
            self.watch.non_finite = 0
            return loss
        # The window's gradients are poisoned: without them the optimizer step changes nothing.
        self.model.zero_grad(set_to_none=True)  # type: ignore[attr-defined]
        self.watch.non_finite += 1
        if self.watch.non_finite >= MAX_NON_FINITE:
            step = self.state.global_step  # type: ignore[attr-defined]
            self.watch.failed = f"{MAX_NON_FINITE} non-finite losses in a row at step {step}"
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


def arguments(course: Course) -> dict[str, Any]:
    """The recipe in the words of transformers' TrainingArguments, for every method alike."""
    recipe, loaded = course.recipe, course.opened.loaded
    cuda = loaded.device.type == "cuda"
    evaluates = bool(course.evaluation)
    return {
        "output_dir": str(course.record.checkpoints),
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
        "run_name": course.record.id,
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
    """Removes the hooks that make embeddings require a gradient.

    Non-reentrant checkpointing does not need them, and on the tower's embeddings they make a frozen
    tower run backward. They are registered by PEFT, by TRL, and again when training starts, and
    transformers can take off only the last set, so each is looked for by name.
    """

    NAMES = ("make_inputs_require_grads", "make_inputs_require_grad")

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        for module in model.modules():
            for key, hook in list(module._forward_hooks.items()):
                if getattr(hook, "__name__", "") in self.NAMES:
                    del module._forward_hooks[key]


def require_finite(record: Run, watch: Watch) -> None:
    """Raise if the run went wrong, naming the last good checkpoint."""
    if watch.failed is None:
        return
    saved = sorted(record.checkpoints.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    raise RunFailed(
        watch.failed,
        where=str(record.path),
        why="the learning rate is too high for this precision, or a sample is damaged",
        next_step=f"the last good checkpoint is {saved[-1]}"
        if saved
        else "no checkpoint was written before it",
    )


# --- afterwards ------------------------------------------------------------------------------


def save(course: Course) -> None:
    """Adapter, processor, prompt settings and the loss plot."""
    record, opened = course.record, course.opened
    try:
        adapters.save(opened.loaded, record.path, course.job.model.base_name)
    except OSError as error:
        raise places.disk_error(error, record.path) from error
    places.write_json(record.path / ledger.ADAPTER_NOTES_FILE, opening.adapter_notes(course.job, opened))
    plots.of_run(record.metrics(), record.path)


def evaluate(course: Course) -> dict[str, Any] | None:
    """Accuracy on the evaluation rows, each answered by one process and kept in samples.jsonl."""
    rows = course.evaluation
    if not rows:
        return None
    course.report.phase("evaluating", len(rows))
    course.watch.phases.turn()
    course.watch.phases.enter("evaluate")
    size, sharers = course.recipe.per_device_eval_batch_size, processes.count()
    shares = [_share(rows, size, index, sharers) for index in range(sharers)]
    given: list[answering.Answer] = []
    for answer in answering.answers(
        course.opened,
        shares[processes.index()],
        batch_size=size,
        max_completion_length=course.recipe.max_completion_length,
        progress=lambda done, _: course.report.advance(min(done * sharers, len(rows)), len(rows)),
    ):
        course.record.sample(answer.as_json())
        given.append(answer)
        if course.watch.meter.reached():
            course.watch.capped = True
            course.report.say(f"the cap ends the evaluation after {len(given) * sharers} answers")
            break
    answered = processes.gathered([answer.as_json() for answer in given])
    for index in set(range(sharers)) - {processes.index()}:
        for example, row in zip(shares[index], answered[index]):
            course.record.sample(row)
            given.append(answering.Answer.of_json(row, example, course.opened.chat.prompt))
    return answering.summary(given)


def _share(rows: list[Example], size: int, index: int, sharers: int) -> list[Example]:
    """Every n-th batch, so that each question is answered in the company in which one process would answer it."""
    return [
        row for start in range(index * size, len(rows), size * sharers) for row in rows[start : start + size]
    ]


def close(record: Run, watch: Watch, status: str, reason: str | None, **more: Any) -> None:
    """The figures the estimate is held against."""
    meter, phases = watch.meter, watch.phases
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
