"""A hub on loopback that takes uploads and gives them back: what `upload_folder` and `snapshot_download` ask.

Data sets live as models do, under addresses of their own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Repo:
    """One repository: its files as (name → content), and whether it is private."""

    def __init__(self, *, private: bool, files: dict[str, bytes] | None = None) -> None:
        self.private = private
        self.files = files or {}
        self.commits = 0


class FakeHub:
    """Repositories by owner/name; large files come in by their own addresses, as on the real one (LFS)."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.tokens: set[str | None] = set()
        self.full = False  # refuses commits
        self.closed = False  # refuses whatever is sent
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                hub.tokens.add(self.headers.get("Authorization"))
                path = self.place
                name, _, rest = path.removeprefix("/api/models/").partition("/tree/")
                owner, _, file = path[1:].partition("/resolve/")
                if path in ("/", "/api/whoami-v2"):
                    self.send({"name": "someone", "type": "user", "orgs": []})
                elif (repo := hub.repos.get(owner)) is not None:
                    data = repo.files.get(file.partition("/")[2])
                    if data is None:
                        self.send({}, 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
                    else:
                        etag = hashlib.sha256(data).hexdigest()
                        self.reply(data, 200, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
                elif (repo := hub.repos.get(name.partition("/revision/")[0])) is not None:
                    tree = [
                        {"type": "file", "path": each, "size": len(data), "oid": "0", "rfilename": each}
                        for each, data in repo.files.items()
                    ]
                    whole = {"id": name, "sha": COMMIT, "private": repo.private, "siblings": tree}
                    self.send(tree if rest else whole)
                else:
                    self.send({}, 404, {"X-Error-Code": "RepoNotFound"})

            def do_POST(self) -> None:
                hub.tokens.add(self.headers.get("Authorization"))
                data, path = self.body(), self.place
                if hub.closed:
                    self.send({"error": "not allowed"}, 403)
                elif path == "/api/repos/create":
                    asked = json.loads(data)
                    kind = "datasets/" if asked.get("type") == "dataset" else ""
                    name = f"{asked['organization']}/{asked['name']}"
                    found = name in hub.repos
                    private = asked.get("visibility") == "private" or asked.get("private", False)
                    if not found:
                        hub.repos[name] = Repo(private=private)
                    self.send({"url": f"{self.address}/{kind}{name}"}, 409 if found else 200)
                elif path == "/api/validate-yaml":
                    header = yaml.safe_load(json.loads(data)["content"].split("---")[1])
                    wrong = [] if isinstance(header, dict) else [{"message": "no mapping"}]
                    self.send({"errors": wrong, "warnings": []})
                elif path.endswith("/preupload/main"):
                    files = json.loads(data)["files"]
                    large = [file["path"].endswith(".safetensors") for file in files]
                    modes = ["lfs" if each else "regular" for each in large]
                    answer = [
                        {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}
                        for file, mode in zip(files, modes, strict=True)
                    ]
                    self.send({"files": answer})
                elif path.endswith("/info/lfs/objects/batch"):
                    objects = [
                        {**each, "actions": {"upload": {"href": f"{self.address}/blob/{each['oid']}"}}}
                        for each in json.loads(data)["objects"]
                    ]
                    self.send({"transfer": "basic", "objects": objects})
                elif path.endswith("/commit/main") and hub.full:
                    self.send({}, 403, {"X-Error-Message": "this account has no space left"})
                elif path.endswith("/commit/main"):
                    name = path.removeprefix("/api/models/").removesuffix("/commit/main")
                    for line in data.splitlines():
                        self.take(hub.repos[name], json.loads(line))
                    hub.repos[name].commits += 1
                    kind = "datasets/" if "/datasets/" in self.path else ""
                    url = f"{self.address}/{kind}{name}/commit/{COMMIT}"
                    self.send({"commitUrl": url, "commitOid": COMMIT})
                else:
                    self.send({}, 404)

            def do_PUT(self) -> None:
                hub.blobs[self.path.rpartition("/")[2]] = self.body()
                self.send({})

            def take(self, repo: Repo, line: dict[str, Any]) -> None:
                value = line["value"]
                if line["key"] == "file":
                    repo.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    repo.files[value["path"]] = hub.blobs[value["oid"]]
                elif line["key"] == "deletedFile":
                    del repo.files[value["path"]]

            @property
            def place(self) -> str:
                """The path, of a data set as if it were a model."""
                path = self.path.partition("?")[0]
                return path.replace("/api/datasets/", "/api/models/").removeprefix("/datasets")

            @property
            def address(self) -> str:
                return f"http://{self.headers['Host']}"

            def body(self) -> bytes:
                if self.headers.get("Transfer-Encoding") == "chunked":
                    parts = []
                    while size := int(self.rfile.readline().strip() or b"0", 16):
                        parts.append(self.rfile.read(size))
                        self.rfile.readline()
                    self.rfile.readline()
                    return b"".join(parts)
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))

            def send(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
                kind = {"Content-Type": "application/json"}
                self.reply(json.dumps(value).encode(), status, {**kind, **(headers or {})})

            def reply(self, data: bytes, status: int, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, text in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, text)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"
