"""The report's page in a real, headless Chromium: nothing a model wrote runs, and it fits a phone and a sheet of paper."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chromium
import fake_runs
import pytest

from toasterft.publish.report import page


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    driver = chromium.start()
    yield driver
    driver.quit()


def hostile_page(folder: Path) -> Path:
    """Two evaluations of hostile text, beside a training of hostile figures."""
    data, runs = fake_runs.data_folder(folder / "data", 10), folder / "runs"
    hostile = list(fake_runs.HOSTILE.values())

    def answer(k: int) -> dict[str, Any]:
        text = hostile[k]
        return {
            "answer": text,
            "reasoning": text,
            "kind": text,
            "correct": {"robust": k % 2 == 0},
            "faults": [text],
        }

    rows = [{"step": k, "loss": 1.0, "reward": 0.5, f"rewards/{hostile[k]}/mean": 0.5} for k in range(10)]
    bad = fake_runs.training(runs / "bad", data, rows, method="grpo", record={"notes": hostile})
    record = {"model_base": "toast-tiny", "model_adapter": str(bad), "model_run": "bad"}
    fake_runs.evaluation(runs, "bad", data, answer, range(10), record=record)
    other = fake_runs.evaluation(runs, "other", data, answer, range(10), record={"model_base": "toast-tiny"})
    page.write(["bad", other], runs, folder / "report.html", limit=10)
    return folder / "report.html"


def test_nothing_runs_everything_shows_and_nothing_runs_over(browser: Any, tmp_path: Path) -> None:
    file = hostile_page(tmp_path)
    for width, mobile in ((390, True), (1200, False)):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": mobile}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get(file.as_uri())
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script("return window.broken") is None
    # A refused address, script or style would be told here.
    assert browser.get_log("browser") == []
    shown = "return [...document.images].filter(one => one.complete && one.naturalWidth > 0).length"
    assert browser.execute_script(shown) == 10
    assert browser.execute_script("return getComputedStyle(document.body).display") == "block"


def test_what_is_folded_on_a_screen_is_printed(browser: Any, tmp_path: Path) -> None:
    browser.get(hostile_page(tmp_path).as_uri())
    height = "return document.querySelector('#appendix details').getBoundingClientRect().height"
    seen = []
    for medium in ("screen", "print"):
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": medium})
        seen.append(browser.execute_script(height))
    assert seen[1] > 1.5 * seen[0]
    printed = browser.execute_cdp_cmd("Page.printToPDF", {})["data"]
    assert base64.b64decode(printed).startswith(b"%PDF")
