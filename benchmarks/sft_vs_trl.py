"""An epoch of ours beside an epoch of TRL's SFTTrainer on pixels: seconds and peak memory.

    python benchmarks/sft_vs_trl.py --data ../shared/data/chartqa --tokenizer ../shared/data/smolvlm-256m

Same random SmolVLM-256M, same charts in the same order, same LoRA, seed, steps and checkpointing. Ours runs
two epochs: the first encodes every image (cold cache), the second reads features (warm). TRL runs as it comes,
and once more with the accident removed that PEFT plus checkpointing makes the frozen tower's output require
grad, so that it backpropagates through the tower. Times alternate epoch by epoch in one process; peak memory
is taken in processes of their own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import common

from toasterft.engine import open_engine
from toasterft.engine.phases import peak_memory_bytes

# glibc told to give freed blocks back: otherwise resident memory shows what it hoards, not what is used.
RETURNING = {
    "MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "262144", "MALLOC_ARENA_MAX": "1",
}  # fmt: skip
VARIANTS = ("ours_cold", "ours_warm", "trl", "trl_frozen")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="where to keep the model between runs")
    parser.add_argument("--charts", type=int, default=4, help="samples per epoch")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--longest-edge", type=int, default=None)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--only", choices=VARIANTS, help="one variant, once, printing its peak memory")
    given = parser.parse_args()
    if given.only:
        bench = Bench(given)
        seconds = bench.epoch(given.only)
        print(
            json.dumps(
                {"seconds": seconds, "peak_bytes": peak_memory_bytes(), "loaded_bytes": bench.loaded_bytes}
            )
        )
        return
    with tempfile.TemporaryDirectory() as scratch:
        given.model = common.smolvlm(given.tokenizer, given.model or Path(scratch) / "model")
        bench = Bench(given)
        seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
        for number in range(given.rounds):
            for name in VARIANTS:
                seconds[name].append(bench.epoch(name))
                print(f"round {number} {name}: {seconds[name][-1]:.1f} s", flush=True)
        words = [
            "--data", given.data, "--tokenizer", str(given.tokenizer), "--model", str(given.model), "--charts",
            str(given.charts), "--dtype", given.dtype,
        ]  # fmt: skip
        words += ["--longest-edge", str(given.longest_edge)] if given.longest_edge else []
        memory = {
            name: common.child(Path(__file__), "--only", name, *words, environment=RETURNING)
            for name in VARIANTS
        }
    median = {name: statistics.median(found) for name, found in seconds.items()}
    peak = {name: found["peak_bytes"] for name, found in memory.items()}
    above = {name: found["peak_bytes"] - found["loaded_bytes"] for name, found in memory.items()}
    ratios = {
        f"{kind}_vs_{other}": round(median[other] / median[f"ours_{kind}"], 2)
        for kind in ("cold", "warm")
        for other in ("trl", "trl_frozen")
    }
    for name, bytes_of in (("memory", peak), ("memory_above_loaded_model", above)):
        ours = max(bytes_of["ours_cold"], bytes_of["ours_warm"])
        ratios |= {f"{name}_vs_{other}": round(ours / bytes_of[other], 3) for other in ("trl", "trl_frozen")}
    print(json.dumps(ratios, indent=2))
    edge = given.longest_edge or "default"
    common.write(
        f"sft_vs_trl-{edge}-{given.dtype}",
        {
            "charts": given.charts,
            "tiles": bench.tiles,
            "seconds": seconds,
            "median_seconds": median,
            "peak_bytes": peak,
            "peak_bytes_above_loaded_model": above,
            "ratios": ratios,
        },
    )


class Bench:
    """One model in memory, trained for an epoch at a time in any of the variants."""

    def __init__(self, given: argparse.Namespace) -> None:
        import os

        self.cache = tempfile.mkdtemp()
        os.environ["TOASTERFT_CACHE"] = self.cache
        import torch

        from toasterft.data import sources
        from toasterft.data.chat import Chat
        from toasterft.engine import Request
        from toasterft.models.architectures import architecture
        from toasterft.recipe import Lora, Prompt

        engine = open_engine("plain")
        self.given = given
        self.examples = sources.load(given.data, purpose="train", limit=given.charts).examples
        request = Request(
            base=str(given.model), family=architecture("idefics3"), lora=Lora(), train=True, load_in_4bit=False,
            gradient_checkpointing=True, dtype=given.dtype, image_longest_edge=given.longest_edge,
        )  # fmt: skip
        self.loaded = engine.load(request)
        self.loaded_bytes = peak_memory_bytes()
        self.chat = Chat(self.loaded.processor, Prompt())
        self.dtype = getattr(torch, given.dtype)
        geometry = self._geometry()
        self.tiles = [geometry.tiles(*example.images[0].size_px) for example in self.examples]

    def _geometry(self) -> Any:
        from toasterft.models import lookup

        shape = lookup.resolve(str(self.given.model), Path("runs")).shape
        return shape.geometry.with_longest_edge(self.given.longest_edge)

    def epoch(self, variant: str) -> float:
        """Seconds of one epoch, trainer construction not counted."""
        trainer = (
            self._ours(cold=variant == "ours_cold") if variant.startswith("ours") else self._trl(variant)
        )
        began = time.perf_counter()
        if variant == "ours_cold":
            self.encoder.encode_all([image for example in self.examples for image in example.images])
        trainer.train()
        return time.perf_counter() - began

    def _arguments(self) -> dict[str, Any]:
        import torch

        return {
            "output_dir": tempfile.mkdtemp(), "num_train_epochs": 1, "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": 2, "learning_rate": 1e-4, "optim": "paged_adamw_8bit", "seed": 0,
            "gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False},
            "bf16": self.dtype == torch.bfloat16, "fp16": False, "use_cpu": not torch.cuda.is_available(),
            "save_strategy": "no", "report_to": "none", "disable_tqdm": True, "max_length": None,
            "remove_unused_columns": False,
        }  # fmt: skip

    def _ours(self, *, cold: bool) -> Any:
        from toasterft.engine import feature_cache
        from toasterft.engine.batching import Batcher
        from toasterft.engine.image_features import ImageEncoder
        from toasterft.engine.open_model import ModelSession
        from toasterft.training.sft import SftTrainer

        if cold:
            feature_cache.clear()
        self.encoder = ImageEncoder(self.loaded)
        if not cold:
            self.encoder.encode_all([image for example in self.examples for image in example.images])
        session = ModelSession(
            self.loaded, self.chat, Batcher(self.loaded, self.chat, self.encoder), self.encoder
        )
        same = (
            "per_device_train_batch_size",
            "gradient_accumulation_steps",
            "learning_rate",
            "optim",
            "seed",
        )
        words = {name: value for name, value in self._arguments().items() if name in same}
        # Rows apart, as TRL runs them: `shared_images.py` measures what sharing adds.
        trainer = common.policy_trainer(
            SftTrainer, session, self.examples, max_steps=-1, branches_per_forward=1, **words
        )
        common.input_gradients(self.loaded.inner, wanted=False)
        return trainer

    def _trl(self, variant: str) -> Any:
        """TRL on pixels with its own collator; `trl_frozen` keeps the tower out of the backward pass."""
        import datasets
        import trl

        from toasterft.data.chat import target

        rows = [
            {
                "images": [example.images[0].open()],
                "prompt": [{"role": "user", "content": example.question}],
                "completion": [{"role": "assistant", "content": target(example, self.chat.prompt)}],
            }
            for example in self.examples
        ]
        trainer = trl.SFTTrainer(
            model=self.loaded.model,
            args=trl.SFTConfig(**self._arguments()),
            train_dataset=datasets.Dataset.from_list(rows),
            processing_class=self.loaded.processor,
        )
        common.input_gradients(self.loaded.inner, wanted="frozen" not in variant)
        return trainer


if __name__ == "__main__":
    main()
