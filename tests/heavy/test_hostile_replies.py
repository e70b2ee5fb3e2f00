"""Hostile replies, one by one and through whole builds: paid answers are kept, failures told, and money is not wasted."""

from __future__ import annotations

import asyncio
import json

import pytest
from fake_teacher import Raw, Teacher, error
from hostile_replies import QUICK, REPLIES, said, seconds

from toasterft.data.example import Example
from toasterft.teachers import api, filters, styles
from toasterft.teachers.api import Endpoint, EndpointError, EndpointRefused, Request, SpendLedger
from toasterft.teachers.judge import level_of
from toasterft.teachers.replies import after_thinking

pytestmark = pytest.mark.usefixtures("quick_retries")

EXAMPLE = Example("1", "How many are red?", "12", ())
PRICES = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 4.0}


def opened(teacher, ledger=None, **more):
    given = {"timeout_seconds": 30.0, "tries": 1, "cache": False, **more}
    return Endpoint(api.custom_service(teacher.url, "fake", **PRICES), ledger, **given)


def outcome(endpoint, request):
    """How one request ends: `kept`, a reason, or a kind of error; and the words for it."""

    async def ask():
        try:
            reply = await endpoint.ask(request)
            verdict = filters.judge_reply(reply, EXAMPLE, styles.load("simplified", blind=False))
            return verdict.reason or "kept", verdict.detail
        except EndpointError as problem:
            return problem.kind, problem.what
        finally:
            await endpoint.close()

    return asyncio.run(ask())


@pytest.mark.parametrize("name", REPLIES)
def test_every_reply_is_read_or_says_why_not(name, homes):
    reply, expected, words = REPLIES[name]
    ledger = SpendLedger(homes / "ledger", cap_usd=1.0)
    request = Request(f"{EXAMPLE.question} " * 20, max_tokens=9000, temperature=0.5)
    with Teacher(reply) as teacher:
        endpoint = opened(teacher, ledger, timeout_seconds=seconds(name))
        found, detail = outcome(endpoint, request)
    ledger.close()
    assert found == expected, detail
    assert words in detail + " ".join(endpoint.notes)
    rows = [json.loads(line) for line in (homes / "ledger").read_bytes().splitlines()]
    paid = expected in ("kept", "tags", "cut off", "refused", "filtered") and ledger.paid > 0
    if paid:
        # The body as it came is kept before anything reads it; the bill can be believed.
        assert [row["event"] for row in rows] == ["sent", "received", "paid"]
        assert json.loads(rows[1]["body"], parse_int=float)["choices"]
        assert 0 < ledger.paid_usd < 0.05
        rows[-1]["text"].encode()
    else:
        assert ledger.paid_usd == 0
        assert (ledger.uncertain_usd > 0) == (
            name in ("deep JSON", "swollen by compression", "endless", "dripping")
        )
    again = SpendLedger(homes / "ledger")
    assert (again.paid, again.paid_usd) == (ledger.paid, ledger.paid_usd)


def test_a_body_that_was_received_and_not_read_is_paid_for_once(homes):
    reply, *_ = REPLIES["usage as text"]
    request = Request("How many are red?")
    with Teacher("500") as teacher:
        key = request.key(opened(teacher).service)
        ledger = SpendLedger(homes / "ledger")
        ledger.sent(key, "fake", 0.01)
        ledger.receive(key, str(reply.body))
        ledger.close()  # killed here
        again = SpendLedger(homes / "ledger")
        assert outcome(opened(teacher, again), request) == ("kept", "")
        assert (teacher.asked, again.paid) == ([], 1)


@pytest.mark.parametrize(
    ("refusal", "left", "note"),
    [
        ("Unsupported value: 'temperature' does not support 0.5 with this model.", {"max_tokens", "top_p"}, "temperature"),
        ("top_p and response_format cannot be combined: top_p", {"max_tokens", "temperature"}, "top_p"),
        ("Use 'max_completion_tokens' instead.", {"max_completion_tokens", "temperature", "top_p"}, ""),
    ],
)  # fmt: skip
def test_a_parameter_that_is_refused_is_left_out_and_said(refusal, left, note):
    with Teacher(lambda number, _: Raw(error(refusal), 400) if number == 0 else said()) as teacher:
        endpoint = opened(teacher)
        request = Request("?", max_tokens=50, temperature=0.5, parameters={"top_p": 0.9})
        assert outcome(endpoint, request)[0] == "kept"
        assert (
            outcome(endpoint, Request("??", max_tokens=50, temperature=0.5, parameters={"top_p": 1.0}))[0]
            == "kept"
        )
    sent = [set(body) - {"model", "messages"} for body in teacher.asked]
    assert sent[1:] == [left, left]
    assert [text.split(" ")[0] for text in endpoint.notes] == ([note] if note else [])


def test_a_parameter_that_stays_refused_is_tried_without_once():
    with Teacher(Raw(error("temperature is wrong"), 400)) as teacher:
        assert outcome(opened(teacher), Request("?", temperature=0.5))[0] == "rejected"
    assert [("temperature" in body) for body in teacher.asked] == [True, False]


