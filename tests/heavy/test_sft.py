"""Real short trainings of tiny models through the command line, 4-bit on a CPU included."""

from __future__ import annotations

import json
import math
import signal
from dataclasses import replace

import datasets
import peft
import pytest
import safetensors.torch
import torch
import transformers

from tests.heavy.test_dpo import course_of, pairs_of
from tests.heavy.test_policy import assert_close, gradients, opened_with
from toasterft import recipe
from toasterft.data import charts
from toasterft.engine import Request, open_engine
from toasterft.engine.batching import Batcher
from toasterft.models.architectures import supported
from toasterft.progress import Silent
from toasterft.training.sft import SftTrainer


def losses(folder):
    return [row["loss"] for row in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())]


@pytest.mark.parametrize("model_type", sorted(supported()))
def test_every_architecture_trains_in_four_bits(model_type, tiny_model, charts_folder, run_cli, quick, homes):
    done = run_cli(
        "sft",
        "--model",
        tiny_model(model_type),
        "--data",
        charts_folder,
        "--json",
        "image_longest_edge=64",
        *quick,
    )
    assert done.code == 0, done.err
    record = done.json()
    folder = homes / "runs" / record["id"]
    assert record["status"] == "done"
    assert record["eval"]["n"] == 4
    assert all(map(math.isfinite, losses(folder)))
    assert (record["images_encoded"] is not None) == supported()[model_type].takes_features
    if not supported()[model_type].takes_features:
        assert any("takes no cached image features" in note for note in record["notes"])
    base = transformers.AutoModelForImageTextToText.from_pretrained(tiny_model(model_type))
    plain = peft.PeftModel.from_pretrained(base, folder)  # the standard layout, without our code
    assert any("lora_B" in name and tensor.abs().sum() > 0 for name, tensor in plain.named_parameters())
    assert not list(folder.rglob("training_args.bin"))


def test_a_run_is_complete_on_disk(tiny_model, charts_folder, run_cli, quick, homes):
    done = run_cli("sft", "--model", tiny_model(), "--data", charts_folder, *quick)
    assert done.code == 0, done.err
    (folder,) = (homes / "runs").iterdir()
    names = {path.name for path in folder.iterdir()}
    assert {
        "recipe.yaml", "run.json", "metrics.jsonl", "samples.jsonl", "loss.png", "adapter_model.safetensors",
        "adapter_config.json", "tokenizer.json", "processor_config.json", "toasterft.json", "checkpoints",
    } <= names  # fmt: skip
    record = json.loads((folder / "run.json").read_text())
    assert record["versions"]["trl"].startswith("1.14")
    assert record["measured"]["peak_memory_bytes"] > 0
    assert record["data_count"] == record["train_count"] == 32
    assert recipe.load("sft", str(folder / "recipe.yaml")).max_steps == 3
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all(
        {"total", "loss", "learning_rate", "seconds_elapsed", "memory_bytes", "usd"} <= row.keys()
        for row in rows
    )
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert len(samples) == 4
    assert {"question", "gold", "answer", "correct", "completion_tokens"} <= samples[0].keys()
    # In the log the trained part is bracketed, and nothing of the prompt is inside.
    prompt, _, rest = done.err.partition("⟧\n")[2].partition("⟦")  # the first pair is the legend
    shown = rest.partition("⟧")[0]
    assert shown.startswith(" <think>")
    assert shown.endswith("</answer><end_of_utterance>")
    assert "image tokens]" in prompt


def test_the_loss_falls(tiny_model, charts_folder, run_cli, quick, homes):
    settings = [*quick, "max_steps=30", "learning_rate=1e-2"]
    done = run_cli("sft", "--model", tiny_model(), "--data", charts_folder, "--json", *settings)
    found = losses(homes / "runs" / done.json()["id"])
    assert sum(found[-5:]) / 5 < sum(found[:5]) / 5 - 0.2


