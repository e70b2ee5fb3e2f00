"""Hub models through the real client, from a hub on loopback: cached, and never a pickle."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def serve(folder: Path, repo: str):
    """The handful of answers `snapshot_download` and `hf_hub_download` ask a hub for."""
    asked: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def answer(self, *, body: bool):
            asked.append(self.path)
            path = self.path.partition("?")[0]
            if path.startswith(f"/api/models/{repo}/tree/"):
                tree = [
                    {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "0"}
                    for file in sorted(folder.iterdir())
                ]
                return self.send(json.dumps(tree).encode(), body, {})
            if path.startswith(f"/api/models/{repo}"):
                names = [
                    {"rfilename": file.name, "size": file.stat().st_size} for file in sorted(folder.iterdir())
                ]
                return self.send(
                    json.dumps({"id": repo, "sha": COMMIT, "siblings": names}).encode(), body, {}
                )
            prefix = f"/{repo}/resolve/"
            file = folder / path.rpartition("/")[2]
            if path.startswith(prefix) and file.is_file():
                data = file.read_bytes()
                etag = hashlib.sha256(data).hexdigest()
                return self.send(data, body, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
            if path == "/":
                return self.send(b"hub", body, {})
            missing = "EntryNotFound" if path.startswith(prefix) else "RepoNotFound"
            self.send(b"{}", body, {"X-Error-Code": missing}, status=404)
            return None

        def send(self, data, body, headers, status=200):
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, asked


@pytest.fixture
def hub(tiny_model, tmp_path):
    folder = tmp_path / "repo"
    folder.mkdir()
    for file in tiny_model().iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "pytorch_model.bin").write_bytes(b"a pickle nobody asked for")
    server, asked = serve(folder, "someone/tiny")
    env = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
    }

    def toasterft(*words, **more):
        return subprocess.run(
            [sys.executable, "-m", "toasterft", *map(str, words)],
            capture_output=True,
            text=True,
            env={**env, **more},
        )

    yield toasterft, asked
    server.shutdown()


def test_a_hub_model_is_fetched_once_and_named_by_its_id(hub, charts_folder, quick, homes):
    toasterft, asked = hub
    done = toasterft("sft", "--model", "someone/tiny", "--data", charts_folder, "--json", *quick)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    run = homes / "runs" / record["id"]
    assert json.loads((run / "adapter_config.json").read_text())["base_model_name_or_path"] == "someone/tiny"
    assert not any("pytorch_model.bin" in path for path in asked)
    asked.clear()
    again = toasterft(
        "eval",
        run,
        "--data",
        charts_folder,
        "--limit",
        1,
        "--json",
        "max_completion_length=2",
        HF_HUB_OFFLINE="1",
    )
    assert again.returncode == 0, again.stderr
    assert asked == []


def test_a_repository_that_does_not_exist(hub, charts_folder):
    toasterft, _ = hub
    done = toasterft("sft", "--model", "someone/else", "--data", charts_folder)
    assert done.returncode == 2
    assert "someone/else" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_network_is_said(charts_folder, tmp_path):
    env = {
        **os.environ,
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "0",
    }
    words = [
        sys.executable,
        "-m",
        "toasterft",
        "sft",
        "--model",
        "someone/tiny",
        "--data",
        str(charts_folder),
    ]
    done = subprocess.run(words, capture_output=True, text=True, env=env, timeout=100)
    assert done.returncode == 2
    assert "cannot be reached" in done.stderr
