"""One question about one image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toasterft.data.example import Example, ImageRef
from toasterft.engine import Engine
from toasterft.engine.open_model import open_model
from toasterft.evaluation.answer import answers, question_suffix
from toasterft.jobs.prepare import Job
from toasterft.progress import Reporter
from toasterft.recipe import Ask


def run(job: Job, engine: Engine, report: Reporter, *, image: Path, question: str) -> dict[str, Any]:
    """The model's reasoning and answer."""
    recipe = job.recipe
    assert isinstance(recipe, Ask)
    picture = ImageRef(name=str(image), path=image)
    picture.open()  # a damaged image is better named before minutes of loading
    example = Example(id="asked", question=question, answer="", images=(picture,))
    try:
        session = open_model(job.settings, recipe, engine, report, example, train=False)
        report.phase("answering")
        (answer,) = answers(
            session,
            [example],
            batch_size=1,
            max_completion_length=recipe.max_completion_length,
            suffix=question_suffix(recipe.step, recipe.suffix),
        )
    finally:
        report.done()
    return {
        "answer": answer.parsed.answer,
        "reasoning": answer.parsed.reasoning,
        "well_formed": answer.parsed.well_formed,
        "completion_tokens": answer.tokens,
        "text": answer.text,
    }
