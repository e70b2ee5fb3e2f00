"""DyME inside the policy trainer: what memorised, explored and solved groups do to the weights."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from tests.heavy.test_policy import opened_with, ragged
from toasterft import recipe
from toasterft.data.chat import Parsed
from toasterft.data.example import Example
from toasterft.engine.forward import placed
from toasterft.engine.logprobs import Branches
from toasterft.progress import Silent
from toasterft.runs.meter import Meter
from toasterft.runs.run_folder import Run
from toasterft.training.dyme import DymeTrainer
from toasterft.training.monitor import RunMonitor
from toasterft.training.policy.rollout import Group, Rollout, read
from toasterft.training.policy.trainer import PolicyTrainer
from toasterft.training.trainer_base import TrainingContext

QUICK = (
    "max_steps=2", "num_generations=4", "per_device_train_batch_size=8", "gradient_accumulation_steps=1",
    "max_completion_length=6", "eval_limit=2", "lora.r=4", "learning_rate=1e-3", "max_length=4000",
)  # fmt: skip


def trainer_of(kind, session, examples, tmp_path, **settings):
    method = "dyme" if kind is DymeTrainer else "grpo"
    words = {
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "num_generations": 4,
        "max_steps": 1,
    }
    words |= {"dtype": "float32", "rewards": {"accuracy": 1.0}, "refiner": "none"} | settings
    if method == "grpo":
        words.pop("refiner")
    wanted = recipe.RECIPES[method].model_validate({"method": method, **words})
    record = Run(tmp_path, {})
    (tmp_path / "checkpoints").mkdir(exist_ok=True)
    context = TrainingContext(
        wanted,
        session,
        record,
        examples,
        [],
        RunMonitor(record, Silent(), Meter()),
        Silent(),
    )
    return kind(context)


def groups_of(session, examples, correct):
    """Groups whose completions are right or wrong as told; rewards follow."""
    groups = []
    for row, (example, ids, right) in enumerate(zip(examples, ragged(4, len(examples)), correct)):
        group = Group(row, example, ids, [read(session, each, 9) for each in ids])
        group.earned = [{"accuracy": float(each)} for each in right]
        group.total = torch.tensor([float(each) for each in right])
        group.counted = [True] * 4
        groups.append(group)
    return groups


@pytest.fixture
def examples():
    return [
        Example(str(n), f"Which bar is {'very ' * n}high?", "red", (), f"red = {n}. Red.") for n in range(3)
    ]


def step(trainer, groups):
    trainer.model.zero_grad()
    trainer.set_advantages(groups)
    loss = trainer.update(groups)
    grads = {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}
    return float(loss), grads


NONE, SOME, ALL = [0, 0, 0, 0], [1, 0, 0, 1], [1, 1, 1, 1]


@pytest.mark.parametrize(("given", "weight"), [(1.0, 1.0), (4.0, 4.0), (None, 4.0)])
def test_an_all_wrong_batch_is_sft(given, weight, tiny_model, examples, tmp_path):
    """Its loss is weight/G times the mean over prompts of the trace's mean token loss; the weight is G unless given."""
    session = opened_with(tiny_model())
    trainer = trainer_of(DymeTrainer, session, examples, tmp_path, sft_weight=given)
    _, grads = step(trainer, groups_of(session, examples, [NONE] * 3))
    session.loaded.model.zero_grad()
    losses = []
    for example in examples:
        batch = session.inputs.training([example])
        logits = session.loaded.model(**placed(session.loaded, batch), use_cache=False).logits[:, :-1].float()
        labels = batch["labels"][:, 1:]
        losses.append(torch.nn.functional.cross_entropy(logits[labels != -100], labels[labels != -100]))
    (torch.stack(losses).mean() * weight / 4).backward()
    plain = {n: p.grad.clone() for n, p in session.loaded.model.named_parameters() if p.grad is not None}
    assert plain.keys() == grads.keys()
    for name, grad in grads.items():
        assert torch.allclose(grad, plain[name], rtol=1e-3, atol=1e-6), name


