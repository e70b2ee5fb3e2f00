"""What light commands import, in a process of their own: that is what their start takes, on any machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "tokenizers", "huggingface_hub")
# Modules of a whole process, Python's own included (33 before anything is imported). Where this was written
# `--help` took 325, `--version` 262, `dyme --help` 545 and the others 430 to 434; whoever makes them fewer lowers
# the bound.
MOST_MODULES = {
    "--help": 340,
    "dyme --help": 550,
    "--version": 275,
    "estimate sft --json": 440,
    "estimate sft --gpu all --budget 0.1 --json": 440,
    "estimate grpo --json": 440,
    "estimate eval --json": 440,
    "estimate cot --data chartqa --json": 440,
    "sft --model SmolVLM-256M --data smolcot-7k --gpu A40 --dry-run": 440,
    "runs": 440,
}
COUNTED = """
import json, sys, toasterft.cli as cli
sys.argv = ["toasterft", *sys.argv[1:]]
try:
    cli.main()
except SystemExit as stop:
    assert not stop.code, stop.code
sys.stderr.write("\\n" + json.dumps(sorted(sys.modules)))
"""


@pytest.mark.parametrize("words", MOST_MODULES)
def test_light_commands_import_little_and_nothing_heavy(words, tmp_path):
    env = {**os.environ, "TOASTERFT_RUNS": str(tmp_path / "runs"), "TOASTERFT_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", COUNTED, *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    imported = json.loads(done.stderr.splitlines()[-1])
    assert not set(HEAVY) & set(imported)
    assert len(imported) <= MOST_MODULES[words]