@pytest.mark.parametrize(
    "settings",
    [
        ["load_in_4bit=false"],
        ["load_in_4bit=false", "lora=null"],
        ["lora.target_modules=[q_proj,v_proj]", "lora.lora_dropout=0.1", "optim=adamw_torch"],
        ["train_vision=true", "lora=null", "load_in_4bit=false"],
        ["gradient_checkpointing=false", "lr_scheduler_type=cosine", "warmup_steps=0.5", "weight_decay=0.1"],
        ["eval_steps=1", "save_steps=1", "load_best_model_at_end=true", "save_total_limit=1"],
        ["cache_limit_gb=0.00001"],
        ["dtype=bfloat16"],
        ["rows_without_reasoning=drop", "prompt.system=Be brief.", "prompt.question_suffix=Think."],
    ],
    ids=lambda words: words[0],
)
def test_other_settings_train_too(settings, tiny_model, charts_folder, run_cli, quick, homes):
    done = run_cli("sft", "--model", tiny_model(), "--data", charts_folder, "--json", *quick, *settings)
    assert done.code == 0, done.err
    record = done.json()
    assert record["status"] == "done"
    run = homes / "runs" / record["id"]
    answered = run_cli(
        "eval", run, "--data", charts_folder, "--limit", "2", "--json", "max_completion_length=4"
    )
    assert answered.code == 0, answered.err
    assert answered.json()["n"] == 2
    if "lora=null" in settings:
        assert (run / "model.safetensors").is_file()
    if "train_vision=true" in settings:
        assert any("feature cache is off" in note for note in record["notes"])
    if settings[0].startswith("cache_limit_gb"):
        assert "cache is full" in done.err
    if settings[0].startswith("eval_steps"):
        assert (
            sum(
                "eval_loss" in row
                for row in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
            )
            == 3
        )


def test_an_earlier_adapter_is_not_rounded(tiny_model, charts_folder, run_cli, quick, homes):
    """On 4-bit weights TRL would make it bfloat16 before the first step."""
    words = ["--data", charts_folder, "--json", *quick]
    first = run_cli("sft", "--model", tiny_model(), *words).json()
    again = run_cli("sft", "--model", first["id"], *words, "learning_rate=1e-30", "max_steps=1").json()
    one, two = (
        safetensors.torch.load_file(homes / "runs" / record["id"] / "adapter_model.safetensors")
        for record in (first, again)
    )
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_tower_is_never_trained_into_an_adapter_that_cannot_hold_it(
    tiny_model, charts_folder, run_cli, homes
):
    refused = run_cli("sft", "--model", tiny_model(), "--data", charts_folder, "train_vision=true")
    assert refused.code == 2
    assert "lora=null load_in_4bit=false" in refused.err
    assert not (homes / "runs").exists()


def test_training_continues_an_earlier_run(tiny_model, charts_folder, run_cli, quick, homes):
    first = run_cli("sft", "--model", tiny_model(), "--data", charts_folder, "--json", *quick).json()
    second = run_cli("sft", "--model", first["id"], "--data", charts_folder, "--json", *quick).json()
    assert second["model_run"] == first["id"]
    one, two = (
        safetensors.torch.load_file(homes / "runs" / record["id"] / "adapter_model.safetensors")
        for record in (first, second)
    )
    assert one.keys() == two.keys()
    assert any(not torch.equal(one[key], two[key]) for key in one)


def test_a_connector_that_learns_where_it_stands_keeps_the_cache_off(
    tiny_model, charts_folder, run_cli, quick
):
    words = [*quick, "train_connector=true", "max_steps=2"]
    record = run_cli(
        "sft", "--model", tiny_model("internvl"), "--data", charts_folder, "--json", *words
    ).json()
    assert "the vision side learns: the feature cache is off" in record["notes"]
    assert record["images_encoded"] is None