def test_a_mixed_batch_with_the_switch_off_is_grpo(tiny_model, examples, tmp_path):
    session = opened_with(tiny_model())
    correct = [NONE, SOME, ALL]
    off = trainer_of(DymeTrainer, session, examples, tmp_path, memorise=False)
    plain = trainer_of(PolicyTrainer, session, examples, tmp_path)
    ours, theirs = (step(each, groups_of(session, examples, correct)) for each in (off, plain))
    assert ours[0] == pytest.approx(theirs[0], abs=1e-7)
    for name, grad in ours[1].items():
        assert torch.allclose(grad, theirs[1][name], rtol=1e-5, atol=1e-8), name


def test_solved_groups_have_no_gradient(tiny_model, examples, tmp_path):
    session = opened_with(tiny_model())
    trainer = trainer_of(DymeTrainer, session, examples, tmp_path)
    loss, grads = step(trainer, groups_of(session, examples, [ALL] * 3))
    assert loss == 0
    assert all(float(grad.abs().max()) == 0 for grad in grads.values())


def test_each_kind_of_group_stands_alone(tiny_model, examples, tmp_path):
    """The gradient of a mixed batch is the sum of its groups' gradients."""
    session = opened_with(tiny_model())
    trainer = trainer_of(DymeTrainer, session, examples, tmp_path)
    _, whole = step(trainer, groups_of(session, examples, [NONE, SOME, ALL]))
    parts = []
    for keep in range(3):
        groups = groups_of(session, examples, [NONE, SOME, ALL])
        trainer.set_advantages(groups)
        for place, group in enumerate(groups):
            if place != keep:
                group.advantage = torch.zeros(4)
        trainer.model.zero_grad()
        trainer.update(groups)
        parts.append({n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None})
    for name, grad in whole.items():
        total = sum(part[name] for part in parts)
        assert torch.allclose(grad, total, rtol=1e-3, atol=1e-7), name
    assert any(float(grad.abs().max()) > 0 for grad in parts[0].values())
    assert any(float(grad.abs().max()) > 0 for grad in parts[1].values())


def test_a_swapped_row_gets_its_own_old_and_reference(tiny_model, examples, tmp_path):
    session = opened_with(tiny_model())
    trainer = trainer_of(DymeTrainer, session, examples, tmp_path, num_iterations=2, beta=0.04)
    groups = groups_of(session, examples, [NONE, SOME, ALL])
    trainer.set_advantages(groups)
    trainer.set_fixed_log_probs(groups)
    for group in groups:
        assert [len(each) for each in group.old] == [len(ids) for ids in group.ids]
        assert [len(each) for each in group.reference] == [len(ids) for ids in group.ids]
    assert groups[0].ids[0] == session.chat.ids(session.chat.completion(examples[0]))
    assert groups[0].advantage.tolist() == [4, 0, 0, 0]


def test_a_memorised_row_is_not_clipped_away(tiny_model, examples, tmp_path):
    """However likely the reference has become since the samples were drawn, a second update still learns it."""
    session = opened_with(tiny_model())
    trainer = trainer_of(DymeTrainer, session, examples, tmp_path, num_iterations=2)
    groups = groups_of(session, examples, [NONE] * 3)
    _, first = step(trainer, groups)
    for group in groups:
        group.old = [torch.full((len(ids),), -20.0) for ids in group.ids]
    trainer.model.zero_grad()
    trainer.update(groups)
    second = {n: p.grad for n, p in trainer.model.named_parameters() if p.grad is not None}
    assert first.keys() == second.keys()
    assert any(float(grad.abs().max()) > 0 for grad in first.values())
    for name, grad in first.items():
        assert torch.allclose(grad, second[name], rtol=1e-4, atol=1e-8), name
    assert trainer.metrics.drain()["clip_ratio/high"] == 0


def test_dyme_from_the_command_line(tiny_model, charts_folder, run_cli, homes):
    done = run_cli(
        "dyme", "--model", tiny_model(), "--data", charts_folder, "--json", *QUICK, "log_completions_steps=1"
    )
    assert done.code == 0, done.err
    folder = homes / "runs" / done.json()["id"]
    row = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
    # An untrained model is never right: every group memorises.
    assert row["switch/memorise"] == 1
    assert row["switch/explore"] == 0
    assert row["switch/target_length"] > 6
    # An untrained model finds every token about as likely as any other of its 512.
    assert 4 < row["switch/sft_loss"] < 9
    for part in ("coverage", "arithmetic", "conclusion", "faults"):
        assert row[f"thinking/{part}"] == 0
    assert (folder / "switch.png").exists()
    # What is logged about samples is about samples, not about the traces that replaced them.
    assert row["completions/mean_length"] <= 6


