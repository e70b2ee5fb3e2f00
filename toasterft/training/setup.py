"""What a training does before it has a trainer: its rows, its run's folder, lengths, and features of every picture."""

from __future__ import annotations

import os
from dataclasses import replace

import torch

from toasterft.data import sources
from toasterft.data.example import Example
from toasterft.data.pairs import paired
from toasterft.engine import open_model
from toasterft.engine.batching import IGNORE
from toasterft.engine.open_model import ModelSession
from toasterft.errors import CapReached, DataError
from toasterft.jobs import begin as recording
from toasterft.jobs import prepare as jobs
from toasterft.jobs.prepare import Job
from toasterft.progress import Reporter
from toasterft.recipe import Dpo, Trained
from toasterft.runs import distributed, run_folder
from toasterft.runs.run_folder import Run
from toasterft.training.monitor import RunMonitor


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


def open_run_folder(job: Job, data: sources.Dataset) -> Run:
    """The run's folder, with everything that is known before the start; locked until the main process ends.

    Raises:
        DataError: the data of a resumed run is not what it began with, or not the same in all processes.
        UserError: another process works on this run.
    """
    read = set(distributed.gathered(data.sha256))
    record: Run | None = None
    with distributed.as_one():
        if len(read) > 1:
            raise DataError("the processes of this run read different data", where=job.data_name)
        if distributed.is_main():
            record = _open_ledger(job, data)
    told = distributed.from_main((record.path, record.record) if record is not None else None)
    return record or run_folder.FollowerRun(*told)


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
        times = [*record.record.get("resumed_at", []), run_folder.now()]
        record.update(status="running", stop_reason=None, process_id=os.getpid(), resumed_at=times)
        return record
    return recording.begin(
        job,
        data,
        processes=distributed.count(),
        estimate=job.estimate.as_json() if job.estimate else None,
        fitted=job.fitted,
    )


def drop_too_long(
    examples: list[Example], session: ModelSession, job: Job, report: Reporter
) -> list[Example]:
    """Samples that fit `max_length`; the others are dropped, counted and named, never cut.

    Raises:
        DataError: more than 5 % would be dropped.
    """
    recipe = job.recipe
    assert isinstance(recipe, Trained)
    geometry = job.model.shape.geometry.with_longest_edge(open_model.longest_edge(job))
    chat, longest = session.chat, 0
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


def encode(session: ModelSession, examples: list[Example], monitor: RunMonitor) -> None:
    """Every image through the tower once, in one of the processes; afterwards the tower may leave the GPU.

    Raises:
        CapReached: between two images; those encoded so far stay in the cache.
    """
    if session.encoder is None:
        return
    report, store = monitor.report, session.encoder.store
    images = list({image.sha256: image for example in examples for image in example.images}.values())
    report.phase("encoding", len(images))
    monitor.phases.turn()
    monitor.phases.enter("encode")
    # Each machine has a cache of its own, or they share one and some work is done twice.
    place, sharers = distributed.on_this_machine()
    store.share(place, sharers)

    def progress(done: int, total: int) -> None:
        monitor.phases.turn()
        done, total = min(done * sharers, len(images)), len(images)  # the others are about as far
        report.advance(done, total, memory_bytes=monitor.phases.peak_bytes)
        if monitor.meter.reached():
            raise CapReached(f"after encoding {done} of {total} images")

    with distributed.as_one():
        session.encoder.encode_all(images[place::sharers], progress)
    store.full = bool(distributed.largest([store.full])[0])
    if store.full:
        report.say(
            "the feature cache is full: the other images are encoded again in every epoch (cache_limit_gb)"
        )
    elif session.loaded.device.type == "cuda":
        session.loaded.part(session.loaded.family.vision).to("cpu")
        torch.cuda.empty_cache()


def shown_sample(session: ModelSession, example: Example) -> list[tuple[str, bool]]:
    """One sample as (text, trained?) runs, read back from the labels themselves."""
    batch = session.inputs.training([example])
    tokenizer, image = session.loaded.tokenizer, session.chat.image_token_id
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
        text = tokenizer.decode(short).replace(session.chat.image_token, f"[{count} image tokens]", 1)
        shown.append((text, trained))
    return shown
