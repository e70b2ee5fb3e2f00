"""SFT steps over rows that share their images, beside the same rows one by one: seconds a row, and peak memory.

    python benchmarks/shared_images.py --tokenizer FOLDER          # SmolVLM-256M's own; without it, a generated one

Random weights in SmolVLM-256M's shape at 13 tiles a picture, features from the cache; the tower, which only fills it,
has one layer. `rows` is how a row was trained before images were shared: TRL's chunked loss on one row at a time.
`shared` is a whole optimizer step as `toasterft sft` makes it, cuts included. Both with checkpointing and without the
optimizer's own update, in turns in one process; peak memory is taken in processes of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import common
from PIL import Image

from toasterft import paths
from toasterft.engine import open_engine
from toasterft.engine.phases import peak_memory_bytes

RETURNING = {
    "MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "262144", "MALLOC_ARENA_MAX": "1",
}  # fmt: skip
# Questions an image, and rows of a step.
SETS = {"8 to 14 an image": (range(8, 15), 32), "1.5 an image": ((1, 2), 6)}
ROWS_TIMED = 2
WORDS = (
    "blue",
    "bar",
    "is",
    "higher",
    "than",
    "red",
    "one",
    "and",
    "sum",
    "of",
    "both",
    "year",
    "more",
    "half",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--model", type=Path, help="where to keep the model between runs")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--trace-words", type=int, default=40)
    parser.add_argument("--only", choices=("rows", "shared"), help="one pass, printing its peak memory")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        given.model = given.model or Path(scratch) / "model"
        if given.only:
            print(json.dumps(peak(given, Path(scratch))))
            return
        build(given.tokenizer, given.model, Path(scratch))
        words = ["--model", str(given.model), "--trace-words", str(given.trace_words), "--only"]
        memory = {
            name: common.child(Path(__file__), *words, name, environment=RETURNING)
            for name in ("rows", "rows", "shared")  # the first one fills the cache
        }
        cells = [cell(name, given, Path(scratch)) for name in SETS]
    above = {name: each["peak_bytes"] - each["loaded_bytes"] for name, each in memory.items()}
    result = {
        "rows": cells,
        "peak_bytes": {name: each["peak_bytes"] for name, each in memory.items()},
        "peak_bytes_above_loaded_model": above,
        "memory_ratio_above_loaded_model": round(above["shared"] / above["rows"], 3),
    }
    print(json.dumps(result, indent=2))
    common.write("shared_images", result)


def build(tokenizer: Path | None, folder: Path, scratch: Path) -> None:
    """SmolVLM-256M's shape under a tower of one layer."""
    source = scratch / "source"
    if tokenizer is None:
        common.generated_tokenizer(source)
    else:
        source.mkdir()
        for file in tokenizer.iterdir():
            if file.suffix in (".json", ".txt"):
                (source / file.name).write_bytes(file.read_bytes())
    config = paths.read_json(source / "config.json")
    config["vision_config"]["num_hidden_layers"] = 1
    paths.write_json(source / "config.json", config)
    common.smolvlm(source, folder)


def peak(given: argparse.Namespace, scratch: Path) -> dict[str, int]:
    """Memory of one row, or of the largest tree of the first set."""
    bench = Bench(given, scratch, (14,), 14)
    if given.only == "rows":
        bench.rows(1)
    else:
        bench.shared(0)
    return {"peak_bytes": peak_memory_bytes(), "loaded_bytes": bench.loaded_bytes}


