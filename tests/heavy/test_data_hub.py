"""`data push` and `data pull` through the real client, with a hub on loopback; `preview` beside a real processor."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import fake_hub
import pytest

from toasterft.data import sources


@pytest.fixture
def hub(tmp_path):
    hub = fake_hub.FakeHub()
    env = {
        **os.environ,
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_TOKEN": "hf_of_a_test",
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
    }

    def toasterft(*words):
        command = [sys.executable, "-m", "toasterft", "data", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, env=env)

    yield hub, toasterft
    hub.server.shutdown()


def seen(name):
    """Everything a row of a data set is, pictures by their bytes."""
    data = sources.load_splits(str(name))
    return {
        split: [
            (one.id, one.question, one.answer, one.reasoning, one.kind, one.facts, one.extra,
             *(image.sha256 for image in one.images))
            for one in rows
        ]
        for split, rows in data.splits.items()
    }  # fmt: skip


def test_there_and_back(hub, charts_folder, homes):
    server, toasterft = hub
    pushed = toasterft("push", charts_folder, "me/charts", "--json")
    assert pushed.returncode == 0, pushed.stderr
    assert json.loads(pushed.stdout)["rows"] == {
        split: len(rows) for split, rows in sources.load_splits(str(charts_folder)).splits.items()
    }
    repo = server.repos["me/charts"]
    files = repo.files
    assert repo.private, "private is the default"
    assert {"README.md", "card.json", "data/train-00000-of-00001.parquet"} <= files.keys()
    assert b"license: cc0-1.0" in files["README.md"]
    assert not any(name.startswith("images/") for name in files), "the pictures are in the parquet files"

    pulled = toasterft("pull", "me/charts", "back", "--json")
    assert pulled.returncode == 0, pulled.stderr
    card = json.loads(pulled.stdout)
    assert (card["source"], card["commit"], card["licence"]) == ("me/charts", fake_hub.COMMIT, "CC0-1.0")
    assert seen("back") == seen(charts_folder)


def test_a_second_push_takes_the_place_of_the_first(hub, charts_folder, tmp_path):
    server, toasterft = hub
    assert toasterft("push", charts_folder, "me/charts", "--public").returncode == 0
    repo = server.repos["me/charts"]
    assert not repo.private
    rows = (charts_folder / "train.jsonl").read_text().splitlines()[:2]
    (tmp_path / "train.jsonl").write_text("\n".join(rows))
    again = toasterft("push", tmp_path / "train.jsonl", "me/charts", "--images", charts_folder)
    assert again.returncode == 0, again.stderr
    tables = [name for name in repo.files if name.endswith(".parquet")]
    assert (tables, repo.commits) == (["data/train-00000-of-00001.parquet"], 2)


def test_what_the_hub_refuses_is_explained(hub, charts_folder, homes):
    server, toasterft = hub
    server.closed = True
    done = toasterft("push", charts_folder, "me/charts")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "hf auth login" in done.stderr
    done = toasterft("pull", "me/nothing", "back")
    assert done.returncode == 2
    assert "me/nothing" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (homes / "data" / "back").exists()
    assert toasterft("push", charts_folder, "charts").returncode == 2


def test_preview_is_exactly_what_a_model_here_is_taught(run_cli, charts_folder):
    from toasterft.data.chat import Chat
    from toasterft.engine import processors
    from toasterft.models.architectures import architecture
    from toasterft.models.lookup import EMBEDDED
    from toasterft.recipe import Prompt

    done = run_cli("data", "preview", charts_folder, "--n", "1", "--model", "toast-tiny")
    assert done.code == 0, done.err
    (row,) = sources.load(str(charts_folder), limit=1).examples
    chat = Chat(processors.load(str(EMBEDDED / "toast-tiny"), architecture("idefics3"), None), Prompt())
    assert f"{chat.question(row)}⟦{chat.completion(row)}⟧" in done.out
    read, learned = len(chat.ids(chat.question(row))) - 1, len(chat.ids(chat.completion(row)))
    assert f"{read} read, {learned} learned" in done.out
