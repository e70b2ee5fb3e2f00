"""One DPO optimizer step of ours beside TRL's DPOTrainer on pixels: seconds and peak memory.

    python benchmarks/dpo_vs_trl.py                        # toast-tiny, 512 px: 17 tiles a picture
    python benchmarks/dpo_vs_trl.py --model FOLDER --longest-edge 1024

Same weights, LoRA, pairs, seed and checkpointing; a step is four pairs, one at a time. `ours_cold` is a whole run of
one step: every picture encoded, the reference of every pair, the step. `ours_warm` is the step alone, which is what
every further epoch costs. TRL runs as it comes, and with the accident removed that PEFT plus checkpointing makes the
frozen tower's output require grad. Times alternate in one process; peak memory is taken in processes of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import common

from toasterft.engine import open_engine
from toasterft.engine.phases import peak_memory_bytes
from toasterft.models import lookup

RETURNING = {
    "MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "262144", "MALLOC_ARENA_MAX": "1",
}  # fmt: skip
OURS, TRL = ("ours_cold", "ours_warm"), ("trl", "trl_frozen")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=lookup.EMBEDDED / "toast-tiny")
    parser.add_argument("--longest-edge", type=int, default=512)
    parser.add_argument("--pairs", type=int, default=4, help="of one step")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=(*OURS, *TRL), help="one variant, once, printing its peak memory")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(given, Path(scratch))
        if given.only:
            seconds = bench.step(given.only)
            print(json.dumps({"seconds": seconds, "peak_bytes": peak_memory_bytes(), **bench.loaded}))
            return
        found: dict[str, list[float]] = {name: [] for name in (*OURS, *TRL)}
        for number in range(given.rounds):
            for name in found:
                found[name].append(bench.step(name))
                print(f"round {number}, {name}: {found[name][-1]:.2f} s", flush=True)
        words = ["--model", str(given.model), "--longest-edge", str(given.longest_edge)]
        words += ["--pairs", str(given.pairs)]
        memory = {
            name: common.child(Path(__file__), "--only", name, *words, environment=RETURNING)
            for name in found
        }
    seconds = {name: statistics.median(each) for name, each in found.items()}
    above = {name: each["peak_bytes"] - each["loaded_bytes"] for name, each in memory.items()}
    result = {
        "model": given.model.name,
        "longest_edge": given.longest_edge,
        "tiles": bench.tiles,
        "pairs": given.pairs,
        "seconds": found,
        "median_seconds": seconds,
        "ratio_cold": {name: round(seconds[name] / seconds["ours_cold"], 2) for name in TRL},
        "ratio_warm": {name: round(seconds[name] / seconds["ours_warm"], 2) for name in TRL},
        "peak_bytes": {name: each["peak_bytes"] for name, each in memory.items()},
        "peak_bytes_above_loaded_model": above,
        "memory_ratio_above_loaded_model": {
            name: round(max(above[each] for each in OURS) / above[name], 3) for name in TRL
        },
    }
    print(json.dumps(result, indent=2))
    common.write(f"dpo_vs_trl-{given.model.name}", result)


class Bench:
    """One model in memory, and one optimizer step at a time in any of the variants."""

    def __init__(self, given: argparse.Namespace, scratch: Path) -> None:
        os.environ["TOASTERFT_CACHE"] = str(scratch / "cache")
        from toasterft.data import charts, sources
        from toasterft.data.chat import Chat
        from toasterft.engine import Request
        from toasterft.models.architectures import architecture
        from toasterft.recipe import Lora, Prompt

        drawn = charts.write_dataset(scratch / "charts", n=2 * given.pairs, seed=0, per_chart=1)
        self.examples = [
            replace(each, rejected=f"<think>{each.reasoning}</think><answer>none</answer>")
            for each in sources.load(str(drawn), purpose="train", limit=given.pairs).examples
        ]
        self.model = open_engine("plain").load(
            Request(
                base=str(given.model), family=architecture("idefics3"), lora=Lora(), train=True, dtype="float32",
                gradient_checkpointing=True, image_longest_edge=given.longest_edge,
            )
        )  # fmt: skip
        self.chat = Chat(self.model.processor, Prompt())
        self.loaded = {"loaded_bytes": peak_memory_bytes()}
        shape = lookup.resolve(str(given.model), Path("runs")).shape
        geometry = shape.geometry.with_longest_edge(given.longest_edge)
        self.tiles = [geometry.tiles(*each.images[0].size_px) for each in self.examples]

    def step(self, variant: str) -> float:
        """Seconds; making a trainer is not counted, but for the reference that ours computes there."""
        return self._ours(variant) if variant in OURS else self._trl(variant)

    def _ours(self, variant: str) -> float:
        from toasterft.engine import feature_cache
        from toasterft.engine.batching import Batcher
        from toasterft.engine.image_features import ImageEncoder
        from toasterft.engine.open_model import ModelSession
        from toasterft.training.dpo import DpoTrainer

        feature_cache.clear()
        encoder = ImageEncoder(self.model)
        session = ModelSession(self.model, self.chat, Batcher(self.model, self.chat, encoder), encoder)
        began = time.perf_counter()
        encoder.encode_all([image for example in self.examples for image in example.images])
        trainer = common.policy_trainer(
            DpoTrainer, session, self.examples, per_device_train_batch_size=1,
            gradient_accumulation_steps=len(self.examples), learning_rate=1e-5,
        )  # fmt: skip
        common.input_gradients(self.model.inner, wanted=False)
        if variant == "ours_warm":
            began = time.perf_counter()
        trainer.train()
        return time.perf_counter() - began

    def _trl(self, variant: str) -> float:
        import datasets
        import torch
        import trl

        from toasterft.data.chat import rejected, target

        def says(text: str) -> list[dict[str, str]]:
            return [{"role": "assistant", "content": text}]

        rows = [
            {
                "images": [each.images[0].open()],
                "prompt": [{"role": "user", "content": each.question}],
                "chosen": says(target(each, self.chat.prompt)),
                "rejected": says(rejected(each, self.chat.prompt)),
            }
            for each in self.examples
        ]
        trainer = trl.DPOTrainer(
            model=self.model.model,
            args=trl.DPOConfig(
                output_dir=tempfile.mkdtemp(), max_steps=1, per_device_train_batch_size=1, learning_rate=1e-5,
                gradient_accumulation_steps=len(rows), max_length=None, gradient_checkpointing=True, bf16=False,
                gradient_checkpointing_kwargs={"use_reentrant": False}, use_cpu=not torch.cuda.is_available(),
                report_to="none", save_strategy="no", disable_tqdm=True, optim="paged_adamw_8bit", seed=0,
            ),
            train_dataset=datasets.Dataset.from_list(rows),
            processing_class=self.model.processor,
        )  # fmt: skip
        common.input_gradients(self.model.inner, wanted="frozen" not in variant)
        began = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - began
        self.model.model.delete_adapter("ref")  # TRL's copy for the reference
        return seconds


if __name__ == "__main__":
    main()
