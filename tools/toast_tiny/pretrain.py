"""Pretrain toast-tiny from random weights: to see charts, and to handle small tables as text.

    python tools/toast_tiny/pretrain.py --out my-toast-tiny      an hour or two on two CPU cores, minutes on a GPU

That is how the shipped weights were made. Settings are `Pretrain`'s, as key=value words or a YAML file.

Three kinds of lesson, each made on the spot from its number, so that a resumed run sees what it would have:
an image to transcribe or count; a table as text and a question, answered by the step of reasoning alone;
a text to put between tags. Left out on purpose is their combination, image → think → answer: that is
what fine-tuning is to teach.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import build
import numpy as np
import torch
import transformers
import typer
from pydantic import Field
from transformers.trainer_callback import PrinterCallback

from toasterft import paths, recipe, terminal
from toasterft.cli.options import Quiet, Seed, Words, split_words
from toasterft.data import charts
from toasterft.data.charts import Chart, ChartItem
from toasterft.engine import pretrained
from toasterft.engine.batching import IGNORE
from toasterft.errors import RecipeError, ToasterError, UserError
from toasterft.progress import Reporter
from toasterft.recipe import Section, dump
from toasterft.runs import checkpoints, plots, run_folder
from toasterft.runs.meter import Meter
from toasterft.runs.run_folder import Run
from toasterft.training import run as route
from toasterft.training.monitor import RunMonitor
from toasterft.training.trainer_base import GuardedTrainer

SEEN = ("transcribe", "count")
# The learning rate ends at this share of its peak.
LAST_RATE = 0.02


class Pretrain(Section):
    """Teaching toast-tiny to see charts and to handle small tables as text, from random weights."""

    method: Literal["pretrain"] = "pretrain"
    seed: int = 0
    """Seed of the first weights and of every chart."""
    max_steps: int = Field(2400, ge=1)
    """Optimizer steps."""
    per_device_train_batch_size: int = Field(128, ge=2)
    """Lessons per step."""
    learning_rate: float = Field(1e-3, gt=0.0)
    """Peak learning rate; falls to a fiftieth along a cosine."""
    warmup_steps: int = Field(200, ge=0)
    """Steps of warm-up."""
    weight_decay: float = Field(0.01, ge=0.0)
    """Weight decay."""
    seeing: float = Field(0.55, ge=0.0, le=1.0)
    """Share of lessons with an image: transcribe it, or count its labels."""
    tags: float = Field(0.05, ge=0.0, le=1.0)
    """Share of lessons that only write text between the tags; the others reason on a table as text."""
    save_steps: int = Field(200, ge=1)
    """Write a checkpoint every N steps."""
    logging_steps: int = Field(20, ge=1)
    """Write metrics every N steps."""


def run(settings: Pretrain, out: Path, report: Reporter, *, resume: bool = False) -> Run:
    """Train from random weights, or go on from the last checkpoint, and save in bfloat16.

    Raises:
        UserError: `out` holds something and `resume` is not set, or the other way round.
    """
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    record = _open(settings, out, resume)
    weights = record.path
    if not resume:
        build.build(weights, seed=settings.seed)
    tokenizer = pretrained.tokenizer(weights)
    # Eager attention: torch's CPU kernel for SDPA is twice as slow going backward at these sizes.
    model = pretrained.model(
        transformers.AutoModelForImageTextToText, weights, dtype=torch.float32, attn_implementation="eager"
    )
    meter = Meter()
    meter.attach(record.path)
    monitor = RunMonitor(record, report, meter)
    trainer = Trainer(
        model=model,
        args=_arguments(settings, record),
        train_dataset=Lessons(settings, tokenizer),
        data_collator=Collator(tokenizer.pad_token_id),
        callbacks=[monitor],
    )
    trainer.monitor = monitor
    trainer.remove_callback(PrinterCallback)
    if resume:
        record.start = checkpoints.newest_whole(record.checkpoints, report.say, sealed=False)
    with monitor.stop:
        route.train_from(trainer, route.last_state(record))
    report.done()
    finished = trainer.state.global_step >= settings.max_steps
    if finished:
        model.to(torch.bfloat16).save_pretrained(weights)
        plots.of_run(record.metrics(), weights)
    meter.close()
    measured = {"seconds": round(meter.seconds, 2), "usd": meter.usd, **monitor.figures()}
    record.update(status="done" if finished else "interrupted", stop_reason=None, measured=measured)
    return record


def _open(settings: Pretrain, out: Path, resume: bool) -> Run:
    if resume:
        record = run_folder.open_run(str(out), out.parent)
        if (out / run_folder.RECIPE_FILE).read_text(encoding="utf-8") != dump(settings):
            raise UserError(
                "the recipe differs from the one this run began with",
                where=str(out),
                next_step=f"python {__file__} {out / run_folder.RECIPE_FILE} --out {out} --resume",
            )
        return record
    record = run_folder.create(out.parent, method=settings.method, model="toast-tiny", data="charts", out=out)
    paths.write_atomic(out / run_folder.RECIPE_FILE, dump(settings))
    return record


def _arguments(settings: Pretrain, record: Run) -> transformers.TrainingArguments:
    cuda = torch.cuda.is_available()
    return transformers.TrainingArguments(
        output_dir=str(record.checkpoints),
        seed=settings.seed,
        bf16=True,
        use_cpu=not cuda,
        max_steps=settings.max_steps,
        per_device_train_batch_size=settings.per_device_train_batch_size,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": LAST_RATE},
        warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay,
        adam_beta2=0.98,
        max_grad_norm=1.0,
        optim="adamw_torch",
        logging_steps=settings.logging_steps,
        logging_first_step=True,
        save_steps=settings.save_steps,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=cuda,
        dataloader_num_workers=4 if cuda else 0,
    )


class Trainer(GuardedTrainer, transformers.Trainer):
    """Next-token loss over completion tokens, in the order of the lessons' numbers."""

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler[int]:
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def compute_loss(self, model: Any, inputs: dict[str, torch.Tensor], *_: Any, **__: Any) -> torch.Tensor:
        labels = inputs.pop("labels")[:, 1:]
        hidden = model.model(**inputs, use_cache=False).last_hidden_state[:, :-1]
        kept = labels != IGNORE
        logits = model.lm_head(hidden[kept]).float()
        return torch.nn.functional.cross_entropy(logits, labels[kept])


