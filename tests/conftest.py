"""Shared fixtures: homes in a temporary folder, tiny models, drawn charts, and ways to run commands."""

from __future__ import annotations

import gc
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

from forks import Forked

# Set before anything imports a hub client: a test that reaches for the network is wrong.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROOT = Path(__file__).parent.parent
# Of processes that train together on one CPU; tests run files of theirs in them.
SIDE_BY_SIDE = {
    "OMP_NUM_THREADS": 1, "OMP_WAIT_POLICY": "passive", "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
}  # fmt: skip
SHARED = Path(os.environ.get("TOASTERFT_SHARED", ROOT.parent / "shared" / "data"))


def pytest_collection_finish() -> None:
    """What was imported stays: without this every garbage collection of every training walks through all of it."""
    gc.freeze()


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real charts and SmolVLM's tokenizer; not part of the repository."""
    if not (SHARED / "chartqa" / "items.jsonl").is_file():
        pytest.skip("the shared ChartQA sample is not here")
    return SHARED


@pytest.fixture(autouse=True)
def homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs, cache and data sets of one test, away from the user's."""
    for name in ("RUNS", "CACHE", "DATA"):
        monkeypatch.setenv(f"TOASTERFT_{name}", str(tmp_path / name.lower()))
    monkeypatch.delenv("COLUMNS", raising=False)
    return tmp_path


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a tiny random model of one architecture, built once per session."""
    import tiny

    root = tmp_path_factory.mktemp("models")
    built: dict[str, Path] = {}

    def get(model_type: str = "idefics3") -> Path:
        if model_type not in built:
            built[model_type] = tiny.build(model_type, root / model_type)
        return built[model_type]

    return get


@pytest.fixture(scope="session")
def charts_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty drawn charts, small pictures, with train, validation and test splits."""
    from toasterft.data import charts

    return charts.write_dataset(
        tmp_path_factory.mktemp("data") / "charts", n=40, seed=7, per_chart=1, size_px=(64, 64)
    )


@pytest.fixture(scope="session")
def pairs_folder(charts_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn charts, each with a wrong answer beside its own."""
    from toasterft.data import sources, write

    def paired(one: Any) -> Any:
        wrong = f"<think>{'I see. ' * (len(one.question) % 3)}</think><answer>0</answer>"
        return replace(one, rejected=wrong)

    whole = sources.load_splits(str(charts_folder))
    splits = {split: [paired(one) for one in examples] for split, examples in whole.splits.items()}
    folder = tmp_path_factory.mktemp("pairs") / "pairs"
    write.write_dataset(folder, {"name": "pairs", "task": "chart"}, splits)
    return folder


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """Six questions about one picture, half of them by people."""
    folder = tmp_path / "set"
    folder.mkdir()
    Image.new("RGB", (64, 64), "red").save(folder / "x.png")
    lines = [
        {"id": f"q{n}", "image": "x.png", "question": f"How high is bar {n}?", "answer": str(n)}
        | {"kind": "human" if n % 2 else "augmented"}
        for n in range(6)
    ]
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


@pytest.fixture
def run_cli(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., SimpleNamespace]:
    """Call the command line in this process: `.code`, `.out`, `.err`, and `.json()` of stdout."""
    from toasterft import cli

    def call(*words: Any) -> SimpleNamespace:
        monkeypatch.setattr(sys, "argv", ["toasterft", *map(str, words)])
        code: Any = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        out, err = capsys.readouterr()
        return SimpleNamespace(code=code, out=out, err=err, json=lambda: json.loads(out))

    return call


@pytest.fixture(scope="session")
def spawn() -> Callable[..., subprocess.Popen[str]]:
    """Start `python WORDS…`, its output in pipes; `env` is added to this process's."""

    def call(*words: Any, env: dict[str, Any] | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {name: str(value) for name, value in (env or {}).items()},
        )  # fmt: skip

    return call


@pytest.fixture(scope="session")
def forked() -> Callable[..., Forked]:
    """The same, without the seconds of CPU that importing torch takes: see `forks.py`."""

    def call(*words: Any, env: dict[str, Any] | None = None) -> Forked:
        return Forked(
            list(map(str, words)), os.environ | {name: str(value) for name, value in (env or {}).items()}
        )

    return call


@pytest.fixture(scope="session")
def accelerate(spawn: Callable[..., subprocess.Popen[str]]) -> Callable[..., subprocess.Popen[str]]:
    """What a user types; accelerate starts several processes on a CPU with `--multi_gpu` alone."""

    def call(*words: Any) -> subprocess.Popen[str]:
        launch = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", 2)
        port = ("--main_process_port", _free_port())
        return spawn(*launch, *port, "-m", "toasterft", *words, env=SIDE_BY_SIDE)

    return call


@pytest.fixture(scope="session")
def in_two(forked: Callable[..., Forked]) -> Callable[..., list[tuple[int, str, str]]]:
    """Run `python WORDS…` in two processes that no launcher looks after: (exit code, stdout, stderr) of each."""

    def call(*words: Any) -> list[tuple[int, str, str]]:
        world = {
            "WORLD_SIZE": 2,
            "LOCAL_WORLD_SIZE": 2,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": _free_port(),
        }
        running = [
            forked(*words, env={**SIDE_BY_SIDE, **world, "RANK": rank, "LOCAL_RANK": rank})
            for rank in range(2)
        ]
        said = [each.communicate(timeout=170) for each in running]
        return [(each.returncode, *texts) for each, texts in zip(running, said)]

    return call


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


QUICK = (
    "max_steps=3", "per_device_train_batch_size=4", "gradient_accumulation_steps=1", "max_completion_length=8",
    "eval_limit=4", "lora.r=4", "learning_rate=1e-3", "max_length=4000",
)  # fmt: skip


@pytest.fixture
def quick() -> tuple[str, ...]:
    """Settings of a training that takes a second or two."""
    return QUICK


@pytest.fixture
def quick_retries(monkeypatch):
    """The openai client's pauses before another try, fifty times shorter."""
    from openai import _base_client

    monkeypatch.setattr(_base_client, "INITIAL_RETRY_DELAY", 0.01)
