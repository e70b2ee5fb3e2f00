"""Build preference pairs: a trace and answer of the data beside a wrong sample of the model that is to learn from it.

<data folder>/NAME/
    train.jsonl        rows of the source, each with `rejected`: the model's own completion that scores wrong
    validation.jsonl   test.jsonl      held-out rows of the source, unchanged
    card.json          model, sampling, counts, seconds, hashes; `complete: false` while it is being built
    samples.ledger     every sample, written before the next rows are sampled: what a killed build goes on from
    spend.json         seconds and dollars, all processes together
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from toasterft import scoring
from toasterft.data import control_tokens, sources, write
from toasterft.data.chat import as_data
from toasterft.data.example import Example
from toasterft.data.sources import Dataset
from toasterft.engine import Engine
from toasterft.engine.open_model import ModelSession, open_model
from toasterft.errors import CapReached, DataError, OutOfMemory, RunFailed, ToasterError
from toasterft.jobs.prepare import Job
from toasterft.progress import Reporter
from toasterft.recipe import Pairs
from toasterft.runs import run_folder
from toasterft.runs.journal import Journal
from toasterft.runs.meter import Meter
from toasterft.runs.stop import Stop
from toasterft.teachers import batch
from toasterft.teachers.plan import held_out, shuffled
from toasterft.training.policy import rollout
from toasterft.training.setup import hold_pictures, picture_digests

SAMPLES = "samples.ledger"


@dataclass(frozen=True)
class Sample:
    """One completion of the model, with the data's names for its tags."""

    text: str
    right: bool
    finished: bool
    """It ended by itself rather than at the length limit."""
    well_formed: bool

    @property
    def wrong(self) -> bool:
        """Fit to be rejected: it says something, comes to an end, and scores wrong."""
        return bool(self.text) and self.finished and not self.right


@dataclass
class Build:
    """Rows in the order in which they are sampled, and their samples so far; none where the image is damaged."""

    recipe: Pairs
    rows: list[Example]
    sampled: list[list[Sample]] = field(default_factory=list)
    found: int = 0
    """Rows with a wrong sample."""
    ended: ToasterError | None = None

    def add(self, samples: list[Sample]) -> None:
        self.sampled.append(samples)
        self.found += worst(samples) is not None

    @property
    def complete(self) -> bool:
        enough = self.recipe.n is not None and self.found >= self.recipe.n
        return enough or len(self.sampled) == len(self.rows)

    @property
    def pairs(self) -> list[Example]:
        """The first `n`, so that how many rows go at once does not decide what is in."""
        chosen = [(row, worst(samples)) for row, samples in zip(self.rows, self.sampled)]
        return [replace(row, rejected=one.text) for row, one in chosen if one is not None][: self.recipe.n]


def worst(samples: Sequence[Sample]) -> Sample | None:
    """The sample to reject: the first wrong one that keeps the form, so that a pair differs in what it says, else
    the first wrong one; None where there is none."""
    return min((one for one in samples if one.wrong), key=lambda one: not one.well_formed, default=None)