class Lessons(torch.utils.data.Dataset[dict[str, Any]]):
    """Lesson `n` of a seed is the same on every machine and at every time."""

    def __init__(self, settings: Pretrain, tokenizer: Any) -> None:
        self.settings, self.tokenizer = settings, tokenizer

    def __len__(self) -> int:
        return self.settings.max_steps * self.settings.per_device_train_batch_size

    def __getitem__(self, number: int) -> dict[str, Any]:
        rng = random.Random(f"toast-tiny:{self.settings.seed}:{number}")
        image, question, answer = lesson(rng, self.settings)
        marks = build.FAKE + build.GLOBAL + build.IMAGE * build.IMAGE_TOKENS + build.FAKE
        prompt = f"{build.BOS}User:{marks if image is not None else ' '}{question}{build.EOS}\nAssistant:"
        return {
            "prompt": self.tokenizer(prompt, add_special_tokens=False).input_ids,
            "completion": self.tokenizer(f" {answer}{build.EOS}", add_special_tokens=False).input_ids,
            "image": image,
        }


def lesson(rng: random.Random, settings: Pretrain) -> tuple[np.ndarray | None, str, str]:
    """Picture (H, W, 3 bytes) or None, what is asked, and what is to be answered."""
    kind = rng.random()
    if kind < settings.seeing:
        chart, item = _item(rng, SEEN)
        return np.asarray(charts.draw(chart)), item.question, item.answer
    reasoned = [name for name in charts.kinds_for("core") if name not in SEEN]
    chart, item = _item(rng, reasoned)
    table = charts.text_table(chart)
    step = item.simplified.removeprefix(table).lstrip(". ")
    if kind < settings.seeing + settings.tags:
        tag = rng.choice(("think", "answer"))
        text = rng.choice((table, step, item.answer))
        return None, f"{tag}: {text}", f"<{tag}>{text}</{tag}>"
    # Question first or last: fine-tuning asks first and transcribes then.
    asked = f"{item.question} {table}." if rng.random() < 0.5 else f"{table}. {item.question}"
    return None, asked, step


def _item(rng: random.Random, kinds: Iterable[str]) -> tuple[Chart, ChartItem]:
    while True:  # a chart may allow no question of these kinds
        chart = charts.make_chart(rng, "core", size_px=(build.TILE_PX, build.TILE_PX))
        items = charts.make_items(chart, rng, kinds)
        if items:
            return chart, items[0]


class Collator:
    """Lessons as one right-padded batch; images of those that have one, in order."""

    def __init__(self, pad: int) -> None:
        self.pad = pad

    def __call__(self, lessons: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        longest = max(len(each["prompt"]) + len(each["completion"]) for each in lessons)
        shape = (len(lessons), longest)
        ids, labels = torch.full(shape, self.pad), torch.full(shape, IGNORE)
        mask = torch.zeros(shape, dtype=torch.long)
        for row, each in enumerate(lessons):
            start, end = len(each["prompt"]), len(each["prompt"]) + len(each["completion"])
            ids[row, :end] = torch.tensor(each["prompt"] + each["completion"])
            labels[row, start:end] = torch.tensor(each["completion"])
            mask[row, :end] = 1
        batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
        images = [each["image"] for each in lessons if each["image"] is not None]
        if images:
            pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
            batch["pixel_values"] = (pixels.float() / 127.5 - 1).unsqueeze(1)
        return batch


def main(
    words: Words = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the model.")] = Path("toast-tiny"),
    seed: Seed = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Pretrain toast-tiny from random weights: an hour or two on two CPU cores."""
    try:
        source, pairs = split_words(words)
        settings = recipe.load("pretrain", source, pairs, {"seed": seed})
        run(settings, out, terminal.reporter(quiet=quiet), resume=resume)
    except ToasterError as problem:
        if isinstance(
            problem, RecipeError
        ):  # the package's own hint is a command that does not know this recipe
            problem.next_step = (
                f"the fields of class Pretrain in {__file__} are its keys, with their defaults"
            )
        terminal.error(problem, json_output=False)
        sys.exit(problem.exit_code)
    if not quiet:
        terminal.line(f"wrote {out}")
        terminal.line(f"next  toasterft eval {out} --data <charts>", "dim")


# `recipe.load` finds a schema by its method.
recipe.RECIPES["pretrain"] = Pretrain

if __name__ == "__main__":
    typer.run(main)
