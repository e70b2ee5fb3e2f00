"""An arena whose answers are partly missing: `eval` writes them, in a process of its own."""

from __future__ import annotations

import json

from arena_server import Server


def test_missing_answers_are_generated_as_the_run_would_have(tiny_model, charts_folder, run_cli, homes):
    words = ["max_completion_length=5", "prompt.answer_tag=so"]
    model, runs = tiny_model(), homes / "runs"
    for name, more in (("whole", ["--step"]), ("part", ["--limit", 1])):
        done = run_cli("eval", model, "--data", charts_folder, "--out", runs / name, *more, *words)
        assert done.code == 0, done.err
    with Server("whole", "part", "--data", charts_folder, "--runs-dir", runs, "--n", 3) as server:
        assert (server.info["questions"], server.info["total"], server.info["models"]) == (3, 3, 2)
        with server.client() as browser:
            browser.post("/api/enter", json={"key": server.key})
            assert browser.get("/api/next", params={"voter": "Ann"}).json()["battle"]
    generated = runs / "arena" / charts_folder.stem / "answers"
    (rows,) = (file.read_text().splitlines() for file in generated.glob("part/*/run/samples.jsonl"))
    (recipe,) = (file.read_text() for file in generated.glob("part/*/run/recipe.yaml"))
    assert len(rows) == 2  # the one that both had answered is among the three
    assert "answer_tag: so" in recipe
    assert all(json.loads(row)["completion_tokens"] <= 5 for row in rows)


def test_a_model_that_is_gone_is_the_users_to_mend(tiny_model, charts_folder, run_cli, homes, tmp_path):
    gone = tmp_path / "gone"
    gone.symlink_to(tiny_model())
    runs = homes / "runs"
    for name in ("a", "b"):
        words = ["--limit", 1, "max_completion_length=3", "--out", runs / name]
        assert run_cli("eval", gone, "--data", charts_folder, *words).code == 0
    gone.unlink()
    done = run_cli("arena", "a", "b", "--data", charts_folder, "--runs-dir", runs, "--no-browser")
    assert done.code == 2
    assert "missing answers could not be generated" in done.err
    assert not list((runs / "arena").rglob("questions.jsonl"))
