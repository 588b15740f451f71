"""The operator's page by its addresses: who may see and do what, and that nothing a device says becomes markup."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from pages_cases import NOW, FakeHub, busy, device, update
from starlette.applications import Starlette

from edgecl.hub.pages import make_pages
from edgecl.hub.pages.sessions import IDLE, LASTS, TRIES, WINDOW

LISTS = ("/", "/devices", "/updates", "/models", "/classes", "/audit", f"/devices/{1:016x}")
DEEDS = (
    (f"/devices/{3:016x}/approve", {}, ("approve", f"{3:016x}", "ada")),
    (f"/devices/{1:016x}/revoke", {}, ("revoke", f"{1:016x}", "ada")),
    ("/models/5/rollback", {}, ("rollback", 5, "ada")),
    ("/classes/share", {"class": "jar"}, ("share", "jar", "ada")),
)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Slow(FakeHub):
    """Counts the passwords that it checks at once."""

    now_checked = most = asked_for = 0
    lock = threading.Lock()

    def login(self, name: str, password: str) -> bool:
        with self.lock:
            self.asked_for, self.now_checked = self.asked_for + 1, self.now_checked + 1
            self.most = max(self.most, self.now_checked)
        time.sleep(0.05)
        with self.lock:
            self.now_checked -= 1
        return super().login(name, password)


class Browser:
    """Keeps cookies, and follows no redirect."""

    def __init__(self, hub: FakeHub, clock: Clock | None = None, base: str = "http://hub.test") -> None:
        self.app, self.base, self.cookies = Starlette(routes=make_pages(hub, clock or Clock())), base, httpx.Cookies()

    def request(self, method: str, path: str, **how: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url=self.base, cookies=self.cookies) as client:
                answer = await client.request(method, path, **how)
                self.cookies = client.cookies
                return answer

        return asyncio.run(ask())

    def get(self, path: str) -> httpx.Response:
        return self.request("GET", path)

    def post(self, path: str, **how: Any) -> httpx.Response:
        return self.request("POST", path, **how)


def logged_in(hub: FakeHub, clock: Clock | None = None) -> Browser:
    client = Browser(hub, clock)
    assert login(client).headers["location"] == "/"
    return client


def login(client: Browser, password: str = "right", **headers: str) -> httpx.Response:
    return client.post("/login", data={"name": "ada", "password": password}, headers=headers)


def token(client: Browser) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', client.get("/").text)
    assert found
    return found[1]


@pytest.mark.parametrize("path", LISTS)
def test_a_stranger_is_sent_to_the_login(path: str) -> None:
    answer = Browser(busy()).get(path)
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")


@pytest.mark.parametrize("path", LISTS)
def test_an_operator_sees_every_list_full_and_empty(path: str) -> None:
    assert logged_in(busy()).get(path).status_code == 200
    assert logged_in(FakeHub([device(1)])).get(path).status_code == 200


@pytest.mark.parametrize("path", LISTS)
def test_what_devices_say_is_text(path: str) -> None:
    assert "<script" not in logged_in(busy()).get(path).text


@pytest.mark.parametrize(("path", "fields", "asked"), DEEDS)
def test_a_deed_needs_the_session_and_its_token(path: str, fields: dict[str, str], asked: tuple[object, ...]) -> None:
    hub = busy()
    stranger, client = Browser(hub), logged_in(hub)
    assert stranger.post(path, data={**fields, "csrf": "x"}).headers["location"] == "/login"
    assert client.post(path, data=fields).status_code == 403
    assert client.post(path, data={**fields, "csrf": token(logged_in(hub))}).status_code == 403
    assert not hub.asked
    assert client.post(path, data={**fields, "csrf": token(client)}).status_code == 303
    assert hub.asked == [asked]


@pytest.mark.parametrize("path", [path for path, _, _ in DEEDS])
def test_a_deed_is_never_done_by_a_link(path: str) -> None:
    hub = busy()
    assert logged_in(hub).get(path).status_code in (404, 405)
    assert not hub.asked


@pytest.mark.parametrize("origin", ["http://evil.test", "null", "http://hub.test.evil.test", "http://hub.test:81"])
def test_a_form_of_another_site_is_refused(origin: str) -> None:
    hub = busy()
    client = logged_in(hub)
    answer = client.post("/models/5/rollback", data={"csrf": token(client)}, headers={"origin": origin})
    assert answer.status_code == 403
    assert login(Browser(hub), origin=origin).status_code == 403
    assert not hub.asked


def test_a_form_of_this_site_is_taken() -> None:
    client = logged_in(busy())
    answer = client.post("/models/5/rollback", data={"csrf": token(client)}, headers={"origin": "http://hub.test"})
    assert answer.status_code == 303


def test_what_cannot_be_done_is_said_in_one_line() -> None:
    client = logged_in(busy())
    answer = client.post("/devices/ffff/approve", data={"csrf": token(client)})
    assert answer.status_code == 409
    assert "no device ffff is enrolled" in answer.text


@pytest.mark.parametrize("path", ["/devices/ffff", "/nothing", "/static/../render.py", "/static/none.css"])
def test_what_is_not_there(path: str) -> None:
    assert logged_in(busy()).get(path).status_code == 404


@pytest.mark.parametrize("number", ["x", "-1", "1" * 30, "1" * 5000, "²"])
def test_a_number_that_no_model_has(number: str) -> None:
    hub = busy()
    client = logged_in(hub)
    assert client.post(f"/models/{number}/rollback", data={"csrf": token(client)}).status_code == 404
    assert not hub.asked


@pytest.mark.parametrize("body", [b"a" * 5000, b"csrf=" + b"x" * 4096])
def test_a_large_form_is_refused(body: bytes) -> None:
    kind = {"content-type": "application/x-www-form-urlencoded"}
    assert logged_in(busy()).post("/logout", content=body, headers=kind).status_code == 413


def test_a_form_of_unknown_length_is_refused() -> None:
    kind = {"content-type": "application/x-www-form-urlencoded"}

    async def body() -> AsyncIterator[bytes]:
        yield b"csrf=x"

    assert logged_in(busy()).post("/logout", content=body(), headers=kind).status_code == 413


def test_logging_out_ends_the_session() -> None:
    client = logged_in(busy())
    cookie = client.cookies["edgecl_session"]
    assert client.post("/logout", data={"csrf": token(client)}).headers["location"] == "/login"
    client.cookies.set("edgecl_session", cookie)
    assert client.get("/").status_code == 303


@pytest.mark.parametrize("now", [{}, {"ada": NOW}])
def test_a_session_ends_with_its_operator_and_its_password(now: dict[str, float]) -> None:
    hub = busy()
    client = logged_in(hub)
    csrf = token(client)
    hub.operators = now
    assert client.post("/models/5/rollback", data={"csrf": csrf}).headers["location"] == "/login"
    hub.operators = FakeHub().operators
    assert client.get("/").headers["location"] == "/login"  # it does not come back
    assert not hub.asked


@pytest.mark.parametrize(("steps", "lasts"), [((IDLE - 1, IDLE - 1), True), ((IDLE + 1,), False), ((IDLE - 1,) * 13, False)])
def test_a_session_lasts_while_it_is_used_and_no_longer_than_half_a_day(steps: tuple[float, ...], lasts: bool) -> None:
    assert 13 * (IDLE - 1) > LASTS
    clock = Clock()
    client = logged_in(busy(), clock)
    for step in steps:
        clock.now += step
        answer = client.get("/")
    assert (answer.status_code == 200) == lasts


def test_logins_are_limited_by_name_and_address() -> None:
    clock = Clock()
    client = Browser(busy(), clock)
    assert [login(client, "wrong").status_code for _ in range(TRIES)] == [401] * TRIES
    assert login(client).status_code == 429  # the right password too
    clock.now += WINDOW + 1
    assert login(client).status_code == 303


def test_logins_at_once_are_checked_two_at_a_time_and_counted_before() -> None:
    hub = Slow()
    client = Browser(hub)

    async def ask(http: httpx.AsyncClient) -> int:
        return (await http.post("/login", data={"name": "ada", "password": "wrong"})).status_code

    async def all_at_once() -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(client.app), base_url=client.base) as http:
            return await asyncio.gather(*(ask(http) for _ in range(20)))

    assert sorted(asyncio.run(all_at_once())) == [401] * TRIES + [429] * (20 - TRIES)
    assert (hub.most, hub.asked_for) == (2, TRIES)


def test_right_logins_count_as_no_try() -> None:
    client = Browser(busy())
    assert [login(client).status_code for _ in range(TRIES + 2)] == [303] * (TRIES + 2)


def test_the_cookie_and_the_headers_keep_the_walls() -> None:
    client = Browser(busy())
    cookie = login(client).headers["set-cookie"].lower()
    assert {"httponly", "samesite=strict"} <= {part.strip() for part in cookie.split(";")}
    headers = client.get("/").headers
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert "script-src" not in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    secure = Browser(busy(), base="https://hub.test")
    assert "secure" in login(secure).headers["set-cookie"].lower()


def test_long_lists_have_pages_and_all_rows_are_on_one() -> None:
    hub = FakeHub(update_rows=[update(i) for i in range(120)])
    client, seen = logged_in(hub), list[int]()
    path = "/updates?state=merged"
    while path:
        text = client.get(path).text
        seen += [int(n) for n in re.findall(r'<td class="n">(\d+)</td>\s*<td class="n">6</td>', text)]
        on = re.search(r'href="([^"]+)">older', text)
        path = on[1].replace("&amp;", "&") if on else ""
    assert seen == list(range(120))


@pytest.mark.parametrize("query", ["start=-1", "start=x", "start=" + "9" * 30, "state=<script>", "state=none"])
def test_a_strange_query_shows_the_first_page_of_all(query: str) -> None:
    client = logged_in(busy())
    assert client.get(f"/updates?{query}").text == client.get("/updates").text
