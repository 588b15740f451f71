"""Clocks that are wrong, links that break, power that goes, blocks that rot: a device stays where it was or goes on."""

from __future__ import annotations

import datetime
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("tuf")
pytest.importorskip("urllib3")

from power import FATES, cut
from sync.mirror import Mirror, device, publish, serving

from edgecl.hub import keyfiles, keys, repository
from edgecl.hub.tufset import DAY
from edgecl.sync import hubtime, targets, trusted
from edgecl.sync.fetcher import Answer, Reply
from edgecl.sync.trust import NetworkError, Trust, TrustError
from edgecl.sync.updater import Keeping
from edgecl.types import StoreError

TIME = "/v1/time"


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    """Of a hub with one model."""
    (tmp_path / "hub").mkdir()
    repository.init(tmp_path / "hub")
    publish(tmp_path / "hub", 1)
    with serving(Mirror(tmp_path / "hub")) as found:
        yield found


def number(trust: Trust) -> int:
    found = trust.newest()
    return 0 if found is None else found.number


# Time


@pytest.mark.parametrize("year", [1970, 2001, 2036, 9999])
def test_a_wrong_clock_loses_nothing_and_accepts_nothing_old(
    tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch, year: int
) -> None:
    class Wrong(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Wrong:
            return cls(year, 1, 2, tzinfo=tz)

    named = SimpleNamespace(datetime=Wrong, timezone=datetime.timezone, timedelta=datetime.timedelta)
    monkeypatch.setattr("tuf.ngclient._internal.trusted_metadata_set.datetime", named)
    monkeypatch.setattr("tuf.api._payload.datetime", Wrong)
    trust = device(tmp_path / "device", mirror)
    trust.refresh()
    target = trust.newest()
    assert target is not None
    assert trust.download(target, tmp_path).read_bytes() == b"model 1 " * 100
    late = datetime.datetime.now().timestamp() + 2 * DAY
    mirror.now = late  # type: ignore[assignment]
    with pytest.raises(TrustError, match="expired"):
        Trust(trust.folder, mirror.url, http=trust.http).refresh()


@pytest.mark.parametrize(
    "answer",
    [
        (404, b"not found"),
        (503, b""),
        b"",
        b"{}",
        b"[]",
        b"[" * 1000,
        b"\xff\xff",
        b'{"signed": {"_type": "edgecl-time", "nonce": "NONCE", "time": 1.5}, "signatures": []}',
        b'{"signed": {"_type": "edgecl-time", "nonce": "NONCE", "time": true}, "signatures": []}',
        b'{"signed": {"_type": "edgecl-time", "nonce": "NONCE", "time": 99999999999999}, "signatures": []}',
        b'{"signed": {"_type": "edgecl-time", "nonce": "NONCE", "time": 1800000000}, "signatures": []}',
        b'{"signed": {"_type": "edgecl-time", "nonce": "NONCE", "time": 1800000000}, "signatures": [{"keyid": 1, "sig": 2}]}',
        b"x" * 2000,
        "replayed",
        "forged",
        "timestamp",
    ],
)
def test_without_the_hubs_time_nothing_is_taken(
    tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    """And it is tried again."""
    nonce = "ab" * 16
    monkeypatch.setattr("edgecl.sync.hubtime.secrets.token_hex", lambda n: nonce)
    answers = {
        "replayed": lambda: repository.signed_time(mirror.folder, "00" * 16),
        "timestamp": lambda: (mirror.folder / "tuf/metadata/timestamp.json").read_bytes(),
        "forged": lambda: _forged(mirror, nonce),
    }
    said = answers[answer]() if isinstance(answer, str) else answer
    said = said.replace(b"NONCE", nonce.encode()) if isinstance(said, bytes) else said
    trust = device(tmp_path / "device", mirror)
    mirror.twist = lambda path: said if path == TIME else None
    for _ in range(2):
        with pytest.raises((NetworkError, TrustError), match=r"the hub's time|gave no time|more than the 1024") as e:
            trust.refresh()
        assert "\n" not in str(e.value)
        with pytest.raises(Exception, match="refresh"):
            trust.newest()
    mirror.twist = lambda path: None
    trust.refresh()
    assert number(trust) == 1


def _forged(mirror: Mirror, nonce: str) -> bytes:
    """Signed by another of the hub's keys, under the name of the right one."""
    found = json.loads(repository.signed_time(mirror.folder, nonce))
    signer = keyfiles.load(mirror.folder / "keys/models.pem")
    found["signatures"][0]["sig"] = signer.sign(hubtime.signed_bytes(nonce, found["signed"]["time"])).signature
    return json.dumps(found).encode()


def test_the_time_is_asked_for_once_an_hour_and_when_its_key_changes(
    tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot = [100.0]
    monkeypatch.setattr(hubtime, "since_boot", lambda: boot[0])
    trust = device(tmp_path / "device", mirror)
    for seconds, asked in ((0, 1), (10, 0), (3000, 0), (1000, 1), (10, 0)):
        boot[0] += seconds
        mirror.paths()
        trust.refresh()
        assert mirror.paths().count(TIME) == asked
    keys.rotate(mirror.folder, "timestamp")
    trust.refresh()
    assert mirror.paths().count(TIME) == 1


def test_a_timestamp_expires_while_the_clock_runs_on(tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two statements, by the time since boot."""
    boot = [100.0]
    monkeypatch.setattr(hubtime, "since_boot", lambda: boot[0])
    mirror.now = datetime.datetime.now().timestamp() + DAY - 600  # type: ignore[assignment]
    trust = device(tmp_path / "device", mirror)
    trust.refresh()
    boot[0] += 900
    with pytest.raises(TrustError, match="expired"):
        trust.refresh()


# Updater's seams


def test_every_method_that_is_overridden_is_there() -> None:
    from tuf.ngclient import Updater

    own = {n for n in vars(Keeping) if n.startswith("_") and not n.startswith("__")}
    assert own == {"_load_timestamp", "_load_local_metadata", "_persist_metadata", "_persist_root", "_update_root_symlink"}
    assert own <= set(vars(Updater))


def test_nothing_is_written_but_our_own_files(tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    trust = device(tmp_path / "device", mirror)
    keys.rotate(mirror.folder, "root")
    trust.refresh()
    assert sorted(p.name for p in trust.folder.iterdir()) == [".lock", "trusted.copy.json", "trusted.json"]
    assert list((tmp_path / "cwd").iterdir()) == []


# Power, kills, rot


class Disk:
    """A hub without a network: Http's two methods over its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.url = folder, "http://hub"

    def read(self, url: str, limit: int, headers: Mapping[str, str] | None = None) -> Answer:
        path = url.removeprefix(self.url)
        if path.startswith(TIME):
            return Answer(200, {}, repository.signed_time(self.folder, path.split("=")[1]))
        file = self.folder / path.lstrip("/")
        return Answer(200, {}, file.read_bytes()) if file.is_file() else Answer(404, {}, b"")

    @contextmanager
    def open(self, url: str, length: int, headers: Mapping[str, str] | None = None) -> Iterator[Reply]:
        data = (self.folder / url.removeprefix(self.url).lstrip("/")).read_bytes()
        start = int((headers or {}).get("Range", "bytes=0-")[6:-1])
        said = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        yield Reply(206 if start else 200, said, iter([data[i : i + 300] for i in range(start, len(data), 300)]))


def opened(folder: Path, hub: Path, root: bool = False) -> Trust:
    first = (hub / "tuf/metadata/1.root.json").read_bytes() if root else None
    return Trust(folder, "http://hub", first, Disk(hub))  # type: ignore[arg-type]


def hubs(tmp_path: Path) -> tuple[Path, Path, Path]:
    """One hub at three times: with models 1, 2 and 3; the last with a new root and a new timestamp key."""
    hub = tmp_path / "hub"
    hub.mkdir()
    repository.init(hub)
    found = []
    for n in (1, 2, 3):
        publish(hub, n)
        if n == 3:
            keys.rotate(hub, "models")
        found.append(shutil.copytree(hub, tmp_path / f"hub{n}"))
    return found[0], found[1], found[2]


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("fate", FATES)
def test_a_power_cut_costs_no_trust(tmp_path: Path, fate: str) -> None:
    """Of a device that knew model 2: it goes on to 3, and never takes what was before 2."""
    old, middle, new = hubs(tmp_path)
    base = opened(tmp_path / "base", middle, root=True)
    base.refresh()
    for at in count(1):
        folder = shutil.copytree(tmp_path / "base", tmp_path / f"device{at}")
        if not cut(at, fate, lambda folder=folder: opened(folder, new).refresh()):
            break
        for hub in (old, middle) if _knows(folder) == 3 else (old,):
            with pytest.raises(TrustError, match="version"):
                opened(folder, hub).refresh()
        trust = opened(folder, new)
        trust.refresh()
        assert number(trust) == 3, at
        assert (folder / trusted.COPIES[0]).read_bytes() == (folder / trusted.COPIES[1]).read_bytes(), at
    assert at > 8


def _knows(folder: Path) -> int:
    found = trusted.load(folder)
    return 0 if found is None else found.floor


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("fate", FATES)
def test_a_power_cut_of_the_first_refresh(tmp_path: Path, fate: str) -> None:
    hub = hubs(tmp_path)[2]
    for at in count(1):
        folder = tmp_path / f"device{at}"
        if not cut(at, fate, lambda folder=folder: opened(folder, hub, root=True).refresh()):
            break
        trust = opened(folder, hub, root=True)
        trust.refresh()
        assert number(trust) == 3, at
    assert at > 8


@pytest.mark.usefixtures("_quick")
def test_these_cuts_find_a_missing_sync(tmp_path: Path) -> None:
    _, middle, new = hubs(tmp_path)
    opened(tmp_path / "base", middle, root=True).refresh()
    found = []
    for at in count(1):
        folder = shutil.copytree(tmp_path / "base", tmp_path / f"device{at}")
        if not cut(at, "emptied", lambda folder=folder: opened(folder, new).refresh(), deaf=True):
            break
        try:
            opened(folder, new)
        except StoreError as e:
            found.append(e)
    assert found


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("fate", FATES)
def test_a_power_cut_of_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fate: str) -> None:
    monkeypatch.setattr(targets, "SYNC", 300)
    hub = hubs(tmp_path)[1]
    trust = opened(tmp_path / "device", hub, root=True)
    trust.refresh()
    target = trust.newest()
    assert target is not None
    for at in count(1):
        down = tmp_path / f"down{at}"
        if not cut(at, fate, lambda down=down: trust.download(target, down)):
            break
        if (final := down / "0002.edgecl.gz").exists():
            assert final.read_bytes() == b"model 2 " * 100, at
        assert trust.download(target, down).read_bytes() == b"model 2 " * 100, at
        assert not list(down.glob("*.part"))
    assert at > 8


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "flipped": flipped,
    "emptied": lambda path: path.write_bytes(b""),
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "zeros": lambda path: path.write_bytes(b"\0" * 4096),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("name", trusted.COPIES)
@pytest.mark.parametrize("damage", DAMAGE)
def test_one_rotten_copy_heals_and_rolls_nothing_back(tmp_path: Path, name: str, damage: str) -> None:
    old, middle, _ = hubs(tmp_path)
    opened(tmp_path / "device", middle, root=True).refresh()
    DAMAGE[damage](tmp_path / "device" / name)
    with pytest.raises(TrustError, match="version"):
        opened(tmp_path / "device", old).refresh()
    trust = opened(tmp_path / "device", middle)
    trust.refresh()
    assert number(trust) == 2
    assert len({(tmp_path / "device" / n).read_bytes() for n in trusted.COPIES}) == 1


def test_two_rotten_copies_are_said(tmp_path: Path) -> None:
    """Nothing is guessed: all protection from old versions would be gone."""
    hub = hubs(tmp_path)[0]
    opened(tmp_path / "device", hub, root=True).refresh()
    for name in trusted.COPIES:
        flipped(tmp_path / "device" / name)
    with pytest.raises(StoreError, match="damaged in both copies; enrol it again"):
        opened(tmp_path / "device", hub, root=True)


# Links


def test_a_download_goes_on_where_it_broke(tmp_path: Path, mirror: Mirror) -> None:
    data = publish(mirror.folder, 2, bytes(range(256)) * 40)
    trust = device(tmp_path / "device", mirror)
    trust.refresh()
    target = trust.newest()
    assert target is not None
    asked: list[str] = []

    def breaks(handler: Any) -> None:
        start = int(handler.headers.get("Range", "bytes=0-")[6:-1])
        asked.append(handler.headers.get("Range", ""))
        status = b"206 Partial Content" if start else b"200 OK"
        said = b"Content-Range: bytes %d-%d/%d\r\n" % (start, len(data) - 1, len(data)) if start else b""
        handler.wfile.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n%s\r\n" % (status, len(data) - start, said))
        handler.wfile.write(data[start : start + 1000])

    mirror.twist = lambda path: breaks if path.startswith("/tuf/targets") else None
    for n in range(1, 11):
        with pytest.raises(NetworkError):
            trust.download(target, tmp_path / "down")
        assert (tmp_path / "down/0002.edgecl.gz.part").stat().st_size == 1000 * n
        trust = Trust(trust.folder, mirror.url, http=trust.http)  # a new process
        trust.refresh()
    assert trust.download(target, tmp_path / "down").read_bytes() == data
    assert asked == ["", *(f"bytes={n}000-" for n in range(1, 11))]


@pytest.mark.parametrize("torn", [b"\0" * 500, b"model 1 " * 50 + b"x", b"x" * 800, b"x" * 5000, b"model 1 " * 100, b""])
def test_a_torn_part(tmp_path: Path, mirror: Mirror, torn: bytes) -> None:
    trust = device(tmp_path / "device", mirror)
    trust.refresh()
    target = trust.newest()
    assert target is not None
    (tmp_path / "down").mkdir()
    (tmp_path / "down/0001.edgecl.gz.part").write_bytes(torn)
    (tmp_path / "down/0009.edgecl.gz.part").write_bytes(b"of another")
    assert trust.download(target, tmp_path / "down").read_bytes() == b"model 1 " * 100
    assert [p.name for p in (tmp_path / "down").iterdir() if p.name[0] != "."] == ["0001.edgecl.gz"]


@pytest.mark.parametrize("bad", ["bytes 0-799/800", "bytes 399-799/800", "", "bytes 400-500/800", "bytes 400-799/900"])
def test_another_range_than_was_asked_for(tmp_path: Path, mirror: Mirror, bad: str) -> None:
    trust = device(tmp_path / "device", mirror)
    trust.refresh()
    target = trust.newest()
    assert target is not None
    (tmp_path / "down").mkdir()
    (tmp_path / "down/0001.edgecl.gz.part").write_bytes((b"model 1 " * 100)[:400])

    def send(handler: Any) -> None:
        handler.send("", 206, {"Content-Range": bad, "Content-Length": "400"}, b"y" * 400)

    mirror.twist = lambda path: send if path.startswith("/tuf/targets") else None
    with pytest.raises((NetworkError, TrustError)):
        trust.download(target, tmp_path / "down")
    mirror.twist = lambda path: None
    assert trust.download(target, tmp_path / "down").read_bytes() == b"model 1 " * 100


def test_a_full_disk_is_named(tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    trust = device(tmp_path / "device", mirror)
    trust.refresh()
    target = trust.newest()
    assert target is not None

    def full(fd: int, data: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("edgecl.files.os.write", full)
        with pytest.raises(StoreError, match=r"0001\.edgecl\.gz\.part: no space left"):
            trust.download(target, tmp_path / "down")
    assert trust.download(target, tmp_path / "down").exists()


def test_an_idle_poll_is_small(tmp_path: Path, mirror: Mirror) -> None:
    trust = device(tmp_path / "device", mirror)
    trust.refresh()
    mirror.seen.clear()
    assert not trust.refresh()
    assert [s.status for s in mirror.seen] == [304]
    assert mirror.seen[0].size < 500
    again = Trust(trust.folder, mirror.url, http=trust.http)
    mirror.seen.clear()
    again.refresh()
    assert sum(s.size for s in mirror.seen) <= 1000  # of a new process: the time, too
    assert len(mirror.seen) == 2


def test_two_processes_share_a_folder(tmp_path: Path, mirror: Mirror) -> None:
    one, two = device(tmp_path / "device", mirror), device(tmp_path / "device", mirror)
    one.refresh()
    publish(mirror.folder, 2)
    two.refresh()
    publish(mirror.folder, 3)
    one.refresh()
    two.refresh()
    assert number(one) == number(two) == 3
    assert _knows(tmp_path / "device") == 3
