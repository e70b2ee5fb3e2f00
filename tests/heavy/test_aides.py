"""DyME's judge and refiner behind an endpoint on loopback that answers, stalls, raves, refuses or costs too much."""

from __future__ import annotations

import json
import re
import threading

import openai  # noqa: F401 - takes seconds, which would count as waiting
import pytest
from fake_teacher import INPUT_TOKENS, OUTPUT_TOKENS, Teacher, prompt_of

from toasterft import recipe
from toasterft.data.chat import Parsed
from toasterft.data.example import Example
from toasterft.errors import BudgetError, RecipeError, UserError
from toasterft.progress import Silent
from toasterft.runs.meter import SPEND_FILE, Meter
from toasterft.scoring.rewards import Completion, Rewards, thinking
from toasterft.teachers import api, training_session
from toasterft.teachers.api import BackgroundRequests, Endpoint, SpendLedger, background
from toasterft.teachers.judge import Judge, level_of
from toasterft.teachers.refine import Refiner, Template, Writer
from toasterft.teachers.training_session import LiveTeachers

pytestmark = pytest.mark.usefixtures("quick_retries")

PRICE_IN, PRICE_OUT = 1.0, 4.0
ONE_USD = (INPUT_TOKENS * PRICE_IN + OUTPUT_TOKENS * PRICE_OUT) / 1e6
FACTS = [{"label": "red", "value": 7}, {"label": "blue", "value": 3}]
EXAMPLE = Example("1", "How much higher is red than blue?", "4", (), "It is higher, so 4.", facts=FACTS)
GOOD_TRACE = "red = 7, blue = 3. 7 - 3 = 4."
HALF_TRACE = "red = 7. So 4."


