"""Preference tuning: TRL as the referee, the reference as found, runs that go on exactly, rows that are pairs."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image

from tests.heavy.test_policy import assert_close, gradients, opened_with
from toasterft import recipe
from toasterft.data import sources, write
from toasterft.data.example import Example, ImageRef
from toasterft.engine.batching import Batcher
from toasterft.training import dpo
from toasterft.training.dpo import DpoTrainer, Pairs, preference_loss

QUICK = (
    "max_steps=4", "per_device_train_batch_size=2", "gradient_accumulation_steps=2", "max_completion_length=6",
    "eval_limit=2", "lora.r=4", "learning_rate=1e-3", "max_length=4000",
)  # fmt: skip


def course_of(session, examples, out, method="dpo", **settings):
    """What a trainer is given, outside any run."""
    from toasterft.progress import Silent
    from toasterft.runs.meter import Meter
    from toasterft.runs.run_folder import Run
    from toasterft.training.monitor import RunMonitor
    from toasterft.training.trainer_base import TrainingContext

    words = {"dtype": "float32", "optim": "adamw_torch", "gradient_checkpointing": False, **settings}
    wanted = recipe.RECIPES[method].model_validate({"method": method, **words})
    out.mkdir(parents=True, exist_ok=True)
    record = Run(out, {})
    monitor = RunMonitor(record, Silent(), Meter())
    return TrainingContext(wanted, session, record, examples, [], monitor, Silent())


def pairs_of(folder):
    """Pairs with prompts of one, several and no tiles, and completions of unequal length."""
    refs = []
    for number, size in enumerate([(64, 64), (64, 20), (30, 30)]):
        path = folder / f"{number}.png"
        Image.effect_noise(size, 90).convert("RGB").save(path)
        refs.append((ImageRef(path.name, path),))
    return [
        Example(
            str(number), f"Which bar is {'very ' * number}high?", "red", images, "red = 7." * (number + 1),
            rejected="<think>blue = 3.</think><answer>blue</answer>" if number % 2 else "blue, I think, <image>",
        )
        for number, images in enumerate([*refs, ()])
    ]  # fmt: skip


def move(model, step=0.05):
    """The policy leaves its reference; with a negative step it comes back."""
    generator = torch.Generator().manual_seed(0)
    for name, value in model.named_parameters():
        if value.requires_grad and ".ref." not in name:
            value.data += step * torch.randn(value.shape, generator=generator)


# --- TRL as the referee ----------------------------------------------------------------------


def referee(session, **settings):
    """TRL's DPOTrainer on the same model, a copy of its adapter as the reference."""
    import datasets
    import trl

    rows = datasets.Dataset.from_dict({"prompt_ids": [[1]], "chosen_ids": [[1]], "rejected_ids": [[1]]})

    class Referee(trl.DPOTrainer):
        def _prepare_dataset(self, dataset, *_):  # batches are handed over ready
            return dataset

    return Referee(
        model=session.loaded.model,
        args=trl.DPOConfig(
            output_dir="unused", use_cpu=True, bf16=False, report_to="none", gradient_checkpointing=False,
            max_length=None, **settings,
        ),
        train_dataset=rows,
        processing_class=session.loaded.tokenizer,
    )  # fmt: skip


def trl_batch(session, ids, examples):
    """The pairs as TRL's own collator lays them out: all chosen, then all rejected, with each picture's pixels twice."""
    pixels = Batcher(session.loaded, session.chat, None)
    prompts = pixels.prompts([*examples, *examples])
    whole = [prompt + ids[row % len(ids)][row // len(ids)] for row, prompt in enumerate(prompts.ids)]
    width = max(map(len, whole))
    pad = session.inputs.pad_id
    return {
        "input_ids": torch.tensor([row + [pad] * (width - len(row)) for row in whole]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in whole]),
        "completion_mask": torch.tensor(
            [
                [0] * len(prompt) + [1] * (len(row) - len(prompt)) + [0] * (width - len(row))
                for prompt, row in zip(prompts.ids, whole)
            ]
        ),
        **prompts.visual,
    }


LOSSES = [
    {"loss_type": "sigmoid"}, {"loss_type": "hinge", "beta": 0.5}, {"loss_type": "ipo", "beta": 0.3},
    {"loss_type": "robust", "label_smoothing": 0.1}, {"loss_type": "bco_pair"}, {"loss_type": "apo_zero"},
    {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]},
]  # fmt: skip


