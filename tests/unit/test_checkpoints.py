"""Which checkpoints may be resumed: whole ones; damaged ones are named, and the one before is taken."""

from __future__ import annotations

import json
import shutil

import damage
import pytest
import safetensors.torch
import torch

from toasterft.errors import UserError
from toasterft.runs import checkpoints

FILES = ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json")


@pytest.fixture
def home(tmp_path):
    """Two whole checkpoints, as transformers writes them."""
    for step in (2, 4):
        folder = tmp_path / "checkpoints" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        safetensors.torch.save_file({"lora_A": torch.full((4, 8), float(step))}, folder / FILES[0])
        for name in FILES[1:4]:
            torch.save({"state": torch.arange(step)}, folder / name)
        (folder / FILES[4]).write_text(json.dumps({"global_step": step, "max_steps": 6, "log_history": []}))
        (folder / "README.md").write_text("a card")
        checkpoints.seal(folder)
    return tmp_path / "checkpoints"


def flip(file) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


DAMAGES = [
    *(each for name in FILES for each in damage.of_file(name, keys=False)
      if each[0].split(" ", 1)[1] in ("empty", "cut", "missing", "binary", "a folder")),
    *((f"{name} one bit", lambda folder, name=name: flip(folder / name)) for name in (*FILES, "README.md")),
    *(each for each in damage.of_file(checkpoints.MANIFEST_FILE, keys=False) if "empty object" not in each[0]),
    ("one file more", lambda folder: (folder / "scaler.pt").write_bytes(b"x")),
    ("one more, deeper", lambda folder: ((folder / "global_step4").mkdir(), (folder / "global_step4" / "o.pt").touch())),
    ("another step", lambda folder: shutil.copy(folder.parent / "checkpoint-2" / "manifest.json", folder)),
]  # fmt: skip


def test_there_are_enough_damages():
    assert len(DAMAGES) >= 40


@pytest.mark.parametrize(("word", "harm"), DAMAGES, ids=[word for word, _ in DAMAGES])
def test_a_damaged_checkpoint_is_left_out_and_said(word, harm, home):
    harm(home / "checkpoint-4")
    said: list[str] = []
    found = checkpoints.newest_whole(home, said.append, sealed=True)
    assert found == home / "checkpoint-2"
    assert len(said) == 1
    assert said[0].startswith("left out: checkpoint-4: ")
    shutil.rmtree(home / "checkpoint-2")
    with pytest.raises(UserError, match="no checkpoint of this run is whole") as caught:
        checkpoints.newest_whole(home, said.append, sealed=True)
    assert caught.value.details
    assert caught.value.next_step


def test_a_whole_one_is_taken_and_strange_names_are_none(home):
    said: list[str] = []
    (home / "checkpoint-9x").mkdir()
    (home / ".DS_Store").touch()
    (home / "checkpoint-4" / ".nfs01").touch()
    assert checkpoints.newest_whole(home, said.append, sealed=True) == home / "checkpoint-4"
    assert checkpoints.newest_whole(home / "none", said.append, sealed=True) is None
    assert not said


def test_a_missing_optimizer_is_never_a_fresh_one(home):
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        other = home.parent / name
        shutil.copytree(home, other)
        (other / "checkpoint-4" / name).unlink()
        checkpoints.seal(other / "checkpoint-4")  # as if it had been written without
        said: list[str] = []
        assert checkpoints.newest_whole(other, said.append, sealed=True) == other / "checkpoint-2"
        assert "is missing" in said[0]


def test_checkpoints_older_than_manifests(home):
    """Those of runs that began before there were manifests still resume, as far as their files tell."""
    for folder in home.iterdir():
        (folder / checkpoints.MANIFEST_FILE).unlink()
    said: list[str] = []
    assert checkpoints.newest_whole(home, said.append, sealed=False) == home / "checkpoint-4"
    assert len(said) == 1
    assert "older than manifests" in said[0]
    for name in FILES:
        other = home.parent / name
        shutil.copytree(home, other)
        data = (other / "checkpoint-4" / name).read_bytes()
        (other / "checkpoint-4" / name).write_bytes(data[: len(data) * 2 // 3])
        assert checkpoints.newest_whole(other, said.append, sealed=False) == other / "checkpoint-2"
    with pytest.raises(UserError):
        checkpoints.newest_whole(home, said.append, sealed=True)
