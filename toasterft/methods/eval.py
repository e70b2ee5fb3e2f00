"""Accuracy of a model on a data set, every answer kept."""

from __future__ import annotations

from toasterft import ledger
from toasterft.data import sources
from toasterft.engines import Engine
from toasterft.errors import UserError
from toasterft.job import Job
from toasterft.ledger import Run
from toasterft.meter import Meter
from toasterft.methods import answering, opening
from toasterft.methods.watch import peak_memory_bytes
from toasterft.progress import Reporter
from toasterft.recipe import Eval, dump


def run(job: Job, engine: Engine, report: Reporter) -> Run:
    """Answer every question of a split greedily; scores in run.json, answers in samples.jsonl."""
    recipe = job.recipe
    assert isinstance(recipe, Eval)
    meter = Meter(job.usd_per_hour)
    data = sources.load(recipe.data, purpose="evaluate", split=recipe.split, limit=recipe.limit)
    record = ledger.create(
        job.runs_dir,
        method="eval",
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
        gpu=job.target.gpu.name if job.target.present else None,
        usd_per_hour=job.usd_per_hour,
    )
    (record.path / ledger.RECIPE_FILE).write_text(dump(recipe), encoding="utf-8")
    try:
        probe = next((example for example in data.examples if example.images), None)
        opened = opening.open_model(job, engine, report, probe, train=False)
        if opened.eyes is not None:
            images = [image for example in data.examples for image in example.images]
            report.phase("encoding", len(images))
            opened.eyes.encode_all(images, report.advance)
        report.phase("answering", len(data))
        given = []
        for answer in answering.answers(
            opened,
            data.examples,
            batch_size=recipe.per_device_eval_batch_size,
            max_completion_length=recipe.max_completion_length,
            suffix=answering.suffix_of(recipe.step, recipe.suffix),
            progress=report.advance,
        ):
            record.sample(answer.as_json())
            given.append(answer)
    except UserError:
        record.discard()
        raise
    except BaseException as error:
        record.update(status="failed", stop_reason=f"{type(error).__name__}: {error}"[:500])
        raise
    finally:
        report.done()
    record.update(
        status="done",
        measured={
            "seconds": round(meter.seconds, 2),
            "usd": meter.usd,
            "peak_memory_bytes": peak_memory_bytes(),
        },
        notes=opened.loaded.notes,
        eval=answering.summary(given),
    )
    return record