@pytest.mark.referee
@pytest.mark.parametrize(
    "settings", LOSSES, ids=lambda settings: "+".join(str(settings["loss_type"]).split())
)
def test_referee_agrees(settings, tiny_model, tmp_path):
    """One pass per pair over cached features against four passes of pixels through tower and model."""
    session, examples = opened_with(tiny_model()), pairs_of(tmp_path)
    ours = DpoTrainer(
        course_of(session, examples, tmp_path / "run", per_device_train_batch_size=4, **settings)
    )
    theirs = referee(session, **settings)
    model = session.loaded.model
    move(model)
    model.train()
    loss = ours.pass_loss([[0], [1], [2], [3]]) / 4
    loss.backward()
    our_gradients = gradients(model)
    kind = settings["loss_type"]
    expected = theirs.compute_loss(model, trl_batch(session, ours.ids, examples))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4), kind
    expected.backward()
    assert_close(our_gradients, gradients(model), 1e-4)
    metrics = theirs._metrics["train"]
    for name, value in ours.metrics[""].drain().items():
        assert value == pytest.approx(metrics[name][-1], rel=1e-3, abs=1e-5), name
    assert abs(metrics["rewards/margins"][-1]) > 1e-3


def test_pairs_about_one_image_share_it_and_weigh_what_they_did(tiny_model, tmp_path):
    session, pairs = opened_with(tiny_model()), pairs_of(tmp_path)
    examples = [
        replace(pair, question=f"{pair.question} {'And why? ' * number}")
        for pair, count in zip(pairs, (3, 2, 1, 1))
        for number in range(count)
    ]
    found = []
    for most in (None, 1):
        trainer = DpoTrainer(
            course_of(
                session, examples, tmp_path / str(most), branches_per_forward=most, gradient_accumulation_steps=7,
                loss_type=["sigmoid", "sft"],
            )
        )  # fmt: skip
        [groups] = trainer.steps
        assert len(groups) == (4 if most is None else 7)
        move(session.loaded.model)
        loss = trainer.training_step(session.loaded.model, {"numbers": torch.tensor([0])})
        move(session.loaded.model, -0.05)
        found.append((loss.item(), gradients(session.loaded.model), trainer.reference))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert_close(found[0][1], found[1][1], 1e-5)
    assert torch.allclose(found[0][2], found[1][2], rtol=1e-5)


def test_trl_encodes_each_picture_four_times_a_step_and_ours_never(tiny_model, tmp_path):
    session, examples = opened_with(tiny_model()), pairs_of(tmp_path)[:3]
    trainer = DpoTrainer(course_of(session, examples, tmp_path / "run", per_device_train_batch_size=3))
    tokens = sum(len(session.encoder(example.images)[0].hidden) for example in examples)
    seen = []
    tower = session.loaded.part(session.loaded.family.vision)
    tower.register_forward_hook(lambda *given: seen.append(given[2].last_hidden_state.shape[0]))
    model = session.loaded.model.train()
    trainer.pass_loss([[0], [1], [2]])
    assert not seen
    referee(session).compute_loss(model, trl_batch(session, trainer.ids, examples))
    assert sum(seen) == 4 * tokens / 4  # four times each tile, which is four tokens


def test_losses_by_hand():
    pairs = Pairs(
        torch.tensor([[-4.0, -9.0], [-6.0, -3.0]]),
        torch.tensor([[-5.0, -8.0], [-5.0, -5.0]]),
        torch.tensor([[2, 4], [3, 2]]),
    )
    # Ratios (1, -1) and (-1, 2): margins 2 and -3.
    up, down = math.log1p(math.exp(-1.0)), math.log1p(math.exp(1.5))
    assert preference_loss("sigmoid", pairs, 0.5).item() == pytest.approx((up + down) / 2)
    assert preference_loss("hinge", pairs, 0.5).item() == pytest.approx((0 + 2.5) / 2)
    assert preference_loss("sft", pairs, 0.5).item() == pytest.approx(10 / 5)
    by_token = ((0.5 + 0.25 - 1) ** 2 + (-1 / 3 - 1 - 1) ** 2) / 2
    assert preference_loss("ipo", pairs, 0.5).item() == pytest.approx(by_token)


# --- whole runs ------------------------------------------------------------------------------


