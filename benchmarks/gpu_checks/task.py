"""What every part of `gpu.py` stands on: its task, its rows, what is run, and the model outside any run.

Nothing heavy is imported before an engine is opened: Unsloth has to come before transformers, trl and peft.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toasterft import recipe
from toasterft.cli.train import CLIP_LOW

GENERATIONS = 8
TRAIN_ROWS, HELD_OUT_ROWS = 8, 4
# Optimizer steps, and how many of the first ones are not timed: kernels are built and memory is asked for in them.
STEPS = {"sft": (4, 1), "grpo": (6, 2), "dyme": (4, 1)}
POLICY = (
    f"num_generations={GENERATIONS}", f"per_device_train_batch_size={GENERATIONS}", "gradient_accumulation_steps=1",
    f"rollout_batch_size={GENERATIONS}",
)  # fmt: skip
# Random weights are never right, and a group of equal rewards trains nothing: rewards of our own decide instead.
WORDS = {
    "sft": ("per_device_train_batch_size=2", "gradient_accumulation_steps=2"),
    "grpo": (*(f"{k}={v}" for k, v in CLIP_LOW.items()), *POLICY, 'rewards={"gpu_checks.task:spread": 1.0}'),
    "dyme": (
        *POLICY,
        'rewards={"accuracy": 1.0, "gpu_checks.task:now_and_then": 1.0}',
        "switch_threshold=0.3",
    ),
}


@dataclass(frozen=True)
class Task:
    """One part for one model and engine.

    Attributes:
        folder: of the model.
        scratch: where runs, caches and the logits of other engines lie.
        used_bytes: of the GPU, before the worker began; None where nobody could say.
        answer: the file to put findings into.
    """

    kind: str
    model: str
    folder: Path
    data: Path
    scratch: Path
    answer: Path
    engine: str = "plain"
    device: str = "cuda"
    tokenizer: Path | None = None
    longest_edge: int | None = None
    new_tokens: int = 48
    used_bytes: int | None = None

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.model}-{self.engine}"


Keep = Callable[..., None]


def recipe_of(task: Task, method: str) -> Any:
    """What is run: the method's defaults at a few steps; 4-bit weights, checkpointing and paged 8-bit AdamW are such."""
    steps, _ = STEPS[method]
    words = [
        *WORDS[method], f"engine={task.engine}", f"max_steps={steps}", f"max_completion_length={task.new_tokens}",
        f"eval_limit={HELD_OUT_ROWS}", "per_device_eval_batch_size=4", "save_steps=1000", "seed=0",
    ]  # fmt: skip
    words += [f"image_longest_edge={task.longest_edge}"] if task.longest_edge else []
    gpu = "cpu" if task.device == "cpu" else None
    return recipe.load(method, None, words, {"model": str(task.folder), "data": str(task.data), "gpu": gpu})


_calls = itertools.count()


def spread(completion: Any, example: Any) -> float:
    """A reward that makes every group train: 0, 1/4, 1/2, 3/4, and again."""
    return next(_calls) % 4 / 4


def now_and_then(completion: Any, example: Any) -> float:
    """The same, but for every fourth group, which is all wrong: DyME memorises there."""
    call = next(_calls)
    return 0.0 if call // GENERATIONS % 4 == 1 else call % 4 / 4


def opened_engine(task: Task) -> Any:
    """The engine's module, imported before transformers, trl and peft."""
    from toasterft.engine import open_engine

    return open_engine(task.engine)


def session(task: Task, engine: Any, *, load_in_4bit: bool, dtype: str = "auto", train: bool = False) -> Any:
    """The model with its inputs from features, outside any run; with a fresh adapter where it is to train."""
    from toasterft.data.chat import Chat
    from toasterft.engine import Request
    from toasterft.engine.batching import Batcher
    from toasterft.engine.image_features import ImageEncoder
    from toasterft.engine.open_model import ModelSession
    from toasterft.models.architectures import architecture
    from toasterft.recipe import Lora, Prompt

    loaded = engine.load(
        Request(
            base=str(task.folder), family=architecture("idefics3"), lora=Lora() if train else None, train=train, dtype=dtype,
            load_in_4bit=load_in_4bit, gradient_checkpointing=train, image_longest_edge=task.longest_edge, seed=0,
        )
    )  # fmt: skip
    chat, encoder = Chat(loaded.processor, Prompt()), ImageEncoder(loaded)
    return ModelSession(loaded, chat, Batcher(loaded, chat, encoder), encoder)


def examples(task: Task) -> list[Any]:
    """The rows that are trained on."""
    from toasterft.data import sources

    return sources.load(str(task.data), purpose="train").examples
