"""Chromium, driven by Selenium, for the tests that need a browser."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
DRIVER = shutil.which("chromedriver")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--window-size=1200,900",
]
# The theme (sphinx-book-theme 1.3) declares this twice on every page, and no harm comes of it.
KNOWN_ERROR = "Identifier 'THEBE_JS_URL' has already been declared"
PHONE = 375  # pixels, the width of a small phone

NEEDS_BROWSER = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver on the PATH"
)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Start Chromium, once for each process of tests."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(120)  # axe-core takes its time on a long page
    driver.get("about:blank")  # what the browser's own first page asks for is not the book's
    yield driver
    driver.quit()


@pytest.fixture
def open_figure(browser: Any, tmp_path: Path) -> Callable[..., Any]:
    """Return what opens a page with nothing but a figure of `stnlib.plotting.touch` in it, and returns the browser.

    ``open_figure(figure, theme="light", width=1200)``; ``theme`` may be "dark", ``width`` that of a phone.
    """

    def opened(figure: Any, theme: str = "light", width: int = 1200) -> Any:
        (tmp_path / "book").mkdir(exist_ok=True)
        if not (tmp_path / "_static").exists():
            (tmp_path / "_static").symlink_to(ROOT / "book" / "_static")
        colours = {"light": ("#ffffff", "#323232"), "dark": ("#121212", "#ced6dd")}[theme]
        page = tmp_path / "book" / "figure.html"
        page.write_text(
            f'<!doctype html><html lang="en" data-theme="{theme}"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width"><title>A figure</title>'
            '<link rel="stylesheet" href="../_static/book.css">'
            f"<style>:root {{ --pst-color-text-base: {colours[1]}; }}"
            f"body {{ margin: 0; background: {colours[0]}; }}</style></head>"
            f'<body><main class="bd-content"><article>{figure.data}</article></main></body></html>',
            encoding="utf-8",
        )
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        errors(browser)  # forget those of the page before
        browser.get(page.as_uri())
        assert errors(browser) == []
        return browser

    return opened


def requests(browser: Any) -> list[str]:
    """Return the addresses that were asked for, answered or not, since this was last asked."""
    messages = [
        json.loads(entry["message"])["message"] for entry in browser.get_log("performance")
    ]
    return [
        m["params"]["request"]["url"]
        for m in messages
        if m["method"] == "Network.requestWillBeSent"
    ]


def errors(browser: Any) -> list[str]:
    """Return what the console said was wrong since this was last asked."""
    messages = [
        entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"
    ]
    return [message for message in messages if KNOWN_ERROR not in message]


def press(browser: Any, key: str) -> None:
    """Press a key, named as Selenium's ``Keys`` names it, where the focus is."""
    from selenium.webdriver.common.keys import Keys

    browser.switch_to.active_element.send_keys(getattr(Keys, key))


def swipe(browser: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Move a finger over the window, from one place to another, in pixels."""

    def touch(kind: str, *places: tuple[float, float]) -> None:
        points = [{"x": x, "y": y} for x, y in places]
        browser.execute_cdp_cmd(
            "Input.dispatchTouchEvent", {"type": kind, "touchPoints": points}
        )

    touch("touchStart", start)
    for k in range(1, 13):
        touch("touchMove", tuple(a + (b - a) * k / 12 for a, b in zip(start, end, strict=True)))
    touch("touchEnd")


def wait(browser: Any, condition: Callable[[], Any]) -> Any:
    """Wait until something holds, ten seconds at most, and return it."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 10).until(lambda _: condition())
