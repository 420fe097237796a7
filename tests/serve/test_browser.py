"""The pages for people in a real browser: for eyes, keyboards and screen readers, and what people do with them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from datahub.core.settings import Settings
from datahub.serve.config import Tokens
from tests.pack.things import write_things
from tests.serve.running import Running, running
from tests.store.builder import label, tiny_variant

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium")
TOKEN = "r" * 20
BROWSE = "/browse/tiny/1.0/published"
PATHS = ("/", BROWSE, f"{BROWSE}?key=none", f"{BROWSE}/train-000000007", "/browse/things/1.0/published/train-000000003",
         "/browse/none/1.0/published", "/login")  # fmt: skip
WAIT = 60_000
"""Milliseconds that the browser may take for anything."""
CHECKS = Path(__file__).with_name("checks.js")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = Settings(home=tmp_path_factory.mktemp("browser") / "home")
    tiny_variant(settings.home, splits={"train": 130, "test": 6})
    write_things(settings, count=8)
    return settings


@pytest.fixture(scope="module")
def server(home: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(home, tmp_path_factory.mktemp("log") / "access.log") as found:
        said = {"job": "run-7", "dataset": "tiny@1.0/published", "split": "train", "epoch": 3, "position": 10}
        assert found.ask("/v1/jobs", "POST", json.dumps(said).encode()).status == 200
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=WAIT)
        yield found
        found.close()


@pytest.fixture
def page(browser: Any, server: Running, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A page whose scripts must not fail, and must not be refused by the policy."""
    context = browser.new_context(base_url=server.url, **getattr(request, "param", {}))
    context.set_default_timeout(WAIT)
    context.add_init_script(path=CHECKS)
    found, wrong = context.new_page(), []
    found.on("pageerror", lambda error: wrong.append(str(error)))
    found.on("console", lambda line: wrong.append(line.text) if "Content Security Policy" in line.text else None)
    yield found
    context.close()
    assert not wrong


def keys(page: Any) -> list[str]:
    return [each.strip() for each in page.locator(".key").all_text_contents()]


NARROW = {"viewport": {"width": 360, "height": 800}}


@pytest.mark.parametrize("page", [{"color_scheme": "dark", **NARROW}, {"color_scheme": "light"}], indirect=True)
def test_pages_are_sound_and_can_be_read_in_both_schemes(page):
    grounds = set()
    for path in PATHS:
        page.goto(path)
        assert page.evaluate("checks.shape()") == [], path
        assert page.evaluate("checks.contrast()") == [], path
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(grounds) == 1
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert (int(grounds.pop().removeprefix("rgb(").split(",")[0]) < 80) == dark


def test_the_checks_find_what_is_wrong(page):
    page.goto(BROWSE)
    page.evaluate("""() => {
      document.querySelector("h1").style.color = "rgb(200, 200, 200)";
      document.querySelector(".grid img").alt = "";
      document.querySelector("label").remove();
      document.querySelector("main").style.minWidth = "3000px";
    }""")
    assert [each.split(" ")[0] for each in page.evaluate("checks.contrast()")] == ["1.56:"]
    found = [each.split(":")[0] for each in page.evaluate("checks.shape()")]
    assert found == [
        "no alt",
        "no label",
        "scrolls sideways",
    ]


def test_the_keyboard_reaches_everything_in_order(page):
    for path in ("/", f"{BROWSE}?key=test", "/browse/things/1.0/published/train-000000003", "/login"):
        page.goto(path)
        expected, found = page.evaluate("checks.reachable()"), []
        for _ in expected:
            page.keyboard.press("Tab")
            at, visible = page.evaluate("checks.focused()")
            assert visible, (path, at)
            found.append(at)
        assert found == expected, path
    page.goto(BROWSE)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_filter_page_and_search(page):
    page.goto("/")
    page.get_by_role("link", name="tiny@1.0/published").click()
    assert keys(page)[0] == "train-000000000" and len(keys(page)) == 48
    page.get_by_role("link", name="Next").first.click()
    page.wait_for_url("**page=2*")
    assert keys(page)[0] == "train-000000048"
    page.get_by_label("Class").select_option(label="square (43)")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**class=1*")
    assert keys(page) == [f"train-{row:09d}" for row in range(130) if label("train", row) == 1][:48]
    page.get_by_role("link", name="Show all").click()
    page.wait_for_url("**?split=train")
    page.get_by_label("Key").fill("train-00000012")
    page.keyboard.press("Enter")
    page.wait_for_url("**key=train-00000012*")
    assert keys(page) == [f"train-{row:09d}" for row in range(120, 130)]
    page.get_by_role("link", name="train-000000123").click()
    page.wait_for_url("**/train-000000123")
    assert page.get_by_role("img").evaluate("each => each.decode().then(() => each.naturalWidth)") == 192


def test_the_numbers_live_without_loading_the_page_again(page, server):
    page.goto("/")
    page.evaluate("window.same = true")
    assert page.locator("#jobs tbody tr").count() == 1
    said = {"job": "run-8", "dataset": "tiny@1.0/published", "split": "test", "position": 3}
    assert server.ask("/v1/jobs", "POST", json.dumps(said).encode()).status == 200
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.locator("#jobs tbody tr", has_text="run-8").wait_for()
    assert page.evaluate("window.same") and "epoch 0, 50%" in page.locator("#jobs").inner_text()
    assert page.locator("#jobs tbody th[scope=row]").count() == 2


@pytest.mark.parametrize("page", [{"java_script_enabled": False}], indirect=True)
def test_without_scripts_the_page_comes_again(page):
    page.goto("/")
    assert page.locator("noscript meta[http-equiv=refresh], meta[http-equiv=refresh]").count() == 1
    page.goto(f"{BROWSE}?class=2&page=1")
    assert keys(page) == [f"train-{row:09d}" for row in range(130) if label("train", row) == 2][:48]


def test_logging_in_and_out(browser, home, tmp_path):
    with running(home, tmp_path / "access.log", tokens=Tokens((TOKEN,))) as server:
        context = browser.new_context(base_url=server.url)
        context.set_default_timeout(WAIT)
        page = context.new_page()
        page.goto(f"{BROWSE}?class=1")
        page.get_by_label("Token").fill("wrong")
        page.keyboard.press("Enter")
        page.get_by_role("alert").wait_for()
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url(f"**{BROWSE}?class=1")
        assert len(keys(page)) == 43 and TOKEN not in page.url and not page.evaluate("document.cookie")
        assert page.locator(".grid img").first.evaluate("each => each.decode().then(() => each.naturalWidth)") > 0
        page.get_by_role("button", name="Log out").click()
        page.wait_for_url("**/login")
        page.goto("/")
        assert page.url.endswith("/login?next=%2F")
        context.close()
        assert TOKEN not in (tmp_path / "access.log").read_text()
