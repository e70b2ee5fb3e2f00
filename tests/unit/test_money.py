"""The bill is ahead of the clock, the cap has an alarm, and `--after` waits for a run; without torch."""

from __future__ import annotations

import json
import logging
import os
import pty
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import pytest

from toasterft.errors import CapReached, UserError
from toasterft.jobs import guards
from toasterft.runs import meter, start_marks
from toasterft.runs.meter import AHEAD_SECONDS, Meter
from toasterft.runs.run_folder import Run
from toasterft.runs.stop import Stop


def spend(folder):
    return json.loads((folder / meter.SPEND_FILE).read_text())


def test_the_bill_is_ahead_until_it_is_closed(tmp_path):
    first = Meter(usd_per_hour=3600, budget_usd=1e9)
    first.attach(tmp_path)
    assert spend(tmp_path)["seconds"] >= first.seconds + AHEAD_SECONDS - 0.1
    # As if it were killed: the next one goes on from what was billed.
    second = Meter(usd_per_hour=3600)
    second.attach(tmp_path)
    assert second.before_seconds == pytest.approx(first.seconds + AHEAD_SECONDS, abs=0.1)
    first._stop.set()
    second.pace["step_seconds"] = 2.5
    second.close()
    second.close()
    assert spend(tmp_path)["seconds"] == pytest.approx(second.seconds, abs=0.1)
    third = Meter()
    third.attach(tmp_path, keep=False)
    assert third.pace == {"step_seconds": 2.5}
    assert third.before_usd == pytest.approx(spend(tmp_path)["usd"])


def test_a_resume_that_is_killed_before_the_bill_is_open_is_charged(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    code = "import os, sys; from toasterft.runs import start_marks; start_marks.leave(sys.argv); os._exit(9)"
    for words in (["--resume", tmp_path], [f"--resume={tmp_path}"], ["--resume", tmp_path / "none"]):
        subprocess.run([sys.executable, "-c", code, *map(str, words)], check=False)
    start_marks.leave(["sft", "--resume", str(tmp_path)])
    assert len(list(tmp_path.glob(".start-*"))) == 3
    went_on = Meter(usd_per_hour=3600)
    went_on.attach(tmp_path)
    went_on.close()
    assert went_on.before_seconds == went_on.before_usd == 2 * meter.AHEAD_SECONDS
    assert not list(tmp_path.glob(".start-*"))


@pytest.mark.parametrize("usd", ["NaN", "-1", "Infinity", '"much"', "[1]"])
def test_a_damaged_bill_lifts_no_cap(usd, tmp_path):
    (tmp_path / meter.SPEND_FILE).write_text(f'{{"seconds": 1, "usd": {usd}}}')
    with pytest.raises(UserError, match="damaged"):
        Meter(1.0, 5.0).attach(tmp_path)


def test_a_run_without_time_for_a_step_is_not_opened(tmp_path):
    bill = {"seconds": 90.0, "usd": 90.0, "start_seconds": 7.0, "step_seconds": 2.0, "save_seconds": 2.0}
    (tmp_path / meter.SPEND_FILE).write_text(json.dumps(bill))
    run = Run(tmp_path, {"method": "sft"})
    with pytest.raises(CapReached, match="10 s are left, and a start, a step and saving it take 11 s"):
        guards.require_time_for_a_step(started_now(3600.0, 100.0), run)
    guards.require_time_for_a_step(started_now(3600.0, 103.0), run)
    guards.require_time_for_a_step(started_now(3600.0, None), run)
    assert spend(tmp_path) == bill


def started_now(price, budget):
    found = Meter(price, budget)
    found._began = time.monotonic() + meter.EXIT_SECONDS
    return found


def test_what_saving_took_is_kept(homes):
    assert meter.known_saving("sft of x, rank 4") == meter.SAVING_SECONDS
    meter.keep_saving("sft of x, rank 4", 7.25)
    assert meter.known_saving("sft of x, rank 4") == 7.25
    (homes / "cache" / meter.SAVING_FILE).write_text("{")
    assert meter.known_saving("sft of x, rank 4") == meter.SAVING_SECONDS


def test_an_alarm_ends_a_start_though_a_library_swallows_it(monkeypatch):
    monkeypatch.setattr("toasterft.runs.stop.AGAIN_SECONDS", 0.05)
    before, rang = signal.getsignal(signal.SIGALRM), 0
    with Stop() as stop:
        stop.arm(0.01)
        for _ in range(2):
            try:
                time.sleep(5)
            except KeyboardInterrupt:
                rang += 1
        with stop.held():
            time.sleep(0.1)
        stop.disarm()
        time.sleep(0.1)
    assert rang == 2
    assert stop.capped
    assert signal.getsignal(signal.SIGALRM) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGALRM])
