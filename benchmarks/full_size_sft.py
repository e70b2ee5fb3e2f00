"""SmolVLM-256M's real shape through the command line: two optimizer steps of `sft` on eight real charts.

    python benchmarks/full_size_sft.py --data ../shared/data/chartqa --tokenizer ../shared/data/smolvlm-256m

Random weights, real configuration, tokenizer and charts at the model's default image size. Everything a
user's run does happens: 4-bit loading, feature proof, encoding, training, saving.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import common


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--size", default="256M", choices=["256M", "500M"])
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--model", type=Path, help="where to keep the model between runs")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        model = common.smolvlm(given.tokenizer, given.model or Path(scratch) / "model", given.size)
        words = [
            "sft", "--model", str(model), "--data", given.data, "--limit", "8", "--json", "--out", f"{scratch}/run",
            "max_steps=2", "gradient_accumulation_steps=4", "eval_limit=1", "max_completion_length=4",
            f"dtype={given.dtype}",
        ]  # fmt: skip
        env = {**os.environ, "TOASTERFT_CACHE": f"{scratch}/cache"}
        done = subprocess.run(
            [sys.executable, "-m", "toasterft", *words],
            stdout=subprocess.PIPE,
            text=True,
            env=env,
            check=True,
        )
        record = json.loads(done.stdout)
        rows = [
            json.loads(line) for line in Path(scratch, "run", "metrics.jsonl").read_text().split("\n") if line
        ]
    common.write(
        f"full_size_sft-{given.size}-{given.dtype}",
        {
            "measured": record["measured"],
            "optimizer_steps": 2,
            "samples": 8,
            "step_seconds": [
                round(b["seconds_elapsed"] - a["seconds_elapsed"], 2) for a, b in pairwise(rows)
            ],
            "losses": [row["loss"] for row in rows if row.get("loss")],
            "notes": record["notes"],
        },
    )


if __name__ == "__main__":
    main()
