"""`data push` and `data pull` through the real client, with a hub on loopback; `preview` beside a real processor."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from toasterft.data import sources

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Data set repositories in memory: what the client asks for to create, commit, list and fetch."""

    def __init__(self):
        self.repos: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.commits = 0
        self.refuse: int | None = None
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self):
                self.answer(None)

            def do_GET(self):
                self.answer(None)

            def do_POST(self):
                self.answer(self.rfile.read(int(self.headers["Content-Length"] or 0)))

            def answer(self, body):
                status, value, headers = hub.answer(self.path.partition("?")[0], body)
                data = value if isinstance(value, bytes) else json.dumps(value).encode()
                self.send_response(status)
                for name, text in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, text)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, path, body):
        if self.refuse and body is not None:
            return self.refuse, {"error": "not allowed"}, {}
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.repos.setdefault(name, {})
            self.private[name] = bool(asked.get("private") or asked.get("visibility") == "private")
            return 200, {"url": f"{self.url}/datasets/{name}"}, {}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}, {}
        parts = path.removeprefix("/api").removeprefix("/datasets/").split("/")
        name, rest = "/".join(parts[:2]), parts[2:]
        if name not in self.repos:
            return 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
        files = self.repos[name]
        if rest[:1] == ["preupload"]:
            asked = json.loads(body)["files"]
            return (
                200,
                {
                    "files": [
                        {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in asked
                    ]
                },
                {},
            )
        if rest[:1] == ["commit"]:
            for line in body.decode().splitlines():
                step = json.loads(line)
                if step["key"] == "file":
                    files[step["value"]["path"]] = base64.b64decode(step["value"]["content"])
                elif step["key"] == "deletedFile":
                    files.pop(step["value"]["path"])
            self.commits += 1
            return (
                200,
                {
                    "success": True,
                    "commitOid": COMMIT,
                    "commitUrl": f"{self.url}/datasets/{name}/commit/{COMMIT}",
                },
                {},
            )
        if rest[:1] == ["tree"]:
            tree = [
                {"type": "file", "path": key, "size": len(value), "oid": "0"} for key, value in files.items()
            ]
            return 200, tree, {}
        if rest[:1] == ["resolve"]:
            data = files["/".join(rest[2:])]
            etag = hashlib.sha256(data).hexdigest()
            return 200, data, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}
        siblings = [{"rfilename": key, "size": len(value)} for key, value in files.items()]
        return 200, {"id": name, "sha": COMMIT, "siblings": siblings, "private": self.private[name]}, {}


@pytest.fixture
def hub(tmp_path):
    hub = Hub()
    env = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
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
    data = sources.load_whole(str(name))
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
        split: len(rows) for split, rows in sources.load_whole(str(charts_folder)).splits.items()
    }
    files = server.repos["me/charts"]
    assert server.private["me/charts"], "private is the default"
    assert {"README.md", "card.json", "data/train-00000-of-00001.parquet"} <= files.keys()
    assert b"license: cc0-1.0" in files["README.md"]
    assert not any(name.startswith("images/") for name in files), "the pictures are in the parquet files"

    pulled = toasterft("pull", "me/charts", "back", "--json")
    assert pulled.returncode == 0, pulled.stderr
    card = json.loads(pulled.stdout)
    assert (card["source"], card["commit"], card["licence"]) == ("me/charts", COMMIT, "CC0-1.0")
    assert seen("back") == seen(charts_folder)


def test_a_second_push_takes_the_place_of_the_first(hub, charts_folder, tmp_path):
    server, toasterft = hub
    assert toasterft("push", charts_folder, "me/charts", "--public").returncode == 0
    assert not server.private["me/charts"]
    rows = (charts_folder / "train.jsonl").read_text().splitlines()[:2]
    (tmp_path / "images").symlink_to(charts_folder / "images")
    (tmp_path / "train.jsonl").write_text("\n".join(rows))
    again = toasterft("push", tmp_path / "train.jsonl", "me/charts")
    assert again.returncode == 0, again.stderr
    tables = [name for name in server.repos["me/charts"] if name.endswith(".parquet")]
    assert (tables, server.commits) == (["data/train-00000-of-00001.parquet"], 2)


def test_what_the_hub_refuses_is_explained(hub, charts_folder, homes):
    server, toasterft = hub
    server.refuse = 403
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
    from toasterft.data.prompt import Chat
    from toasterft.engines import families, processors
    from toasterft.models import EMBEDDED
    from toasterft.recipe import Prompt

    done = run_cli("data", "preview", charts_folder, "--n", "1", "--model", "toast-tiny")
    assert done.code == 0, done.err
    (row,) = sources.load(str(charts_folder), limit=1).examples
    chat = Chat(processors.load(str(EMBEDDED / "toast-tiny"), families.family("idefics3"), None), Prompt())
    assert f"{chat.question(row)}⟦{chat.completion(row)}⟧" in done.out
    read, learned = len(chat.ids(chat.question(row))) - 1, len(chat.ids(chat.completion(row)))
    assert f"{read} read, {learned} learned" in done.out
