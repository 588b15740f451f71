"""The operator's page in a real browser: headless Chromium, driven through WebDriver, light and dark."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from pages_cases import FakeHub, busy
from starlette.applications import Starlette

from edgecl.hub.pages import make_pages

DRIVER, CHROMIUM = shutil.which("chromedriver"), shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(not (DRIVER and CHROMIUM), reason="needs Debian's chromium and chromium-driver")

LOW = 4.5  # contrast of small text to its ground, at least: WCAG 2.2, 1.4.3
CONTRAST = (Path(__file__).parent / "contrast.js").read_text()


@pytest.fixture
def hub() -> FakeHub:
    return busy()


@pytest.fixture
def address(hub: FakeHub) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=make_pages(hub)), port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture(params=["light", "dark"])
def driver(request: pytest.FixtureRequest) -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,1000"):
        options.add_argument(flag)
    options.add_argument(f"--blink-settings=preferredColorScheme={int(request.param == 'light')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(str(DRIVER)))
    yield driver
    driver.quit()


def find(driver: Any, css: str) -> Any:
    return driver.find_element("css selector", css)


@contextmanager
def leaving(driver: Any) -> Iterator[None]:
    """What its block does leads to another page; the block's end waits till that is there."""
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.support.expected_conditions import staleness_of
    from selenium.webdriver.support.wait import WebDriverWait

    old = find(driver, "html")
    yield
    # chromedriver may also say "does not belong to the document" of a page that is just being left: it is asked again.
    wait = WebDriverWait(driver, 20, ignored_exceptions=(WebDriverException,))
    wait.until(staleness_of(old))
    wait.until(lambda d: d.execute_script("return document.readyState") == "complete")


def test_an_operator_logs_in_looks_and_acts(driver: Any, address: str, hub: FakeHub) -> None:
    driver.get(address)
    assert driver.current_url.endswith("/login")
    find(driver, "[name=name]").send_keys("ada")
    with leaving(driver):
        find(driver, "[name=password]").send_keys("wrong\n")
    assert "no such name and password" in find(driver, "[role=alert]").text
    with leaving(driver):
        find(driver, "[name=password]").send_keys("right\n")
    assert find(driver, "header .hub").text == "Shelf scanners"
    for path in ("/", "/devices", "/updates", "/models", "/classes", "/audit", f"/devices/{2:016x}", "/devices/none"):
        driver.get(address + path)
        assert not driver.execute_script(CONTRAST, LOW), path
        assert not driver.execute_script("return document.documentElement.scrollWidth > innerWidth"), path
    assert [e for e in driver.get_log("browser") if e["source"] != "network"] == []  # no style or form that the policy stopped

    driver.get(f"{address}/devices?state=pending")
    with leaving(driver):
        find(driver, "tbody a").click()
    with leaving(driver):
        find(driver, "form[action$=approve] button").click()
    driver.get(f"{address}/models")
    button = find(driver, "form[action='/models/5/rollback'] button")
    assert not button.is_displayed()  # a second step: no slip of the hand rolls a fleet back
    button.find_element("xpath", "ancestor::details/summary").click()
    with leaving(driver):
        button.click()
    with leaving(driver):
        find(driver, "form[action='/logout'] button").click()
    assert driver.current_url.endswith("/login")
    assert hub.asked == [("approve", f"{3:016x}", "ada"), ("rollback", 5, "ada")]
