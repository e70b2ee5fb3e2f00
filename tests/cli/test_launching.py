"""launch: the task that SkyPilot is given, what is refused, and the whole way through a fake `sky`."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from toasterft.data import charts

QUICK = (
    "max_steps=1", "per_device_train_batch_size=4", "gradient_accumulation_steps=1", "max_completion_length=4",
    "eval_limit=2", "lora.r=4",
)  # fmt: skip

LARGE = "per_device_train_batch_size=512"


@pytest.fixture
def drawn(homes):
    return charts.write_dataset(homes / "drawn", n=12, seed=1, per_chart=1, size_px=(64, 64))


@pytest.fixture
def sft(drawn):
    """Words of a launch that is refused for nothing."""
    return ("launch", "sft-smolvlm", "--model", "toast-tiny", "--data", drawn, "--budget", 5)


def task(run_cli, *words):
    done = run_cli(*words, "--dry-run", "--json")
    assert done.code == 0, done.err
    return done.json()


def test_a_managed_spot_job(run_cli, sft, drawn, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    told = task(run_cli, *sft, "--cloud", "aws/us-east-1", "--gpu", "A10G", "--max-hours", 2)
    found, resources = told["task"], told["task"]["resources"]
    assert resources["infra"] == "aws/us-east-1"
    assert resources["accelerators"] == {"A10G": 1}
    assert resources["use_spot"] is True
    assert resources["autostop"] == {"idle_minutes": 5, "down": True}
    # The catalog's spot price on that cloud: what the meter counts with, and the dearest machine that is taken.
    assert resources["max_hourly_cost"] == 0.433
    assert "--price 0.433 --budget 5 --max-hours 2" in found["run"]
    assert "spot" in told["plans"][0]["rows"][0]["price"]["source"]
    bucket = found["file_mounts"]["~/toasterft-runs"]
    assert bucket["mode"] == "MOUNT_CACHED"
    assert bucket["store"] == "s3"
    assert found["file_mounts"]["~/toasterft-data/drawn"] == str(drawn)
    launch, fetch = told["commands"]
    assert launch[:3] == ["sky", "jobs", "launch"]
    assert launch[launch.index("--secret") + 1] == "HF_TOKEN"
    assert "hf_secret" not in json.dumps(told)
    assert fetch[:3] == ["aws", "s3", "sync"]
    assert fetch[3] == f"s3://{bucket['name']}/{Path(told['run']).name}"


def test_a_cloud_that_mounts_no_bucket_is_one_machine(run_cli, sft):
    told = task(run_cli, *sft, "--cloud", "runpod")
    resources = told["task"]["resources"]
    assert (resources["accelerators"], resources["use_spot"]) == ({"A40": 1}, False)
    assert resources["max_hourly_cost"] == 0.44
    assert "~/toasterft-runs" not in told["task"]["file_mounts"]
    launch, fetch = told["commands"]
    assert launch[:3] == ["sky", "launch", "-c"]
    assert fetch[0] == "rsync"
    assert fetch[2].startswith(f"{launch[3]}:toasterft-runs/")


def test_the_recipe_there_is_the_recipe_here(run_cli, sft, tmp_path):
    from toasterft import recipe

    template = tmp_path / "mine.jinja"
    template.write_text("{{ messages }}")
    words = ["learning_rate=3e-3", "lora.r=4", f"prompt.chat_template={template}", "--seed", 7]
    told = task(run_cli, *sft, *words)
    text = told["task"]["run"].partition("<<'RECIPE'\n")[2].partition("\nRECIPE\n")[0]
    found = recipe.validate(recipe.Sft, yaml.safe_load(text), "there")
    assert (found.learning_rate, found.lora.r, found.seed, found.gpu) == (3e-3, 4, 7, "A40")
    assert found.prompt.chat_template == "{{ messages }}"
    assert found.data == "~/toasterft-data/drawn"


def test_prices_and_stores_that_are_named(run_cli, sft):
    told = task(run_cli, *sft, "--price", 0.3, "--bucket", "gs://mine/runs/", "--on-demand", "--gpu", "A6000")
    assert told["task"]["resources"]["max_hourly_cost"] == 0.3
    assert told["task"]["resources"]["use_spot"] is False
    assert told["task"]["resources"]["accelerators"] == {"A6000": 1, "RTXA6000": 1}
    assert told["task"]["file_mounts"]["~/toasterft-runs"]["source"] == "gs://mine/runs"
    assert told["commands"][1][:4] == ["gcloud", "storage", "rsync", "-r"]
    # Without a cloud the plan's own price counts.
    assert "--price 0.44" in task(run_cli, *sft)["task"]["run"]


def test_a_pipeline_is_launched_whole(run_cli, drawn):
    words = ("launch", "two-stage", "--model", "toast-tiny", "--data", drawn, "--cloud", "gcp")
    told = task(run_cli, *words, "--budget", 50, "--price", 0.5)
    assert len(told["plans"]) == 2
    assert 'train --resume "$run" --price 0.5 --budget 50' in told["task"]["run"]
    assert told["task"]["file_mounts"]["~/toasterft-runs"]["store"] == "gcs"
    done = run_cli(*words, "--max-hours", 1, "--dry-run")
    assert done.code == 2
    assert "a pipeline is capped by dollars" in done.err


def test_what_is_refused(run_cli, sft, drawn, homes, monkeypatch, tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("method: grpo\nrewards: {'my.module:fn': 1.0}\n")
    asking = tmp_path / "asking.yaml"
    asking.write_text("method: ask\n")
    adapter = tmp_path / "run"
    adapter.mkdir()
    local = {"base_model_name_or_path": str(tmp_path / "base"), "peft_type": "LORA", "r": 8, "lora_alpha": 16}
    (adapter / "adapter_config.json").write_text(json.dumps(local))
    layer = "base_model.model.model.text_model.layers.0.self_attn.q_proj"
    factors = {f"{layer}.lora_A.weight": np.zeros((8, 4)), f"{layer}.lora_B.weight": np.zeros((4, 8))}
    save_file(factors, adapter / "adapter_model.safetensors")
    shutil.copytree(Path(charts.__file__).parents[2] / "models" / "weights" / "toast-tiny", tmp_path / "base")
    for words, says in (
        (sft[:-2], "a rented machine needs a cap"),
        ((*sft, "--gpu", "A4O"), "did you mean A40?"),
        ((*sft, "--gpu", "Colab-T4"), "part of another service"),
        ((*sft, "--cloud", "runpod", "--bucket", "s3://mine"), "cannot mount a bucket"),
        ((*sft, "--bucket", "mine"), "no bucket's address"),
        (("launch", "sft-smolvlm", "--budget", 5), "smolcot-7k is not on this machine"),
        (("launch", "sft-smolvlm", "--data", "chartqa", "--budget", 0.01), "more than the budget of $0.01"),
        (("launch", "sft-smolvlm", "--data", "chartqa", "--max-hours", 0.1), "more than --max-hours 0.1"),
        ((*sft, "--gpu", "T4", "--data", "chartqa", "--model", "SmolVLM-256M", LARGE), "T4 has 16 GB"),
        (("launch", own, "--model", "toast-tiny", "--data", drawn, "--budget", 5), "rewards of your own"),
        (("launch", asking, "--budget", 5), "only trainings can be launched"),
        (("launch", "sft-smolvlm", "--model", adapter, "--data", drawn, "--budget", 5), "--to merged"),
    ):
        done = run_cli(*words, "--dry-run")
        assert done.code == 2, (words, done.err)
        assert says in " ".join(done.err.split()), done.err
    monkeypatch.setenv("PATH", str(homes))
    monkeypatch.setattr(sys, "executable", str(homes / "python"))
    done = run_cli(*sft)
    assert done.code == 2
    assert "pip install 'toasterft[launch]'" in done.err
    assert not (homes / "runs").exists()


def test_over_budget_is_the_users_to_decide(run_cli):
    told = task(run_cli, "launch", "sft-smolvlm", "--data", "chartqa", "--budget", 0.01, "--yes")
    assert "--budget 0.01 --yes" in told["task"]["run"]


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_the_next_machine_goes_on(run_cli, sft, tmp_path):
    """The task's script: a new run, a run that is there, a run that is done."""
    told = task(run_cli, *sft)
    executable(tmp_path / "toasterft-venv" / "bin" / "toasterft", '#!/bin/sh\necho "$@"\n')
    run = tmp_path / "toasterft-runs" / Path(told["run"]).name

    def said():
        env = {**os.environ, "HOME": str(tmp_path)}
        done = subprocess.run(["bash", "-c", told["task"]["run"]], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert said() == f"sft {tmp_path}/recipe.yaml --out {run} --price 0.44 --budget 5"
    run.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"status": "running"}, indent=2))
    assert said() == f"sft --resume {run} --price 0.44 --budget 5"
    (run / "run.json").write_text(json.dumps({"status": "done"}, indent=2))
    assert said() == ""


