"""What bad input gets: one message with where, what, why, next step; exit 2; no traceback; nothing half-written."""

from __future__ import annotations

import json
import shutil

import pytest
from PIL import Image


def rows(folder, *extra):
    Image.new("RGB", (40, 30), "red").save(folder / "a.png")
    row = {"image": "a.png", "question": "Which?", "answer": "red", "reasoning": "red = 7."}
    (folder / "x.jsonl").write_text("".join(json.dumps(item) + "\n" for item in [row, *extra]))
    return folder / "x.jsonl"


@pytest.fixture
def refused(run_cli, homes):
    """Run a command that must be refused, and return its message."""

    def call(*words, says):
        done = run_cli(*words)
        text = done.err
        assert done.code == 2, text
        assert "Traceback" not in text
        assert any(line.startswith("✗ ") for line in text.splitlines())
        for expected in says:
            assert expected in text, text
        left = list((homes / "runs").glob("*")) if (homes / "runs").exists() else []
        assert left == [], "something was left behind"
        return text

    return call


def test_missing_data(refused, tiny_model):
    refused("sft", "--model", tiny_model(), "--data", "gone.jsonl", says=["gone.jsonl", "no such data"])


def test_broken_line(refused, tiny_model, tmp_path):
    file = rows(tmp_path)
    file.write_text(file.read_text() + "{broken\n")
    refused("sft", "--model", tiny_model(), "--data", file, says=["x.jsonl:2", "not valid JSON", "next"])