def logged(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def steps(folder):
    return [row for row in logged(folder) if "grad_norm" in row]


def test_the_reference_is_the_adapter_as_it_was_found(tiny_model, pairs_folder, run_cli, quick, homes):
    first = run_cli("sft", "--model", tiny_model(), "--data", pairs_folder, "--json", *quick, "eval_limit=1")
    adapter = homes / "runs" / first.json()["id"]
    done = run_cli(
        "dpo", "--model", adapter, "--data", pairs_folder, "--json", *QUICK, "eval_steps=2", "save_steps=2",
        "load_best_model_at_end=true",
    )  # fmt: skip
    assert done.code == 0, done.err
    record = done.json()
    assert list(record["measured"]["phases"]) == ["start", "encode", "train", "evaluate"]
    assert record["eval"]["n"] == 2
    folder = homes / "runs" / record["id"]
    rows = steps(folder)
    # Before the first update nothing is preferred yet: policy and reference are one.
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert rows[0]["rewards/margins"] == pytest.approx(0, abs=1e-4)
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert rows[-1]["rewards/margins"] > 0
    evaluated = [row for row in logged(folder) if "eval_loss" in row]
    assert [row["step"] for row in evaluated] == [2, 4]
    assert evaluated[1]["eval_rewards/margins"] > evaluated[0]["eval_rewards/margins"] > 0
    # Sixteen pairs are all that four steps come to, and then those that eval_steps measures.
    scored = [json.loads(line) for line in (folder / dpo.REFERENCE_FILE).read_text().splitlines()]
    rows = [row for row, _ in scored]
    assert rows == sorted(set(rows))
    assert len(rows) == 4 * 2 * 2 + 2
    assert rows[-2:] == [record["train_count"], record["train_count"] + 1]
    before = safetensors.torch.load_file(adapter / "adapter_model.safetensors")
    after = safetensors.torch.load_file(folder / "adapter_model.safetensors")
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def stop_at(patch, name, place):
    """SIGTERM during the call of this number."""
    plain, calls = getattr(DpoTrainer, name), iter(range(10**6))

    def called(self, *given, **more):
        if next(calls) == place:
            signal.raise_signal(signal.SIGTERM)
        return plain(self, *given, **more)

    patch.setattr(DpoTrainer, name, called)


def test_a_stopped_run_goes_on_bit_for_bit(tiny_model, pairs_folder, run_cli, tmp_path):
    """Stopped within the reference, its file cut in the middle of a line, and stopped again between two steps."""
    words = ("--model", tiny_model(), "--data", pairs_folder, *QUICK, "eval_limit=1", "--quiet")
    done = run_cli("dpo", *words, "--out", tmp_path / "whole")
    assert done.code == 0, done.err
    folder = tmp_path / "stopped"
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, "forward", 4)
        done = run_cli("dpo", *words, "--out", folder)
    assert done.code == 128 + signal.SIGTERM
    assert "stopped by SIGTERM; nothing was trained yet" in done.err
    assert json.loads((folder / "run.json").read_text())["status"] == "interrupted"
    lines = (folder / dpo.REFERENCE_FILE).read_text()
    assert 0 < len(lines.split("\n")) < 16
    (folder / dpo.REFERENCE_FILE).write_text(lines[:-9])
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, "training_step", 1)
        done = run_cli("dpo", "--resume", folder, "--quiet")
    assert done.code == 128 + signal.SIGTERM
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["checkpoint-2"]
    done = run_cli("dpo", "--resume", folder, "--quiet")
    assert done.code == 0, done.err
    expected, found = steps(tmp_path / "whole"), steps(folder)
    assert len(found) == 4
    for name in ("loss", "grad_norm", "rewards/margins"):
        assert [row[name] for row in found] == [row[name] for row in expected], name
    for name in ("reference.jsonl", "adapter_model.safetensors"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_cap_within_the_reference_is_kept(tiny_model, pairs_folder, run_cli, tmp_path, monkeypatch):
    from toasterft.runs.meter import Meter

    folder = tmp_path / "run"
    scored = folder / dpo.REFERENCE_FILE
    monkeypatch.setattr(Meter, "reached", lambda self, *_: scored.exists() and scored.stat().st_size > 0)
    words = ("--model", tiny_model(), "--data", pairs_folder, *QUICK, "--quiet")
    done = run_cli("dpo", *words, "--out", folder)
    assert done.code == 3
    assert "after 2 of 16 pairs of the reference" in done.err
    assert json.loads((folder / "run.json").read_text())["status"] == "capped"


def test_gradient_accumulation_is_exact(tiny_model, pairs_folder, run_cli, homes):
    found = []
    for size, accumulation in ((4, 1), (1, 4)):
        done = run_cli(
            "dpo", "--model", tiny_model(), "--data", pairs_folder, "--json", *QUICK, "max_steps=2",
            f"per_device_train_batch_size={size}", f"gradient_accumulation_steps={accumulation}", "eval_limit=1",
            "load_in_4bit=false",
        )  # fmt: skip
        assert done.code == 0, done.err
        found.append([(row["loss"], row["grad_norm"]) for row in steps(homes / "runs" / done.json()["id"])])
    assert found[0][1][0] != found[0][0][0]
    for other in found[1:]:
        for ours, theirs in zip(other, found[0]):
            assert ours == pytest.approx(theirs, rel=1e-3)


def test_models_that_take_pixels_prefer_too(tiny_model, pairs_folder, run_cli, homes):
    done = run_cli(
        "dpo", "--model", tiny_model("llava_onevision"), "--data", pairs_folder, "--json", *QUICK, "max_steps=2",
        "eval_limit=1", "image_longest_edge=64",
    )  # fmt: skip
    assert done.code == 0, done.err
    rows = steps(homes / "runs" / done.json()["id"])
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert rows[1]["loss"] != rows[0]["loss"]


def test_data_without_pairs_is_refused(tiny_model, charts_folder, run_cli, homes):
    done = run_cli("dpo", "--model", tiny_model(), "--data", charts_folder, *QUICK)
    assert done.code == 2
    assert "no row carries `rejected`" in done.err
    assert "toasterft cot pairs" in done.err
    assert not (homes / "runs").exists()


def test_a_rejected_completion_that_is_too_long_leaves_its_row_out(
    tiny_model, pairs_folder, run_cli, tmp_path, homes
):
    examples = sources.load(str(pairs_folder)).examples
    examples[3] = replace(examples[3], rejected="<answer>" + "blue " * 3000 + "</answer>")
    rows = {"train": examples, "validation": [replace(examples[0], rejected=None)]}
    write.write_dataset(tmp_path / "long", {"name": "long"}, rows)
    done = run_cli(
        "dpo", "--model", tiny_model(), "--data", tmp_path / "long", "--json", *QUICK, "max_length=900",
        "max_steps=1", "eval_steps=1",
    )  # fmt: skip
    assert done.code == 0, done.err
    record = done.json()
    assert record["train_count"] == len(examples) - 1
    assert record["estimate"]["optimizer_steps"] == 1
    assert "eval_steps measures nothing" in done.err
    assert not any("eval_loss" in row for row in logged(homes / "runs" / record["id"]))


# --- the bill --------------------------------------------------------------------------------


def test_the_estimate_counts_a_prompt_once_and_both_completions(run_cli):
    words = ("--model", "SmolVLM-256M", "--data", "smolcot-7k", "--gpu", "A40", "--json", "limit=700")
    found = run_cli("estimate", "dpo", *words, "--simulate").json()
    row = found["simulated"]["train"]
    assert row["closed_form_bytes"] == pytest.approx(row["simulated_bytes"], rel=0.05)
    dpo_seconds = found["rows"][0]["phase_seconds"]["train"]["likely"]
    sft_seconds = run_cli("estimate", "sft", *words).json()["rows"][0]["phase_seconds"]["train"]["likely"]
    # A pair is little longer than a row, and goes once more through the model for its reference.
    assert sft_seconds < dpo_seconds < 2 * sft_seconds


# --- several processes -----------------------------------------------------------------------


def one_process(model, out):
    """What each process runs: three steps on eight pairs."""
    rank, processes = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    out = Path(out) / f"by {processes}"
    session = opened_with(Path(model))
    examples = [
        Example(str(n), f"Which is {'very ' * n}high?", "red", (), f"red = {n}.", rejected=f"blue {n}")
        for n in range(12)
    ]
    context = course_of(
        session, examples, out / "run", per_device_train_batch_size=2, learning_rate=1e-3, max_steps=3,
        gradient_accumulation_steps=4 // processes, max_grad_norm=0.1,
    )  # fmt: skip
    trainer = DpoTrainer(context)
    trainer.train()
    rows = [{name: row[name] for name in row if name != "epoch"} for row in trainer.state.log_history]
    weights = {
        name: value.tolist() for name, value in session.loaded.model.named_parameters() if "lora" in name
    }
    (out / f"{rank}.json").write_text(json.dumps({"rows": rows[:-1], "weights": weights}))


def test_two_processes_give_the_sums_of_one(tiny_model, tmp_path, in_two):
    one_process(str(tiny_model()), str(tmp_path))
    said = in_two(__file__, tiny_model(), tmp_path)
    assert not any(code for code, *_ in said), "\n".join(err[-3000:] for *_, err in said)
    alone = json.loads((tmp_path / "by 1" / "0.json").read_text())
    both = [json.loads((tmp_path / "by 2" / f"{rank}.json").read_text()) for rank in range(2)]
    assert len(alone["rows"]) == 3
    for ours, theirs in zip(both[0]["rows"], alone["rows"]):
        for name in ("loss", "grad_norm", "rewards/margins", "logps/chosen", "entropy"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-3, abs=1e-6), name
    assert both[0]["weights"] == both[1]["weights"]
    for name, value in alone["weights"].items():
        assert torch.allclose(torch.tensor(both[0]["weights"][name]), torch.tensor(value), atol=1e-4), name


if __name__ == "__main__":
    one_process(*sys.argv[1:])