@pytest.mark.parametrize("four_bit", ["true", "false"])
def test_a_connector_trained_behind_the_features_is_a_lora_on_the_connector(
    four_bit, tiny_model, charts_folder, run_cli, quick, homes, tmp_path
):
    """h + B(A h) through features equals the saved LoRA through pixels, loaded by plain PEFT."""
    words = [*quick, "train_connector=true", "learning_rate=1e-2", "max_steps=10", f"load_in_4bit={four_bit}"]
    record = run_cli("sft", "--model", tiny_model(), "--data", charts_folder, "--json", *words).json()
    folder = homes / "runs" / record["id"]
    state = safetensors.torch.load_file(folder / "adapter_model.safetensors")
    on_connector = [key for key in state if "connector.modality_projection.proj" in key]
    assert len(on_connector) == 2
    assert all(state[key].abs().sum() > 0 for key in on_connector)

    from toasterft.data import sources
    from toasterft.data.chat import Chat
    from toasterft.engine.batching import Batcher
    from toasterft.engine.forward import placed
    from toasterft.engine.image_features import ImageEncoder
    from toasterft.recipe import Prompt

    examples = sources.load(str(charts_folder), purpose="evaluate").examples[:3]
    request = Request(base=str(tiny_model()), family=supported()["idefics3"], adapter=folder)
    loaded = open_engine("plain").load(request)
    chat = Chat(loaded.processor, Prompt())
    inputs = Batcher(loaded, chat, ImageEncoder(loaded))
    with loaded.evaluating() as model:
        through_features = model(**placed(loaded, inputs.left_padded(inputs.prompts(examples)))).logits
    plain = peft.PeftModel.from_pretrained(
        transformers.AutoModelForImageTextToText.from_pretrained(tiny_model(), attn_implementation="sdpa"),
        folder,
    ).eval()
    pixels = Batcher(loaded, chat, None)
    with torch.no_grad():
        through_pixels = plain(**pixels.left_padded(pixels.prompts(examples))).logits
    assert torch.allclose(through_features, through_pixels, rtol=1e-4, atol=1e-4)
    # Opened again, the run proves features against its own pixel path: the connector must count there as well.
    with loaded.evaluating() as model:
        own_pixels = model(**pixels.left_padded(pixels.prompts(examples))).logits
    assert torch.allclose(own_pixels, through_pixels, rtol=1e-4, atol=1e-4)
    answered = run_cli(
        "eval", folder, "--data", charts_folder, "--limit", "2", "--json", "max_completion_length=4"
    )
    notes = json.loads((homes / "runs" / answered.json()["run"] / "run.json").read_text())["notes"]
    assert not any("disagree" in note for note in notes)
    base = transformers.AutoModelForImageTextToText.from_pretrained(
        tiny_model(), attn_implementation="sdpa"
    ).eval()
    with torch.no_grad():
        untrained = base(**pixels.left_padded(pixels.prompts(examples))).logits
    assert not torch.allclose(through_features, untrained, rtol=1e-2, atol=1e-2)


@pytest.mark.referee
@pytest.mark.parametrize("size", [1, 3])
def test_referee_agrees(size, tiny_model, tmp_path):
    """A step of trees over features against TRL's SFTTrainer on separate rows of pixels."""
    import trl

    session, pairs = opened_with(tiny_model()), pairs_of(tmp_path)
    examples = [
        replace(
            example, question=f"{example.question} {'And why? ' * number}", reasoning="red " * (number + 1)
        )
        for example, count in zip(pairs, (3, 1, 2, 1))
        for number in range(count)
    ]
    settings = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 6 // size}
    ours = SftTrainer(course_of(session, examples, tmp_path / "run", "sft", **settings))
    [step, rest] = ours.steps
    assert sorted(map(len, step)) in ([1, 2, 3], [1, 1, 1, 3])
    assert len(rest) == 1
    theirs = trl.SFTTrainer(
        model=session.loaded.model,
        args=trl.SFTConfig(
            output_dir=str(tmp_path / "trl"), use_cpu=True, bf16=False, report_to="none", max_length=None,
            gradient_checkpointing=False, loss_type="chunked_nll", dataset_kwargs={"skip_prepare_dataset": True},
            remove_unused_columns=False,
        ),
        data_collator=lambda rows: rows,
        train_dataset=datasets.Dataset.from_dict({"row": [0]}),
        processing_class=session.loaded.tokenizer,
    )  # fmt: skip
    model = session.loaded.model.train()
    loss = float(ours.training_step(model, {"numbers": torch.tensor([0])}))
    our_gradients = gradients(model)
    pixels, rows = Batcher(session.loaded, session.chat, None), [row for group in step for row in group]
    tokens = torch.tensor(sum(map(ours.count, rows)))
    expected = 0.0
    for start in range(0, len(rows), 2):
        batch = pixels.training([examples[row] for row in rows[start : start + 2]])
        part = theirs.compute_loss(model, batch, num_items_in_batch=tokens)
        part.backward()
        expected += part.item()
    assert loss == pytest.approx(expected, rel=1e-5)
    assert_close(our_gradients, gradients(model), 1e-5)
    kept = ours.metrics[""].drain()
    counted = theirs._metrics["train"]["mean_token_accuracy"]
    assert min(counted) <= kept["mean_token_accuracy"] <= max(counted)


