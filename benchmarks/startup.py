"""Seconds of the light commands beside `python -c pass`: medians of alternating runs.

python benchmarks/startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import common

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "toasterft --help": [sys.executable, "-m", "toasterft", "--help"],
    "toasterft sft --dry-run": [
        sys.executable, "-m", "toasterft", "sft", "--model", "SmolVLM-256M", "--data", "smolcot-7k", "--gpu", "A40",
        "--dry-run",
    ],
    "toasterft runs": [sys.executable, "-m", "toasterft", "runs"],
}  # fmt: skip
ROUNDS = 9


def main() -> None:
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, words in COMMANDS.items():
            began = time.perf_counter()
            subprocess.run(words, check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - began)
    medians = {name: round(statistics.median(found), 3) for name, found in seconds.items()}
    print(medians)
    common.write("startup", {"median_seconds": medians, "rounds": ROUNDS})


if __name__ == "__main__":
    main()