def cell(name: str, given: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Seconds a row of one set, in turns."""
    per_image, step_rows = SETS[name]
    bench = Bench(given, scratch / name, tuple(per_image), step_rows)
    found: dict[str, list[float]] = {"rows": [], "shared": []}
    for number in range(given.rounds):
        found["rows"].append(bench.rows(ROWS_TIMED) / ROWS_TIMED)
        found["shared"].append(bench.shared(number) / step_rows)
        print(
            f"{name}, round {number}: {found['rows'][-1]:.2f} and {found['shared'][-1]:.2f} s a row",
            flush=True,
        )
    median = {kind: statistics.median(each) for kind, each in found.items()}
    return {
        "questions": name,
        "tiles": 13,
        "rows_of_a_step": step_rows,
        "images_read_a_step": [len(groups) for groups in bench.trainer.steps[: given.rounds]],
        "tokens_of_a_row": bench.tokens,
        "seconds_a_row": found,
        "median_seconds_a_row": median,
        "ratio": round(median["rows"] / median["shared"], 2),
    }


class Bench:
    """One model and a set of noise pictures with questions about them."""

    def __init__(
        self, given: argparse.Namespace, scratch: Path, per_image: tuple[int, ...], step_rows: int
    ) -> None:
        os.environ["TOASTERFT_CACHE"] = str(given.model.with_name("cache"))
        from toasterft.data.chat import Chat
        from toasterft.data.example import Example, ImageRef
        from toasterft.engine import Request
        from toasterft.engine.batching import Batcher
        from toasterft.engine.image_features import ImageEncoder
        from toasterft.engine.open_model import ModelSession
        from toasterft.models.architectures import architecture
        from toasterft.recipe import Lora, Prompt
        from toasterft.training.sft import SftTrainer

        self.model = open_engine("plain").load(
            Request(
                base=str(given.model), family=architecture("idefics3"), lora=Lora(), train=True, dtype="float32",
                gradient_checkpointing=True,
            )
        )  # fmt: skip
        self.loaded_bytes = peak_memory_bytes()
        scratch.mkdir(parents=True, exist_ok=True)
        rng, examples, number = random.Random(0), [], 0
        while len(examples) < (given.rounds + 1) * step_rows:
            path = scratch / f"{number}.png"
            Image.frombytes("RGB", (640, 480), rng.randbytes(640 * 480 * 3)).save(path)
            for _ in range(per_image[number % len(per_image)]):
                question, trace = (" ".join(rng.choices(WORDS, k=count)) for count in (12, given.trace_words))
                examples.append(
                    Example(str(len(examples)), question, "blue", (ImageRef(path.name, path),), trace)
                )
            number += 1
        chat, encoder = Chat(self.model.processor, Prompt()), ImageEncoder(self.model)
        self.inputs = Batcher(self.model, chat, encoder)
        encoder.encode_all([image for example in examples for image in example.images])
        self.examples = examples
        session = ModelSession(self.model, chat, self.inputs, encoder)
        self.trainer = common.policy_trainer(
            SftTrainer, session, examples, per_device_train_batch_size=1, gradient_accumulation_steps=step_rows,
            max_steps=given.rounds,
        )  # fmt: skip
        self.model.inner.gradient_checkpointing_enable({"use_reentrant": False})
        common.input_gradients(self.model.inner, wanted=False)
        self.tokens = self.inputs.training(examples[:1])["input_ids"].shape[1]

    def shared(self, step: int) -> float:
        """Seconds of forward and backward over one optimizer step."""
        import torch

        began = time.perf_counter()
        self.trainer.training_step(self.model.model, {"numbers": torch.tensor([step])})
        self.model.model.zero_grad()
        return time.perf_counter() - began

    def rows(self, count: int) -> float:
        """Seconds of forward and backward over some rows, each in a pass of its own."""
        from trl.trainer.sft_trainer import _chunked_cross_entropy_loss

        from toasterft.engine.forward import placed

        began = time.perf_counter()
        self.model.model.train()
        for example in self.examples[:count]:
            batch = self.inputs.training([example])
            labels = batch.pop("labels")
            states = self.model.inner.model(**placed(self.model, batch), use_cache=False).last_hidden_state
            head = self.model.inner.get_output_embeddings().weight
            _chunked_cross_entropy_loss(states, head, 256, labels=labels)[0].backward()
        self.model.model.zero_grad()
        return time.perf_counter() - began


if __name__ == "__main__":
    main()