def test_rows_that_share_images_go_on_bit_for_bit(tiny_model, tmp_path, run_cli, quick):
    """Stopped in the second of six steps, the last of them in another epoch."""
    data = charts.write_dataset(tmp_path / "charts", n=10, seed=7, per_chart=3, size_px=(64, 64))
    words = ("--model", tiny_model(), "--data", data, *quick, "max_steps=6", "eval_limit=1", "--quiet")
    words += ("per_device_train_batch_size=2", "gradient_accumulation_steps=3")
    seen, plain = [], SftTrainer.training_step

    def step(self, *given):
        seen.append(self)
        if len(seen) == stopped_at:
            signal.raise_signal(signal.SIGTERM)
        return plain(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SftTrainer, "training_step", step)
        stopped_at = 0
        assert run_cli("sft", *words, "--out", tmp_path / "whole").code == 0
        rows, steps = len(seen[0].context.train), seen[0].steps[: seen[0].steps_per_epoch]
        assert sorted(row for groups in steps for group in groups for row in group) == list(range(rows))
        assert len(steps) < 6
        assert sum(map(len, steps)) < rows / 2
        stopped_at = len(seen) + 2
        assert run_cli("sft", *words, "--out", tmp_path / "stopped").code == 128 + signal.SIGTERM
        assert run_cli("sft", "--resume", tmp_path / "stopped", "--quiet").code == 0
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")
    one, other = (
        (tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("stopped", "whole")
    )
    assert one == other


def test_three_losses_that_are_not_finite_stop_the_run(
    tiny_model, charts_folder, run_cli, quick, homes, monkeypatch
):
    steps = iter(range(1000))
    honest = SftTrainer.loss_sum
    monkeypatch.setattr(
        SftTrainer,
        "loss_sum",
        lambda self, *a: honest(self, *a) * (float("nan") if next(steps) in (1, 4, 5, 6) else 1.0),
    )
    words = [*quick, "max_steps=20", "save_steps=2"]
    done = run_cli("sft", "--model", tiny_model(), "--data", charts_folder, "--quiet", *words)
    assert done.code == 4
    assert "3 non-finite losses in a row" in done.err
    assert "checkpoint-" in done.err
    (folder,) = (homes / "runs").iterdir()
    assert json.loads((folder / "run.json").read_text())["status"] == "failed"


def test_gradient_accumulation_is_exact(tiny_model, charts_folder, run_cli, quick, homes):
    found = []
    for size, accumulation in ((4, 1), (2, 2), (1, 4)):
        words = [*quick, f"per_device_train_batch_size={size}", f"gradient_accumulation_steps={accumulation}"]
        record = run_cli(
            "sft", "--model", tiny_model(), "--data", charts_folder, "--json", *words, "load_in_4bit=false"
        ).json()
        found.append(safetensors.torch.load_file(homes / "runs" / record["id"] / "adapter_model.safetensors"))
    for other in found[1:]:
        for key, tensor in found[0].items():
            assert torch.allclose(tensor, other[key], rtol=1e-3, atol=1e-5), key


def test_the_same_seed_gives_the_same_weights(tiny_model, charts_folder, run_cli, quick, homes):
    files = []
    for _ in range(2):
        record = run_cli("sft", "--model", tiny_model(), "--data", charts_folder, "--json", *quick).json()
        files.append((homes / "runs" / record["id"] / "adapter_model.safetensors").read_bytes())
    assert files[0] == files[1]


def test_a_frozen_tower_never_runs_backward(tiny_model, charts_folder, run_cli, quick, monkeypatch):
    """PEFT plus checkpointing would make the tower's output require grad, and pixel models pay for it."""
    from toasterft.training import sft

    seen = []

    def watched(context):
        tower = context.session.loaded.part(context.session.loaded.family.vision)
        tower.register_forward_hook(lambda *a: seen.append(a[2].last_hidden_state.requires_grad))
        return SftTrainer(context)

    monkeypatch.setattr(sft, "SftTrainer", watched)
    done = run_cli(
        "sft",
        "--model",
        tiny_model("llava_onevision"),
        "--data",
        charts_folder,
        "--quiet",
        *quick,
        "eval_limit=1",
    )
    assert done.code == 0, done.err
    assert len(seen) >= 3
    assert not any(seen)


def test_the_live_loss_is_that_of_the_step(tiny_model, charts_folder, run_cli, quick, homes, monkeypatch):
    """Not that of the step before it, nor of the last backward pass alone."""
    shown = []
    monkeypatch.setattr(Silent, "advance", lambda _, done, total, **facts: shown.append(facts.get("loss")))
    done = run_cli(
        "sft", "--model", tiny_model(), "--data", charts_folder, "--json", "--quiet", *quick,
        "logging_steps=1", "per_device_train_batch_size=2", "gradient_accumulation_steps=2",
    )  # fmt: skip
    assert done.code == 0, done.err
    rows = (homes / "runs" / done.json()["id"] / "metrics.jsonl").read_text().splitlines()
    logged = [row["loss"] for row in map(json.loads, rows) if "grad_norm" in row]
    live = [loss for loss in shown if loss is not None]
    assert len(set(logged)) == 3
    assert live == pytest.approx(logged, rel=1e-4)
