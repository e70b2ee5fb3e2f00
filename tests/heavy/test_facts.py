"""`cot facts`: pictures read by a vision model on loopback, checked, paid once, gone on with, within a budget."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import signal

import pytest
from fake_teacher import INPUT_TOKENS, OUTPUT_TOKENS, Teacher

from toasterft.data import sources
from toasterft.scoring import rewards, tables
from toasterft.teachers.api import Endpoint
from toasterft.teachers.facts import MOST_FACTS, parse

pytestmark = pytest.mark.usefixtures("quick_retries")

PRICE_IN, PRICE_OUT = 1.0, 4.0
ONE_USD = (INPUT_TOKENS * PRICE_IN + OUTPUT_TOKENS * PRICE_OUT) / 1e6
GOOD = [{"label": "red", "value": 7}, {"label": "blue", "value": 3.5}]


# --- answers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        (json.dumps(GOOD), GOOD),
        (f"```json\n{json.dumps(GOOD, indent=1)}\n```", GOOD),
        (f"Here [as asked]: {json.dumps({'facts': GOOD})} Done.", GOOD),
        (json.dumps(GOOD * 3), GOOD),
        ('[{"label": 2019, "value": "1,200", "series": ""}]', [{"label": "2019", "value": 1200}]),
        ('[{"label": "a", "value": "12%", "series": "s"}]', [{"label": "a", "value": 12, "series": "s"}]),
        ('[{"label": "winner", "value": "Spain"}]', [{"label": "winner", "value": "Spain"}]),
        (
            '{"description": "a dog", "objects": [{"name": "dog", "attributes": ["brown"], "position": "left"}]}',
            [{"name": "dog", "attributes": ["brown"], "position": "left"}],
        ),
        ('{"name": "dog", "attributes": ["brown"]}', [{"name": "dog", "attributes": ["brown"]}]),
        ('[{"name": "dog", "position": null}]', [{"name": "dog", "attributes": []}]),
    ],
)
def test_answers_that_are_facts(text, facts):
    assert parse(text) == facts
    assert len(tables.read(facts).cells) == len(facts)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no JSON"), ("I see a chart.", "no JSON"), ("[]", "no JSON"), ('{"facts": []}', "no list"),
        (json.dumps(GOOD)[:-20], "no JSON"), ('[{"label": "red"}]', "without label or value"),
        ('[{"value": 3}]', "without label or value"), ('[{"label": "red", "value": 1, "colour": 2}]', "colour"),
        ('[{"label": {"a": 1}, "value": 1}]', "is no name"), ('[{"label": "x", "value": true}]', "is no name"),
        ('[{"name": "dog", "attributes": "brown"}]', "are no list"), ('[{"a": 1}, 3]', "keys a"),
        ('[{"label": "red", "value": 1}, 3]', "an object"),
        ('[{"label": "red", "value": 1}, {"label": "red", "value": 2}]', "'red' has 2 values"),
        (json.dumps([{"label": str(n), "value": n} for n in range(MOST_FACTS + 1)]), "more than"),
        ('[{"label": "' + "x" * 300 + '", "value": 1}]', "is no name"),
        ('[{"label": "red", "value": NaN}]', "NaN is no number"),
    ],
)  # fmt: skip
def test_answers_that_are_none(text, said):
    with pytest.raises(ValueError, match=said):
        parse(text)


# --- whole sets ------------------------------------------------------------------------------


class Reader(Teacher):
    """Reads the facts of each picture off a list, by the picture's content."""

    def __init__(self, facts, behave="good", **more):
        super().__init__(behave, **more)
        self.facts = facts

    def say(self, how, body):
        picture = body["messages"][0]["content"][0]["image_url"]["url"].partition(",")[2]
        facts = self.facts[hashlib.sha256(base64.b64decode(picture)).hexdigest()]
        return {"blind": "I cannot see anything.", "good": json.dumps(facts)}[how]


@pytest.fixture
def bare(charts_folder, tmp_path):
    """(a copy of the charts without facts, two questions per picture; facts by picture)."""
    folder = tmp_path / "bare"
    folder.mkdir()
    shutil.copytree(charts_folder / "images", folder / "images")
    known = {}
    for split in ("train", "validation", "test"):
        lines = []
        for line in (charts_folder / f"{split}.jsonl").read_text().splitlines():
            row = json.loads(line)
            facts = row.pop("facts")
            known[hashlib.sha256((charts_folder / row["image"]).read_bytes()).hexdigest()] = facts
            lines += [json.dumps(row), json.dumps(row | {"id": row["id"] + "b", "question": "And again?"})]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return folder, known


