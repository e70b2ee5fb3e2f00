"""One GRPO optimizer step of ours beside TRL's GRPOTrainer: seconds, memory, and where the time goes.

    python benchmarks/policy_vs_trl.py --data <charts> --tokenizer <smolvlm folder> --longest-edge 1024 \\
        --tokens 32 --generations 8

Same random SmolVLM-256M, same LoRA, charts, prompt, seed, number of new tokens and checkpointing. A cell is one
prompt with G completions, sampled, rewarded and trained on. Ours runs with a cold feature cache and a warm one.
TRL runs at micro-batch G and 1, as it comes and with the accident removed that PEFT plus checkpointing makes the
frozen tower's output require grad. Times alternate in one process; peak memory is taken in processes of their own.
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

RETURNING = {
    "MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "262144", "MALLOC_ARENA_MAX": "1",
}  # fmt: skip
OURS = ("ours_cold", "ours_warm")
TRL = ("trl", "trl_frozen", "trl_micro1", "trl_frozen_micro1")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument(
        "--model", type=Path, help="where to keep the model between runs, or toast-tiny's folder"
    )
    parser.add_argument("--longest-edge", type=int, nargs="+", default=[1024])
    parser.add_argument("--tokens", type=int, nargs="+", default=[32])
    parser.add_argument("--generations", type=int, nargs="+", default=[8])
    parser.add_argument("--variants", nargs="+", choices=TRL, default=list(TRL))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--name", default="256M")
    parser.add_argument(
        "--memory", action=argparse.BooleanOptionalAction, default=True, help="each variant once more, alone"
    )
    parser.add_argument("--only", choices=(*OURS, *TRL), help="one variant, once, printing its peak memory")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if given.tokenizer is not None:
            given.model = common.smolvlm(given.tokenizer, given.model or Path(scratch) / "model")
        if given.only:
            bench = Bench(given, given.longest_edge[0])
            found = bench.step(given.only, given.tokens[0], given.generations[0])
            print(
                json.dumps({**found, "peak_bytes": peak_memory_bytes(), "loaded_bytes": bench.loaded_bytes})
            )
            return
        rows: list[dict[str, Any]] = []
        for edge in given.longest_edge:
            for tokens in given.tokens:
                for count in given.generations:
                    # Times first, and on disk: a cell takes from minutes to hours, and memory as long again.
                    rows.append(timed(given, edge, tokens, count))
                    common.write(f"policy_vs_trl-{given.name}", {"rounds": given.rounds, "cells": rows})
                    if given.memory:
                        rows[-1] |= measured(given, edge, tokens, count)
                        common.write(f"policy_vs_trl-{given.name}", {"rounds": given.rounds, "cells": rows})


def timed(given: argparse.Namespace, edge: int, tokens: int, count: int) -> dict[str, Any]:
    """One row of the result: median seconds of each variant, and their ratios."""
    bench = Bench(given, edge)
    variants = (*OURS, *given.variants)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    for number in range(given.rounds):
        for name in variants:
            found[name].append(bench.step(name, tokens, count))
            print(
                f"{edge} px, {tokens} tokens, G {count}, round {number}, {name}: {found[name][-1]}",
                flush=True,
            )
    seconds = {name: statistics.median(each["seconds"] for each in all_) for name, all_ in found.items()}
    parts = {name: each for name, each in found["ours_cold"][0].items() if name != "seconds"}
    return {
        "longest_edge": edge, "tiles": bench.tiles, "prompt_tokens": bench.prompt_tokens, "new_tokens": tokens,
        "num_generations": count, "seconds": seconds, "rounds": found,
        "ratio_cold": {name: round(seconds[name] / seconds["ours_cold"], 2) for name in given.variants},
        "ratio_warm": {name: round(seconds[name] / seconds["ours_warm"], 2) for name in given.variants},
        "share_of_cold": {name: round(value / sum(parts.values()), 3) for name, value in parts.items()},
    }  # fmt: skip


def measured(given: argparse.Namespace, edge: int, tokens: int, count: int) -> dict[str, Any]:
    """Peak memory of each variant, each in a process of its own."""
    words = [
        "--data", given.data, "--model", str(given.model), "--longest-edge", str(edge), "--tokens", str(tokens),
        "--generations", str(count),
    ]  # fmt: skip
    variants = (*OURS, *given.variants)
    found = {
        name: common.child(Path(__file__), "--only", name, *words, environment=RETURNING) for name in variants
    }
    peak = {name: each["peak_bytes"] for name, each in found.items()}
    return {
        "peak_bytes": peak,
        "memory_ratio": {
            name: round(max(peak[each] for each in OURS) / peak[name], 3) for name in given.variants
        },
    }


def reward(completions: list[Any], **_: Any) -> list[float]:
    """Spread out, so that every completion trains."""
    return [float(place % 4) for place in range(len(completions))]


def spread(completion: Any, example: Any) -> float:
    """The same, for ours."""
    spread.calls = getattr(spread, "calls", -1) + 1  # type: ignore[attr-defined]
    return float(spread.calls % 4)  # type: ignore[attr-defined]


class Bench:
    """One model in memory, and one optimizer step at a time in any of the variants."""

    def __init__(self, given: argparse.Namespace, edge: int) -> None:
        import os

        os.environ["TOASTERFT_CACHE"] = tempfile.mkdtemp()
        from toasterft.data import sources
        from toasterft.data.chat import Chat
        from toasterft.engine import Request
        from toasterft.models import lookup
        from toasterft.models.architectures import architecture
        from toasterft.recipe import Lora, Prompt

        self.example = sources.load(given.data, purpose="train", limit=1).examples[0]
        self.loaded = open_engine("plain").load(
            Request(
                base=str(given.model), family=architecture("idefics3"), lora=Lora(), train=True, dtype="float32",
                gradient_checkpointing=True, image_longest_edge=edge,
            )
        )  # fmt: skip
        self.loaded_bytes = peak_memory_bytes()
        self.chat = Chat(self.loaded.processor, Prompt())
        geometry = lookup.resolve(str(given.model), Path("runs")).shape.geometry.with_longest_edge(edge)
        self.tiles = geometry.tiles(*self.example.images[0].size_px)
        self.prompt_tokens = 0

    def step(self, variant: str, tokens: int, count: int) -> dict[str, float]:
        """Seconds of one optimizer step, trainer construction not counted; for ours also by part."""
        return self._ours(variant, tokens, count) if variant in OURS else self._trl(variant, tokens, count)

    def _ours(self, variant: str, tokens: int, count: int) -> dict[str, float]:
        import torch
        import transformers

        from toasterft.engine.batching import Batcher
        from toasterft.engine.image_features import ImageEncoder
        from toasterft.engine.open_model import ModelSession
        from toasterft.training.policy import rollout
        from toasterft.training.policy.trainer import PolicyTrainer

        encoder = ImageEncoder(self.loaded)
        session = ModelSession(self.loaded, self.chat, Batcher(self.loaded, self.chat, encoder), encoder)
        trainer = common.policy_trainer(
            PolicyTrainer, session, [self.example], num_generations=count, max_completion_length=tokens,
            per_device_train_batch_size=count, gradient_accumulation_steps=1, rewards={"policy_vs_trl:spread": 1.0},
        )  # fmt: skip
        common.input_gradients(self.loaded.inner, wanted=False)
        trainer.args.save_strategy = transformers.trainer_utils.SaveStrategy.NO  # as TRL's below
        parts: dict[str, float] = {}
        original = rollout.sample

        def timed(*args: Any) -> Any:
            began = time.perf_counter()
            found = list(original(*args))
            parts["sample"] = time.perf_counter() - began
            return found

        self.prompt_tokens = len(session.inputs.prompts([self.example]).ids[0])
        rollout.sample = timed
        # Making the trainer proved the tree on this very sample, and left its features in the cache.
        for image in self.example.images if variant == "ours_cold" else ():
            encoder.store.drop(image.sha256)
        torch.manual_seed(0)
        began = time.perf_counter()
        if variant == "ours_cold":
            encoder.encode_all(self.example.images)
            parts["encode"] = time.perf_counter() - began
        trainer.train()
        seconds = time.perf_counter() - began
        rollout.sample = original
        return {"seconds": seconds, **parts, "update": seconds - sum(parts.values())}

    def _trl(self, variant: str, tokens: int, count: int) -> dict[str, float]:
        import datasets
        import torch
        import trl

        micro = 1 if variant.endswith("micro1") else count
        row = {
            "prompt": [{"role": "user", "content": self.example.question}],
            "images": [self.example.images[0].open()],
        }
        rows = datasets.Dataset.from_list([row])
        trainer = trl.GRPOTrainer(
            model=self.loaded.model,
            reward_funcs=reward,
            args=trl.GRPOConfig(
                output_dir=tempfile.mkdtemp(), max_steps=1, per_device_train_batch_size=micro, num_generations=count,
                gradient_accumulation_steps=count // micro, max_completion_length=tokens, learning_rate=1e-5,
                gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": False}, bf16=False,
                use_cpu=not torch.cuda.is_available(), report_to="none", save_strategy="no", disable_tqdm=True,
                optim="paged_adamw_8bit", loss_type="grpo", seed=0,
            ),
            train_dataset=rows,
            processing_class=self.loaded.processor,
        )  # fmt: skip
        common.input_gradients(self.loaded.inner, wanted="frozen" not in variant)
        began = time.perf_counter()
        trainer.train()
        return {"seconds": time.perf_counter() - began}


if __name__ == "__main__":
    main()