class Helper(Teacher):
    """Judges and rewrites. `behave` may also say what is said: `say: …`."""

    def say(self, how, body):
        if how.startswith("say: "):
            return how.removeprefix("say: ")
        if "Reply with exactly one word" in prompt_of(body):
            return "**High**"
        answer = re.search(r"End in the answer (.*?)\. Write", prompt_of(body))
        return f"So {answer[1]}."


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Tries, pauses and waits of a training, a hundred times shorter."""
    monkeypatch.setattr(background, "WAIT_SECONDS", 20.0)
    monkeypatch.setattr(training_session, "TRY_SECONDS", 0.5)
    monkeypatch.setattr(training_session, "TRIES", 2)


def requests_to(teacher, ledger=None, **more):
    service = api.custom_service(
        teacher.url, "fake", input_usd_per_mtok=PRICE_IN, output_usd_per_mtok=PRICE_OUT
    )
    return BackgroundRequests(Endpoint(service, ledger, **{"tries": 2, "timeout_seconds": 0.5, **more}))


def completion(trace, answer="4"):
    text = f"<think>{trace}</think><answer>{answer}</answer>"
    return Completion(text, Parsed(trace, answer, True), 20, True, 64)


def row_file(folder, url, **more):
    row = {"name": "fake", "base_url": url, "input_usd_per_mtok": PRICE_IN, "output_usd_per_mtok": PRICE_OUT}
    path = folder / "teacher.yaml"
    path.write_text(json.dumps(row | more))
    return path


# --- the judge -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "level"),
    [("low", 0.0), ("Medium.", 0.5), ("**HIGH**", 1.0), ("It is high, very high", 1.0), ("", None),
     ("low or medium", None), ("I cannot say", None), ("highly", None)],
)  # fmt: skip
def test_levels(reply, level):
    assert level_of(reply) == level


@pytest.mark.parametrize(("word", "level"), [("low", 0.0), ("medium", 0.5), ("high", 1.0)])
def test_the_verdict_is_the_reward(word, level):
    with Helper(f"say: {word}") as teacher:
        judge = Judge(requests_to(teacher))
        rewards = Rewards({"thinking_judge": 2.0}, {"thinking_judge": judge})
        rewards.start(completion(GOOD_TRACE), EXAMPLE)
        earned = rewards(completion(GOOD_TRACE), EXAMPLE)
        judge.requests.close()
    assert earned == {"thinking_judge": level}
    assert rewards.total(earned) == 2 * level
    assert (judge.asked, judge.failed) == (1, 0)
    prompt = prompt_of(teacher.asked[0])
    for said in ('"label": "red", "value": 7', EXAMPLE.question, "Correct answer: 4", GOOD_TRACE):
        assert said in prompt
    assert teacher.asked[0]["temperature"] == 0


def test_without_facts_the_reference_stands_in_and_without_a_trace_nobody_is_asked():
    with Helper() as teacher:
        judge = Judge(requests_to(teacher))
        judge.start(completion("  "), EXAMPLE)
        assert judge(completion("  "), EXAMPLE) == 0.0
        assert teacher.asked == []
        bare = Example("2", "How high?", "4", (), "It is at 4.")
        judge.start(completion("At {trace} 4."), bare)
        assert judge(completion("At {trace} 4."), bare) == 1.0
        judge.requests.close()
    assert "a reference says: It is at 4." in prompt_of(teacher.asked[0])
    assert "At {trace} 4." in prompt_of(teacher.asked[0])
    assert judge.asked == 1


@pytest.mark.parametrize(
    ("how", "kind"),
    [("slow", "timeout"), ("say: I would rather not", None), ("429-late", "rate"), ("500", "server"),
     ("malformed", "malformed"), ("html", "malformed"), ("drop", "dropped"), ("401", "refused")],
)  # fmt: skip
def test_a_judge_that_fails_leaves_it_to_the_local_checker(how, kind):
    traces = [GOOD_TRACE, HALF_TRACE, "red = 8. So 5."]
    with Helper(how) as teacher:
        judge = Judge(requests_to(teacher, give_up_after=100))
        for trace in traces:
            judge.start(completion(trace), EXAMPLE)
        found = [judge(completion(trace), EXAMPLE) for trace in traces]
        judge.requests.close()
    assert found == [thinking(completion(trace), EXAMPLE) for trace in traces]
    assert found[0] > found[1] > found[2]
    assert (judge.asked, judge.failed) == (3, 3)
    assert sum(judge.requests.failures.values()) == (0 if kind is None else 3)
    assert set(judge.requests.failures) <= {kind, "refused"}


def test_all_traces_of_a_step_are_judged_together():
    traces = [f"red = {n}." for n in range(12)]
    all_here = threading.Barrier(12, timeout=20)

    def once_all_are_here(*_):
        all_here.wait()
        return "good"

    with Helper(once_all_are_here) as teacher:
        judge = Judge(requests_to(teacher, concurrency=12, timeout_seconds=20.0))
        for trace in traces * 2:
            judge.start(completion(trace), EXAMPLE)
        assert [judge(completion(trace), EXAMPLE) for trace in traces * 2] == [1.0] * 24
        judge.requests.close()
    assert len(teacher.asked) == teacher.at_once == 12  # what is said twice is judged once


def test_a_step_waits_only_so_long_and_a_late_verdict_is_there_next_time(monkeypatch):
    monkeypatch.setattr(background, "WAIT_SECONDS", 0.2)
    with Helper("held") as teacher:
        judge = Judge(requests_to(teacher, timeout_seconds=20.0, tries=1))
        judge.start(completion(HALF_TRACE), EXAMPLE)
        assert judge(completion(HALF_TRACE), EXAMPLE) < 1
        assert judge.requests.failures == {"late": 1}
        monkeypatch.setattr(background, "WAIT_SECONDS", 20.0)
        teacher.gate.set()
        judge.start(completion(HALF_TRACE), EXAMPLE)
        assert judge(completion(HALF_TRACE), EXAMPLE) == 1.0
        judge.requests.close()
    assert len(teacher.asked) == 1


def test_a_cap_ends_the_asking_and_nothing_else():
    with Helper() as teacher:
        # A request may cost 1,024 tokens of output: $0.0041, and $0.0010 of input.
        ledger = SpendLedger(cap_usd=4 * ONE_USD + 0.006)
        judge = Judge(requests_to(teacher, ledger))
        traces = [f"red = {n}. So 4." for n in range(20)]
        for trace in traces:
            judge.start(completion(trace), EXAMPLE)
        found = [judge(completion(trace), EXAMPLE) for trace in traces]
        judge.requests.close()
    assert 0 < judge.failed < 20
    assert judge.requests.failures == {"cap": judge.failed}
    assert sum(level == 1.0 for level in found) == 20 - judge.failed == len(teacher.asked)
    assert ledger.spent_usd <= ledger.cap_usd


def test_a_reward_named_without_a_judge_is_refused():
    with pytest.raises(RecipeError, match="needs a judge"):
        Rewards({"thinking_judge": 1.0})
    with pytest.raises(RecipeError, match="need each other"):
        recipe.load("dyme", None, ["judge=gemini-3.8-flash"])
    with pytest.raises(RecipeError, match="need each other"):
        recipe.load("dyme", None, ["rewards.thinking_judge=1"])


# --- the refiner -----------------------------------------------------------------------------


def refiner_of(teacher, **more):
    return Refiner(Template(), Writer(requests_to(teacher, **more)))


def refined(refiner, example):
    refiner.start(example)
    return refiner(example)


def test_a_model_rewrites_references_once_per_sample_and_template():
    with Helper(f"say: ```\n<think>{GOOD_TRACE}</think>\n<answer>4</answer>\n```") as teacher:
        refiner = refiner_of(teacher)
        assert refined(refiner, EXAMPLE) == refined(refiner, EXAMPLE) == GOOD_TRACE
        assert len(teacher.asked) == 1
        other = Example("2", "How much lower is blue than red?", "4", (), None, facts=FACTS)
        assert refined(refiner, other) == GOOD_TRACE
        assert len(teacher.asked) == 2
        refiner.template = Template(("goal", "facts", "step", "conclusion"), whole_table=True, headings=True)
        refined(refiner, EXAMPLE)
        assert len(teacher.asked) == 3
        refiner.writer.requests.close()
    assert refiner.counts == {"refined": 4}
    first, last = prompt_of(teacher.asked[0]), prompt_of(teacher.asked[2])
    for said in ('"label": "blue", "value": 3', EXAMPLE.question, "Answer: 4", EXAMPLE.reasoning):
        assert said in first
    assert "Observations: the values" in last
    assert "every row of the table" in last
    assert "Observations" not in first


@pytest.mark.parametrize(
    "said",
    [
        "red = 7, blue = 3. 7 - 3 = 5.",  # misses the gold answer
        "red = 7, blue = 2. So 4.",  # reads wrong
        "So 4.",  # reads nothing
        "red = 7, blue = 3. 7 - 3 = 4. " + "That is that. " * 200,
        "",
    ],
)
def test_what_misses_the_gold_answer_is_dropped(said):
    with Helper(f"say: {said}") as teacher:
        refiner = refiner_of(teacher)
        assert refined(refiner, EXAMPLE) is None
        assert refined(refiner, EXAMPLE) is None
        refiner.writer.requests.close()
    assert refiner.counts == {"dropped": 2}
    assert len(teacher.asked) == 1


@pytest.mark.parametrize("how", ["slow", "429-late", "malformed", "500", "401"])
def test_a_refiner_that_fails_leaves_the_reference_and_is_asked_again(how):
    with Helper(how) as teacher:
        refiner = refiner_of(teacher)
        assert refined(refiner, EXAMPLE) is None
        assert refiner.counts == {"failed": 1}
        teacher.behave = lambda *_: f"say: {GOOD_TRACE}"
        again = refined(refiner, EXAMPLE)
        refiner.writer.requests.close()
    # Only a service that refuses its key is left alone from then on.
    assert again == (None if how == "401" else GOOD_TRACE)


def test_nothing_to_rewrite_from():
    with Helper() as teacher:
        refiner = refiner_of(teacher)
        assert refined(refiner, Example("3", "How high?", "4")) is None
        refiner.writer.requests.close()
    assert teacher.asked == []
    assert refiner.counts == {"kept": 1}


# --- whose bill it is ------------------------------------------------------------------------


def settings(**more):
    return recipe.validate(recipe.Dyme, {"method": "dyme", **more}, "a test")


def test_a_model_paid_by_the_token_needs_a_cap(tmp_path, monkeypatch):
    file = str(row_file(tmp_path, "http://127.0.0.1:9/v1"))
    with pytest.raises(BudgetError, match="needs a cap"):
        LiveTeachers(settings(refiner=file), None)
    assert LiveTeachers(settings(refiner=file, teachers_usd=1.0), None).services
    assert LiveTeachers(settings(refiner=file), 3.0).services
    free = row_file(tmp_path, "http://127.0.0.1:9/v1", input_usd_per_mtok=0, output_usd_per_mtok=0)
    assert LiveTeachers(settings(refiner=str(free)), None).services
    with pytest.raises(UserError, match="did you mean gemini-3"):
        LiveTeachers(settings(refiner="gemini-3.8-flsh"), None)
    monkeypatch.delenv("GEMINI_API_KEY", raising=False)
    with pytest.raises(UserError, match="GEMINI_API_KEY"):
        LiveTeachers(settings(refiner="gemini-3.8-flash", teachers_usd=1.0), None)
    assert not LiveTeachers(settings(refiner="none"), None).services


def test_answers_count_on_the_meter_and_shrink_with_the_budget(tmp_path):
    wanted = {"judge": str(row_file(tmp_path, "http://127.0.0.1:9/v1")), "teachers_usd": 1.0}
    rewards = {"accuracy": 1.0, "thinking_judge": 1.0}
    meter = Meter(usd_per_hour=0.36, budget_usd=0.5)
    live_teachers = LiveTeachers(settings(rewards=rewards, **wanted), meter.budget_usd)
    live_teachers.open(tmp_path, meter)
    before = meter.usd
    live_teachers._ledger.paid_usd = 0.2
    assert meter.usd == pytest.approx(before + 0.2, abs=1e-3)
    assert meter.seconds_left == pytest.approx((0.5 - before - 0.2) / 0.36 * 3600, rel=1e-2)
    live_teachers.cap_spending(meter)
    assert live_teachers._ledger.cap_usd == pytest.approx(0.5 - before, abs=1e-3)
    meter.budget_usd = 9.0
    live_teachers.cap_spending(meter)
    assert live_teachers._ledger.cap_usd == 1.0
    live_teachers.close()


def test_a_resumed_run_counts_its_answers_once(tmp_path):
    first = Meter(usd_per_hour=1.0)
    first.attach(tmp_path)
    first.teachers_usd = lambda: 0.25
    first.close()
    spent = json.loads((tmp_path / SPEND_FILE).read_text())
    assert spent["teachers_usd"] == 0.25
    second = Meter(usd_per_hour=1.0)
    second.attach(tmp_path)
    assert second.before_usd == pytest.approx(spent["usd"] - 0.25)
    second.teachers_usd = lambda: 0.30
    assert second.usd == pytest.approx(spent["usd"] + 0.05, abs=1e-3)
    second.close()


# --- a whole run -----------------------------------------------------------------------------

RUN = (
    "max_steps=4", "num_generations=4", "per_device_train_batch_size=8", "gradient_accumulation_steps=1",
    "max_completion_length=6", "eval_limit=2", "lora.r=4", "learning_rate=1e-3", "max_length=4000",
    "rewards={accuracy: 1.0, format: 1.0, thinking_judge: 1.0}",
)  # fmt: skip


@pytest.fixture
def thinks(monkeypatch):
    """An untrained model writes no tags: whatever it says counts as its trace."""
    monkeypatch.setattr(
        "toasterft.teachers.judge._trace", lambda completion: completion.text.strip() or "nothing"
    )


def train(run_cli, tiny_model, charts_folder, file, *words):
    return run_cli(
        "dyme", "--model", tiny_model(), "--data", charts_folder, "--json", "--quiet", *RUN, f"judge={file}",
        f"refiner={file}", *words,
    )  # fmt: skip


def rows_of(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "switch/memorise" in row]


def test_a_run_with_judge_and_refiner(run_cli, tiny_model, charts_folder, tmp_path, homes, thinks):
    with Helper() as teacher:
        file = row_file(tmp_path, teacher.url)
        done = train(run_cli, tiny_model, charts_folder, file, "teachers_usd=1", "--price", "0.01")
    assert done.code == 0, done.err
    record = done.json()
    folder = homes / "runs" / record["id"]
    rows = rows_of(folder)
    assert [row["judge/failed"] for row in rows] == [0.0] * 4
    assert [row["refiner/failed"] for row in rows] == [0.0] * 4
    for row in rows:  # the helper writes no more than "So 4."
        assert [row[f"refiner/{name}"] for name in ("refined", "kept", "dropped", "failed")] == [0, 0, 1, 0]
        assert row["rewards/thinking_judge/mean"] == 1.0
    judged = sum("Reply with exactly one word" in prompt_of(body) for body in teacher.asked)
    rewritten = len(teacher.asked) - judged
    assert 0 < judged <= 4 * 8
    assert 0 < rewritten <= 4 * 2
    bill = len(teacher.asked) * ONE_USD
    assert rows[-1]["teachers/usd"] == pytest.approx(bill)
    machine = 0.01 / 3600 * record["measured"]["seconds"]
    assert record["measured"]["usd"] == pytest.approx(bill + machine, abs=2e-4)
    ledger = [json.loads(line) for line in (folder / training_session.LEDGER).read_text().splitlines()]
    assert sum(line["event"] == "paid" for line in ledger) == len(teacher.asked)
    saved = recipe.load("dyme", str(folder / "recipe.yaml"))
    assert (saved.judge, saved.refiner, saved.teachers_usd) == (str(file), str(file), 1.0)


def test_a_run_whose_endpoint_dies_goes_on(run_cli, tiny_model, charts_folder, tmp_path, homes, thinks):
    with Helper(lambda number, _: "good" if number < 6 else "500") as teacher:
        file = row_file(tmp_path, teacher.url)
        done = train(run_cli, tiny_model, charts_folder, file, "teachers_usd=1")
    assert done.code == 0, done.err
    rows = rows_of(homes / "runs" / done.json()["id"])
    assert len(rows) == 4
    assert rows[-1]["judge/failed"] == rows[-1]["refiner/failed"] == 1.0
    assert rows[0]["judge/failed"] < 1.0
    assert all(row["loss"] < 0 for row in rows)  # memorising goes on: -1/G by the loss's own count


def test_a_run_stays_within_what_its_helpers_may_cost(
    run_cli, tiny_model, charts_folder, tmp_path, homes, thinks
):
    with Helper() as teacher:
        file = row_file(tmp_path, teacher.url)
        done = train(run_cli, tiny_model, charts_folder, file, f"teachers_usd={3 * ONE_USD + 0.01}")
        assert done.code == 0, done.err
    rows = rows_of(homes / "runs" / done.json()["id"])
    assert rows[-1]["judge/failed"] > 0.5
    assert rows[-1]["teachers/usd"] <= 3 * ONE_USD + 0.01
    assert sum(teacher.billed.values()) * ONE_USD <= 3 * ONE_USD + 0.01


def test_a_run_without_a_cap_is_refused_and_leaves_nothing(
    run_cli, tiny_model, charts_folder, tmp_path, homes
):
    with Helper() as teacher:
        done = train(run_cli, tiny_model, charts_folder, row_file(tmp_path, teacher.url))
    assert done.code == 2
    assert "teachers_usd" in done.err
    assert teacher.asked == []
    assert not (homes / "runs").exists()


def test_what_each_failure_was_is_said_once():
    said = []

    class Report(Silent):
        def say(self, text):
            said.append(text)

    with Helper("500") as teacher:
        live_teachers = LiveTeachers(settings(), None)
        live_teachers._requests["judge"] = requests_to(teacher)
        judge = Judge(live_teachers._requests["judge"])
        for _ in range(2):
            judge.start(completion(GOOD_TRACE), EXAMPLE)
            judge(completion(GOOD_TRACE), EXAMPLE)
            live_teachers.report_failures(Report())
        live_teachers.close()
    assert len(said) == 1
    assert said[0].startswith("judge fake: HTTP 500")
    assert said[0].endswith("the local checker takes its place")