def test_a_signal_never_leaves_the_lock_of_logging_taken(number, monkeypatch):
    """Seen on 2026-11-28: an alarm inside `logging`, and every later thread that opened a PNG stood still."""
    release = logging._releaseLock

    def interrupted():
        monkeypatch.setattr(logging, "_releaseLock", release)
        signal.raise_signal(number)
        release()

    # A function of logging's own, as far as its frame says.
    inside = types.FunctionType(
        interrupted.__code__, {**globals(), "__name__": "logging"}, "f", None, interrupted.__closure__
    )

    def log():
        monkeypatch.setattr(logging, "_releaseLock", inside)
        logging._acquireLock()
        logging._releaseLock()
        time.sleep(5)

    with Stop() as stop, pytest.raises(KeyboardInterrupt):
        log()
    assert stop.capped == (number == signal.SIGALRM)
    assert (stop.signal_number is None) == stop.capped
    free = threading.Thread(target=logging.getLogger, args=("any",), daemon=True)
    free.start()
    free.join(5)
    assert not free.is_alive()


def test_a_signal_ends_a_start_at_once_and_a_step_later():
    with Stop() as stop:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        stop.signal_number, stop.at_once = None, False
        signal.raise_signal(signal.SIGINT)
    assert stop.stopped


def test_a_kill_in_the_first_save_starts_from_step_0(tmp_path):
    from toasterft.jobs.begin import _checkpoint_to_start_from
    from toasterft.progress import Silent

    (tmp_path / "checkpoints" / "checkpoint-3").mkdir(parents=True)
    run = Run(tmp_path, {"sealed_checkpoints": True})
    assert _checkpoint_to_start_from(run, Silent()) is None
    run.record["checkpointed"] = True  # there was a whole one: what is missing is never passed over
    with pytest.raises(UserError, match="no checkpoint of this run is whole"):
        _checkpoint_to_start_from(run, Silent())


AFTER = """
import sys
import threading
from pathlib import Path
from toasterft.cli.after import afterwards
from toasterft.errors import CapReached, UserError
from toasterft.runs import meter, start_marks
kind, folder, flag = sys.argv[1:4]
with afterwards(f"touch {flag}" + (" # poweroff" if "power" in kind else "")):
    if kind == "typo":
        raise UserError("what?")
    if kind == "cap":
        raise CapReached("nothing is left")
    meter.Meter().attach(Path(folder))
    if kind == "discarded":
        import shutil
        shutil.rmtree(folder)
        raise UserError("the data cannot be trained on")
    if kind == "bug":
        raise RuntimeError("a bug")
"""


@pytest.mark.parametrize(
    ("kind", "due"),
    [("typo", False), ("discarded", False), ("cap", True), ("done", True), ("bug", True), ("power", True)],
)
def test_after_is_for_a_run_that_was_opened(kind, due, tmp_path):
    (tmp_path / "run").mkdir()
    words = [sys.executable, "-c", AFTER, kind, tmp_path / "run", tmp_path / "flag"]
    subprocess.run(words, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    assert (tmp_path / "flag").exists() == due


def test_a_key_stops_the_countdown_to_a_poweroff(tmp_path):
    (tmp_path / "run").mkdir()
    child, terminal = pty.fork()
    if child == 0:
        words = [sys.executable, "-c", AFTER, "power", str(tmp_path / "run"), str(tmp_path / "flag")]
        os.execvpe(words[0], words, os.environ)
    said = b""
    try:
        while b"any key stops it" not in said:
            said += os.read(terminal, 1000)
        os.write(terminal, b"x")
        while b"not run" not in said:
            said += os.read(terminal, 1000)
    finally:
        os.waitpid(child, 0)
        os.close(terminal)
    assert not (tmp_path / "flag").exists()


def test_a_dry_run_ends_as_the_launch_would(run_cli, homes):
    plan = ("sft", "--model", "SmolVLM-256M", "--data", "smolcot-7k", "--gpu", "A40", "--dry-run")
    shown = run_cli(*plan, "--budget", 2, "--max-hours", 3)
    assert shown.code == 0, shown.err
    assert "within the cap of $2.00, $0.00 spent; 3.0 h" in shown.out
    found = run_cli(*plan, "--budget", 0.1, "--json")
    assert found.code == 2
    assert found.json()["caps"]["budget_usd"] == 0.1
    verdict = found.json()["verdict"]
    assert not verdict["starts"]
    assert any(change.startswith("limit=") for change in verdict["changes"])
    refused = run_cli(*plan, "--max-hours", 0.2)
    assert refused.code == 2
    assert "likely to take" in refused.err
    assert "limit=" in refused.err
    assert run_cli(*plan, "--max-hours", 0.2, "--yes").code == 0
    large = run_cli(*plan[:5], "--gpu", "cpu", "per_device_train_batch_size=4096", "--dry-run")
    assert large.code == 2
    assert "GB" in large.err
    assert not Path(homes / "runs").exists()
