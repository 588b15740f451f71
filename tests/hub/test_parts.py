"""The small parts: nonces, rates, files of /tuf, connections that send nothing."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hub_cases import bare, enrolled, served
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection

from edgecl.hub import ingest, nonces, protocol, settings, store
from edgecl.hub.gate import Bucket
from edgecl.hub.nonces import Nonces
from edgecl.hub.settings import Limits, Settings
from edgecl.hub.store.updates import New, insert
from edgecl.types import ConfigError, StoreError

BODY = random.Random(0).randbytes(200_000)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_nonce_is_taken_once_in_its_time_by_its_device() -> None:
    clock = Clock()
    given_out = Nonces(60, clock)
    one = given_out.give("a")
    assert (len(one), one != given_out.give("a")) == (16, True)
    assert [given_out.take(d, one) for d in ("b", "a", "a")] == [False, True, False]
    late = given_out.give("a")
    clock.now = 61
    assert not given_out.take("a", late)
    assert not Nonces(60, clock).take("a", given_out.give("a"))  # of another process


@given(st.binary(max_size=40))
def test_no_nonce_is_guessed(guess: bytes) -> None:
    assert not Nonces(60).take("a", guess)


def test_used_nonces_are_forgotten_when_they_are_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nonces, "MOST", 3)
    clock = Clock()
    given_out = Nonces(60, clock)
    assert [given_out.take("a", given_out.give("a")) for _ in range(4)] == [True, True, True, False]
    clock.now = 200
    assert given_out.take("a", given_out.give("a"))


def test_a_bucket_fills_up_again() -> None:
    clock = Clock()
    bucket = Bucket(2, 3, clock)
    assert [bucket.take("a") for _ in range(5)] == [True, True, True, False, False]
    assert bucket.take("b")
    clock.now = 1
    assert [bucket.take("a") for _ in range(3)] == [True, True, False]


def test_the_writer_outlives_whatever_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = bare(tmp_path / "hub")
    engine = store.connect(settings.database_url(here, settings.read(here)))
    store.prepare(engine)
    device = enrolled(here, engine, "d")

    def fails(db: Connection, new: New) -> bool:
        return 1 // (new.sequence - 2) != 7 and insert(db, new)  # at 2

    monkeypatch.setattr(ingest, "insert", fails)
    writer = ingest.Writer(engine)
    with pytest.raises(StoreError, match="not stored: integer division"):
        writer.insert(New(device.id, 2, "ab" * 32, 5))
    assert writer.insert(New(device.id, 1, "ab" * 32, 5))
    writer.close()
    assert [u.sequence for u in store.updates(engine)] == [1]
    engine.dispose()


# ---- settings ----


def test_a_chunk_of_a_device_is_let_in(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"limits\.chunk_bytes is 65536, not a number from 262144 up"):
        settings.check("hub.yaml", Settings(limits=Limits(chunk_bytes=1 << 16)))
    settings.check("hub.yaml", Settings(limits=Limits(chunk_bytes=1 << 18)))


# ---- /tuf ----


@pytest.fixture(scope="module")
def tuf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    here = bare(tmp_path_factory.mktemp("hub") / "hub")
    (here.tuf / "metadata/timestamp.json").write_bytes(b'{"a": 1}')
    (here.tuf / "targets/models").mkdir()
    (here.tuf / "targets/models/ab.0001.edgecl.gz").write_bytes(BODY)
    (here.tuf / "targets/models/.hidden").write_bytes(b"x")
    (here.tuf / "targets/models/empty").write_bytes(b"")
    (here.tuf / ".lock").write_bytes(b"")
    (here.root / "secret.json").write_text("{}")
    (here.tuf / "metadata/link.json").symlink_to(here.root / "secret.json")
    with served(here.root) as (url, _):
        yield url, here.tuf


def get(tuf: tuple[str, Path], path: str, **headers: str) -> httpx.Response:
    return httpx.get(tuf[0] + path, headers={k.replace("_", "-"): v for k, v in headers.items()}, trust_env=False)


def test_a_poll_costs_little(tuf: tuple[str, Path]) -> None:
    first = get(tuf, "/tuf/metadata/timestamp.json")
    assert (first.status_code, first.content, first.headers["Content-Type"]) == (200, b'{"a": 1}', "application/json")
    again = get(tuf, "/tuf/metadata/timestamp.json", If_None_Match=first.headers["ETag"])
    assert (again.status_code, again.content) == (304, b"")
    assert sum(len(k) + len(v) + 4 for k, v in again.headers.items()) < 300
    (tuf[1] / "metadata/timestamp.json").write_bytes(b'{"a": 2}')
    changed = get(tuf, "/tuf/metadata/timestamp.json", If_None_Match=first.headers["ETag"])
    assert (changed.status_code, changed.content) == (200, b'{"a": 2}')


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    [
        ("bytes=0-", 206, BODY), ("bytes=100-", 206, BODY[100:]), ("bytes=5-9", 206, BODY[5:10]), ("bytes=-7", 206, BODY[-7:]),
        ("bytes=199999-", 206, BODY[-1:]), ("bytes=0-999999", 206, BODY), ("bytes=-999999", 206, BODY),
        ("bytes=200000-", 416, None),
        ("bytes=-0", 416, None), ("bytes=9-5", 200, BODY), ("bytes=-", 200, BODY), ("bytes=0-1,3-4", 200, BODY),
        ("lines=1-2", 200, BODY),
    ],
)  # fmt: skip
def test_ranges(tuf: tuple[str, Path], asked: str, status: int, part: bytes | None) -> None:
    answer = get(tuf, "/tuf/targets/models/ab.0001.edgecl.gz", Range=asked)
    assert answer.status_code == status
    if part is not None:
        assert answer.content == part
    if status == 206 and part is not None:
        said = answer.headers["Content-Range"]
        assert said.endswith("/200000")
        start, end = map(int, said.removeprefix("bytes ").split("/")[0].split("-"))
        assert BODY[start : end + 1] == part


def test_a_range_of_another_version_is_the_whole(tuf: tuple[str, Path]) -> None:
    etag = get(tuf, "/tuf/targets/models/ab.0001.edgecl.gz").headers["ETag"]
    for match, status in ((etag, 206), ('"other"', 200)):
        answer = get(tuf, "/tuf/targets/models/ab.0001.edgecl.gz", Range="bytes=5-", If_Range=match)
        assert answer.status_code == status


@pytest.mark.parametrize(
    "path",
    [
        "/tuf/", "/tuf/.lock", "/tuf/metadata/", "/tuf/metadata/x.json", "/tuf/metadata/../../hub.db",
        "/tuf/metadata/%2e%2e%2fx.json",
        "/tuf/targets/models", "/tuf/targets/models/.hidden", "/tuf/targets/models/x/y", "/tuf/metadata/timestamp.json/x",
        "/tuf/targets//etc/passwd", "/tuf/metadata/a%00.json", "/tuf/keys/root.pem",
        f"/tuf/targets/{'a' * 300}/x",
        f"/tuf/metadata/{'a' * 300}.json", "/tuf/metadata/link.json",
    ],
)  # fmt: skip
def test_what_is_not_served(tuf: tuple[str, Path], path: str) -> None:
    with socket.create_connection(("127.0.0.1", int(tuf[0].rpartition(":")[2]))) as sock:  # httpx would tidy the path
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert sock.recv(100).split()[1] in (b"404", b"400")


def test_head_and_other_methods(tuf: tuple[str, Path]) -> None:
    head = httpx.head(f"{tuf[0]}/tuf/targets/models/ab.0001.edgecl.gz", trust_env=False)
    assert (head.status_code, head.headers["Content-Length"], head.content) == (200, "200000", b"")
    assert get(tuf, "/tuf/targets/models/empty").content == b""
    assert httpx.post(f"{tuf[0]}/tuf/metadata/timestamp.json", trust_env=False).status_code == 405


# ---- connections ----


@pytest.mark.parametrize(("before", "sent"), [(False, b""), (False, b"GET / HT"), (True, b"GET / HT")])
def test_a_head_that_does_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool, sent: bytes) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.3)
    with served(bare(tmp_path / "hub").root) as (url, _):
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=10) as sock:
            if before:  # a whole request came first on this connection
                sock.sendall(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
                assert b"404" in sock.recv(1 << 16)
            sock.sendall(sent)
            began, got = time.monotonic(), b"x"
            while got:
                got = sock.recv(1 << 16)
        assert time.monotonic() - began < 5


def test_a_head_that_is_too_large(tmp_path: Path) -> None:
    with served(bare(tmp_path / "hub").root) as (url, _):
        answer = httpx.get(f"{url}/docs", headers={"x": "y" * 40_000}, trust_env=False)
        assert answer.status_code in (400, 431)
        assert httpx.get(f"{url}/docs", trust_env=False).status_code == 200