def run(job: Job, engine: Engine, report: Reporter, *, name: str) -> dict[str, Any]:
    """Sample, score and write, or resume, and return the card.

    Raises:
        UserError: data or model cannot be had, or the folder holds something else; a new folder is removed again.
        CapReached, Interrupted: what was sampled so far is a data set that can be trained on.
        OutOfMemory: a batch did not fit; what was sampled before is kept.
        RunFailed: no row has a wrong sample.
    """
    recipe = job.recipe
    assert isinstance(recipe, Pairs)
    data = sources.load(
        recipe.data, purpose="train", split=recipe.split, limit=recipe.limit, images=recipe.images
    )
    rows = [data.examples[row] for row in shuffled(data, recipe.seed)]
    build = Build(recipe, [row for row in rows if row.reasoning])
    if not build.rows:
        raise DataError(
            "no row carries reasoning: there is nothing to prefer to the model's own",
            where=recipe.data,
            next_step=f"toasterft cot build NAME --from {recipe.data} --teacher …",
        )
    apart = {
        split: rows
        for split, rows in held_out(recipe.data, recipe.seed, images=recipe.images).items()
        if rows.examples and rows.split != data.split
    }
    folder = write.dataset_folder(name, job.out)
    meter = Meter(job.usd_per_hour, job.budget_usd, job.max_seconds)
    opened = batch.open_build(folder, name, data.task, _identity(job, data), keep=lambda: bool(build.sampled))
    with opened as card, Journal(folder / SAMPLES) as journal:
        meter.attach(folder)
        hold_pictures(folder, picture_digests(build.rows))
        try:
            with Stop(report) as stop:
                stop.arm(meter.seconds_left)
                try:
                    session = open_model(
                        job.settings, recipe, engine, report, _readable(build.rows), train=False
                    )
                except KeyboardInterrupt:
                    if stop.capped:
                        raise CapReached(
                            f"at the cap ({meter.cap}) before the first sample", where=str(folder)
                        ) from None
                    raise
            if note := control_tokens.note(build.rows, session.chat.control):
                report.say(note)
            _resume(build, journal, report)
            with batch.stop_on_signals(build):
                _sample_all(session, build, journal, meter, report)
        finally:
            report.done()
            meter.close()
        card |= _summary(job, data, build, meter)
        pairs = [write.row(folder, row, task=card["task"], link=True) for row in build.pairs]
        sizes = {"train": len(pairs), **{split: len(rows) for split, rows in apart.items()}}
        card["splits"] = {split: size for split, size in sizes.items() if size}
        batch.write_set(folder, card, {batch.TRAIN: pairs}, apart)
    done = f"{len(pairs):,} pairs from {len(build.sampled):,} of {len(build.rows):,} rows"
    batch.raise_ended(build.ended, done, folder, use="train on what there is")
    if not build.found:
        raise RunFailed(
            "no pair was found",
            where=str(folder),
            details=[f"{count:,} rows: {reason}" for reason, count in card["rejects"].items()],
            why="a pair needs a sample that is wrong and comes to an end",
            next_step="another name with more --tries, a higher --temperature, or a larger max_completion_length",
        )
    return card


def _identity(job: Job, data: Dataset) -> dict[str, Any]:
    """What two builds must share for one to resume the other; how many, and how many at once, may change."""
    recipe, model = job.recipe, job.model
    assert isinstance(recipe, Pairs)
    return {
        "method": recipe.method,
        "data": data.name,
        "data_sha256": data.sha256,
        "split": data.split,
        "model": model.base_name,
        **model.fingerprints(),
        "load_in_4bit": job.settings.load_in_4bit,
        "image_longest_edge": job.settings.image_longest_edge,
        "prompt": recipe.prompt.model_dump() if recipe.prompt else (model.notes or {}).get("prompt"),
        **{
            name: getattr(recipe, name)
            for name in ("tries", "temperature", "top_p", "max_completion_length", "seed")
        },
    }


# --- sampling --------------------------------------------------------------------------------


def _resume(build: Build, journal: Journal, report: Reporter) -> None:
    """Take over what was sampled before, cut back to whole batches, so that the rest comes out as if undisturbed."""
    keys, size = [row.id for row in build.rows], build.recipe.per_device_eval_batch_size
    for line in journal.whole_batches(keys, size, lambda line: line["id"]):
        build.add([Sample(**one) for one in line["samples"]])
    if build.sampled:
        report.say(f"going on from {len(build.sampled):,} rows that are sampled already")