def test_examples_without_a_trace_memorise_the_answer(tiny_model, examples, tmp_path):
    session = opened_with(tiny_model())
    bare = [replace(example, reasoning=None) for example in examples]
    trainer = trainer_of(DymeTrainer, session, bare, tmp_path)
    groups = groups_of(session, bare, [NONE] * 3)
    trainer.set_advantages(groups)
    assert groups[0].ids[0] == session.chat.ids(session.chat.completion(bare[0]))


# --- ablations -------------------------------------------------------------------------------


def advantages_of(trainer, session, examples, correct, rewards=None, step=0, steps=10):
    groups = groups_of(session, examples, correct)
    for group, totals in zip(groups, rewards or []):
        group.total = torch.tensor(totals)
    trainer.state.global_step, trainer.state.max_steps = step, steps
    trainer.set_advantages(groups)
    return groups


def test_a_reward_threshold_decides_instead_of_accuracy(tiny_model, examples, tmp_path):
    session = opened_with(tiny_model())
    trainer = trainer_of(DymeTrainer, session, examples, tmp_path, switch_threshold=0.5)
    groups = advantages_of(
        trainer,
        session,
        examples,
        [SOME, NONE, NONE],
        [[0.5, 0.2, 0.1, 0.5], [0.9, 0.1, 0.1, 0.1], [0.8] * 4],
    )
    # Right, but with a reward of one half: memorised all the same; wrong with a high reward: explored, solved.
    assert groups[0].advantage.tolist() == [4, 0, 0, 0]
    assert groups[1].advantage[0] > 0 > groups[1].advantage[1]
    assert groups[2].advantage.tolist() == [0, 0, 0, 0]


def test_an_annealed_reference_stands_in_every_group(tiny_model, examples, tmp_path):
    session = opened_with(tiny_model())
    trainer = trainer_of(DymeTrainer, session, examples, tmp_path, anneal=True, sft_weight=2.0)
    target = session.chat.ids(session.chat.completion(examples[1]))
    for step, weight in ((0, 2.0), (5, 1.0)):
        groups = advantages_of(trainer, session, examples, [NONE, SOME, ALL], step=step)
        assert [float(group.advantage[3]) for group in groups] == pytest.approx([weight] * 3)
        assert groups[1].ids[3] == target
        assert groups[1].advantage[0] > 0 > groups[1].advantage[1]
    last = advantages_of(trainer, session, examples, [NONE, SOME, ALL], step=10)
    assert last[1].ids[3] != target
    assert not last[0].advantage.any()


def test_memorising_ends_where_the_budget_does(tiny_model, examples, tmp_path):
    session = opened_with(tiny_model())
    trainer = trainer_of(DymeTrainer, session, examples, tmp_path, memorise_until=0.3)
    for step, memorises in ((0, 4), (2, 4), (3, 0), (9, 0)):
        groups = advantages_of(trainer, session, examples, [NONE, SOME, ALL], step=step)
        assert groups[0].advantage.tolist() == [memorises, 0, 0, 0]
        assert groups[1].advantage.any()


def test_without_exploring_only_references_teach(tiny_model, examples, tmp_path):
    session = opened_with(tiny_model())
    trainer = trainer_of(DymeTrainer, session, examples, tmp_path, explore=False)
    groups = advantages_of(trainer, session, examples, [NONE, SOME, ALL])
    assert [group.advantage.tolist() for group in groups] == [[4, 0, 0, 0], [0] * 4, [0] * 4]


