"""The Python API: the docstring's own example, the words of the command line, and an import that stays light."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from toasterft import Recipe, api, estimate, evaluate, recipe, train
from toasterft.errors import BudgetError, RecipeError

QUICK = dict(
    max_steps=2, per_device_train_batch_size=4, gradient_accumulation_steps=1, max_completion_length=4,
    eval_limit=2, lora={"r": 4},
)  # fmt: skip


def test_the_example_runs(homes, monkeypatch, capsys):
    """As a user would paste it, in an empty folder."""
    monkeypatch.chdir(homes)
    lines = [line for line in api.__doc__.splitlines() if line.startswith("    ")]
    assert len(lines) <= 10
    exec(textwrap.dedent("\n".join(lines)), {})
    out = capsys.readouterr().out
    (run,) = (path for path in (homes / "runs").iterdir() if path.name.split("-")[2] == "sft")
    assert json.loads((run / "run.json").read_text())["status"] == "done"
    assert str(run.relative_to(homes)) in out or str(run) in out
    assert "GB, $" in out


def test_a_recipe_is_the_command_lines(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("method: grpo\nlora: {r: 8, lora_alpha: 9}\nlimit: 5\n")
    found = Recipe("grpo", file, model=tmp_path, lora={"r": 4}, rewards={"format": 1.0}, limit=None)
    words = [f"model={tmp_path}", "lora.r=4", "limit=null"]
    assert found == recipe.load("grpo", str(file), words).model_copy(update={"rewards": {"format": 1.0}})
    assert found.lora.lora_alpha == 9
    assert Recipe("sft", "sft-smolvlm") == recipe.load("sft", "sft-smolvlm")
    with pytest.raises(RecipeError) as caught:
        Recipe("sft", lr=1, lora={"rnk": 2})
    assert "did you mean learning_rate?" in str(caught.value)
    assert "lora.rnk" in str(caught.value)
    with pytest.raises(RecipeError, match="no training method 'eval'"):
        Recipe("eval")


def test_an_estimate_needs_no_torch():
    code = (
        "import sys, toasterft\n"
        "assert 'toasterft.api' not in sys.modules and 'pydantic' not in sys.modules\n"
        "import toasterft.jobs.prepare\n"  # which imports the package `toasterft.estimation`
        "from toasterft import Recipe, estimate\n"
        "wanted = Recipe('sft', model='SmolVLM-256M', data='smolcot-7k')\n"
        "one, other = estimate(wanted, gpu='A40'), estimate(wanted, gpu='T4', price=1.0)\n"
        "assert (one.gpu, other.gpu, other.price['usd_per_hour']) == ('A40', 'T4', 1.0)\n"
        "assert one.usd.low < one.usd.likely < one.usd.high\n"
        "assert one.peak_bytes > 1e9 and toasterft.estimate is estimate\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_estimate_equals_the_commands(run_cli):
    done = run_cli("estimate", "sft", "--model", "SmolVLM-256M", "--data", "chartqa", "--gpu", "L4", "--json")
    (row,) = done.json()["rows"]
    found = estimate(Recipe("sft", model="SmolVLM-256M", data="chartqa"), gpu="L4")
    assert json.loads(json.dumps(found.as_json(), default=str)) == row


def test_train_and_evaluate(tiny_model, charts_folder, homes):
    first = train(Recipe("sft", model=tiny_model(), data=charts_folder, **QUICK), quiet=True)
    assert first.record["status"] == "done"
    assert len(first.metrics()) >= 2
    # A run goes on where another ended, and is evaluated, as itself.
    again = train(
        Recipe("sft", model=first, data=charts_folder, **QUICK),
        out=homes / "again",
        runs_dir=homes / "other",
        quiet=True,
    )
    assert again.path == homes / "again"
    assert again.record["model_run"] == first.id
    found = evaluate(again, data=charts_folder, limit=2, max_completion_length=2, quiet=True)
    assert found["n"] == 2
    assert found["scores"]["robust"].keys() >= {"value", "low", "high"}
    record = json.loads((Path(found["run"]) / "run.json").read_text())
    assert record["model_run"] == again.id


def test_caps_are_the_commands(tiny_model, charts_folder, homes):
    wanted = Recipe("sft", model=tiny_model(), data=charts_folder, **QUICK)
    with pytest.raises(BudgetError, match="--budget needs the machine's price"):
        train(wanted, budget=1.0)
    assert not (homes / "runs").exists()