SKY = """#!{python}
import json, os, pathlib, shutil, subprocess, sys
import yaml
words = sys.argv[1:]
with open({log!r}, "a") as log:
    log.write(json.dumps(words) + "\\n")
if words[0] == "down":
    sys.exit()
home = pathlib.Path({home!r})
task = yaml.safe_load(open(words[-1]))
for there, here in task["file_mounts"].items():
    there = home / there.removeprefix("~/")
    if "toasterft-src" not in str(there) and isinstance(here, str):
        shutil.copytree(here, there)
(home / "toasterft-runs").mkdir()
env = {{**os.environ, "HOME": str(home)}}
sys.exit(subprocess.run(["bash", "-c", task["run"]], env=env).returncode)
"""
RSYNC = """#!{python}
import shutil, sys
source = sys.argv[-2].partition(":")[2].rstrip("/")
shutil.copytree({home!r} + "/" + source, sys.argv[-1], dirs_exist_ok=True)
"""
TOASTERFT = '#!/bin/sh\nexec {python} -m toasterft "$@"\n'


@pytest.fixture
def rented(homes, monkeypatch):
    """A fake `sky` that runs tasks in a home of their own, and a fake rsync; the list of what it was asked."""
    home, log = homes / "there", homes / "asked.jsonl"
    for path, text in (
        (homes / "bin" / "sky", SKY),
        (homes / "bin" / "rsync", RSYNC),
        (home / "toasterft-venv" / "bin" / "toasterft", TOASTERFT),
    ):
        executable(path, text.format(python=sys.executable, home=str(home), log=str(log)))
    monkeypatch.setenv("PATH", f"{homes / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return lambda: [json.loads(line) for line in log.read_text().splitlines()]


def test_the_whole_way_and_back(run_cli, sft, rented, homes, tmp_path):
    """Trained there on a base of this machine, and at home here."""
    from toasterft.models import lookup

    base = Path(
        shutil.copytree(
            Path(charts.__file__).parents[2] / "models" / "weights" / "toast-tiny", tmp_path / "base"
        )
    )
    done = run_cli(*sft, "--model", base, "--cloud", "vast", "--price", 0.4, *QUICK, "--json")
    assert done.code == 0, done.err
    told = done.json()
    run = Path(told["run"])
    assert run.parent == homes / "runs"
    assert told["record"]["status"] == "done"
    assert told["record"]["measured"]["usd"] > 0
    launched, down = rented()
    assert launched[:2] == ["launch", "-c"]
    assert "--yes" in launched  # nobody to ask
    assert down == ["down", "--yes", launched[2]]
    adapter = json.loads((run / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == str(base)
    assert lookup.resolve(str(run), homes).adapter == run  # the base is the one it was trained on


@pytest.mark.parametrize(("status", "code"), [("capped", 3), ("failed", 4)])
def test_how_it_ended_there_is_told_here(run_cli, sft, rented, homes, status, code):
    ended = json.dumps({"id": "x", "method": "sft", "status": status, "stop_reason": "budget $5"})
    script = f'#!/bin/sh\nmkdir -p "$4"\necho \'{ended}\' > "$4/run.json"\nexit {code}\n'
    executable(homes / "there" / "toasterft-venv" / "bin" / "toasterft", script)
    done = run_cli(*sft, "--cloud", "vast")
    assert done.code == code, done.err
    assert "budget $5" in done.err
    (run,) = (homes / "runs").iterdir()
    assert json.loads((run / "run.json").read_text())["status"] == status
    assert rented()[-1][0] == "down"


def test_a_store_that_only_its_own_tools_read(run_cli, sft, rented, homes):
    executable(homes / "bin" / "sky", "#!/bin/sh\nexit 0\n")
    done = run_cli(*sft, "--bucket", "r2://mine")
    assert done.code == 0, done.err
    assert "the run lies in r2://mine/" in " ".join(done.out.split())


def test_nothing_came_back(run_cli, sft, rented, homes):
    executable(homes / "bin" / "sky", "#!/bin/sh\necho no machine to be had >&2\nexit 1\n")
    done = run_cli(*sft, "--cloud", "vast")
    assert done.code == 4
    assert "SkyPilot ended with exit code 1; no run came back" in done.err
    assert "rsync -a" in done.err
    assert not list((homes / "runs").iterdir())


CHECK = """
import sys, sky
for name in sys.argv[1:]:
    task = sky.Task.from_yaml(name)
    (resources,) = [*task.resources][:1]
    print(task.name, resources.use_spot, resources.autostop_config.enabled, len(task.storage_mounts))
"""


def test_skypilot_takes_the_tasks(run_cli, sft, tmp_path):
    sky = shutil.which("sky")
    if sky is None:
        pytest.skip("SkyPilot is not installed")
    python = Path(sky).read_text().splitlines()[0].removeprefix("#!").strip()
    files = []
    for number, words in enumerate(
        (("--cloud", "aws"), ("--cloud", "runpod"), ("--bucket", "s3://mine/runs"))
    ):
        files.append(tmp_path / f"{number}.yaml")
        printed = run_cli(*sft, *words, "--dry-run").out
        files[-1].write_text(printed[printed.index("\nname: toasterft-") :])
    env = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run([python, "-c", CHECK, *files], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("toasterft-")]
    assert rows == [["True", "True", "1"], ["False", "True", "0"], ["True", "True", "1"]]