def words(teacher, folder, *more, **given):
    flags = {
        "teacher": "fake", "base-url": teacher.url, "price-in": PRICE_IN, "price-out": PRICE_OUT, "budget": 5,
        "max-tokens": 400, "concurrency": 4, "name": "seen", **given,
    }  # fmt: skip
    listed = [part for key, value in flags.items() if value is not None for part in (f"--{key}", value)]
    return ["cot", "facts", folder, "--json", "--quiet", *listed, *more]


def test_every_picture_is_read_once_and_the_copy_has_its_facts(run_cli, bare, charts_folder, homes):
    folder, known = bare
    with Reader(known) as teacher:
        done = run_cli(*words(teacher, folder))
        assert done.code == 0, done.err
        card = done.json()
        assert card["complete"]
        pictures = len(
            {json.loads(line)["image"] for line in (folder / "train.jsonl").read_text().splitlines()}
        )
        assert card["counts"] == {
            "rows": 2 * pictures, "had_facts": 0, "got_facts": 2 * pictures, "pictures": pictures, "read": pictures,
        }  # fmt: skip
        assert len(teacher.asked) == pictures
        assert card["spent"]["usd"] == pytest.approx(pictures * ONE_USD)
        assert card["prices"][0]["teacher"] == "fake"
        again = run_cli(*words(teacher, folder))
        assert again.json()["counts"] == card["counts"]
        assert len(teacher.asked) == pictures
    copy = sources.load("seen")
    assert [one.facts for one in copy.examples[::2]] == [
        one.facts for one in sources.load(str(charts_folder)).examples
    ]
    assert all(one.reasoning for one in copy.examples)
    held_out = sources.load("seen", purpose="evaluate")
    assert len(held_out) == len(sources.load(str(folder), purpose="evaluate"))
    assert not any(one.facts for one in held_out.examples)
    rows = [json.loads(line) for line in (homes / "data/seen/train.jsonl").read_text().splitlines()]
    assert {row["facts_by"] for row in rows} == {"fake"}


def test_rows_that_have_facts_keep_them_and_are_not_paid_for(run_cli, bare, tmp_path):
    folder, known = bare
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    for row in lines[:10]:
        row["facts"] = GOOD
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    with Reader(known) as teacher:
        card = run_cli(*words(teacher, folder)).json()
        assert (
            len(teacher.asked) == card["counts"]["read"] == card["counts"]["pictures"] == len(lines) // 2 - 5
        )
    assert (card["counts"]["had_facts"], card["counts"]["got_facts"]) == (10, len(lines) - 10)
    assert sources.load("seen").examples[0].facts == GOOD
    with Reader(known) as teacher:
        nothing = run_cli(*words(teacher, "seen", name="more"))
    assert nothing.code == 2
    assert "facts already" in nothing.err


def test_an_answer_that_is_no_facts_is_asked_for_again_then_given_up(run_cli, bare, homes):
    folder, known = bare
    with Reader(known, lambda number, _: "blind" if number < 3 else "good") as teacher:
        card = run_cli(*words(teacher, folder, concurrency=1, pictures=5)).json()
    # The first picture is asked for twice, in vain; the second one is read the second time.
    assert card["rejects"] == {"no facts": 1}
    assert card["counts"]["read"] == 4
    assert not card["complete"]
    assert len(teacher.asked) == 7
    assert "temperature" in teacher.asked[1]
    [reject] = [json.loads(line) for line in (homes / "data/seen/rejects.jsonl").read_text().splitlines()]
    assert (reject["reason"], reject["detail"]) == ("no facts", "no JSON")
    assert reject["said"] == "I cannot see anything."
    assert sum(one.facts is None for one in sources.load("seen").examples) == len(sources.load("seen")) - 8


def test_nothing_but_blind_answers_is_a_failure(run_cli, bare):
    folder, known = bare
    with Reader(known, "blind") as teacher:
        done = run_cli(*words(teacher, folder, pictures=3, tries=1))
    assert done.code == 4
    assert "no picture could be read" in done.err
    assert "Traceback" not in done.err