def test_what_became_of_references_is_counted(tiny_model, examples, tmp_path):
    session = opened_with(tiny_model())
    facts = [{"label": "red", "value": 7}, {"label": "blue", "value": 3}]
    given = [
        Example("a", "What is the value of red?", "7", (), "red is 7.", facts=facts),
        Example("b", "What would you say?", "nice", (), "red = 8. So nice.", facts=facts),
        examples[2],
    ]
    trainer = trainer_of(DymeTrainer, session, given, tmp_path, refiner="local")
    groups = advantages_of(trainer, session, given, [NONE] * 3)
    assert "red = 7. red is 7." in groups[0].completions[0].text
    third = pytest.approx(1 / 3)
    assert {name: trainer.metrics.values[f"refiner/{name}"] for name in ("refined", "dropped", "kept", "failed")} == {
        "refined": [third], "dropped": [third], "kept": [third], "failed": [0.0],
    }  # fmt: skip
    plain = trainer_of(DymeTrainer, session, given, tmp_path, refiner="none")
    groups = advantages_of(plain, session, given, [NONE] * 3)
    assert "red = 7. red is 7." not in groups[0].completions[0].text
    assert "refiner/refined" not in plain.metrics.values


def test_the_reasoning_is_shown_by_part(tiny_model, examples, tmp_path):
    session = opened_with(tiny_model())
    facts = [{"label": "red", "value": 7}, {"label": "blue", "value": 3}]
    given = [
        Example("a", "How much higher is red than blue?", "4", (), "So 4.", facts=facts),
        examples[1],  # without facts there is nothing to hold a trace against
    ]
    trainer = trainer_of(DymeTrainer, session, given, tmp_path)
    groups = groups_of(session, given, [SOME, SOME])
    for completion, trace in zip(
        groups[0].completions, ["red = 7, blue = 3. 7 - 3 = 4.", "red = 8. So 5.", "", ""]
    ):
        object.__setattr__(completion, "parsed", Parsed(trace, "4", True))
    trainer.log_rollout(Rollout(groups, 1.0, 10))
    shown = {
        name: sum(trainer.metrics.values[f"thinking/{name}"])
        for name in ("coverage", "arithmetic", "conclusion", "faults")
    }
    assert len(trainer.metrics.values["thinking/coverage"]) == 4
    assert shown == {"coverage": 1.0, "arithmetic": 1.0, "conclusion": 1.0, "faults": 2}


def test_logged_means_are_over_the_tokens_that_they_name(tiny_model, examples, tmp_path):
    """Groups that are not run have no entropy to average; what is clipped is a share of all tokens, as in TRL."""
    session = opened_with(tiny_model())
    trainer = trainer_of(PolicyTrainer, session, examples, tmp_path, num_iterations=2)
    groups = groups_of(session, examples, [NONE, SOME, ALL])
    trainer.set_advantages(groups)
    trainer.set_fixed_log_probs(groups)
    for group in groups:
        group.old = [row - 0.5 for row in group.old]  # every ratio is above 1 + epsilon
    trainer.update(groups)
    figures = trainer.metrics.drain()
    every = trainer.log_probs(Branches(examples, [group.ids for group in groups]))[1].split(
        [sum(map(len, group.ids)) for group in groups]
    )
    assert figures["entropy"] == pytest.approx(float(every[1].mean()), rel=1e-4)
    clipped = sum(len(ids) for ids, right in zip(groups[1].ids, SOME) if right)
    assert figures["clip_ratio/high"] == pytest.approx(clipped / sum(map(len, every)))
    assert figures["clip_ratio/low"] == 0
    # Nothing was run: there is no entropy, rather than one of 0.
    trainer.update([groups[0], groups[2]])
    assert trainer.metrics.drain() == {"clip_ratio/low": 0, "clip_ratio/high": 0}

    against = trainer_of(PolicyTrainer, session, examples, tmp_path, beta=0.04)
    groups = groups_of(session, examples, [NONE, SOME, ALL])
    against.set_advantages(groups)
    against.set_fixed_log_probs(groups)
    for group in groups:
        group.reference = [row + 0.5 for row in group.reference]
    against.update(groups)
    figures = against.metrics.drain()
    assert figures["kl"] == pytest.approx(math.exp(0.5) - 1.5, rel=1e-3)
    assert figures["entropy"] == pytest.approx(float(torch.cat(every).mean()), rel=1e-4)
