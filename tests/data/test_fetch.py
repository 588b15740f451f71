"""Downloads against a server of our own: cut lines, no Range, wrong bytes."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgecl.data import DATASETS, cifar, fetch
from edgecl.data.fetch import Archive
from edgecl.types import ConfigError, DataError, StoreError

FILES = {"a.bin": np.random.default_rng(0).bytes(300_000), "b.bin": b"b" * 1000}


@dataclass
class Server:
    """What it answers, and what it was asked. A request past the end of a list gets the whole of it."""

    url: str = ""
    content: bytes = b""
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)  # bytes until the line is cut, a request
    codes: list[int] = field(default_factory=list)  # answers instead of content, a request
    asked: list[str] = field(default_factory=list)  # the Range header of each request
    shift: int = 0  # starts so many bytes after what was asked for
    chunked: bool = False  # does not say how long the content is


def answer(server: Server, handler: BaseHTTPRequestHandler) -> None:
    wanted = handler.headers.get("Range", "")
    server.asked.append(wanted)
    if server.codes and (code := server.codes.pop(0)):
        return handler.send_error(code)
    start = int(wanted.removeprefix("bytes=").rstrip("-") or 0) if server.ranges else 0
    start += server.shift if start else 0
    handler.send_response(206 if start else 200)
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
    if not server.chunked:
        handler.send_header("Content-Length", str(len(server.content) - start))
    handler.end_headers()
    handler.wfile.write(server.content[start:][: server.cuts.pop(0) if server.cuts else None])
    return None


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(state, self)

        def log_message(self, *args: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{http.server_port}/set.tar.gz"
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setattr(fetch, "PAUSES", (0.0, 0.0, 0.0, 0.0))
    monkeypatch.setenv("no_proxy", "*")
    yield state
    http.shutdown()
    thread.join()
    http.server_close()


def pack(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"set/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


GOOD = pack({"readme.html": b"?"} | FILES)


def archive(server: Server) -> Archive:
    """The archive as published; the server has it too, until a test changes that."""
    server.content = GOOD
    hashes = {"md5": hashlib.md5(GOOD).hexdigest(), "sha256": hashlib.sha256(GOOD).hexdigest()}
    return Archive(server.url, len(GOOD), hashes, "set", {n: len(c) for n, c in FILES.items()})


def fetched(published: Archive, root: Path) -> list[fetch.Progress]:
    """Fetches, and checks that the folder is whole and that nothing else stays behind."""
    steps = list(fetch.fetch(published, root))
    assert {p.name: p.read_bytes() for p in (root / "set").iterdir()} == FILES
    assert [p.name for p in root.iterdir()] == ["set"]
    assert steps[-1] == ("done", published.size, published.size, root / "set")
    return steps


def test_a_download_is_checked_and_unpacked(server: Server, tmp_path: Path) -> None:
    steps = fetched(archive(server), tmp_path / "new" / "root")
    assert list(dict.fromkeys(s.step for s in steps)) == ["download", "check", "unpack", "done"]
    assert all(0 <= s.done <= s.total for s in steps)
    assert server.asked == [""]


def test_a_cut_line_is_resumed_where_it_was_cut(server: Server, tmp_path: Path) -> None:
    published = archive(server)
    server.cuts = [100_000, 0, 50_000, 1]
    fetched(published, tmp_path)
    assert server.asked == ["", "bytes=100000-", "bytes=100000-", "bytes=150000-", "bytes=150001-"]


def test_a_killed_download_is_resumed_by_the_next(server: Server, tmp_path: Path) -> None:
    published = archive(server)
    (tmp_path / "set.tar.gz.part").write_bytes(GOOD[:200_000])
    fetched(published, tmp_path)
    assert server.asked == ["bytes=200000-"]


def test_an_abandoned_iterator_leaves_a_part_to_resume(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "CHUNK", 10_000)
    steps = fetch.fetch(archive(server), tmp_path)
    assert next(steps).done == 10_000
    steps.close()  # type: ignore[attr-defined]
    fetched(archive(server), tmp_path)
    assert server.asked == ["", "bytes=10000-"]


def test_a_whole_part_file_needs_no_network(server: Server, tmp_path: Path) -> None:
    published = archive(server)
    (tmp_path / "set.tar.gz.part").write_bytes(GOOD)
    fetched(published, tmp_path)
    assert server.asked == []


def test_a_part_file_that_is_too_long_is_begun_anew(server: Server, tmp_path: Path) -> None:
    published = archive(server)
    (tmp_path / "set.tar.gz.part").write_bytes(GOOD + b"x")
    fetched(published, tmp_path)
    assert server.asked == [""]


def test_a_server_without_range_begins_anew(server: Server, tmp_path: Path) -> None:
    published = archive(server)
    server.ranges, server.cuts = False, [100_000, 50_000]
    fetched(published, tmp_path)
    assert server.asked == ["", "bytes=100000-", "bytes=50000-"]


def test_a_range_that_the_server_lacks_is_begun_anew(server: Server, tmp_path: Path) -> None:
    published = archive(server)
    (tmp_path / "set.tar.gz.part").write_bytes(b"x" * 1000)
    server.codes = [416]
    fetched(published, tmp_path)
    assert server.asked == ["bytes=1000-", ""]


def test_another_range_than_asked_for_is_not_written(server: Server, tmp_path: Path) -> None:
    published = archive(server)
    (tmp_path / "set.tar.gz.part").write_bytes(GOOD[:1000])
    server.shift = 5
    with pytest.raises(DataError, match="another range than asked for"):
        list(fetch.fetch(published, tmp_path))
    assert (tmp_path / "set.tar.gz.part").read_bytes() == GOOD[:1000]


@pytest.mark.parametrize("code", [500, 503, 408, 429])
def test_a_passing_fault_is_tried_again(server: Server, tmp_path: Path, code: int) -> None:
    published = archive(server)
    server.codes = [code, code]
    fetched(published, tmp_path)
    assert len(server.asked) == 3


@pytest.mark.parametrize("code", [403, 404, 410])
def test_a_final_answer_is_not_tried_again(server: Server, tmp_path: Path, code: int) -> None:
    published = archive(server)
    server.codes = [code]
    with pytest.raises(DataError, match=rf"HTTP {code} .*By hand: put set\.tar\.gz into") as caught:
        list(fetch.fetch(published, tmp_path))
    assert len(server.asked) == 1
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_it_gives_up_after_some_tries_without_a_new_byte(server: Server, tmp_path: Path) -> None:
    published = archive(server)
    server.cuts = [1000] + [0] * 20
    with pytest.raises(DataError, match="the connection was cut"):
        list(fetch.fetch(published, tmp_path))
    assert len(server.asked) == 1 + len(fetch.PAUSES)
    assert (tmp_path / "set.tar.gz.part").stat().st_size == 1000


def test_it_waits_longer_each_time(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(fetch, "PAUSES", (1.0, 2.0, 4.0, 8.0))
    monkeypatch.setattr("time.sleep", waited.append)
    published = archive(server)
    server.cuts = [0, 0, 0, 1000, 0]
    steps = fetched(published, tmp_path)
    assert waited == [1.0, 2.0, 4.0, 1.0, 2.0]
    assert [s.step for s in steps].count("wait") == 5


def test_a_silent_server_is_given_up(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "TIMEOUT", 0.05)
    monkeypatch.setattr(fetch, "PAUSES", (0.0,))
    published, silent = archive(server), threading.Event()
    monkeypatch.setitem(globals(), "answer", lambda state, handler: silent.wait(5))
    with pytest.raises(DataError, match="timed out"):
        list(fetch.fetch(published, tmp_path))
    silent.set()


def test_no_network_says_where_to_put_the_files(server: Server, tmp_path: Path) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # taken, but nobody listens
        with pytest.raises(DataError, match=rf"[Rr]efused.*put set\.tar\.gz into {tmp_path}"):
            list(fetch.fetch(archive(server), tmp_path, f"http://127.0.0.1:{deaf.getsockname()[1]}/set.tar.gz"))


@pytest.mark.parametrize("content", [GOOD[:-1], GOOD + b"x", b"<html>log in first</html>"])
def test_another_size_is_refused_before_it_is_written(server: Server, tmp_path: Path, content: bytes) -> None:
    published = archive(server)
    server.content = content
    with pytest.raises(DataError, match=f"answers with {len(content)} bytes, not the archive's {len(GOOD)}"):
        list(fetch.fetch(published, tmp_path))
    assert list(tmp_path.iterdir()) == []
    assert len(server.asked) == 1


def test_no_more_than_the_archive_is_ever_written(server: Server, tmp_path: Path) -> None:
    published = archive(server)
    server.content, server.chunked = GOOD + b"x" * 1_000_000, True
    fetched(published, tmp_path)


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_a_wrong_hash_is_never_unpacked(server: Server, tmp_path: Path, kind: str) -> None:
    published = archive(server)
    published = replace(published, hashes=dict(published.hashes) | {kind: "0" * 32})
    with pytest.raises(DataError, match=f"its {kind} is .*, not the published 0000.*; it was removed"):
        list(fetch.fetch(published, tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_cannot_be_written(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = archive(server)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="file: "):
        list(fetch.fetch(published, tmp_path / "file"))
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=0))
    with pytest.raises(StoreError, match="0 MiB free"):
        list(fetch.fetch(published, tmp_path))
    assert server.asked == []


def test_get_says_what_is_there_without_asking_anyone(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / cifar.FOLDER
    folder.mkdir()
    for name in (*cifar.TRAIN_FILES, cifar.TEST_FILE):
        (folder / name).touch()
        os.truncate(folder / name, cifar.RECORDS * cifar.RECORD)  # sparse: takes no room
    (folder / cifar.META_FILE).write_text("airplane\n")
    assert list(fetch.get("seq-cifar10", str(tmp_path), url=server.url)) == [("present", 0, 0, folder)]
    assert server.asked == []


def test_get_downloads_by_any_alias(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fetch.ARCHIVES, "cifar10", archive(server))
    monkeypatch.setenv("EDGECL_DATA", str(tmp_path))
    assert list(fetch.get("split-cifar10"))[-1].path == tmp_path / "set"


def test_get_refuses_what_is_no_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert next(fetch.get("digits")).step == "present"
    monkeypatch.setitem(DATASETS, "digits", replace(DATASETS["digits"], find=lambda root: None))
    with pytest.raises(DataError, match=r"pip install"):
        list(fetch.get("digits"))
    with pytest.raises(ConfigError, match="did you mean"):
        list(fetch.get("cifr10"))
    with pytest.raises(ConfigError, match="no http or https"):
        list(fetch.get("cifar10", str(tmp_path), url="file:///etc/passwd"))