def _sample_all(
    session: ModelSession, build: Build, journal: Journal, meter: Meter, report: Reporter
) -> None:
    """Sample rows in batches until there are enough pairs, the rows end, or something stops it."""
    recipe, total = build.recipe, build.recipe.n or len(build.rows)

    def done() -> int:
        return min(total, build.found if recipe.n else len(build.sampled))

    report.phase("sampling", total)
    report.advance(done(), total)
    before, began, longest = len(build.sampled), time.monotonic(), 0.0
    while not build.complete and build.ended is None:
        if meter.reached(longest):
            build.ended = CapReached(meter.cap)
            return
        start, now = len(build.sampled), time.monotonic()
        rows = build.rows[start : start + recipe.per_device_eval_batch_size]
        # Every batch draws numbers of its own: one that is sampled later draws the same.
        digest = hashlib.sha256(f"{recipe.seed} {start}".encode()).digest()
        torch.manual_seed(int.from_bytes(digest[:4], "big"))
        try:
            found = _sample(session, rows, recipe)
        except torch.OutOfMemoryError as error:
            raise OutOfMemory(
                "the GPU's memory did not hold a batch of samples",
                next_step=f"the same command with per_device_eval_batch_size={max(1, len(rows) // 2)}",
            ) from error
        journal.append(
            {"id": row.id, "samples": [asdict(one) for one in samples]} for row, samples in zip(rows, found)
        )
        for samples in found:
            build.add(samples)
        longest = max(longest, time.monotonic() - now)
        each = (time.monotonic() - began) / (len(build.sampled) - before)
        left = None if recipe.n else each * (len(build.rows) - len(build.sampled))
        report.advance(done(), total, usd=meter.usd, seconds_left=left)


def _sample(session: ModelSession, rows: list[Example], recipe: Pairs) -> list[list[Sample]]:
    """`tries` samples of each row; none of one whose picture cannot be read."""
    try:
        groups = dict(rollout.sample(session, rows, recipe, len(rows) * recipe.num_generations))
    except DataError:
        if len(rows) == 1:
            return [[]]
        return [found for row in rows for found in _sample(session, [row], recipe)]
    return [[_read(session, ids, row, recipe) for ids in groups[place]] for place, row in enumerate(rows)]


def _read(session: ModelSession, ids: list[int], row: Example, recipe: Pairs) -> Sample:
    found = rollout.read(session, ids, recipe.max_completion_length)
    return Sample(
        text=as_data(found.text.strip(), session.chat.prompt),
        right=scoring.right(found.parsed.answer, row),
        finished=found.finished,
        well_formed=found.parsed.well_formed,
    )


def _readable(examples: list[Example]) -> Example | None:
    """The first row whose pictures can be opened: features are proved on it."""
    for example in examples:
        try:
            for image in example.images:
                image.open()
        except DataError:
            continue
        if example.images:
            return example
    return None


# --- the data set ----------------------------------------------------------------------------


def _summary(job: Job, data: Dataset, build: Build, meter: Meter) -> dict[str, Any]:
    """The card of a build so far."""
    samples = [one for row in build.sampled for one in row]
    rejects = Counter(_why_none(row) for row in build.sampled if worst(row) is None)
    rejects["no reasoning"] = len(data) - len(build.rows)
    pairs = min(build.found, build.recipe.n or build.found)
    return {
        "complete": build.complete,
        "built_at": batch.now(),
        "model": {"name": job.model.name, "base": job.model.base_name, "run": job.model.run},
        "counts": {
            "wanted": build.recipe.n,
            "rows": len(data),
            "sampled": len(build.sampled),
            "samples": len(samples),
            "right": sum(one.right for one in samples),
            "kept": pairs,
            "kept_beyond_n": build.found - pairs,
        },
        "rejects": {reason: count for reason, count in rejects.most_common() if count},
        "spent": {"seconds": round(meter.seconds, 2), "usd": meter.usd},
        "versions": run_folder.versions(),
    }


def _why_none(samples: Sequence[Sample]) -> str:
    if not samples:
        return "the picture cannot be read"
    if all(one.right for one in samples):
        return "every sample is right"
    return "no wrong sample came to an end"
