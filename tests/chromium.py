"""A headless Chromium for the tests of pages (Debian: apt install chromium chromium-driver)."""

from __future__ import annotations

import os
import shutil

import pytest
from selenium import webdriver

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")


def start() -> webdriver.Chrome:
    """Start one; where none is installed the test is skipped, or fails if TOASTERFT_BROWSER is "required"."""
    if not (CHROMIUM and DRIVER):
        without = pytest.fail if os.environ.get("TOASTERFT_BROWSER") == "required" else pytest.skip
        without("no Chromium with its driver here")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
