"""Real runs that were damaged: resumed from the checkpoint before, and weights that are not finite are never `done`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch


@pytest.fixture
def trained(run_cli, tiny_model, charts_folder, quick, homes):
    """Train so many steps with a checkpoint every second one: what the command said, and the run's folder."""
    words = (
        "--model",
        tiny_model(),
        "--data",
        charts_folder,
        *(each for each in quick if "max_steps" not in each),
    )

    def call(steps: int):
        folder = homes / "runs" / "mine"
        return run_cli("sft", *words, "--out", folder, f"max_steps={steps}", "save_steps=2"), folder

    return call


@pytest.fixture
def run(trained) -> Path:
    """A run of four steps with two checkpoints, whose last moments were lost."""
    done, folder = trained(4)
    assert done.code == 0, done.err
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "status": "running"}))
    return folder


def adapter(folder: Path):
    return {
        name: value.tolist()
        for name, value in safetensors.torch.load_file(folder / "adapter_model.safetensors").items()
    }


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "optimizer.pt", "rng_state.pth"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(name, run, run_cli):
    before = adapter(run)
    file = run / "checkpoints" / "checkpoint-4" / name
    file.write_bytes(file.read_bytes()[:-100])
    done = run_cli("sft", "--resume", run)
    assert done.code == 0, done.err
    assert f"left out: checkpoint-4: {name} has" in done.err
    assert adapter(run) == before, "steps 3 and 4 come out as they did"
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().split("\n") if line]
    assert sorted(set(steps)) == [1, 2, 3, 4]


def test_with_none_whole_the_run_is_left_as_it_was(run, run_cli):
    for folder in (run / "checkpoints").iterdir():
        (folder / "optimizer.pt").unlink()
    before = (run / "run.json").read_text()
    done = run_cli("sft", "--resume", run)
    assert done.code == 2, done.err
    assert "no checkpoint of this run is whole" in done.err
    assert "optimizer.pt is missing" in done.err
    assert (run / "run.json").read_text() == before
    shutil.rmtree(run / "checkpoints")
    assert run_cli("sft", "--resume", run).code == 0, "from step 0, as the message says"


def test_weights_that_are_not_finite_are_never_done(trained, monkeypatch):
    from toasterft.training import sft

    step = sft.SftTrainer.training_step

    def poisoned(self, *args, **kwargs):
        loss = step(self, *args, **kwargs)
        if self.state.global_step == 2:
            next(iter(self.trainable().values())).data.fill_(float("nan"))
        return loss

    monkeypatch.setattr(sft.SftTrainer, "training_step", poisoned)
    done, folder = trained(3)
    assert done.code == 4, done.err
    assert "trained tensors are not finite" in done.err
    assert "checkpoint-2" in done.err
    assert json.loads((folder / "run.json").read_text())["status"] == "failed"
    assert not (folder / "adapter_model.safetensors").exists()
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["checkpoint-2"]
