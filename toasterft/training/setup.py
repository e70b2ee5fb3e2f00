"""Training setup: open the run folder, drop rows that are too long, encode every image once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

from toasterft import paths
from toasterft.data import control_tokens
from toasterft.data.example import Example
from toasterft.data.selection import too_many_dropped
from toasterft.data.sources import Dataset
from toasterft.data.token_stats import MAX_DROPPED
from toasterft.engine.batching import IGNORE
from toasterft.engine.open_model import ModelSession
from toasterft.errors import CapReached, DataError
from toasterft.jobs.begin import data_facts, require_same_data
from toasterft.jobs.prepare import Job
from toasterft.models.settings import ModelSettings
from toasterft.progress import Reporter
from toasterft.recipe import Dpo, Trained
from toasterft.runs import distributed
from toasterft.runs.run_folder import Run
from toasterft.training.monitor import RunMonitor

PICTURES_FILE = "pictures.json"
Digests = list[tuple[str, str]]


def settle_data(job: Job, record: Run, train: Dataset) -> None:
    """Write down what the run learns from, where its folder was made before that was known.

    Raises:
        DataError: the data of a resumed run is not what it began with, or not the same in all processes.
    """
    hashes = set(distributed.all_gather(train.sha256))
    with distributed.share_errors():
        if len(hashes) > 1:
            raise DataError("the processes of this run read different data", where=job.data_name)
        require_same_data(job, record, train)
        if distributed.is_main():
            hold_pictures(record.path, picture_digests(train.examples))
    if "data_sha256" not in record.record:
        record.update(**data_facts(train))


def picture_digests(examples: Iterable[Example]) -> Digests:
    """(name, digest of its bytes) of every picture, each once."""
    return list({(image.name, image.sha256): None for example in examples for image in example.images})


def hold_pictures(folder: Path, digests: Digests) -> None:
    """Hold the rows' pictures against those that a folder's work began with; the first time they are noted there.

    Raises:
        DataError: some are others now; with their names.
    """
    noted = paths.read_json(folder / PICTURES_FILE)
    if not isinstance(noted, list):  # new, or from before pictures were noted
        paths.write_json(folder / PICTURES_FILE, digests)
        return
    before = {tuple(one) for one in noted if isinstance(one, list)}
    changed = [name for name, digest in digests if (name, digest) not in before]
    if changed:
        raise DataError(
            f"{len(changed)} picture{'s' * (len(changed) != 1)} changed since this began: {', '.join(changed[:5])}"
            + " …" * (len(changed) > 5),
            where=str(folder),
            why="what is learned from here on would be of other data",
            next_step="put them back, or start anew",
        )


def drop_too_long(
    examples: list[Example], session: ModelSession, settings: ModelSettings, recipe: Trained, report: Reporter
) -> list[Example]:
    """Samples that fit `max_length`; the others are dropped, counted and named, never cut.

    Raises:
        DataError: more than 5 % would be dropped.
    """
    geometry, chat, longest = settings.geometry, session.chat, 0
    if note := control_tokens.note(examples, chat.control):
        report.say(note)
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
    if len(dropped) > MAX_DROPPED * len(examples):
        raise too_many_dropped(len(dropped), len(examples), longest, recipe)
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
    images = list({image.address: image for example in examples for image in example.images}.values())
    report.phase("encoding", len(images))
    monitor.phases.turn()
    monitor.phases.enter("encode")
    # Each machine has a cache of its own, or they share one and some work is done twice.
    place, sharers = distributed.local_rank_and_size()
    store.share(place, sharers)

    def progress(done: int, total: int) -> None:
        monitor.phases.turn()
        done, total = min(done * sharers, len(images)), len(images)  # the others are about as far
        report.advance(done, total, memory_bytes=monitor.phases.peak_bytes)
        if monitor.meter.reached():
            raise CapReached(f"after encoding {done} of {total} images")

    with distributed.share_errors():
        session.encoder.encode_all(images[place::sharers], progress)
    store.full = bool(distributed.all_reduce_max([store.full])[0])
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
        text = tokenizer.decode(short)
        if count:
            text = text.replace(session.chat.image_token, f"[{count} image tokens]", 1)
        shown.append((text, trained))
    return shown