def test_no_redirect_is_followed_and_no_identifier_travels(monkeypatch):
    monkeypatch.setenv("OPENAI_ORG_ID", "org-mine")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-mine")
    with (
        Teacher() as other,
        Teacher(lambda *_: Raw("", 308, {"Location": f"{other.url}/chat/completions"})) as teacher,
    ):
        kind, words = outcome(opened(teacher), Request("?"))
        assert (kind, other.asked) == ("refused", [])
        assert "127.0.0.1" in words
    assert not [value for headers in teacher.headers for value in headers.values() if "mine" in value]


def test_a_password_in_the_address_is_shown_nowhere(run_cli, charts_folder, homes):
    with Teacher(Raw(error("user:hunter2 may not"), 400)) as teacher:
        address = teacher.url.replace("://", "://user:hunter2@")
        done = run_cli(*words(teacher, charts_folder, n=2, **{"base-url": address}))
        plain = run_cli(*words(teacher, charts_folder, "other", n=2, **{"base-url": address}), "--dry-run")
        teacher.behave = lambda *_: "good"
        built = run_cli(*words(teacher, charts_folder, "third", n=2, **{"base-url": address}))
    assert (done.code, plain.code, built.code) == (2, 0, 0)
    assert all("hunter2" not in one.out + one.err for one in (done, plain, built))
    assert all(b"hunter2" not in file.read_bytes() for file in homes.rglob("*") if file.is_file())


def test_thinking_is_not_the_verdict():
    assert level_of("<think>Low would be harsh, medium is fair.</think>\nmedium") == 0.5
    assert level_of("<THINK>low or high?</THINK>") is None
    assert after_thinking("<think>[{draft</think>[{}]") == "[{}]"


# --- builds ----------------------------------------------------------------------------------


def words(teacher, folder, name="taught", **more):
    given = {
        "from": folder, "teacher": "fake", "base-url": teacher.url, "price-in": 1.0, "price-out": 4.0, "budget": 5,
        **more,
    }  # fmt: skip
    return [
        "cot",
        "build",
        name,
        "--json",
        *(part for key, value in given.items() for part in (f"--{key}", value)),
    ]


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.soak) for name in REPLIES]
)
def test_a_build_ends_early_where_no_answer_is_of_use(name, run_cli, charts_folder, homes, monkeypatch):
    monkeypatch.setattr(
        Endpoint.__init__,
        "__kwdefaults__",
        {**Endpoint.__init__.__kwdefaults__, "tries": 1, "timeout_seconds": seconds(name)},
    )
    reply, expected, told = REPLIES[name]
    with Teacher(reply) as teacher:
        done = run_cli(*words(teacher, charts_folder, n=20))
    assert done.code in (0, 2, 4), done.err
    assert "Traceback" not in done.err
    assert told in done.err
    ledger = homes / "data/taught/answers.ledger"
    paid = (
        sum(json.loads(line)["event"] == "paid" for line in ledger.read_bytes().splitlines())
        if ledger.exists()
        else 0
    )
    if expected != "kept":
        assert done.code != 0
        assert paid <= 5
        assert len(teacher.asked) <= 10
        return
    # Every other row has another answer than 12, which shows row by row only: such a build may go on to the end.
    assert paid == len(teacher.asked)


def test_a_teacher_that_begins_to_answer_is_kept_on(run_cli, charts_folder, homes):
    with Teacher(lambda number, _: "empty" if number < 4 else "good") as teacher:
        card = run_cli(*words(teacher, charts_folder, n=8, tries=1)).json()
    assert (card["counts"]["kept"], card["rejects"]) == (8, {"tags": 4})
    rows = [json.loads(line) for line in (homes / "data/taught/rejects.jsonl").read_text().splitlines()]
    assert {row["detail"] for row in rows} == {"empty, only thinking, finish_reason stop"}


def test_more_requests_than_forecast_are_announced(run_cli, charts_folder):
    with Teacher(lambda number, _: "leaky" if number % 4 else "good") as teacher:
        done = run_cli(*words(teacher, charts_folder, n=6, concurrency=1))
        bill = run_cli(*words(teacher, charts_folder, "other", n=6), "--dry-run").json()["expected"]
    assert done.code == 0, done.err
    assert "more than the 9 forecast" in done.err
    assert bill["requests"] == 6
    assert bill["most_requests"] >= len(teacher.asked)


def test_a_refused_first_request_ends_a_trial_for_all():
    async def ask(endpoint):
        asked = [endpoint.ask(Request(f"{n}?")) for n in range(30)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        await endpoint.close()
        return found

    with Teacher(Raw(error("no such model"), 400)) as teacher:
        found = asyncio.run(ask(opened(teacher, on_trial=True, concurrency=8)))
    assert len(teacher.asked) == 5
    assert sum(isinstance(one, EndpointRefused) for one in found) == 26
    assert "no such model" in str(found[-1])