def test_empty_answer(refused, tiny_model, tmp_path):
    file = rows(tmp_path, {"image": "a.png", "question": "Which?", "answer": ""})
    refused("sft", "--model", tiny_model(), "--data", file, says=["x.jsonl:2", "empty answer"])


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "text"])
@pytest.mark.parametrize("command", ["sft", "eval"])
def test_damaged_images(command, damage, refused, tiny_model, tmp_path):
    file = rows(tmp_path, {"image": "b.png", "question": "Which?", "answer": "red"})
    bad = tmp_path / "b.png"
    Image.effect_noise((300, 300), 90).convert("RGB").save(bad)
    data = bad.read_bytes()
    if damage == "missing":
        bad.unlink()
    else:
        bad.write_bytes({"empty": b"", "cut": data[: len(data) // 2], "text": b"hello"}[damage])
    words = ["--model", tiny_model()] if command == "sft" else [tiny_model()]
    refused(command, *words, "--data", file, says=["b.png"])


def test_unknown_names_get_suggestions(refused, tmp_path):
    refused("sft", "--model", "SmolVLM-265M", "--dry-run", says=["did you mean SmolVLM-256M"])
    refused("sft", "--gpu", "A41", "--dry-run", says=["did you mean A40"])
    refused("sft", "lora.rnk=3", "--dry-run", says=["lora.rnk", "did you mean lora.r?"])
    refused("sft", "toaster-256m-8k", says=["no such recipe", "did you mean toaster-256m"])
    refused("show", "nothing", says=["no such run"])


def test_a_folder_that_is_no_model(refused, tmp_path, tiny_model):
    refused(
        "sft", "--model", tmp_path, "--data", rows(tmp_path), says=["this folder is no model", "config.json"]
    )
    shutil.copytree(tiny_model(), tmp_path / "bare")
    (tmp_path / "bare" / "model.safetensors").unlink()
    refused("sft", "--model", tmp_path / "bare", "--data", rows(tmp_path), says=["no weights"])
    (tmp_path / "bare" / "model.safetensors").write_bytes(b"garbage")
    refused(
        "sft", "--model", tmp_path / "bare", "--data", rows(tmp_path), says=["not a whole safetensors file"]
    )


def test_an_unsupported_architecture(refused, tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "m" / "model.safetensors").write_bytes(b"x")
    refused("sft", "--model", tmp_path / "m", "--data", rows(tmp_path), says=["'bert'", "not supported"])


def test_an_adapter_trained_on_another_base(
    refused, run_cli, tiny_model, charts_folder, quick, homes, tmp_path
):
    other = tmp_path / "base"
    shutil.copytree(tiny_model(), other)
    run = homes / "elsewhere"
    done = run_cli("sft", "--model", other, "--data", charts_folder, "--out", run, *quick)
    assert done.code == 0, done.err
    import tiny

    tiny.smolvlm_like(other, "idefics3", layers=3)
    refused("eval", run, "--data", charts_folder, says=["another base model", "have changed since"])
    config = json.loads((run / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(tiny_model("internvl"))
    (run / "adapter_config.json").write_text(json.dumps(config))
    (run / "toasterft.json").unlink()
    refused("eval", run, "--data", charts_folder, says=["adapter"])
    shutil.rmtree(other)
    config["base_model_name_or_path"] = str(other)
    (run / "adapter_config.json").write_text(json.dumps(config))
    refused("eval", run, "--data", charts_folder, says=["is not here"])


def test_samples_that_are_too_long(refused, tiny_model, charts_folder):
    text = refused(
        "sft",
        "--model",
        tiny_model(),
        "--data",
        charts_folder,
        "max_length=32",
        says=["longer than max_length=32"],
    )
    assert "max_length=" in text.split("next")[1]


def test_a_few_long_samples_are_left_out_and_named(run_cli, tiny_model, charts_folder, tmp_path, quick):
    lines = (charts_folder / "train.jsonl").read_text().splitlines()
    long = json.loads(lines[0]) | {"id": "much-too-long", "reasoning": "red = 7. " * 900}
    shutil.copytree(charts_folder, tmp_path / "d")
    (tmp_path / "d" / "train.jsonl").write_text("\n".join([*lines, json.dumps(long)]))
    done = run_cli(
        "sft", "--model", tiny_model(), "--data", tmp_path / "d", "--json", *quick, "max_length=700"
    )
    assert done.code == 0, done.err
    assert "1 of 33 samples exceed max_length=700: left out much-too-long" in done.err
    assert done.json()["train_count"] == 32


def test_no_network_for_a_hub_name(refused, tmp_path):
    refused(
        "sft",
        "--model",
        "someone/some-model",
        "--data",
        rows(tmp_path),
        says=["someone/some-model", "hub", "network"],
    )


def test_no_space_left(run_cli, tiny_model, charts_folder, quick, monkeypatch):
    import errno

    from toasterft.engine import feature_cache

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(feature_cache.os, "replace", full)
    done = run_cli("sft", "--model", tiny_model(), "--data", charts_folder, *quick)
    assert done.code == 2
    assert "no space left on the disk" in done.err
    assert "toasterft cache clear" in done.err


def test_nothing_is_overwritten(refused, run_cli, tiny_model, charts_folder, quick, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("x")
    refused(
        "sft",
        "--model",
        tiny_model(),
        "--data",
        charts_folder,
        "--out",
        tmp_path / "out",
        *quick,
        says=["not empty"],
    )
    assert (tmp_path / "out" / "precious").read_text() == "x"


def test_bad_words_on_the_command_line(run_cli):
    assert run_cli("sft", "--nonsense").code == 2
    assert run_cli("nonsense").code == 2
    assert run_cli("ask", "x").code == 2


def test_errors_as_json(run_cli):
    done = run_cli("sft", "--model", "SmolVLM-265M", "--dry-run", "--json")
    assert done.code == 2
    assert done.json()["error"]["kind"] == "ModelError"
    assert done.json()["error"]["exit_code"] == 2


def test_our_own_bugs_keep_their_traceback(run_cli, monkeypatch):
    from toasterft.runs import run_folder

    monkeypatch.setattr(run_folder, "runs", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_cli("runs")


@pytest.mark.parametrize("amount", ["nan", "inf", "-1", "0", "1e999", "two"])
def test_what_is_no_amount_is_refused_everywhere(amount, run_cli, tmp_path):
    row = tmp_path / "teacher.yaml"
    row.write_text(
        f"name: x\nbase_url: http://127.0.0.1:1\ninput_usd_per_mtok: {amount}\noutput_usd_per_mtok: 1\n"
    )
    rules = ("cot", "build", "x", "--from", "charts", "--teacher", "rules", "--dry-run")
    for words in (
        ("sft", "--budget", amount),
        ("grpo", "--max-hours", amount),
        ("dpo", "--price", amount),
        ("dyme", f"teachers_usd={amount}"),
        ("sft", f"price={amount}"),
        ("train", "two-stage", "--budget", amount, "--price", 1),
        ("launch", "sft-smolvlm", "--budget", amount),
        ("estimate", "sft", "--budget", amount),
        ("cot", "pairs", "x", "--from", "charts", "--model", "toast-tiny", "--budget", amount),
        (*rules, "--budget", amount),
        *([(*rules, "--price-in", amount), (*rules[:-2], row, "--dry-run")] if amount != "0" else []),
    ):
        done = run_cli(*words)
        assert done.code == 2, (words, done.out, done.err)
        assert "Traceback" not in done.err
    from toasterft import Recipe, api
    from toasterft.errors import BudgetError

    with pytest.raises(BudgetError, match="is no amount"):
        api.train(Recipe("sft", model="toast-tiny"), budget=float("nan"), price=1)


def test_settings_without_end_never_start(run_cli):
    done = run_cli("sft", "learning_rate=.inf", "cache_limit_gb=.inf", "weight_decay=.nan", "seed=-1")
    assert done.code == 2
    for key in ("learning_rate", "cache_limit_gb", "weight_decay", "seed"):
        assert f"{key}: input should be" in done.err


def test_cheap_checks_come_first(refused, tmp_path, monkeypatch):
    refused("sft", "lora.target_modules=[nope]", says=["no linear layer is named nope", "q_proj"])
    refused(
        "sft",
        "--model",
        "toast-tiny",
        "--data",
        rows(tmp_path),
        "--out",
        "/dev/null",
        says=["this is no folder"],
    )
    monkeypatch.setenv("WORLD_SIZE", "abc")
    refused("sft", "--model", "toast-tiny", "--data", rows(tmp_path), says=["WORLD_SIZE: 'abc' is no number"])