def test_the_budget_holds_and_a_larger_one_goes_on(run_cli, bare):
    folder, known = bare
    with Reader(known) as teacher:
        refused = run_cli(*words(teacher, folder, budget=0.05))
        assert (refused.code, teacher.asked) == (2, [])
        assert "--pictures 6 fits" in refused.err
        none = run_cli(*words(teacher, folder, budget=None))
        assert (none.code, teacher.asked) == (2, [])
        stopped = run_cli(*words(teacher, folder, budget=6 * ONE_USD + 0.0025), "--yes")
        assert stopped.code == 3, stopped.err
        some = sum(one.facts is not None for one in sources.load("seen").examples)
        assert 0 < some < len(sources.load("seen"))
        assert some == 2 * sum(teacher.billed.values())
        card = run_cli(*words(teacher, folder)).json()
        assert card["complete"]
        assert sum(teacher.billed.values()) == card["counts"]["pictures"]


def test_a_dry_run_says_what_it_would_take(run_cli, bare, homes):
    folder, known = bare
    with Reader(known) as teacher:
        planned = run_cli(*words(teacher, folder, "--dry-run")).json()
        shown = run_cli(*[word for word in words(teacher, folder, "--dry-run") if word != "--json"]).out
    assert planned["expected"]["requests"] == planned["n"] > 0
    assert planned["expected"]["usd"]["likely"] > 0
    assert f"{planned['n']} of {planned['n']} pictures in {2 * planned['n']} rows of bare" in shown
    assert teacher.asked == []
    assert not (homes / "data").exists()


@pytest.mark.parametrize(("how", "code"), [("500", 4), ("401", 2)])
def test_a_failing_endpoint_ends_it_and_leaves_what_was_paid(how, code, run_cli, bare, monkeypatch, homes):
    monkeypatch.setattr(
        Endpoint.__init__,
        "__kwdefaults__",
        {**Endpoint.__init__.__kwdefaults__, "tries": 2},
    )
    folder, known = bare
    with Reader(known, how) as teacher:
        done = run_cli(*words(teacher, folder, name="none"))
        assert done.code == code, done.err
        assert (homes / "data" / "none").exists() == (how == "500")
        before = len(teacher.asked)
        teacher.behave = lambda number, _: "good" if number < before + 12 else how
        done = run_cli(*words(teacher, folder))
        assert done.code == code, done.err
        paid = sum(teacher.billed.values())
        assert sum(one.facts is not None for one in sources.load("seen").examples) == 2 * paid > 0
        teacher.behave = lambda *_: "good"
        card = run_cli(*words(teacher, folder)).json()
        assert card["complete"]
        assert sum(teacher.billed.values()) == card["counts"]["pictures"]


def test_ctrl_c_keeps_what_is_paid(bare, homes, forked):
    folder, known = bare
    with Reader(known, seconds=0.2) as teacher:
        command = ("-m", "toasterft", *words(teacher, folder))
        running = forked(*command)
        teacher.wait_for(6)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
        assert running.returncode == 130, err
        card = json.loads((homes / "data/seen/card.json").read_text())
        assert card["spent"]["answers"] == sum(teacher.billed.values()) == card["counts"]["read"]
        assert card["spent"]["uncertain_usd"] == 0
        done = forked(*command)
        assert done.wait() == 0, done.communicate()[1]
        assert sum(teacher.billed.values()) == card["counts"]["pictures"]


def test_another_build_s_folder_is_not_gone_on_with(run_cli, bare, charts_folder):
    folder, known = bare
    with Reader(known) as teacher:
        assert (
            run_cli("cot", "build", "seen", "--from", charts_folder, "--teacher", "rules", "--n", 3).code == 0
        )
        done = run_cli(*words(teacher, folder))
    assert done.code == 2
    assert "another way" in done.err
    assert teacher.asked == []


def test_a_run_learns_from_what_was_read(run_cli, bare):
    """The facts reach the checker: a trace of a row that was read is held against them."""
    from toasterft.data.chat import Parsed
    from toasterft.scoring.rewards import Completion

    folder, known = bare
    with Reader(known) as teacher:
        assert run_cli(*words(teacher, folder)).code == 0
    example = sources.load("seen").examples[0]
    said = Completion("", Parsed(example.reasoning, example.answer, True), 20, True, 64)
    wrong = Completion("", Parsed("There is nothing to see.", example.answer, True), 20, True, 64)
    assert rewards.thinking(said, example) > 0.95
    assert rewards.thinking(wrong, example) < 0.3
