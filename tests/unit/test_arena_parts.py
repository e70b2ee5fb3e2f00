"""The arena without its server: stored answers, pairing, votes on disk, the access, the leaderboard."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import fake_runs
import pytest
import yaml

from toasterft.errors import RunFailed, UserError
from toasterft.evaluation.arena import contenders, leaderboard, pairing
from toasterft.evaluation.arena.access import AccessControl
from toasterft.evaluation.arena.session import Stale, VotingSession
from toasterft.evaluation.arena.votes import AlreadyCast, BadName, Vote, Votes, clean_name


@pytest.fixture
def runs(tmp_path):
    return fake_runs.three(tmp_path)


@pytest.fixture
def session(runs, tmp_path):
    data, folder, ids = runs
    both = contenders.find(ids[:2], folder)
    items = contenders.load_items(str(data), None)
    for contender in both:
        contenders.read(contender, items, tmp_path / "arena")
    votes = Votes(tmp_path / "arena")
    yield VotingSession(both, items, votes, n=200, seed=1)
    votes.close()


# --- answers -----------------------------------------------------------------------------------


def test_runs_are_named_by_model_and_condition(runs):
    data, folder, ids = runs
    found = contenders.find([ids[0], str(folder / ids[2])], folder)
    assert [contender.label for contender in found] == ["right", "hostile +step"]
    again = fake_runs.evaluation(folder, "right2", data, lambda k: {"answer": "x"}, range(1))
    (folder / again / "recipe.yaml").write_text((folder / ids[0] / "recipe.yaml").read_text())
    labels = [contender.label for contender in contenders.find([ids[0], again], folder)]
    assert labels == [f"right ({ids[0]})", f"right ({again})"]


def test_a_run_meets_itself_never(runs):
    _, folder, ids = runs
    with pytest.raises(UserError, match="named twice"):
        contenders.find([ids[0], str(folder / ids[0])], folder)
    with pytest.raises(UserError, match="no such model"):
        contenders.find(["nonsense"], folder)


def test_a_model_stands_for_its_newest_plain_evaluation(runs):
    data, folder, _ = runs
    (contender,) = contenders.find(["toast-tiny"], folder)
    assert (contender.id, contender.run, contender.settings) == ("toast-tiny", None, {})
    for name, more in (("old", {}), ("new", {}), ("stepped", {"step": True}), ("unfinished", {})):
        run = fake_runs.evaluation(folder, f"toast-{name}", data, lambda k: {"answer": "1"}, range(1), **more)
        status = "failed" if name == "unfinished" else "done"
        record = {
            "id": run,
            "method": "eval",
            "status": status,
            "model_base": "toast-tiny",
            "model_adapter": None,
        }
        (folder / run / "run.json").write_text(json.dumps(record))
    (folder / "20261121-120000-eval-toast-new").rename(folder / "20261121-130000-eval-toast-new")
    (contender,) = contenders.find(["toast-tiny"], folder)
    assert contender.run.name == "20261121-130000-eval-toast-new"


def test_answers_are_matched_by_what_was_asked(runs, tmp_path):
    data, folder, ids = runs
    items = contenders.load_items(str(data), None)
    (contender,) = contenders.find(ids[:1], folder)
    samples = folder / ids[0] / "samples.jsonl"
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    rows[0]["question"] = "Another question?"
    rows[1]["images"] = ["images/0.png"]
    rows[2] |= {"item": items[2].key, "id": "renumbered", "images": ["elsewhere.png"]}
    rows[3] |= {"item": "0" * 24}  # the same id on another picture
    cut = json.dumps(rows[5])[:-30]  # killed while it wrote
    samples.write_text("\n".join(map(json.dumps, rows[:5])) + "\n" + cut)
    contenders.read(contender, items, tmp_path)
    assert set(contender.outputs) == {items[2].key, items[4].key}


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        (
            {"text": "<think>r</think><answer>7</answer>", "reasoning": "r", "answer": "7", "well_formed": True},
            contenders.Output("r", "7"),
        ),
        ({"text": " 7 \n", "reasoning": None, "answer": "7", "well_formed": False}, contenders.Output("", "7")),
        (
            {"text": "so <answer>7</answer> or 8", "reasoning": None, "answer": "7", "well_formed": False},
            contenders.Output("so <answer>7</answer> or 8", "7", as_written=True),
        ),
        (
            {"text": "<think>endless", "reasoning": "endless", "answer": "<think>endless", "finished": False},
            contenders.Output("<think>endless", "", as_written=True, cut_off=True),
        ),
        ({"text": "", "reasoning": None, "answer": "", "well_formed": False}, contenders.Output("", "")),
    ],
    ids=["formed", "plain", "broken", "cut off", "empty"],
)  # fmt: skip
def test_nothing_that_was_written_is_hidden(row, shown):
    assert contenders.output(row) == shown


def test_the_same_items_are_chosen_before_and_after_the_missing_answers(runs, tmp_path):
    data, folder, ids = runs
    items = contenders.load_items(str(data), None)
    first, second = contenders.find(ids[:2], folder)
    full = {item.key: contenders.Output("", "x") for item in items}
    first.outputs, second.outputs = dict(full), {key: full[key] for key in list(full)[3:]}
    shared = set(second.outputs)
    assert {item.key for item in contenders.choose(items, [first, second], 2, seed=5)} < shared
    before = contenders.choose(items, [first, second], 5, seed=5)
    assert shared < {item.key for item in before}
    second.outputs |= {item.key: full[item.key] for item in before}
    assert contenders.choose(items, [first, second], 5, seed=5) == before
    orders = {tuple(item.key for item in contenders.choose(items, [], 6, seed)) for seed in range(4)}
    assert len(orders) > 1


def test_an_interrupted_generation_goes_on_where_it_stopped(runs, tmp_path, monkeypatch):
    data, folder, ids = runs
    items = contenders.load_items(str(data), None)
    (contender,) = contenders.find(ids[2:], folder)
    contender.run = None  # as if it had answered nothing
    asked = []

    def half_an_eval(command, **_):
        recipe = yaml.safe_load(Path(command[5]).read_text())
        questions = [json.loads(line) for line in Path(recipe["data"]).read_text().splitlines()]
        asked.append({row["id"] for row in questions})
        assert (recipe["step"], recipe["limit"], recipe["split"]) == (True, None, None)
        run = Path(command[command.index("--out") + 1])
        run.mkdir()
        with (run / "samples.jsonl").open("w") as file:
            for row in questions[: -(-len(questions) // 2)]:
                file.write(json.dumps({"id": row["id"], "text": "so", "answer": "so"}) + "\n")
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(contenders.subprocess, "run", half_an_eval)
    for count in (6, 3, 1):
        missing = [item for item in items if item.key not in contender.outputs]
        assert len(missing) == count
        if count > 1:
            with pytest.raises(RunFailed, match=f"of {count} missing answers"):
                contenders.generate(contender, missing, tmp_path / "arena", folder)
        else:
            contenders.generate(contender, missing, tmp_path / "arena", folder)
    assert [len(keys) for keys in asked] == [6, 3, 1]
    assert set(contender.outputs) == {item.key for item in items}
    (fresh,) = contenders.find(ids[2:], folder)
    fresh.run = None
    contenders.read(fresh, items, tmp_path / "arena")
    assert fresh.outputs == contender.outputs


# --- pairs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("items", [1, 5, 6, 10, 12])
@pytest.mark.parametrize("runs", [2, 3, 4])
def test_pairs_and_items_are_balanced(items, runs):
    names, models = [f"i{k}" for k in range(items)], ["a", "b", "c", "d"][:runs]
    planned = pairing.battles(names, models, 10_000)
    possible = runs * (runs - 1) // 2
    assert len(planned) == len(set(planned)) == items * possible
    for n in range(1, len(planned) + 1):
        first = pairing.battles(names, models, n)
        assert first == planned[:n]
        met, asked = Counter(battle.runs for battle in first), Counter(battle.item for battle in first)
        assert max(met.values()) - (min(met.values()) if len(met) == possible else 0) <= 1
        assert max(asked.values()) - (min(asked.values()) if len(asked) == items else 0) <= 1


def test_order_and_sides_are_each_voters_own_and_stay():
    planned = pairing.battles([f"i{k}" for k in range(400)], ["a", "b"], 400)
    ann, ben = pairing.order(planned, "Ann", 1), pairing.order(planned, "Ben", 1)
    assert ann != ben
    assert set(ann) == set(ben) == set(planned)
    assert pairing.order(planned, "ann", 1) == ann
    left = [pairing.sides(battle, "Ann", 1)[0] for battle in planned]
    assert 150 < left.count("a") < 250
    assert left != [pairing.sides(battle, "Ben", 1)[0] for battle in planned]
    assert left == [pairing.sides(battle, "ANN", 1)[0] for battle in planned]


# --- votes -------------------------------------------------------------------------------------


def vote(voter="Ann", item="i1", left="a", right="b", choice="left"):
    return Vote(voter, item, "What?", left, right, choice, 2.5)


def test_votes_are_kept_taken_back_and_counted_once(tmp_path):
    votes = Votes(tmp_path)
    votes.cast(vote())
    votes.cast(vote(item="i2", choice="tie"))
    votes.cast(vote(voter="Ben"))
    votes.cast(vote())  # a page that repeats itself
    with pytest.raises(AlreadyCast):
        votes.cast(vote(choice="right"))
    with pytest.raises(AlreadyCast):
        votes.cast(vote(left="b", right="a"))
    assert len(votes.all()) == 3
    assert votes.voters() == ["Ben", "Ann"]
    last = votes.last_id("Ann")
    assert votes.undo("Ben", last) is None  # somebody else's
    assert votes.undo("Ann", last).item == "i2"
    assert votes.undo("Ann", last) is None
    assert votes.of("Ann") == {("i1", frozenset("ab"))}
    votes.cast(vote(item="i3"))
    assert votes.last_id("Ann") != last
    votes.close()
    assert [one.item for one in Votes(tmp_path).all()] == ["i1", "i1", "i3"]


def test_a_vote_survives_the_kill_right_after_it(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from toasterft.evaluation.arena.votes import Vote, Votes\n"
        "votes = Votes(Path(sys.argv[1]))\n"
        "for k in range(50): votes.cast(Vote('Ann', f'i{k}', '?', 'a', 'b', 'left', 1.0))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)])
    assert done.returncode == -signal.SIGKILL
    assert len(Votes(tmp_path).all()) == 50


def test_two_processes_may_vote_at_once(tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from toasterft.evaluation.arena.votes import Vote, Votes\n"
        "votes = Votes(Path(sys.argv[1]))\n"
        "for k in range(40): votes.cast(Vote(sys.argv[2], f'i{k}', '?', 'a', 'b', 'left', 1.0))\n"
    )
    started = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name]) for name in ("Ann", "Ben")]
    assert [one.wait() for one in started] == [0, 0]
    assert Counter(one.voter for one in Votes(tmp_path).all()) == {"Ann": 40, "Ben": 40}


def test_what_is_no_votes_file_is_refused_and_left_alone(tmp_path):
    (tmp_path / "votes.sqlite").write_text(
        "my shopping list, which is long enough to be no database at all\n" * 20
    )
    with pytest.raises(UserError, match="cannot be opened"):
        Votes(tmp_path)
    assert (tmp_path / "votes.sqlite").read_text().startswith("my shopping list")
    other = Votes(tmp_path / "other")
    other._db.execute("PRAGMA user_version = 99")
    other.close()
    with pytest.raises(UserError, match="another version"):
        Votes(tmp_path / "other")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError):
        Votes(tmp_path / "votes")


def test_names():
    assert clean_name("  Ann\u00a0  Lee ") == "Ann Lee"
    assert clean_name("Zoe\u0308") == "Zoë"
    assert clean_name("محمد") == "محمد"
    for bad in ("", "   ", "x" * 41, "a\x00b", "a\u202eb", "…", "\ud800"):
        with pytest.raises(BadName):
            clean_name(bad)


# --- the session ------------------------------------------------------------------------------------


def test_a_voter_goes_through_everything_once(session):
    seen = set()
    while (shown := session.show("Ann"))["battle"]:
        battle = shown["battle"]
        assert battle["id"] not in seen
        seen.add(battle["id"])
        assert "right" not in json.dumps(battle["images"])
        session.vote("ann", battle["id"], "left", 1.0)
    assert (shown["done"], shown["total"], len(seen)) == (6, 6, 6)
    assert session.state()["voters"] == [{"name": "ann", "done": 6}]
    assert {one.choice for one in session.votes.all()} == {"left"}
    assert len({one.left for one in session.votes.all()}) == 2  # sides were shuffled


def test_nobody_is_shown_two_identical_answers(session, runs):
    data, _, _ = runs
    first, second = session.contenders.values()
    for item in list(session.items)[:4]:
        second.outputs[item] = contenders.Output(
            f" {first.outputs[item].reasoning}\n", first.outputs[item].answer
        )
    items = contenders.load_items(str(data), None)
    fewer = VotingSession([first, second], items, session.votes, n=200, seed=1)
    assert (len(fewer.planned), fewer.identical) == (2, 4)
    assert (fewer.state()["total"], fewer.state()["identical"]) == (2, 4)
    assert {battle.item for battle in fewer.planned} == set(list(session.items)[4:])


def test_what_goes_out_names_no_run(session):
    text = json.dumps([session.state(), session.show("Ann")])
    for contender in session.contenders.values():
        assert contender.id not in text
        assert contender.model not in text.replace('"right":', "")


def test_undo_brings_the_same_comparison_back(session):
    first = session.show("Ann")["battle"]
    session.vote("Ann", first["id"], "bad", 1.0)
    after = session.show("Ann")
    assert after["battle"]["id"] != first["id"]
    undone = session.undo("Ann", after["last_vote"])
    assert session.show("Ann", first=undone)["battle"] == first
    assert session.undo("Ann", after["last_vote"]) is None


def test_a_page_of_before_cannot_vote_for_the_other_side(session):
    battle = session.show("Ann")["battle"]
    (planned,) = (one for one in session.planned if session.show("Ann", first=one)["battle"] == battle)
    sides = pairing.sides(planned, "Ann", session.seed)
    session.seed = next(seed for seed in range(2, 99) if pairing.sides(planned, "Ann", seed) != sides)
    with pytest.raises(Stale):
        session.vote("Ann", battle["id"], "left", 1.0)
    with pytest.raises(ValueError, match="one of left"):
        session.vote("Ann", battle["id"], "both", 1.0)
    assert session.votes.all() == []


def test_pictures_by_key_alone(session, tmp_path):
    key = next(iter(session.items))
    data, media_type = session.image(key, 0)
    assert (data[:4], media_type) == (b"\x89PNG", "image/png")
    for wrong in (("../../etc/passwd", 0), (key, 1), (key, -1), ("", 0)):
        assert session.image(*wrong) is None


# --- the access ------------------------------------------------------------------------------------


def test_a_link_works_once_and_its_cookie_outlives_the_server(tmp_path):
    spent = []
    access = AccessControl(Votes(tmp_path), lambda: spent.append(1))
    key = access.new_key()
    assert access.redeem("") is access.redeem(key[:-1]) is access.redeem("ключ") is None
    cookie = access.redeem(key)
    assert cookie
    assert access.redeem(key) is None
    assert spent == [1]
    assert access.admits(cookie)
    assert AccessControl(Votes(tmp_path)).admits(cookie)
    assert not access.admits(None)
    assert not access.admits(key)
    assert cookie.encode() not in (tmp_path / "votes.sqlite").read_bytes()


# --- the leaderboard -----------------------------------------------------------------------------


def test_the_leaderboard_counts_everything():
    votes = [
        *(vote(item=f"i{k}", left="a", right="b", choice="left") for k in range(6)),
        *(vote(item=f"j{k}", left="b", right="a", choice="tie" if k else "bad") for k in range(2)),
        vote(voter="Ben", item="i0", left="b", right="a", choice="right"),
        vote(voter="Ben", item="i1", left="b", right="a", choice="left"),
    ]
    found = leaderboard.build(votes, {"a": "Model A"})
    best, other = found["models"]
    assert (best["model"], other["model"]) == ("Model A", "b")
    assert {key: best[key] for key in ("votes", "wins", "losses", "ties", "both_bad")} == {
        "votes": 10, "wins": 7, "losses": 1, "ties": 1, "both_bad": 1,
    }  # fmt: skip
    assert best["rating"]["low"] < best["rating"]["value"] < best["rating"]["high"]
    (pair,) = found["pairs"]
    assert (pair["a"], pair["a_wins"], pair["b_wins"]) == ("Model A", 7, 1)
    assert found["voters"] == [{"voter": "Ann", "votes": 8}, {"voter": "Ben", "votes": 2}]
    # Both saw i0 with other sides and preferred the same run; on i1 they did not.
    agreement = found["agreement"]
    assert (agreement["shared"], agreement["agreed"]["value"]) == (2, 0.5)
    assert agreement["couples"][0]["voters"] == ["Ann", "Ben"]
    json.dumps(found)


def test_an_empty_leaderboard():
    found = leaderboard.build([], {})
    assert (found["votes"], found["models"], found["agreement"]) == (0, [], None)
    assert leaderboard.board_csv(found).count("\n") == 1


def test_csv_is_whole_and_inert():
    hostile = Vote(
        "=cmd|' /C calc'!A0", "i", 'say "hi",\nthen +1', "a", "b", "right", 61.25, "2026-11-21T12:00:00+00:00"
    )
    (row,) = csv.DictReader(io.StringIO(leaderboard.votes_csv([hostile], {"b": "-1+1"})))
    assert row["voter"] == "'=cmd|' /C calc'!A0"
    assert row["question"] == 'say "hi",\nthen +1'
    assert (row["winner"], row["choice"], row["seconds"]) == ("'-1+1", "right", "61.2")
    (first, second) = csv.DictReader(io.StringIO(leaderboard.board_csv(leaderboard.build([vote()], {}))))
    assert (first["rank"], first["model"], first["wins"], second["losses"]) == ("1", "a", "1", "1")
    assert float(first["rating_low"]) <= float(first["rating"]) <= float(first["rating_high"])


def test_answers_do_not_wait_for_acknowledgements():
    from toasterft.evaluation.arena import server

    with server.listen(None) as listening:
        assert listening.getsockname()[0] == "127.0.0.1"
        assert listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        with pytest.raises(UserError, match="cannot be used"):
            server.listen(listening.getsockname()[1])


# --- connections -------------------------------------------------------------------------------


@pytest.fixture
def served(session, tmp_path, monkeypatch):
    """A server of this process that is short of patience and of connections, and a way to connect to it."""
    import uvicorn

    from toasterft.evaluation.arena import connections, server

    started = []

    class Kept(uvicorn.Server):
        def __init__(self, config):
            super().__init__(config)
            started.append(self)

    monkeypatch.setattr(uvicorn, "Server", Kept)
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.4)
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 5)
    listening = server.listen(None)
    port = listening.getsockname()[1]
    app = server.build(session, AccessControl(session.votes))
    thread = threading.Thread(target=server.serve, args=(app, listening))
    thread.start()

    def connect(first: bytes = b"") -> socket.socket:
        made = socket.create_connection(("127.0.0.1", port), timeout=10)
        made.sendall(first)
        return made

    yield connect
    started[0].should_exit = True
    thread.join()
    listening.close()


WHOLE = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
SLOW = [
    b"", b"G", WHOLE[:-2], WHOLE + b"GET / HT",
    b"POST /api/enter HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n{",
]  # fmt: skip


def wait_for_the_end(connection):
    """Read until the other side hangs up, feeding a byte now and then as a slow client does; pytest ends what never does."""
    connection.settimeout(0.05)
    with contextlib.suppress(ConnectionError):
        while True:
            try:
                if not connection.recv(65536):
                    return
            except TimeoutError:
                connection.sendall(b"x")


@pytest.mark.parametrize("start", SLOW)
def test_a_request_that_takes_its_time_is_hung_up_on(served, start, capfd):
    with served(start) as slow:
        wait_for_the_end(slow)
    with served(WHOLE) as quick:
        assert quick.recv(65536).startswith(b"HTTP/1.1 200")
    assert "Traceback" not in capfd.readouterr().err


def test_those_who_only_hold_the_line_make_room_for_voters(served):
    with contextlib.ExitStack() as held:
        for _ in range(40):
            held.enter_context(served(b"GET / HT"))
        with served(WHOLE) as quick:
            assert quick.recv(65536).startswith(b"HTTP/1.1 200")
