"""Stdout holds results alone under --json and --quiet, whatever libraries and their child processes print there."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

# A library that prints in every way there is, as it is loaded by a command and as the process ends.
NOISY = """
import atexit, os, subprocess, sys
from toasterft import cli
early, load = sys.stdout, cli.load

def print_in_every_way():
    print("noise of a library")
    early.write("noise by a stream that was kept\\n")
    os.write(1, b"noise of compiled code\\n")
    subprocess.run(["echo", "noise of a child process"])

def noisily(name):
    print_in_every_way()
    return load(name)

cli.load = noisily
if "torch" in sys.argv[1]:
    import torch
    atexit.register(print_in_every_way)
sys.argv = ["toasterft", *sys.argv[2:]]
from toasterft.__main__ import run
run()
"""
COMMANDS = [
    "runs", "gpus", "estimate sft", "sft --model SmolVLM-256M --data smolcot-7k --gpu A40 --dry-run",
    "data check QUESTIONS", "eval none",
]  # fmt: skip


def noisy(words, homes, library="none"):
    env = {**os.environ, "TOASTERFT_RUNS": str(homes / "runs"), "TOASTERFT_CACHE": str(homes / "cache")}
    command = [sys.executable, "-c", NOISY, library, *words]
    return subprocess.run(command, capture_output=True, text=True, env=env)


@pytest.mark.parametrize("command", COMMANDS)
def test_json_is_one_object_beside_any_noise(command, homes, questions):
    done = noisy([*command.replace("QUESTIONS", str(questions)).split(), "--json"], homes)
    assert isinstance(json.loads(done.stdout), dict)
    assert done.stderr.count("noise") == 4


def test_noise_at_the_end_comes_after_no_json(homes):
    done = noisy(["gpus", "--json"], homes, library="torch")
    assert json.loads(done.stdout)["gpus"]
    assert done.stderr.count("noise") == 8


def test_quiet_prints_the_result_and_no_noise(homes, questions):
    done = noisy(["data", "check", str(questions), "--quiet"], homes)
    assert done.stdout
    assert "noise" not in done.stdout + done.stderr


def test_json_within_a_process_of_someone_elses(run_cli, monkeypatch):
    """A notebook's or a test's stdout is no file: it gets the result, and stderr the noise."""
    from toasterft import cli

    load = cli.load
    monkeypatch.setattr(cli, "load", lambda name: print("noise") or load(name))
    done = run_cli("gpus", "--json")
    assert done.json()["gpus"]
    assert done.err == "noise\n"
    assert run_cli("gpus").out.startswith("noise")
