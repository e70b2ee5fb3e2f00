"""`toasterft arena` over HTTP: links, votes, kills, strangers, and what is printed afterwards."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys

import fake_runs
import pytest
from arena_server import Server


@pytest.fixture(scope="module")
def arena(tmp_path_factory):
    """One server with three runs; tests use voters of their own."""
    data, runs, ids = fake_runs.three(tmp_path_factory.mktemp("arena"))
    with Server(*ids, "--data", data, "--runs-dir", runs, "--seed", 3, "--host", "vote.example") as server:
        server.runs, server.ids, server.data = runs, ids, data
        with server.client() as browser:
            assert browser.post("/api/enter", json={"key": server.key}).status_code == 200
            server.browser = browser
            yield server


def cast(browser, name, choice="left", **changes):
    shown = browser.get("/api/next", params={"voter": name}).json()
    body = {"voter": name, "battle": shown["battle"]["id"], "choice": choice, "seconds": 1.5}
    return browser.post("/api/vote", json=body | changes)


# --- coming in ---------------------------------------------------------------------------------


def test_the_page_is_for_everybody_and_the_rest_is_not(arena):
    with arena.client() as stranger:
        for path in ("/", "/page.js", "/board.js", "/common.js", "/zoom.js", "/page.css", "/icon.svg"):
            assert stranger.get(path).status_code == 200
        (picture, *_) = arena.browser.get("/api/next", params={"voter": "Eve"}).json()["battle"]["images"]
        closed = ("/api/state", "/api/next?voter=Eve", "/api/leaderboard", "/votes.csv", "/leaderboard.csv")
        for path in (*closed, picture["src"]):
            assert stranger.get(path).status_code == 403
            assert "picture" not in stranger.get(path).text
        for path in ("/api/vote", "/api/undo", "/api/invite"):
            assert stranger.post(path, json={}).status_code == 403


@pytest.mark.parametrize("key", ["", "wrong", "ключ", "\ud800", 7, None, ["a"]])
def test_a_wrong_key_lets_nobody_in(arena, key):
    with arena.client() as stranger:
        answer = stranger.post(
            "/api/enter", content=json.dumps({"key": key}), headers={"content-type": "application/json"}
        )
        assert answer.status_code in (400, 403)
        assert not answer.cookies
        assert stranger.get("/api/state").status_code == 403


def test_a_link_works_once_and_others_can_be_made(arena):
    with arena.client() as stranger:
        assert stranger.post("/api/enter", json={"key": arena.key}).status_code == 403
        key = arena.browser.post("/api/invite", json={}).json()["key"]
        assert (
            arena.browser.post("/api/enter", json={"key": key}).status_code == 200
        )  # in already: not used up
        answer = stranger.post("/api/enter", json={"key": key})
        assert answer.status_code == 200
        given = answer.headers["set-cookie"].lower()
        assert "httponly" in given
        assert "samesite=lax" in given
        assert stranger.get("/api/state").status_code == 200
        assert stranger.post("/api/enter", json={"key": key}).status_code == 200
    with arena.client() as third:
        assert third.post("/api/enter", json={"key": key}).status_code == 403


def test_other_sites_cannot_vote_with_this_browsers_cookie(arena):
    body = {"voter": "Mallory", "battle": "x", "choice": "left", "seconds": 1}
    for headers in ({"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}):
        assert arena.browser.post("/api/vote", json=body, headers=headers).status_code == 403
    form = arena.browser.post("/api/vote", data=body)
    plain = arena.browser.post("/api/vote", content=json.dumps(body), headers={"content-type": "text/plain"})
    assert (form.status_code, plain.status_code) == (415, 415)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 403), ({"host": "127.0.0.1.evil.example"}, 403), ({"host": "evil.example:{port}"}, 403),
        ({"host": "127.0.0.1@evil.example"}, 403), ({"host": "0.0.0.0:{port}"}, 403), ({"host": "[::"}, 403),
        ({"host": ""}, 403), ({"host": "localhost:{port}"}, 200), ({"host": "127.0.0.1:9000"}, 200),  # ssh -L 9000:…
        ({"host": "vote.example"}, 200), ({"host": "127.0.0.1:{port}", "origin": "https://vote.example"}, 200),
        ({"origin": "http://127.0.0.1:{port}"}, 200), ({"origin": "http://127.0.0.1:1"}, 403), ({"origin": "null"}, 403),
        ({"origin": "https://evil.example"}, 403), ({"origin": "http://127.0.0.1:{port}.evil.example"}, 403),
        ({"host": "evil.example", "origin": "http://evil.example"}, 403),
    ],
)  # fmt: skip
def test_other_names_and_other_sites_are_refused(arena, headers, status):
    given = {name: value.replace("{port}", str(arena.port)) for name, value in headers.items()}
    for path in ("/", "/api/state"):
        answer = arena.browser.get(path, headers=given)
        assert answer.status_code == status, answer.text
    assert status == 200 or answer.json()["error"]
    body = {"voter": "Mallory", "battle": "x", "choice": "left", "seconds": 1}
    posted = arena.browser.post("/api/vote", json=body, headers=given)
    assert posted.status_code == (409 if status == 200 else 403)


def test_only_this_machine_is_served(arena):
    assert arena.address.startswith("http://127.0.0.1:")
    with open("/proc/net/tcp") as table:
        bound = {line.split()[1] for line in table if line.split()[1].endswith(f":{arena.port:04X}")}
    assert f"0100007F:{arena.port:04X}" in bound
    assert f"00000000:{arena.port:04X}" not in bound


def test_every_answer_is_locked_down(arena):
    for path in ("/", "/nowhere", "/api/state", "/page.js", "/api/next?voter="):
        headers = arena.browser.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in headers
    page = arena.browser.get("/").text
    assert "<script>" not in page
    assert " style=" not in page
    assert "http" not in page.replace("https://", "http")


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml", "/%2e%2e/%2e%2e/etc/passwd", "/..%2fpage.html", "/page/page.js", "/page.html", "//etc/passwd",
        "/image/../../etc/passwd/0", "/image/%2e%2e%2f%2e%2e%2fetc%2fpasswd/0", "/image//etc/passwd", "/image/x/0",
        "/image/0/-1", "/image/{key}/1", "/image/{key}/99999999999999999999", "/image/{key}/../0", "/image/%00/0",
    ],
)  # fmt: skip
def test_no_path_leads_out(arena, path):
    key = (
        arena.browser.get("/api/next", params={"voter": "Eve"})
        .json()["battle"]["images"][0]["src"]
        .split("/")[2]
    )
    # Neither httpx nor curl would send most of these as they are.
    import http.client

    link = http.client.HTTPConnection("127.0.0.1", arena.port, timeout=10)
    cookie = "; ".join(f"{name}={value}" for name, value in arena.browser.cookies.items())
    link.request("GET", path.replace("{key}", key), headers={"cookie": cookie})
    answer = link.getresponse()
    text = answer.read()
    assert answer.status == 404
    assert b"root:" not in text
    assert b"toasterft" not in text


# --- voting ------------------------------------------------------------------------------------


def test_two_voters_go_their_own_way(arena):
    shown = {}
    for voter in ("Ann", "Ben"):
        seen = []
        while True:
            found = arena.browser.get("/api/next", params={"voter": voter}).json()
            if found["battle"] is None:
                break
            seen.append(found["battle"]["id"])
            assert (
                cast(arena.browser, voter, choice=("left", "right", "tie", "bad")[len(seen) % 4]).status_code
                == 200
            )
        shown[voter] = seen
    assert (
        len(shown["Ann"]) == len(set(shown["Ann"])) == arena.info["total"] == 18
    )  # six questions, three pairs
    assert shown["Ann"] != shown["Ben"]
    done = {row["name"]: row["done"] for row in arena.browser.get("/api/state").json()["voters"]}
    assert (done["Ann"], done["Ben"]) == (18, 18)
    board = arena.browser.get("/api/leaderboard").json()
    assert {row["model"] for row in board["models"]} == {"right", "wrong", "hostile +step"}
    assert board["agreement"]["shared"] >= 18


def test_a_picture_is_sent_as_it_is(arena):
    shown = arena.browser.get("/api/next", params={"voter": "Pia"}).json()["battle"]
    (image,) = shown["images"]
    answer = arena.browser.get(image["src"])
    number = shown["question"].removeprefix("Question ").removesuffix("?")
    assert answer.content == (arena.data / "images" / f"{number}.png").read_bytes()
    assert answer.headers["content-type"] == "image/png"
    assert (image["width"], image["height"]) == (320, 200)


def test_undo_and_repeated_requests(arena):
    first = arena.browser.get("/api/next", params={"voter": "Uma"}).json()
    assert first["last_vote"] is None
    after = cast(arena.browser, "Uma").json()
    # The answer got lost on its way, and the page asks again.
    again = cast(arena.browser, "Uma", battle=first["battle"]["id"])
    assert (again.status_code, again.json()["done"]) == (200, 1)
    assert cast(arena.browser, "Uma", "right", battle=first["battle"]["id"]).status_code == 409
    undo = {"voter": "Uma", "vote": after["last_vote"]}
    assert arena.browser.post("/api/undo", json=undo).json()["battle"] == first["battle"]
    assert arena.browser.post("/api/undo", json=undo).json()["done"] == 0


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"choice": "both"}, 400), ({"choice": None}, 400), ({"battle": "nonsense"}, 409), ({"battle": 3}, 400),
        ({"voter": ""}, 400), ({"voter": "x" * 41}, 400), ({"voter": "\u202eAnn"}, 400), ({"seconds": "soon"}, 400),
        ({"seconds": None}, 400), ({"seconds": 1e300}, 400), ({"seconds": -5}, 400), ({"seconds": 10**400}, 400),
        ({"seconds": True}, 400), ({"seconds": "1.5"}, 400), ({"seconds": 0}, 200), ({"seconds": 86400}, 200),
        ({"question": "x" * 20_000}, 413),
    ],
)  # fmt: skip
def test_nonsense_is_refused_and_never_a_crash(arena, changes, status):
    answer = cast(arena.browser, f"Nora {status} {', '.join(changes)} {len(str(changes))}", **changes)
    assert answer.status_code == status, answer.text
    assert status == 200 or answer.json()["error"]


def test_broken_json_is_refused(arena):
    shown = arena.browser.get("/api/next", params={"voter": "Nan"}).json()["battle"]["id"]
    odd = [
        f'{{"voter": "Nan", "battle": "{shown}", "choice": "left", "seconds": {number}}}'
        for number in ("NaN", "Infinity", "-Infinity", "1e999", "9" * 5000)
    ]
    for content in ("", "{", "[]", "[" * 10_000, *odd):
        answer = arena.browser.post(
            "/api/vote", content=content, headers={"content-type": "application/json"}
        )
        assert answer.status_code == 400


def test_downloads(arena):
    cast(arena.browser, "=SUM(A1)")
    votes = arena.browser.get("/votes.csv")
    assert votes.headers["content-disposition"] == 'attachment; filename="votes.csv"'
    rows = list(csv.DictReader(votes.text.removeprefix("\ufeff").splitlines()))
    assert rows[-1]["voter"] == "'=SUM(A1)"
    assert {rows[-1]["left"], rows[-1]["right"]} < {"right", "wrong", "hostile +step"}
    board = list(
        csv.DictReader(arena.browser.get("/leaderboard.csv").text.removeprefix("\ufeff").splitlines())
    )
    assert {row["model"] for row in board} >= {rows[-1]["left"], rows[-1]["right"]}


# --- kills and restarts ------------------------------------------------------------------------


def test_killed_and_started_again(tmp_path, run_cli):
    data, runs, ids = fake_runs.three(tmp_path)
    words = [*ids[:2], "--data", data, "--runs-dir", runs, "--out", tmp_path / "votes"]
    with Server(*words) as server, server.client() as browser:
        browser.post("/api/enter", json={"key": server.key})
        first = cast(browser, "Ann").json()
        server.kill()
        cookies, port = browser.cookies, server.port
    with Server(*words, "--port", port) as server, server.client() as browser:
        browser.cookies = cookies  # the tab was left open
        assert browser.get("/api/next", params={"voter": "ann"}).json() == first
        cast(browser, "Ann", "tie")
        taken = run_cli("arena", *words, "--port", port, "--no-browser")
        assert (taken.code, "cannot be used" in taken.err) == (2, True)
        assert server.stop() == 0
    board = run_cli("arena", "--leaderboard", "--out", tmp_path / "votes", "--json").json()
    assert board["votes"] == 2
    told = run_cli("arena", "--leaderboard", *words)
    assert "rating" in told.out
    assert "right" in told.out
    done = run_cli("arena", "--csv", tmp_path / "v.csv", "--out", tmp_path / "votes")
    assert done.code == 0, done.err
    assert (tmp_path / "v.csv").read_text().count("Ann") == 2


def test_what_a_person_sees_at_the_terminal(tmp_path):
    data, runs, ids = fake_runs.three(tmp_path)
    words = ["arena", *ids[:2], "--data", str(data), "--runs-dir", str(runs), "--no-browser"]
    command = [sys.executable, "-m", "toasterft", *words]
    environment = {**os.environ, "COLUMNS": "200", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    told = ""
    while "Ctrl-C" not in told:
        line = process.stdout.readline()
        assert line, told
        told += line
    process.send_signal(2)
    rest, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "2 models, 6 questions, 6 comparisons" in told
    assert "http://127.0.0.1:" in told
    assert "0 votes in" in rest


# --- mistakes ----------------------------------------------------------------------------------


def test_mistakes_are_explained(run_cli, tmp_path):
    _, runs, ids = fake_runs.three(tmp_path)
    said = {
        "two contenders": run_cli("arena", ids[0], "--runs-dir", runs),
        "named twice": run_cli("arena", ids[0], ids[0], "--runs-dir", runs),
        "no such model": run_cli("arena", ids[0], "typo", "--runs-dir", runs),
        "no such data": run_cli("arena", *ids, "--data", tmp_path / "nowhere", "--runs-dir", runs),
        "which arena?": run_cli("arena", "--leaderboard", "--runs-dir", runs),
        "no votes here yet": run_cli("arena", "--leaderboard", "--out", tmp_path / "empty"),
    }
    for words, done in said.items():
        assert done.code == 2
        assert words in done.err
    assert not (tmp_path / "empty").exists()
    assert not (runs / "arena").exists()


def test_the_server_stays_light(tmp_path):
    code = (
        "import sys\n"
        "from toasterft.evaluation.arena import contenders, leaderboard, server, session\n"
        "from pathlib import Path\n"
        "contenders.find(sys.argv[2:], Path(sys.argv[1]))\n"
        "print([name for name in ('torch', 'transformers', 'datasets', 'matplotlib') if name in sys.modules])\n"
    )
    _, runs, ids = fake_runs.three(tmp_path)
    done = subprocess.run([sys.executable, "-c", code, str(runs), *ids], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "toasterft", "--version"], capture_output=True, text=True
    )
    assert "toasterft.evaluation.arena.server" not in done.stderr
    assert "starlette" not in done.stderr
