"""The commands that look around, for people and as JSON."""

from __future__ import annotations

import http.server
import re
import subprocess
import sys
import threading
from pathlib import Path

import toasterft


def test_version(run_cli):
    assert run_cli("--version").out.strip() == f"toasterft {toasterft.__version__}"
    done = subprocess.run([sys.executable, "-m", "toasterft", "--version"], capture_output=True, text=True)
    assert done.stdout.strip() == f"toasterft {toasterft.__version__}"


def test_the_changelog_begins_with_this_version():
    text = (Path(__file__).parents[2] / "CHANGELOG.md").read_text()
    assert re.search(r"^## (\S+) · \d{4}-\d\d-\d\d$", text, re.MULTILINE)[1] == toasterft.__version__


def test_dry_run_plans_without_data_or_weights(run_cli, homes):
    done = run_cli("sft", "--model", "SmolVLM-256M", "--data", "smolcot-7k", "--gpu", "A40", "--dry-run")
    assert done.code == 0, done.err
    for expected in ("A40", "memory", "dollars", "512 px", "2048 px", "disk", "unverified on CUDA"):
        assert expected in done.out
    plan = run_cli(
        "sft", "--model", "SmolVLM-256M", "--data", "smolcot-7k", "--gpu", "A40", "--dry-run", "--json"
    ).json()
    (row,) = plan["rows"]
    assert row["fits"]
    # Encoding needs the whole model, training no longer the tower.
    assert row["phase_bytes"]["encode"]["weights"] > 3e8 > row["phase_bytes"]["train"]["weights"]
    assert row["vram_bytes"]["peak"] > row["vram_bytes"]["weights"]
    assert row["seconds"]["low"] < row["seconds"]["likely"] < row["seconds"]["high"]
    assert row["price"]["usd_per_hour"] == 0.44
    assert row["usd"]["likely"] == row["seconds"]["likely"] / 3600 * 0.44
    assert [edge["tiles"] for edge in plan["image_longest_edges"]] == [1, 5, 13]
    assert not (homes / "runs").exists()


def test_a_launch_without_the_data_says_how_to_get_it(run_cli):
    done = run_cli("sft", "--model", "SmolVLM-256M", "--data", "smolcot-7k", "--gpu", "A40")
    assert done.code == 2
    assert "smolcot-7k is not on this machine" in done.err


def test_price_overrides_and_reaches_the_meter(run_cli, tiny_model, charts_folder, quick):
    plan = run_cli("sft", "--gpu", "A40", "--price", "1", "--dry-run", "--json").json()
    assert plan["rows"][0]["price"] == {"usd_per_hour": 1.0, "source": "--price", "as_of": None}
    record = run_cli(
        "sft", "--model", tiny_model(), "--data", charts_folder, "--price", "3.6", "--json", *quick
    ).json()
    measured = record["measured"]
    assert measured["usd"] == __import__("pytest").approx(measured["seconds"] / 1000, rel=1e-2)


def test_lists(run_cli):
    assert {row["name"] for row in run_cli("gpus", "--json").json()["gpus"]} >= {"T4", "A40", "H200"}
    models = {row["name"]: row for row in run_cli("models", "--json").json()["models"]}
    assert models["SmolVLM-256M"]["total_params"] == 256_484_928
    assert "toaster-256m-7k" in run_cli("recipes", "list", "--json").json()["recipes"]
    assert run_cli("recipes", "fields", "sft", "--json").json()["lora.r"]["default"] == 16
    for command in (
        ["gpus"],
        ["models"],
        ["recipes", "list"],
        ["recipes", "fields", "sft"],
        ["cache"],
        ["runs"],
    ):
        done = run_cli(*command)
        assert done.code == 0, done.err
        assert done.out.strip()


def test_doctor_names_what_is_missing(run_cli, monkeypatch):
    from toasterft.cli import doctor

    report = run_cli("doctor", "--json").json()
    assert report["ok"]
    [versions] = [check["found"] for check in report["checks"] if check["name"] == "versions"]
    assert "the set of constraints" in versions
    honest = doctor.metadata.version

    def missing(name):
        if name == "peft":
            raise doctor.metadata.PackageNotFoundError
        return {
            "bitsandbytes": "0.40.0",
            "transformers": doctor.tested_set("constraints-latest.txt")["transformers"],
        }.get(name) or honest(name)

    monkeypatch.setattr(doctor.metadata, "version", missing)
    monkeypatch.setattr(doctor, "QUANTISE", "raise SystemExit('libbitsandbytes_cuda999.so not found')")
    report = {check["name"]: check for check in run_cli("doctor", "--json").json()["checks"]}
    assert (report["peft"]["ok"], report["bitsandbytes"]["ok"]) == (False, False)
    assert "pip install" in report["peft"]["remedy"]
    assert "packages differ from constraints" in report["versions"]["found"]
    assert (report["4-bit"]["ok"], report["4-bit"]["found"]) == (
        False,
        "libbitsandbytes_cuda999.so not found",
    )
    assert "HF_HUB_OFFLINE" in report["hub"]["found"]


def test_doctor_says_whether_the_hub_answers(run_cli, monkeypatch):
    from toasterft.cli import doctor

    monkeypatch.setattr(doctor, "QUANTISE", "print('cpu')")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(401)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Hub) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("HF_ENDPOINT", address)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert f"{address} answers 401" in str(run_cli("doctor", "--json").json()["checks"])
        server.shutdown()
    found = next(row for row in run_cli("doctor", "--json").json()["checks"] if row["name"] == "hub")
    assert not found["ok"]
    assert "cannot be reached" in found["found"]


def test_the_hub_token_is_masked(run_cli, monkeypatch):
    from toasterft.cli import doctor

    monkeypatch.setattr(doctor, "QUANTISE", "print('cpu')")
    monkeypatch.setenv("HF_TOKEN", "hf_verysecretindeed")
    told = run_cli("doctor").out
    assert "hf_…ed" in told
    assert "verysecret" not in told


def test_runs_and_show(run_cli, tiny_model, charts_folder, quick):
    record = run_cli("sft", "--model", tiny_model(), "--data", charts_folder, "--json", *quick).json()
    assert run_cli("runs", "--json").json()["runs"][0]["id"] == record["id"]
    assert record["id"] in run_cli("runs").out
    assert run_cli("show", record["id"], "--json").json() == record
    shown = run_cli("show", record["id"]).out
    assert "toasterft ask" in shown
    assert "folder" in shown


def test_cache_shows_and_clears(run_cli, tiny_model, charts_folder):
    assert (
        run_cli("eval", tiny_model(), "--data", charts_folder, "--limit", 2, "max_completion_length=2").code
        == 0
    )
    (space,) = run_cli("cache", "--json").json()["spaces"]
    assert space["entries"] == 2
    assert run_cli("cache", "clear", "--json").json()["freed_bytes"] == space["size_bytes"]
    assert run_cli("cache", "--json").json()["spaces"] == []


def test_recipes_copy_never_overwrites(run_cli, tmp_path):
    target = tmp_path / "mine.yaml"
    assert run_cli("recipes", "copy", "sft-smolvlm", target).code == 0
    assert "method: sft" in target.read_text()
    assert run_cli("recipes", "copy", "sft-smolvlm", target).code == 2
