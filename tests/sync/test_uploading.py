"""An update reaches the hub once and whole: after a cut at any byte, with lost answers, past hubs that say no."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_hub import DEVICE, Hub, line, seal, serving

from edgecl.sync import rules
from edgecl.sync.errors import NetworkError
from edgecl.sync.fetcher import Limits
from edgecl.sync.outbox import Item
from edgecl.sync.transport import Api
from edgecl.sync.uploading import NotNow, OutOfBytes, Refused, Taken, Uploader

PAYLOAD = random.Random(1).randbytes(90_000)
STORED = Taken("stored", "")


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def port(hub: Hub) -> Iterator[int]:
    with serving(hub) as at:
        yield at


def item(payload: bytes = PAYLOAD, number: int = 1) -> Item:
    return Item(number, len(payload), "", "b" * 64, "s" * 64)


def uploader(port: int, slept: list[float] | None = None, **more: Any) -> Uploader:
    api = Api(f"http://127.0.0.1:{port}", limits=Limits(connect=2.0, silent=2.0, whole=4.0))
    given: dict[str, Any] = {"sleep": (slept if slept is not None else []).append, "wait": lambda n: float(n)}
    given |= {"allowance": lambda: None, "begun": lambda item: None, **more}
    return Uploader(api, DEVICE, **given)


def send(up: Uploader, payload: bytes = PAYLOAD, number: int = 1) -> Taken:
    return up.send(item(payload, number), lambda at, size: payload[at : at + size], seal(number, payload))


def test_an_update_arrives_over_one_connection(hub: Hub, port: int) -> None:
    up = uploader(port)
    assert send(up) == STORED
    assert send(up, PAYLOAD[:100], 2) == STORED
    assert hub.stored == {1: PAYLOAD, 2: PAYLOAD[:100]}
    assert hub.connections == 1
    chunks = [size for method, _, size in hub.asked if method == "PATCH"]
    assert chunks == [16 << 10, 32 << 10, 90_000 - (48 << 10), 100]
    assert up.api.up > 90_100


def test_chunks_are_never_larger_than_a_quarter_mebibyte(hub: Hub, port: int) -> None:
    payload = bytes(2_000_000)
    assert send(uploader(port), payload) == STORED
    assert max(size for _, _, size in hub.asked) == 256 << 10


def test_a_repeat_changes_nothing(hub: Hub, port: int) -> None:
    for _ in range(3):
        assert send(uploader(port)) == STORED
    assert sum(method == "PATCH" for method, _, _ in hub.asked) == 3


def test_a_cut_at_any_byte_costs_at_most_a_chunk(hub: Hub, port: int) -> None:
    """The line is cut once, at one byte after the other (in steps) of all that goes over it."""
    small = PAYLOAD[:40_000]
    whole = 0
    for at in [*range(1, 1200, 83), *range(1200, 43_000, 1499)]:
        hub.stored.clear()
        with line(port, lambda n, at=at: at if n == 1 else None) as cut:
            assert send(uploader(cut.port), small) == STORED, at
            assert hub.stored == {1: small}
            assert len(cut.seen) <= len(small) + (32 << 10) + 5000, at
            whole += cut.dropped
    assert whole > 40


def test_a_line_that_is_cut_ever_again_gets_there_in_the_end(hub: Hub, port: int) -> None:
    with line(port, lambda n: 25_000) as cut:
        up = uploader(cut.port)
        assert send(up) == STORED
        assert hub.stored == {1: PAYLOAD}
        assert cut.dropped >= 4


def test_a_hub_that_is_not_there_ends_the_round_after_some_tries() -> None:
    slept: list[float] = []
    with pytest.raises(NetworkError, match=r"127\.0\.0\.1"):
        send(uploader(1, slept))
    assert slept == [1.0, 2.0, 3.0, 4.0]


def test_a_stalled_line_is_found(hub: Hub, port: int) -> None:
    """Somebody takes all bytes and says nothing."""
    slept: list[float] = []
    with line(port, lambda n: None) as deaf:
        deaf.back = lambda data: b""
        up = uploader(deaf.port, slept)
        up.api.limits = Limits(connect=0.2, silent=0.2, whole=0.5)
        with pytest.raises(NetworkError):
            send(up)
    assert len(slept) == 4
    usual = Api("http://127.0.0.1:1")
    assert usual.limits.whole < 300
    assert usual.sending < 300


def test_an_answer_that_trickles_is_cut(port: int) -> None:
    import time

    def drip(data: bytes) -> bytes:
        time.sleep(0.3)
        return data[:1]

    with line(port, lambda n: None) as slow:
        slow.back = drip
        up = uploader(slow.port)
        up.api.limits = Limits(connect=1.0, silent=5.0, whole=0.6)
        with pytest.raises(NetworkError):
            up.api.ask("GET", f"/v1/devices/{DEVICE}/nonce")


def odd(hub: Hub, method: str, status: int, times: int = 10**9, headers: dict[str, str] | None = None) -> None:
    """The hub answers this to so many requests of a method, uploads only."""
    left = [times]

    def answer(asked: str, path: str) -> Any:
        if asked != method or left[0] <= 0:
            return None
        left[0] -= 1
        return status, {"error": "because"}, headers or {}

    hub.odd = answer


@pytest.mark.parametrize("status", [409, 413])
def test_a_final_answer_to_an_update_ends_it_at_once(hub: Hub, port: int, status: int) -> None:
    odd(hub, "POST", status)
    with pytest.raises(Refused, match=f"{status}: because"):
        send(uploader(port))
    assert sum(method == "POST" for method, _, _ in hub.asked) == 1


@pytest.mark.parametrize(("method", "status"), [("POST", 400), ("PATCH", 422)])
def test_what_a_bad_line_may_have_done_is_tried_three_times(hub: Hub, port: int, method: str, status: int) -> None:
    odd(hub, method, status)
    with pytest.raises(Refused, match=f"{status}: because"):
        send(uploader(port))
    assert sum(m == method for m, _, _ in hub.asked) == 3
    odd(hub, method, status, times=2)
    assert send(uploader(port)) == STORED


@pytest.mark.parametrize("status", [401, 402, 403, 404, 405, 407, 415, 421, 426, 451, 302])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_device_that_is_not_wanted_keeps_its_update(hub: Hub, port: int, method: str, status: int) -> None:
    odd(hub, method, status)
    with pytest.raises(NotNow, match=f"{status}: because") as error:
        send(uploader(port))
    assert error.value.after is None
    assert sum(m == method for m, _, _ in hub.asked) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503, 507])
@pytest.mark.parametrize("method", ["GET", "POST", "PATCH"])
def test_what_may_go_better_is_tried_again(hub: Hub, port: int, method: str, status: int) -> None:
    slept: list[float] = []
    odd(hub, method, status, times=3)
    assert send(uploader(port, slept)) == STORED
    assert slept == [1.0, 2.0, 3.0]


def test_a_hub_that_asks_for_a_long_wait_gets_it(hub: Hub, port: int) -> None:
    odd(hub, "POST", 425, headers={"Retry-After": "300"})
    with pytest.raises(NotNow, match="425: because") as error:
        send(uploader(port))
    assert error.value.after == 300


def test_an_upload_that_the_hub_forgot_begins_anew(hub: Hub, port: int) -> None:
    def forget(method: str, path: str) -> None:
        if method == "PATCH" and sum(m == "PATCH" for m, _, _ in hub.asked) == 2:
            hub.uploads.clear()

    hub.odd = forget
    assert send(uploader(port)) == STORED
    assert hub.stored == {1: PAYLOAD}


def test_the_offset_is_the_hubs(hub: Hub, port: int) -> None:
    """It lost what it had, and says so."""

    def lose(method: str, path: str) -> None:
        if method == "PATCH" and sum(m == "PATCH" for m, _, _ in hub.asked) == 2:
            for upload in hub.uploads.values():
                upload["data"] = upload["data"][:5]

    hub.odd = lose
    assert send(uploader(port)) == STORED
    assert hub.stored == {1: PAYLOAD}


NONSENSE: list[dict[str, str]] = [{"Upload-Offset": "0"}, {"Upload-Offset": "99999999"}, {"Upload-Offset": "-1"}, {}]


@pytest.mark.parametrize("headers", NONSENSE, ids=str)
def test_a_hub_that_goes_in_circles_is_left(hub: Hub, port: int, headers: dict[str, str]) -> None:
    odd(hub, "PATCH", 204, headers=headers)
    with pytest.raises(NetworkError):
        send(uploader(port))
    assert len(hub.asked) < 40


def test_the_days_bytes_hold_and_the_rest_goes_the_next_day(hub: Hub, port: int) -> None:
    left = [50_000]
    up = uploader(port, allowance=lambda: left[0] - up.api.up)
    with pytest.raises(OutOfBytes, match="the day's bytes are spent"):
        send(up)
    assert up.api.up <= 50_000
    assert sum(size for method, _, size in hub.asked if method == "PATCH") >= 32 << 10
    left[0] = 10**9
    assert send(up) == STORED
    assert sum(size for method, _, size in hub.asked if method == "PATCH") == len(PAYLOAD)


@pytest.mark.parametrize("change", [lambda d: d.replace(PAYLOAD[1000:1020], PAYLOAD[1001:1021]), lambda d: d[:-1] + b"\xff"])
def test_what_is_changed_on_the_way_is_not_taken_and_not_lost(hub: Hub, port: int, change: Callable[[bytes], bytes]) -> None:
    with line(port, lambda n: None) as bad:
        bad.change = change
        up = uploader(bad.port)
        with pytest.raises((Refused, NetworkError, NotNow)):
            send(up)
        assert hub.stored == {}
        bad.change = lambda data: data
        up.api.close()
        assert send(up) == STORED
    assert hub.stored == {1: PAYLOAD}


def test_an_answer_without_end_is_refused(hub: Hub, port: int) -> None:
    hub.odd = lambda method, path: (200, {"nonce": "0" * 100_000}, {})
    with pytest.raises(Exception, match="more than the 16384 bytes"):
        send(uploader(port))


def test_an_answer_that_is_no_hubs_is_no_answer(port: int, tmp_path: Path) -> None:
    with line(port, lambda n: None) as portal:
        portal.back = lambda data: b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n<html></html>"
        with pytest.raises(NetworkError, match="something else than a hub"):
            uploader(portal.port).api.ask("GET", "/v1/x")


def test_every_wait_is_within_the_cap() -> None:
    rng = random.Random(3)
    assert all(rules.wait_for(None, rules.backoff(n, rng)) <= rules.CAP for n in range(200))


# what lies between


@pytest.mark.parametrize("most", [16 << 10, 20 << 10, 100 << 10])
def test_a_proxy_that_takes_small_chunks_only_gets_small_ones(hub: Hub, port: int, most: int) -> None:
    hub.odd = lambda method, path: (413, {"error": "too large"}, {}) if method == "PATCH" and hub.asked[-1][2] > most else None
    slept: list[float] = []
    payload = bytes(1_000_000)
    assert send(uploader(port, slept), payload) == STORED
    assert hub.stored == {1: payload}
    assert slept == []
    assert sum(size > most for method, _, size in hub.asked if method == "PATCH") <= 4


def test_a_proxy_that_takes_no_chunk_is_not_the_updates_fault(hub: Hub, port: int) -> None:
    hub.odd = lambda method, path: (413, {"error": "too large"}, {}) if method == "PATCH" else None
    with pytest.raises(NotNow, match="too large"):
        send(uploader(port))
