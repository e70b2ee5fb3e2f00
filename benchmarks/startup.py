"""What light commands take to start: modules imported, and the time beside what Typer and Rich take by themselves.

The ratio compares machines and commits; seconds are of this one. Medians of alternating runs.

python benchmarks/startup.py
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

import common

BARE, LIBRARIES = "python -c pass", "python -c 'import typer, rich'"
COMMANDS = {
    "toasterft --help": ["--help"],
    "toasterft sft --dry-run": [
        "sft",
        "--model",
        "SmolVLM-256M",
        "--data",
        "smolcot-7k",
        "--gpu",
        "A40",
        "--dry-run",
    ],
    "toasterft runs": ["runs"],
}
ROUNDS = 9
# As `python -m toasterft` does, with the number of modules as the last line of what goes to stderr.
COUNTED = """
import atexit, runpy, sys
atexit.register(lambda: sys.stderr.write(f"\\n{len(sys.modules)}"))
runpy.run_module("toasterft", run_name="__main__", alter_sys=True)
"""


def main() -> None:
    timed = {BARE: ["-c", "pass"], LIBRARIES: ["-c", "import typer, rich"]}
    timed |= {name: ["-m", "toasterft", *words] for name, words in COMMANDS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(ROUNDS):
        for name, words in timed.items():
            began = time.perf_counter()
            python(*words)
            seconds[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    result = {
        "modules": {name: modules(words) for name, words in COMMANDS.items()},
        "times_typer_and_rich": {name: round(medians[name] / medians[LIBRARIES], 2) for name in COMMANDS},
        "median_seconds": {name: round(found, 3) for name, found in medians.items()},
        "rounds": ROUNDS,
    }
    print(json.dumps(result, indent=2))
    common.write("startup", result)


def modules(words: list[str]) -> int:
    """How many modules the process of a command has imported when it ends."""
    return int(python("-c", COUNTED, *words).splitlines()[-1])


def python(*words: str) -> str:
    """What `python WORDS…` writes to stderr."""
    return subprocess.run([sys.executable, *words], check=True, capture_output=True, text=True).stderr


if __name__ == "__main__":
    main()
