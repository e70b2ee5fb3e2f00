"""Two processes on one training: groups stay whole, and the sums are those of one process."""

from __future__ import annotations

import json
import os
import random
import sys
from itertools import chain
from pathlib import Path

import pytest
import torch

ROWS, STEPS, PROMPTS, G = 10, 3, 4, 4
SETTINGS = {
    "per_device_train_batch_size": G, "num_generations": G, "beta": 0.04, "max_steps": STEPS, "save_steps": 2,
    "dtype": "float32", "optim": "adamw_torch", "learning_rate": 1e-3, "rewards": {"accuracy": 1.0, "length": 0.5},
}  # fmt: skip
METHODS = {"dyme": {}, "grpo": {"num_iterations": 2, "scale_rewards": "batch", "loss_type": "dapo"}}


def one_process(model: str, out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What each process runs: a few steps of each method, on samples that depend on the question alone."""
    from tests.heavy.test_policy import opened_with
    from toasterft import recipe
    from toasterft.data.example import Example
    from toasterft.progress import Silent
    from toasterft.runs.meter import Meter
    from toasterft.runs.run_folder import Run
    from toasterft.scoring import rewards
    from toasterft.training.dyme import DymeTrainer
    from toasterft.training.monitor import RunMonitor
    from toasterft.training.policy import rollout
    from toasterft.training.policy.trainer import PolicyTrainer
    from toasterft.training.trainer_base import TrainingContext

    rank, processes = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    sampled: list[list[int]] = []

    def samples(session, examples, recipe, _):
        sampled.append([int(example.id) for example in examples])
        found = []
        for example in examples:
            rng = random.Random(example.id)
            found.append([[rng.randrange(60, 400) for _ in range(rng.randint(2, 9))] for _ in range(G)])
        return enumerate(found)

    def accuracy(completion, example):
        # The first rows are never right, the last always, the others by their words.
        number = int(example.id)
        return float(number > 7 or (number > 2 and sum(map(ord, completion.text)) % 2))

    def words(completion, example):
        return sum(map(ord, completion.text)) % 7 / 7

    monkeypatch.setattr(rollout, "sample", samples)
    monkeypatch.setitem(rewards.REWARDS, "accuracy", accuracy)
    monkeypatch.setitem(rewards.REWARDS, "length", words)
    out = Path(out) / f"by {processes}"
    examples = [
        Example(str(n), f"Which is {'very ' * n}high?", "red", (), f"red = {n}. Red.") for n in range(ROWS)
    ]
    for method, more in METHODS.items():
        settings = SETTINGS | {"gradient_accumulation_steps": PROMPTS // processes} | more
        wanted = recipe.RECIPES[method].model_validate({"method": method, **settings})
        session = opened_with(Path(model))
        # One run folder; the figures of each process apart.
        shared, own = out / method, out / f"{method}-{rank}"
        (shared / "checkpoints").mkdir(parents=True, exist_ok=True)
        own.mkdir()
        monitor = RunMonitor(Run(own, {}), Silent(), Meter())
        context = TrainingContext(wanted, session, Run(shared, {}), examples, [], monitor, Silent())
        trainer = (DymeTrainer if method == "dyme" else PolicyTrainer)(context)
        groups = kept_sizes(trainer)
        sampled.clear()
        trainer.train()
        weights = {name: value.tolist() for name, value in trainer.trainable().items()}
        found = {"sampled": sampled, "groups": groups, "weights": weights, "random": torch.rand(1).item()}
        (own / "found.json").write_text(json.dumps(found))


def kept_sizes(trainer):
    """How many completions each group of each batch of samples has, filled in while it trains."""
    groups, plain = [], trainer.set_advantages

    def set_advantages(found):
        groups.append([len(one.ids) for one in found])
        plain(found)

    trainer.set_advantages = set_advantages
    return groups


@pytest.fixture(scope="module")
def found(tiny_model, tmp_path_factory, in_two):
    """What one process and what two found, by method: (figures of each process, metrics of the first)."""
    out = tmp_path_factory.mktemp("processes")
    with pytest.MonkeyPatch.context() as monkeypatch:
        one_process(str(tiny_model()), str(out), monkeypatch)
    said = in_two(__file__, tiny_model(), out)
    assert not any(code for code, *_ in said), "\n".join(err[-3000:] for *_, err in said)

    def by(processes, method):
        folders = [out / f"by {processes}" / f"{method}-{rank}" for rank in range(processes)]
        rows = [json.loads(line) for line in (folders[0] / "metrics.jsonl").read_text().splitlines()]
        return [json.loads((folder / "found.json").read_text()) for folder in folders], rows

    return by


@pytest.mark.parametrize("method", METHODS)
def test_groups_stay_whole_and_sums_are_those_of_one(method, found):
    [alone], expected = found(1, method)
    both, rows = found(2, method)
    # Two updates per batch of samples in grpo: the third step needs a second batch.
    batches = 2 if method == "grpo" else STEPS
    assert alone["groups"] == [[G] * PROMPTS] * batches
    assert [each["groups"] for each in both] == [[[G] * (PROMPTS // 2)] * batches] * 2
    questions = [list(chain.from_iterable(each["sampled"])) for each in both]
    per_step = PROMPTS // 2
    together = [
        sorted(row for mine in questions for row in mine[start : start + per_step])
        for start in range(0, batches * per_step, per_step)
    ]
    taken = list(chain.from_iterable(alone["sampled"]))
    # Every row has its turn before any comes again, each batch once for all updates on it.
    assert len(set(taken[: ROWS - ROWS % PROMPTS])) == ROWS - ROWS % PROMPTS
    assert together == [sorted(taken[start : start + PROMPTS]) for start in range(0, len(taken), PROMPTS)]
    assert len(rows) == len(expected) == STEPS
    for ours, theirs in zip(rows, expected):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4, abs=1e-6)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-3)
        assert ours.keys() == theirs.keys()
        for name in {"reward", "kl", "entropy", "groups/none_right", "switch/memorise", "switch/solved"} & {
            *ours
        }:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-6), name
    assert 0 < expected[0]["groups/none_right"] < 1
    # Both end with the same weights, and with those of one process; they drew different random numbers.
    assert both[0]["weights"] == both[1]["weights"]
    assert both[0]["random"] != both[1]["random"]
    for name, value in alone["weights"].items():
        ours = torch.tensor(both[0]["weights"][name])
        assert torch.allclose(ours, torch.tensor(value), atol=1e-4), name


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patches:
        one_process(*sys.argv[1:], patches)
