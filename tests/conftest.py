"""Shared fixtures: homes in a temporary folder, tiny models, drawn charts, and ways to run commands."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

# Set before anything imports a hub client: a test that reaches for the network is wrong.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROOT = Path(__file__).parent.parent
SHARED = Path(os.environ.get("TOASTERFT_SHARED", ROOT.parent / "shared" / "data"))


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
    from toasterft import charts

    return charts.write_dataset(
        tmp_path_factory.mktemp("data") / "charts", n=40, seed=7, per_chart=1, size_px=(64, 64)
    )


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


QUICK = (
    "max_steps=3", "per_device_train_batch_size=4", "gradient_accumulation_steps=1", "max_completion_length=8",
    "eval_limit=4", "lora.r=4", "learning_rate=1e-3", "max_length=4000",
)  # fmt: skip


@pytest.fixture
def quick() -> tuple[str, ...]:
    """Settings of a training that takes a second or two."""
    return QUICK
