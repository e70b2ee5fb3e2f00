"""Tokens a second of sampling: rows in slots beside transformers' `generate`, batch by batch.

    python benchmarks/rollouts.py --data <charts with traces> --tokenizer <smolvlm folder> --layers 30

SmolVLM-256M's decoder with random weights, on one core: 16 charts at the processor's own size, 8 completions each,
64 at once. How long each completion gets is drawn from the lengths of the data's traces, 10 to 256 tokens, and
forced. Both ways share a prompt's forward pass among its completions and are given the same numbers to sample by;
reading the prompts is part of the time, encoding the pictures is not (their tower has one layer here).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import torch

from toasterft.data import sources
from toasterft.data.chat import Chat
from toasterft.data.example import Example
from toasterft.engine import Request, open_engine
from toasterft.engine.batching import Batcher
from toasterft.engine.generate import Writing, complete
from toasterft.engine.image_features import ImageEncoder
from toasterft.engine.phases import peak_memory_bytes, restart_peak
from toasterft.models.architectures import architecture
from toasterft.recipe import Prompt

SHORTEST, LONGEST = 10, 256
# In place of a number to sample by: the completion ends here.
END = 2.0


@dataclass(frozen=True)
class Forced(Writing):
    """Ends a completion where it was told to, and nowhere else."""

    def choose(self, logits: torch.Tensor, drawn: torch.Tensor, never: list[int]) -> torch.Tensor:
        tokens = super().choose(logits, drawn.clamp(max=1.0), [*never, *self.end_ids])
        return tokens.masked_fill(drawn.to(tokens.device) == END, self.end_ids[0])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=30, help="of the decoder")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--generations", type=int, default=8)
    parser.add_argument("--at-once", type=int, default=64, help="completions written side by side")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--name", default="256M")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for row in sources.load(given.data, purpose="train").examples if row.reasoning]
    with tempfile.TemporaryDirectory() as scratch:
        inputs = opened(given, Path(scratch))
        charts = list({row.images[0].sha256: row for row in rows}.values())[: given.prompts]
        assert inputs.encoder is not None
        inputs.encoder.encode_all([row.images[0] for row in charts])
        prompt_tokens = [len(ids) for ids in inputs.prompts(charts).ids]
        lengths = lengths_of(inputs, rows, given)
        compared = compare(inputs, charts, lengths, given)
    flat = [length for group in lengths for length in group]
    common.write(
        f"rollouts-{given.name}",
        {
            "decoder_layers": given.layers, "prompts": given.prompts, "num_generations": given.generations,
            "at_once": given.at_once, "threads": 1, "dtype": "float32",
            "prompt_tokens": {"mean": statistics.mean(prompt_tokens), "longest": max(prompt_tokens)},
            "completion_tokens": {
                "mean": statistics.mean(flat), "median": statistics.median(flat), "longest": max(flat), "sum": sum(flat),
            },
            **compared,
        },
    )  # fmt: skip


def opened(given: argparse.Namespace, scratch: Path) -> Batcher:
    """A random model of the real shape but for `--layers` and a tower of one layer."""
    like = scratch / "like"
    shutil.copytree(given.tokenizer, like)
    config = json.loads((like / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = given.layers
    config["vision_config"]["num_hidden_layers"] = 1
    (like / "config.json").chmod(0o644)
    (like / "config.json").write_text(json.dumps(config))
    os.environ["TOASTERFT_CACHE"] = str(scratch / "cache")
    model = common.smolvlm(like, scratch / "model")
    loaded = open_engine("plain").load(
        Request(base=str(model), family=architecture("idefics3"), dtype="float32")
    )
    return Batcher(loaded, Chat(loaded.processor, Prompt()), ImageEncoder(loaded))


def lengths_of(inputs: Batcher, rows: list[Example], given: argparse.Namespace) -> list[list[int]]:
    """Of each prompt's completions: drawn from the data's traces, those of 10 to 256 tokens."""
    traces = [len(inputs.chat.ids(inputs.chat.completion(row))) for row in rows]
    traces = [length for length in traces if SHORTEST <= length <= LONGEST]
    rng = random.Random(0)
    return [[rng.choice(traces) for _ in range(given.generations)] for _ in range(given.prompts)]


def compare(
    inputs: Batcher, charts: list[Example], lengths: list[list[int]], given: argparse.Namespace
) -> dict[str, Any]:
    """Each way in turn, `--rounds` times: seconds, tokens a second, and whether the tokens are the same."""
    drawn = torch.rand(
        len(charts),
        given.generations,
        LONGEST,
        dtype=torch.float64,
        generator=torch.Generator().manual_seed(0),
    )
    for number, group in enumerate(lengths):
        for branch, length in enumerate(group):
            drawn[number, branch, length - 1] = END
    tokens = sum(map(sum, lengths))
    writing = Forced(inputs.chat.end_token_ids, LONGEST, temperature=1.0)
    seconds: dict[str, list[float]] = {"slots": [], "batches": []}
    peaks: dict[str, int] = {}
    found: dict[str, dict[int, list[list[int]]]] = {}
    for _ in range(given.rounds):
        for name, slots in (("slots", True), ("batches", False)):
            inputs.loaded.slots_agree = slots
            restart_peak()
            began = time.perf_counter()
            found[name] = dict(
                complete(
                    inputs, charts, inputs.prompts, writing, rows_at_once=given.at_once,
                    num_generations=given.generations, drawn=drawn,
                )
            )  # fmt: skip
            seconds[name].append(round(time.perf_counter() - began, 2))
            peaks[name] = peak_memory_bytes()
            print(f"{name}: {seconds[name][-1]} s for {tokens} tokens", flush=True)
    rate = {name: round(tokens / min(each), 2) for name, each in seconds.items()}
    same = sum(
        one == other
        for number in found["slots"]
        for one, other in zip(found["slots"][number], found["batches"][number])
    )
    return {
        "seconds": seconds, "tokens_per_second": rate, "ratio": round(rate["slots"] / rate["batches"], 2),
        "peak_bytes": peaks, "completions_of_equal_tokens": f"{same} of {len(charts) * given.generations}",
    }  # fmt: skip


if __name__ == "__main__":
    main()
