"""What the wheel carries: everything that `toasterft demo` needs without a checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The wheel, built and laid out as an installation would."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        check=True,
        capture_output=True,
    )
    [wheel] = folder.glob("*.whl")
    assert wheel.stat().st_size < 12_000_000
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder / "site")
    return folder / "site"


def toasterft(installed, folder, *words):
    env = {**os.environ, "PYTHONPATH": str(installed), "TOASTERFT_RUNS": str(folder / "runs")}
    # Away from the checkout: only the wheel's files can be found.
    done = subprocess.run(
        [sys.executable, "-m", "toasterft", *words], cwd=folder, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_recipes_charts_and_weights_come_from_the_wheel(installed, tmp_path):
    found = subprocess.run(
        [sys.executable, "-c", "import toasterft; print(toasterft.__file__)"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    ).stdout
    assert Path(found.strip()).is_relative_to(installed)
    assert "toaster-256m-3k" in toasterft(installed, tmp_path, "recipes", "list")
    toasterft(installed, tmp_path, "charts", "make", "drawn", "--n", "4")
    assert list((tmp_path / "drawn" / "images").glob("*.png"))
    told = toasterft(
        installed, tmp_path, "estimate", "sft", "--model", "toast-tiny", "--data", "drawn", "--gpu", "A40"
    )
    assert "toast-tiny" in told


def test_font_and_weights_carry_their_licences(installed):
    package = installed / "toasterft"
    assert "Bitstream Vera" in (package / "data" / "charts" / "DejaVuSans-LICENSE.txt").read_text()
    assert "license: apache-2.0" in (package / "models" / "weights" / "toast-tiny" / "README.md").read_text()
    assert (package / "models" / "weights" / "toast-tiny" / "model.safetensors").stat().st_size < 10_000_000


def test_tools_of_the_repository_stay_there(installed):
    assert {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")} == {
        "toasterft"
    }
    assert not [path for path in installed.rglob("*") if path.name in ("tools", "toast_tiny", "pretrain.py")]
