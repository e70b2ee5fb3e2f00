"""The endpoint client and `cot build` against a teacher on loopback that answers, fails, stalls and hangs up."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import signal
import time

import fake_teacher
import openai
import pytest
from fake_teacher import Teacher

from toasterft.errors import UserError
from toasterft.teachers import api
from toasterft.teachers.api import (
    BackgroundRequests,
    Endpoint,
    EndpointRefused,
    Reply,
    Request,
    SpendCapReached,
    SpendLedger,
    background,
    completion,
)

pytestmark = pytest.mark.usefixtures("quick_retries")

# $ per million tokens: one answer of the fake teacher costs 1000 + 120 × 4 = 1,480 millionths of a dollar.
PRICE_IN, PRICE_OUT = 1.0, 4.0
ONE_USD = (fake_teacher.INPUT_TOKENS * PRICE_IN + fake_teacher.OUTPUT_TOKENS * PRICE_OUT) / 1e6


def service(teacher, **more):
    prices = {"input_usd_per_mtok": PRICE_IN, "output_usd_per_mtok": PRICE_OUT}
    return api.custom_service(teacher.url, "fake", **{**prices, **more})


def opened(teacher, ledger=None, **more):
    given = {"timeout_seconds": 10.0, **more}
    return Endpoint(service(teacher), ledger, **given)


def requests(count, **more):
    return [Request(f"Question: how many are {n}?\nThe correct answer is: {n}", **more) for n in range(count)]


def ask(client, wanted):
    """Answers or errors, in order."""

    async def all_of_them():
        found = await asyncio.gather(*(client.ask(request) for request in wanted), return_exceptions=True)
        await client.settle()
        await client.close()
        return found

    return asyncio.run(all_of_them())


def test_answers_bills_and_thinking_tokens():
    with Teacher() as teacher:
        client = opened(teacher)
        [answer] = ask(client, requests(1))
    assert "<answer>0</answer>" in answer.text
    assert (answer.input_tokens, answer.output_tokens, answer.thinking_tokens) == (1000, 120, 80)
    assert answer.usd == pytest.approx(ONE_USD)
    assert client.ledger.paid_usd == pytest.approx(ONE_USD)


def test_thinking_left_out_of_the_completion_tokens_is_billed_all_the_same():
    reply = fake_teacher.completion("x", 20)
    reply["usage"] |= {"completion_tokens": 20, "total_tokens": 1100}
    fake = api.custom_service("http://127.0.0.1:9/v1", "fake")
    answer = completion.read(json.dumps(reply), Request("x"), fake, 21)
    assert (answer.output_tokens, answer.thinking_tokens) == (100, 80)


def test_no_more_than_so_many_at_once():
    with Teacher(seconds=0.02) as teacher:
        ask(opened(teacher, concurrency=3), requests(12))
    assert teacher.at_once == 3


def test_the_same_request_is_paid_once_together_later_and_by_another_job():
    with Teacher() as teacher:
        twice = requests(1) * 2
        assert [answer.cached for answer in ask(opened(teacher), twice)] == [False, False]
        assert [answer.cached for answer in ask(opened(teacher), twice)] == [True, True]
        assert sum(teacher.billed.values()) == 1
        again = [Request(twice[0].text, attempt=1), Request(twice[0].text, temperature=0.5)]
        ask(opened(teacher), again)
        assert sum(teacher.billed.values()) == 3


@pytest.mark.parametrize("how", ["500", "drop", "half", "malformed", "html", "no-choices", "429"])
def test_one_failure_is_tried_again(how, monkeypatch):
    waits, plain = [], openai.AsyncOpenAI._calculate_retry_timeout

    def noted(*words):
        waits.append(plain(*words))
        return waits[-1]

    monkeypatch.setattr(openai.AsyncOpenAI, "_calculate_retry_timeout", noted)
    with Teacher(lambda number, _: how if number == 0 else "good") as teacher:
        [answer] = ask(opened(teacher), requests(1))
    assert isinstance(answer, Reply)
    assert len(teacher.asked) == 2
    assert (0.3 in waits) == (how == "429")  # what its Retry-After asks for


def test_a_timeout_is_tried_again_and_counted_as_possibly_billed():
    with Teacher(lambda number, _: "slow" if number == 0 else "good") as teacher:
        client = opened(teacher, timeout_seconds=0.5)
        [answer] = ask(client, requests(1))
    assert isinstance(answer, Reply)
    assert client.ledger.uncertain_usd > 0


@pytest.mark.parametrize(
    ("how", "kind", "tries"),
    [("500", "server", 3), ("429-late", "rate", 1), ("malformed", "malformed", 3), ("drop", "dropped", 3)],
)
def test_a_failing_endpoint_is_one_typed_error_per_request(how, kind, tries):
    with Teacher(how) as teacher:
        client = opened(teacher, tries=3, give_up_after=100)
        found = ask(client, requests(3))
    assert [error.kind for error in found] == [kind] * 3
    assert client.failures == {kind: 3}
    assert len(teacher.asked) == 3 * tries


def test_a_dead_endpoint_is_not_asked_for_a_while():
    with Teacher("500") as teacher:
        client = opened(teacher, tries=1, give_up_after=3, concurrency=1)
        found = ask(client, requests(10))
    assert [error.kind for error in found] == ["server"] * 3 + ["down"] * 7
    assert len(teacher.asked) == 3


def test_nobody_there():
    client = Endpoint(api.custom_service("http://127.0.0.1:9/v1", "fake"), tries=2)
    [error] = ask(client, requests(1))
    assert error.kind == "unreachable"
    assert client.ledger.uncertain_usd == 0


def test_a_wrong_key_is_refused_at_once_and_shown_nowhere(monkeypatch, homes):
    monkeypatch.setenv("FAKE_KEY", "sk-verysecret12345")
    with Teacher("401") as teacher:
        client = Endpoint(service(teacher, api_key_env="FAKE_KEY"), SpendLedger(homes / "ledger"))
        [error] = ask(client, requests(1))
    assert isinstance(error, EndpointRefused)
    assert teacher.keys == ["Bearer sk-verysecret12345"]
    assert "verysecret" not in str(error)
    assert "FAKE_KEY" in str(error)
    assert all("verysecret" not in file.read_text() for file in homes.rglob("*") if file.is_file())


def test_no_key_travels_where_none_is_named(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-mine")
    with Teacher() as teacher:
        ask(opened(teacher), requests(1))
    assert "sk-mine" not in teacher.keys[0]
    monkeypatch.delenv("FAKE_KEY", raising=False)
    with Teacher() as teacher, pytest.raises(EndpointRefused, match="FAKE_KEY"):
        Endpoint(service(teacher, api_key_env="FAKE_KEY"))


def test_pictures_travel_as_data_urls_and_are_known_by_content(charts_folder):
    from toasterft.data import sources

    example = sources.load(str(charts_folder)).examples[0]
    with Teacher() as teacher:
        client = opened(teacher)
        ask(client, [Request("Question: ?", example.images)])
        [parts] = [body["messages"][0]["content"] for body in teacher.asked]
    assert parts[0]["image_url"]["url"].startswith("data:image/png;base64,")
    assert client.max_usd(Request("", example.images, max_tokens=1)) > ONE_USD * 0.7


def test_the_cap_is_held_however_many_ask():
    with Teacher(seconds=0.01) as teacher:
        ledger = SpendLedger(cap_usd=10.5 * ONE_USD)
        found = ask(
            opened(teacher, ledger, concurrency=8), requests(40, max_tokens=fake_teacher.OUTPUT_TOKENS)
        )
    paid = [answer for answer in found if isinstance(answer, Reply)]
    assert all(isinstance(error, SpendCapReached) for error in found if error not in paid)
    assert sum(teacher.billed.values()) == len(paid) == 10
    assert ledger.spent_usd <= ledger.cap_usd
    assert ledger.reserved_usd == pytest.approx(0)


def test_an_endpoint_that_bills_beyond_max_tokens_passes_the_cap_by_what_is_in_flight_only():
    with Teacher("greedy", seconds=0.01) as teacher:
        ledger = SpendLedger(cap_usd=20 * ONE_USD)
        found = ask(
            opened(teacher, ledger, concurrency=4), requests(60, max_tokens=fake_teacher.OUTPUT_TOKENS)
        )
    largest = max(answer.usd for answer in found if isinstance(answer, Reply))
    assert ledger.spent_usd <= ledger.cap_usd + 4 * largest
    assert ledger.paid_usd == pytest.approx(sum(answer.usd for answer in found if isinstance(answer, Reply)))


def test_a_ledger_is_one_process_s_own_and_survives_half_a_line(homes):
    with Teacher() as teacher:
        ledger = SpendLedger(homes / "ledger")
        ask(opened(teacher, ledger, cache=False), requests(3))
        with pytest.raises(UserError, match="another process"):
            SpendLedger(homes / "ledger")
        ledger.close()
        with (homes / "ledger").open("a") as file:
            file.write('{"event": "paid", "key": "torn')
        again = SpendLedger(homes / "ledger")
        assert again.paid == 3
        ask(opened(teacher, again, cache=False), requests(4))
        assert sum(teacher.billed.values()) == 4
        again.close()
        assert SpendLedger(homes / "ledger").paid == 4


def test_a_request_in_flight_at_a_kill_counts_as_probably_paid(homes):
    ledger = SpendLedger(homes / "ledger")
    ledger.sent("a", "fake", 0.5)
    ledger.pay("a", "fake", Reply("x", "stop", 1, 1, 0, 0.1))
    ledger.sent("b", "fake", 0.5)
    ledger.close()
    again = SpendLedger(homes / "ledger")
    assert (again.paid_usd, again.uncertain_usd) == (0.1, pytest.approx(0.1))


CHAOS = ["good"] * 8 + ["429", "500", "drop", "half", "malformed", "html"]


@pytest.mark.parametrize(
    "seed", [1, pytest.param(2, marks=pytest.mark.soak), pytest.param(3, marks=pytest.mark.soak)]
)
def test_no_answer_is_lost_in_chaos(seed, homes):
    rng = random.Random(seed)
    count = 40 if seed == 1 else 400
    with Teacher(lambda *_: rng.choice(CHAOS)) as teacher:
        ledger = SpendLedger(homes / "ledger", cap_usd=10.0)
        found = ask(opened(teacher, ledger, tries=20, give_up_after=1000), requests(count))
    assert all(f"<answer>{n}</answer>" in answer.text for n, answer in enumerate(found))
    assert ledger.paid == count
    # Answers that broke on the way may have been billed, and are counted so.
    assert ledger.spent_usd >= sum(teacher.billed.values()) * ONE_USD - 1e-9


def test_ordinary_code_asks_while_it_does_other_things(monkeypatch):
    monkeypatch.setattr(background, "WAIT_SECONDS", 20.0)
    with Teacher(lambda number, _: "500" if number % 5 == 4 else "good", seconds=0.05) as teacher:
        aside = BackgroundRequests(opened(teacher, tries=1, give_up_after=100))
        wanted = requests(10)
        for request in wanted:
            aside.start(request)
        found = [aside.reply(request) for request in wanted]
        aside.close()
    assert sum(isinstance(reply, Reply) for reply in found) == 8
    assert aside.failures == {"server": 2}


# --- builds ----------------------------------------------------------------------------------


def words(server, folder, name="taught", **more):
    given = {
        "from": folder, "teacher": "fake", "base-url": server.url, "price-in": PRICE_IN, "price-out": PRICE_OUT,
        "budget": 5, "max-tokens": 400, "concurrency": 4, **more,
    }  # fmt: skip
    flags = [part for key, value in given.items() if value is not None for part in (f"--{key}", value)]
    return ["cot", "build", name, "--json", "--quiet", *flags]


def test_a_build_is_found_by_name_and_says_what_it_took(run_cli, charts_folder, homes):
    from toasterft.data import sources

    with Teacher() as teacher:
        done = run_cli(*words(teacher, charts_folder, n=12))
    assert done.code == 0, done.err
    card = done.json()
    assert card["complete"]
    assert card["counts"]["kept"] == 12
    assert card["spent"]["usd"] == pytest.approx(12 * ONE_USD)
    assert card["prices"][0]["output_usd_per_mtok"] == PRICE_OUT
    data = sources.load("taught")
    assert len(data) == 12
    assert all(example.reasoning and example.images[0].path.is_file() for example in data.examples)
    assert sources.has_split("taught", "validate")


def test_going_on_with_a_larger_n_pays_for_the_difference_only(run_cli, charts_folder):
    with Teacher() as teacher:
        first = run_cli(*words(teacher, charts_folder, n=6)).json()
        second = run_cli(*words(teacher, charts_folder, n=10)).json()
        assert sum(teacher.billed.values()) == 10
    assert second["spent"]["usd"] == pytest.approx(10 * ONE_USD)
    assert first["counts"]["kept"] == 6
    other = run_cli(*words(teacher, charts_folder, n=6, style="structured"))
    assert other.code == 2
    assert "another way" in other.err


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("bare", "tags"), ("empty", "tags"), ("wrong", "answer"), ("long", "length"), ("leaky", "leak"),
        ("sums", "arithmetic"), ("french", "language"),
    ],
)  # fmt: skip
def test_bad_answers_are_left_out_with_their_reason(how, reason, run_cli, charts_folder, homes):
    with Teacher(lambda number, _: how if number < 4 else "good") as teacher:
        card = run_cli(*words(teacher, charts_folder, n=6, tries=1, concurrency=1)).json()
    assert card["rejects"] == {reason: 4}
    assert card["counts"]["kept"] == 6
    rows = [json.loads(line) for line in (homes / "data/taught/rejects.jsonl").read_text().splitlines()]
    assert [row["reason"] for row in rows] == [reason] * 4


def test_a_picture_that_vanishes_costs_its_row_and_nothing_else(run_cli, charts_folder, tmp_path):
    folder = tmp_path / "fading"
    shutil.copytree(charts_folder, folder)
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]

    def behave(number, body):
        if number == 0:
            other = next(row for row in rows if row["question"] not in fake_teacher.prompt_of(body))
            (folder / other["image"]).unlink()
        return "good"

    with Teacher(behave) as teacher:
        done = run_cli(*words(teacher, folder, concurrency=1))
    card = done.json()
    assert card["rejects"] == {"picture": 1}
    assert card["complete"]
    assert sum(teacher.billed.values()) == card["counts"]["kept"] == len(rows) - 1


def test_a_damaged_picture_is_named_before_anything_is_sent(run_cli, charts_folder, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(charts_folder, folder)
    first = json.loads((folder / "train.jsonl").read_text().splitlines()[0])["image"]
    (folder / first).write_bytes(b"no picture")
    with Teacher() as teacher:
        done = run_cli(*words(teacher, folder))
    assert (done.code, teacher.asked) == (2, [])
    assert first in done.err


def test_a_second_try_is_another_request(run_cli, charts_folder):
    with Teacher(lambda number, _: "leaky" if number % 2 == 0 else "good") as teacher:
        card = run_cli(*words(teacher, charts_folder, n=4, tries=2, concurrency=1)).json()
    assert card["rejects"] == {}
    assert card["spent"]["answers"] == 8


def test_the_budget_ends_a_build_with_its_work_saved_and_a_larger_one_goes_on(run_cli, charts_folder, homes):
    from toasterft.data import sources

    # Six answers fit: one more could cost $0.0026 with its 400 tokens, so a reserve of that is kept back.
    with Teacher() as teacher:
        budget = 6 * ONE_USD + 0.0025
        stopped = run_cli(*words(teacher, charts_folder, n=20, budget=budget), "--yes")
        assert stopped.code == 3, stopped.err
        assert sum(teacher.billed.values()) * ONE_USD <= budget
        kept = len(sources.load("taught"))
        assert kept == sum(teacher.billed.values()) >= 4
        card = run_cli(*words(teacher, charts_folder, n=20)).json()
        assert card["counts"]["kept"] == 20
        assert sum(teacher.billed.values()) == 20


def test_a_bill_that_is_too_high_is_refused_before_anything_is_sent(run_cli, charts_folder, homes):
    with Teacher() as teacher:
        done = run_cli(*words(teacher, charts_folder, n=20, budget=0.001))
        none = run_cli(*words(teacher, charts_folder, n=20, budget=None))
    assert (done.code, none.code) == (2, 2)
    assert "--budget" in done.err
    assert teacher.asked == []
    assert not (homes / "data").exists()


def test_a_wrong_key_leaves_nothing_behind(run_cli, charts_folder, homes, monkeypatch):
    monkeypatch.setenv("FAKE_KEY", "sk-verysecret12345")
    with Teacher("401") as teacher:
        done = run_cli(*words(teacher, charts_folder, n=5, **{"api-key-env": "FAKE_KEY"}))
    assert done.code == 2
    assert "verysecret" not in done.err + done.out
    assert not (homes / "data/taught").exists()


def test_an_endpoint_that_dies_stops_the_build_and_the_same_command_goes_on(
    run_cli, charts_folder, monkeypatch
):
    monkeypatch.setattr(
        Endpoint.__init__,
        "__kwdefaults__",
        {**Endpoint.__init__.__kwdefaults__, "tries": 2},
    )
    with Teacher(lambda number, _: "good" if number < 6 else "500") as teacher:
        stopped = run_cli(*words(teacher, charts_folder, n=20))
        assert stopped.code == 4
        assert "stopped answering" in stopped.err
        teacher.behave = lambda *_: "good"
        card = run_cli(*words(teacher, charts_folder, n=20)).json()
    assert card["counts"]["kept"] == 20
    assert sum(teacher.billed.values()) == 20


def test_self_supervised_keeps_what_others_can_answer(run_cli, charts_folder, homes, tmp_path):
    """b writes long traces and cannot judge; c judges well. a's traces pass with c's vote: one of two is half."""
    from toasterft.data import sources

    def behave(_, body):
        judging = "blanked out" in fake_teacher.prompt_of(body)
        return "wrong" if body["model"] == "b" and judging else "long" if body["model"] == "b" else "good"

    with Teacher(behave) as teacher:
        for example in sources.load(str(charts_folder)).examples:
            teacher.answers[example.question] = example.answer
        rows = []
        for name in "abc":
            row = {"name": name, "base_url": teacher.url, "input_usd_per_mtok": 1, "output_usd_per_mtok": 4}
            (tmp_path / f"{name}.yaml").write_text(json.dumps(row))
            rows.append(str(tmp_path / f"{name}.yaml"))
        given = words(
            teacher,
            charts_folder,
            n=5,
            teacher=None,
            **{"base-url": None, "price-in": None, "price-out": None},
        )
        done = run_cli(*given, "--generators", ",".join(rows[:2]), "--judges", ",".join(rows[1:]))
        assert done.code == 0, done.err
        assert done.json()["counts"]["kept"] == 5
        seen = [
            fake_teacher.prompt_of(body)
            for body in teacher.asked
            if "blanked out" in fake_teacher.prompt_of(body)
        ]
        assert seen
        assert all("___" in prompt for prompt in seen)
        alone = run_cli(*given[:2], "hard", *given[3:], "--generators", ",".join(rows[:2]))
    votes = [json.loads(line) for line in (homes / "data/taught/votes.jsonl").read_text().splitlines()]
    best = votes[0]["candidates"][0]
    assert (best["teacher"], best["reason"]) == ("a", None)
    assert {vote["judge"]: vote["right"] for vote in best["votes"]} == {"b": False, "c": True}
    assert votes[0]["candidates"][1]["reason"] == "length"
    assert alone.code == 4
    hard = [json.loads(line) for line in (homes / "data/hard/hard.jsonl").read_text().splitlines()]
    assert hard
    assert all(
        row["candidates"][0]["votes"][0]["right"] is False for row in hard if row["candidates"][0]["votes"]
    )


def test_a_generator_may_not_judge_itself(run_cli, charts_folder):
    with Teacher() as teacher:
        given = words(teacher, charts_folder, teacher=None)
        done = run_cli(*given, "--generators", "a")
    assert done.code == 2
    assert "could judge" in done.err


@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.soak)])
def test_killed_builds_lose_no_answer_and_pay_for_none_twice(kills, charts_folder, homes, forked):
    concurrency, n = 4, 30
    rng = random.Random(kills)
    with Teacher(seconds=0.05) as teacher:
        command = ("-m", "toasterft", *words(teacher, charts_folder, n=n, concurrency=concurrency))
        for number in range(kills):
            running = forked(*command)
            # At a random moment after a few more answers, while others are on their way.
            teacher.wait_for(min(n - 2, (number + 1) * (n - 4) // kills))
            time.sleep(rng.uniform(0, 0.05))
            running.send_signal(signal.SIGKILL)
            running.wait()
        done = forked(*command)
        out, err = done.communicate()
    assert done.returncode == 0, err
    card = json.loads(out)
    assert card["counts"]["kept"] == n
    lines = [json.loads(line) for line in (homes / "data/taught/answers.ledger").read_text().splitlines()]
    paid = [line["key"] for line in lines if line["event"] == "paid"]
    assert len(paid) == len(set(paid)) == n
    # What was on its way at a kill is all that can have been answered twice, and it is counted as spent.
    billed = sum(teacher.billed.values())
    assert billed <= n + kills * concurrency
    assert card["spent"]["usd"] + card["spent"]["uncertain_usd"] >= billed * ONE_USD - 1e-9


def test_ctrl_c_waits_for_what_is_paid_and_goes_on_later(charts_folder, homes, forked):
    with Teacher(seconds=0.2) as teacher:
        running = forked("-m", "toasterft", *words(teacher, charts_folder, n=30))
        teacher.wait_for(6)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=30)
        assert running.returncode == 130, err
        assert "goes on from here" in err
        card = json.loads((homes / "data/taught/card.json").read_text())
        assert card["spent"]["answers"] == sum(teacher.billed.values()) == card["counts"]["kept"]
        assert card["spent"]["uncertain_usd"] == 0
