"""The arena's page in a real, headless Chromium: what a voter does, and what a hostile model tries."""

from __future__ import annotations

import contextlib
import sqlite3

import chromium
import fake_runs
import pytest
from arena_server import Server, until
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

DESKTOP, PHONE = (1280, 800), (390, 844)


class Tab:
    """One browser with cookies of its own, and what these tests do with it."""

    def __init__(self) -> None:
        self.driver = chromium.start()
        self.size(DESKTOP)

    def size(self, size):
        width, height = size
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == PHONE},
        )

    def find(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def js(self, code, *arguments):
        return self.driver.execute_script(f"return {code}", *arguments)

    def wait(self, condition):
        return WebDriverWait(self.driver, 15, poll_frequency=0.02).until(lambda _: condition())

    def view(self, name):
        self.wait(lambda: self.find(f"#view-{name}").is_displayed())

    def open(self, server, voter=None):
        """Through a fresh link; as `voter`, where one is named."""
        self.driver.get("about:blank")  # else only the fragment would change
        self.driver.get(f"{server.address}#key={server.fresh_key()}")
        if voter:
            self.view("who")
            self.find("#who-name").send_keys(voter, Keys.ENTER)
            self.wait(
                lambda: self.find("#view-vote").is_displayed() or self.find("#view-done").is_displayed()
            )

    @property
    def done(self):
        return int(self.find("#progress-text").get_attribute("textContent").split()[0])

    @property
    def question(self):
        return self.find("#question").text

    def press(self, key, done):
        """Press a key, then wait until so many comparisons are done."""
        self.find("body").send_keys(key)
        self.wait(lambda: self.done == done)

    def click(self, selector, done):
        self.find(selector).click()
        self.wait(lambda: self.done == done)

    def errors(self):
        return [row["message"] for row in self.driver.get_log("browser") if row["level"] == "SEVERE"]


class Arena(Server):
    """A server that hands out fresh links, as its terminal does."""

    def let_in(self):
        self.inside = self.client()
        assert self.inside.post("/api/enter", json={"key": self.key}).status_code == 200
        return self

    def fresh_key(self):
        return self.inside.post("/api/invite", json={}).json()["key"]

    def votes(self):
        with contextlib.closing(sqlite3.connect(f"{self.info['folder']}/votes.sqlite")) as db:
            return db.execute("SELECT voter, choice FROM votes ORDER BY id").fetchall()


@pytest.fixture(scope="module")
def browser():
    tab = Tab()
    yield tab
    tab.driver.quit()


@pytest.fixture
def tab(browser):
    """A browser nobody has voted in."""
    browser.driver.execute_cdp_cmd("Network.clearBrowserCookies", {})
    browser.size(DESKTOP)
    yield browser
    if browser.driver.current_url.startswith("http"):
        browser.js("localStorage.clear()")
    browser.driver.get("about:blank")
    browser.driver.get_log("browser")


@pytest.fixture(scope="module")
def arena(tmp_path_factory):
    data, runs, ids = fake_runs.three(tmp_path_factory.mktemp("arena"), count=10)
    with Arena(*ids[:2], "--data", data, "--runs-dir", runs) as server:
        yield server.let_in()


def test_votes_by_click_and_key_with_undo_and_reload(tab, arena):
    tab.open(arena, "Ann")
    assert "#key" not in tab.driver.current_url  # nothing to share by accident
    first = tab.question
    tab.click("[data-choice=left]", 1)
    tab.press("b", 2)
    second, third = tab.question, tab.press("t", 3)
    assert len({first, second, tab.question, third}) == 4
    tab.press("x", 4)
    assert [choice for name, choice in arena.votes() if name == "Ann"] == ["left", "right", "tie", "bad"]
    asked = tab.question
    tab.press("u", 3)
    tab.click("#ballot [data-undo]", 2)
    assert tab.question == second
    tab.press("t", 3)
    tab.press(Keys.ARROW_RIGHT, 4)
    assert tab.question == asked
    tab.driver.refresh()
    tab.wait(lambda: tab.find("#view-vote").is_displayed())
    assert (tab.done, tab.question, tab.find("#voter").text) == (4, asked, "Ann")
    assert not tab.errors()


def test_a_key_held_down_votes_once(tab, arena):
    tab.open(arena, "Hal")
    event = "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'a', bubbles: true, repeat: %s}))"
    tab.js(event % "false")
    for _ in range(30):
        tab.js(event % "true")
    tab.wait(lambda: tab.done == 1)
    tab.js("new Promise((done) => setTimeout(done, 150))")
    assert tab.done == 1
    tab.js(
        "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'a', ctrlKey: true, bubbles: true}))"
    )
    assert [choice for name, choice in arena.votes() if name == "Hal"] == ["left"]


def test_two_voters_and_the_leaderboard(tab, arena):
    tab.open(arena, "Mia")
    for done in range(1, 11):
        tab.press("a" if "3" in tab.question else "b", done)
    tab.view("done")
    tab.find("#voter").click()
    tab.view("who")
    assert "Mia" in tab.find("#who-list").text
    assert "10 of 10" in tab.find("#who-list").text
    tab.find("#who-name").send_keys("Noa", Keys.ENTER)
    tab.view("vote")
    assert tab.done == 0
    for done in range(1, 11):
        tab.press("t", done)
    tab.view("done")
    tab.find("#view-done a").click()
    tab.view("board")
    text = tab.find("#view-board").text
    for expected in ("right", "wrong", "95", "Mia 10", "Noa 10", "Pair by pair", "same verdict"):
        assert expected in text
    assert "NaN" not in text
    assert "undefined" not in text
    assert tab.js("document.querySelectorAll('#view-board tbody tr').length") >= 3
    downloads = [
        link.get_attribute("href") for link in tab.driver.find_elements(By.CSS_SELECTOR, ".downloads a")
    ]
    assert downloads == [f"{arena.address}leaderboard.csv", f"{arena.address}votes.csv"]
    assert not tab.errors()


def test_another_device_is_let_in_by_a_link_made_on_the_page(tab, arena):
    tab.open(arena, "Ida")
    tab.find("nav a").click()
    tab.view("board")
    tab.find("#view-board section:last-of-type button").click()
    link = tab.wait(lambda: tab.find("#invite-out input").get_attribute("value"))
    other = Tab()
    try:
        other.driver.get(link)
        other.view("who")
        other.driver.get("about:blank")
        other.driver.execute_cdp_cmd("Network.clearBrowserCookies", {})
        other.driver.get(link)
        other.view("closed")
        assert "has been used" in other.find("#closed-why").text
    finally:
        other.driver.quit()


def test_without_a_link_there_is_nothing_to_see(tab, arena):
    for address in (arena.address, f"{arena.address}#key=wrong", f"{arena.address}#board"):
        tab.driver.get("about:blank")
        tab.driver.get(address)
        tab.view("closed")
        assert not tab.find("#nav").is_displayed()
        assert tab.find("#question").text == ""


def test_a_vote_cast_while_the_server_is_dead_arrives_when_it_is_back(tab, tmp_path):
    data, runs, ids = fake_runs.three(tmp_path)
    words = [*ids[:2], "--data", data, "--runs-dir", runs]
    with Arena(*words) as server:
        tab.open(server.let_in(), "Ann")
        tab.press("a", 1)
        server.kill()
        tab.find("body").send_keys("b")
        tab.wait(lambda: "Not saved" in tab.find("#trouble").text)
        assert tab.done == 1
    with Arena(*words, "--port", server.port) as again:
        tab.wait(lambda: tab.done == 2)
        assert not tab.find("#trouble").is_displayed()
        assert again.votes() == [("Ann", "left"), ("Ann", "right")]
        tab.press("u", 1)
        assert until(lambda: again.votes() == [("Ann", "left")])


def test_a_hostile_model_is_read_and_nothing_more(tab, tmp_path):
    hostile = fake_runs.HOSTILE
    data = fake_runs.data_folder(tmp_path / "data", len(hostile))
    texts = list(hostile.values())

    def wrapped(k):
        return {"reasoning": texts[k], "answer": texts[k]}

    def bare(k):  # no tags at all, so that everything is "the answer"
        return {"reasoning": None, "answer": texts[k], "text": texts[k], "well_formed": False}

    attack = "<img src=x onerror=window.broken=9>"
    ids = [
        fake_runs.evaluation(tmp_path / "runs", "wrapped", data, wrapped, range(len(hostile))),
        fake_runs.evaluation(tmp_path / "runs", "bare", data, bare, range(len(hostile)), suffix=attack),
    ]
    with Arena(*ids, "--data", data, "--runs-dir", tmp_path / "runs") as server:
        tab.open(server.let_in(), "<b onclick=x>Ann</b>")
        seen = set()
        for done in range(len(hostile)):
            shown = tab.js("[...document.querySelectorAll('.output .text')].map((one) => one.textContent)")
            kind = next(name for name, text in hostile.items() if text.strip() in shown)
            assert shown == [hostile[kind].strip()] * 3, (
                kind
            )  # reasoning and answer of one, answer of the other
            seen.add(kind)
            for size in (PHONE, DESKTOP):
                tab.size(size)
                assert tab.js("document.documentElement.scrollWidth <= innerWidth"), (
                    f"{kind} is too wide at {size}"
                )
                wide = "[...document.querySelectorAll('.text')].every((one) => one.scrollWidth <= one.clientWidth + 1)"
                assert tab.js(wide), f"{kind} leaves its box at {size}"
                assert tab.find("[data-choice=tie]").is_displayed()
            inside = "document.querySelectorAll('.written :not(div, span)').length"
            assert tab.js(inside) == 0, f"{kind} became elements"
            tab.press("t", done + 1)
        assert seen == set(hostile)
        tab.driver.get(f"{server.address}#board")
        tab.view("board")
        assert attack in tab.find("#view-board").text
        assert "<b onclick=x>Ann</b> 10" in tab.find("#view-board").text
        assert tab.js("window.broken") is None
        loaded = tab.js("performance.getEntriesByType('resource').map((one) => one.name)")
        assert all(name.startswith(server.address) for name in loaded), loaded
        assert not tab.errors()


def test_markup_could_not_run_even_if_it_got_in(tab, arena):
    tab.open(arena, "Ann")
    refused = (
        "(() => { try { document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=window.broken=1>'); "
        "return false } catch (error) { return error.name } })()"
    )
    assert tab.js(refused) == "TypeError"  # trusted types
    sheet = "Object.assign(document.createElement('link'), {rel: 'stylesheet', href: 'http://127.0.0.1:9/'})"
    tab.js(f"document.head.appendChild({sheet})")
    assert until(lambda: any("Content Security Policy" in message for message in tab.errors()))


def test_the_picture_zooms(tab, arena):
    tab.open(arena, "Zoe")

    def width():
        return tab.js("document.getElementById('zoom-image').getBoundingClientRect().width")

    tab.find("body").send_keys("z")
    assert tab.wait(lambda: tab.js("document.getElementById('zoom').open"))
    before = width()
    tab.find("#zoom-in").click()
    assert width() == pytest.approx(1.5 * before, rel=0.01)
    event = "new WheelEvent('wheel', {deltaY: -200, clientX: 300, clientY: 200, cancelable: true})"
    tab.js(f"document.getElementById('zoom').dispatchEvent({event})")
    assert width() > 2 * before
    tab.find("#zoom").send_keys("a")  # no vote behind the picture
    tab.find("#zoom-fit").click()
    assert width() == pytest.approx(before)
    tab.find("#zoom").send_keys(Keys.ESCAPE)
    assert tab.wait(lambda: not tab.js("document.getElementById('zoom').open"))
    tab.find(".pictures button").click()
    assert tab.wait(lambda: tab.js("document.getElementById('zoom').open"))
    tab.find("#zoom-close").click()
    assert tab.done == 0


def test_a_phone(tab, arena):
    tab.size(PHONE)
    tab.open(arena, "A name of forty characters, not one more")
    assert tab.js("document.documentElement.scrollWidth <= innerWidth")
    for button in tab.driver.find_elements(By.CSS_SELECTOR, ".choices button"):
        box = button.rect
        assert box["height"] >= 44
        assert 0 <= box["x"] <= 390 - box["width"]
    ballot = tab.js("document.getElementById('ballot').getBoundingClientRect().bottom")
    assert ballot <= 844 + 1  # in view without scrolling
    left, right = tab.find("#out-left").rect, tab.find("#out-right").rect
    assert right["y"] >= left["y"] + left["height"]  # one below the other
    tab.click("[data-choice=bad]", 1)
    tab.driver.get(f"{arena.address}#board")
    tab.view("board")
    assert tab.js("document.documentElement.scrollWidth <= innerWidth")
