"""The hub's TUF repository: at whatever moment the power goes or a device reads, there is a whole set, the old one or the new."""

from __future__ import annotations

import json
import os
import shutil
import stat
import threading
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tuf")

from hub.tuf_cases import ACTIONS, NOW, make, newest, publish
from power import FATES, LOST, Power, cut

from edgecl import files
from edgecl.hub import keys, repository, tufset
from edgecl.hub.tufset import DAY, Lifetimes
from edgecl.sync import hubtime
from edgecl.sync.errors import TrustError
from edgecl.sync.lock import locked
from edgecl.types import ConfigError, DataError, StoreError


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here needs the real disk to sync: power is simulated."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.mark.parametrize("fate", FATES)
@pytest.mark.parametrize("name", ACTIONS)
def test_power_cuts(tmp_path: Path, name: str, fate: str) -> None:
    base = make(tmp_path / "base", 2)
    device: dict[str, bytes] = {"root": (base / "tuf/metadata/1.root.json").read_bytes()}
    assert newest(base, device) == 2
    late = NOW + 20 * DAY if name == "refresh all" else NOW
    after = {"publish": (2, 7), "revoke": (2, 0)}.get(name, (2,))
    for at in count(1):
        folder = shutil.copytree(base, tmp_path / str(at))
        if not cut(at, fate, lambda folder=folder: ACTIONS[name](folder)):
            break
        found = newest(folder)
        assert found in after, at
        assert newest(folder, dict(device)) in (found, *after), at  # one that knows the old set goes on to it
        if name == "revoke" and found == 0:
            keys.rotate(folder, "models", now=NOW)
        elif name == "revoke":
            keys.revoke(folder, now=NOW)
            assert newest(folder) == 0
            keys.rotate(folder, "models", now=NOW)
        publish(folder, 8, now=late)
        assert newest(folder, now=late) == newest(folder, dict(device), now=late) == 8, at
        assert not [p for p in (folder / "tuf/targets/models").iterdir() if p.name.endswith(".tmp")], at
        shutil.rmtree(folder)
    assert at > 3


@pytest.mark.parametrize("fate", FATES)
def test_power_cuts_of_the_first_set(tmp_path: Path, fate: str) -> None:
    for at in count(1):
        folder = tmp_path / str(at)
        folder.mkdir()
        if not cut(at, fate, lambda folder=folder: repository.init(folder, now=NOW)):
            break
        with suppress(StoreError):  # it was whole
            repository.init(folder, now=NOW)
        publish(folder, 1)
        assert newest(folder) == 1, at
    assert at > 30


def test_these_cuts_find_a_missing_sync(tmp_path: Path) -> None:
    base, found = make(tmp_path / "base", 2), []
    for at in count(1):
        folder = shutil.copytree(base, tmp_path / str(at))
        if not cut(at, "emptied", lambda folder=folder: publish(folder, 7), deaf=True):
            break
        try:
            newest(folder)
        except Exception as e:
            found.append(e)
    assert found


@pytest.mark.parametrize("name", ACTIONS)
def test_a_device_that_reads_at_any_moment_sees_a_whole_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Devices with the first root, and with the newest set of before, read after every rename; none finds a fault."""
    base, seen = make(tmp_path / "base", 2), []
    device: dict[str, bytes] = {"root": (base / "tuf/metadata/1.root.json").read_bytes()}
    newest(base, device)
    replace = os.replace

    def spied(source: Any, target: Any) -> None:
        replace(source, target)
        seen.append(newest(base))
        newest(base, dict(device))

    monkeypatch.setattr(os, "replace", spied)
    ACTIONS[name](base)
    assert seen
    assert set(seen) <= {"publish": {2, 7}, "revoke": {0, 2}}.get(name, {2})


@pytest.mark.parametrize("name", [n for n in ACTIONS if n != "rotate bundle"])
@pytest.mark.parametrize("at", ["timestamp.json", "snapshot.json", "models.json"])
def test_a_device_that_began_before_ends_well(tmp_path: Path, name: str, at: str) -> None:
    """The whole change happens between two requests of one device: just before it asks for timestamp, snapshot or models."""
    base = make(tmp_path / "base", 2)
    done = []

    def spy(asked: str) -> None:
        if asked.endswith(at) and not done:
            done.append(ACTIONS[name](base))

    late = NOW + DAY / 2
    assert newest(base, now=late, spy=spy) in ({2, 7} if name == "publish" else {0, 2} if name == "revoke" else {2})
    assert done


def test_what_is_published(tmp_path: Path) -> None:
    folder = make(tmp_path / "hub")
    for number in range(1, 9):
        done = publish(folder, number)
        assert done.path == f"models/{number:04d}.edgecl.gz"
        assert done.file.read_bytes() == b"model %d " % number * 100
    listed = json.loads((folder / "tuf/metadata/9.models.json").read_bytes())["signed"]["targets"]
    assert list(listed) == [f"models/{n:04d}.edgecl.gz" for n in (6, 7, 8)]
    custom = listed[done.path]["custom"]
    assert custom["bundle_key"] == repository.bundle_key(folder)
    assert custom["number"] == 8
    assert custom["classes"] == ["cat", "dog"]
    left = sorted(p.name.split(".")[1] for p in (folder / "tuf/targets/models").iterdir())
    assert left == ["0003", "0004", "0005", "0006", "0007", "0008"]  # those of four versions, three each
    assert sorted(p.name for p in (folder / "tuf/metadata").glob("*.models.json")) == [f"{n}.models.json" for n in (6, 7, 8, 9)]


@pytest.mark.parametrize("number", [0, -1, 2, 1, "3", None, 2.5])
def test_a_number_that_does_not_rise(tmp_path: Path, number: Any) -> None:
    folder = make(tmp_path / "hub", 2)
    with pytest.raises(DataError, match="must be above 2"):
        repository.publish(folder, folder / "made", {"number": number}, now=NOW)
    assert newest(folder) == 2


def test_private_keys_are_for_their_owner(tmp_path: Path) -> None:
    folder = make(tmp_path / "hub")
    for path in [*(folder / "keys").iterdir(), *(folder / "offline").iterdir()]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path = folder / "keys/models.pem"
    path.chmod(0o640)
    with pytest.raises(ConfigError, match=f"{path}: others than its owner"):
        publish(folder, 1)
    for data, wrong in ((b"", "no Ed25519"), (b"x" * 5000, "4096 bytes")):
        path.unlink()
        files.write_private(path, data)
        with pytest.raises((ConfigError, StoreError), match=wrong):
            publish(folder, 1)


def test_offline_keys_are_needed_where_they_are_and_nowhere_else(tmp_path: Path) -> None:
    folder, away = make(tmp_path / "hub"), tmp_path / "stick"
    assert len(keys.kept_online(folder)) == 2
    shutil.move(folder / "offline", away)
    assert keys.kept_online(folder) == []
    publish(folder, 1)
    repository.refresh_timestamp(folder, now=NOW + DAY / 4)
    with pytest.raises(StoreError, match=r"root\.pem: no such file"):
        keys.rotate(folder, "timestamp", now=NOW)
    with pytest.raises(ConfigError, match="--offline DIR"):
        keys.offline_folder(folder, None)
    before = keys.listing(folder)
    for role in keys.ROLES:
        keys.rotate(folder, role, away, now=NOW)
        assert newest(folder, now=NOW + DAY / 2) == 1, role
    after = keys.listing(folder)
    assert all(a.key != b.key for a, b in zip(after, before, strict=True))
    assert sorted(p.name for p in away.iterdir()) == ["root.pem", "targets.pem"]
    assert not (folder / "offline").exists()


def test_a_wrong_offline_key(tmp_path: Path) -> None:
    folder, other = make(tmp_path / "hub"), make(tmp_path / "other")
    for role in ("timestamp", "models", "root"):
        with pytest.raises(ConfigError, match="is not the key that the hub's metadata name"):
            keys.rotate(folder, role, other / "offline", now=NOW)
    assert newest(folder) == 0


def test_a_lost_online_key_is_replaced(tmp_path: Path) -> None:
    folder = make(tmp_path / "hub", 1)
    for role in ("snapshot", "timestamp", "models"):
        (folder / f"keys/{role}.pem").unlink()
    with pytest.raises(StoreError, match=r"\.pem: no such file"):
        publish(folder, 2)
    for role in ("timestamp", "snapshot", "models"):
        keys.rotate(folder, role, now=NOW)
    publish(folder, 2)
    assert newest(folder) == 2


def test_what_is_half_over_is_signed_anew(tmp_path: Path) -> None:
    folder, life = make(tmp_path / "hub", 1), Lifetimes()
    assert not repository.refresh_timestamp(folder, life, NOW + 0.4 * DAY)
    versions = {r.role: r.version for r in keys.listing(folder)}
    assert repository.refresh_timestamp(folder, life, NOW + 0.6 * DAY)
    assert {r.role: r.version - versions[r.role] for r in keys.listing(folder)} == dict.fromkeys(versions, 0) | {"timestamp": 1}
    assert repository.refresh_timestamp(folder, life, NOW + 16 * DAY)
    assert {r.role for r in keys.listing(folder) if r.version > versions[r.role]} == {"models", "snapshot", "timestamp"}
    assert newest(folder, now=NOW + 16.9 * DAY) == 1


def test_a_second_init(tmp_path: Path) -> None:
    folder = make(tmp_path / "hub", 1)
    with pytest.raises(StoreError, match="has a repository already"):
        repository.init(folder)
    assert newest(folder) == 1


@pytest.mark.parametrize(("name", "data"), [("timestamp.json", b"{"), ("1.snapshot.json", b"[]"), ("1.targets.json", b"\xff")])
def test_damaged_metadata_are_named(tmp_path: Path, name: str, data: bytes) -> None:
    folder = make(tmp_path / "hub")
    path = folder / "tuf/metadata" / name
    path.write_bytes(data)
    with pytest.raises(StoreError, match=f"{path}: is damaged"):
        publish(folder, 1)
    path.write_bytes((folder / "tuf/metadata/1.root.json").read_bytes())
    with pytest.raises(StoreError, match="holds root"):
        publish(folder, 1)


def test_two_writers_wait_for_each_other(tmp_path: Path) -> None:
    folder = make(tmp_path / "hub")
    began = threading.Event()

    def writes() -> None:
        began.set()
        publish(folder, 1)

    thread = threading.Thread(target=writes)
    with locked(folder / tufset.LOCK):
        thread.start()
        began.wait()
        with pytest.raises(StoreError, match="another process holds it"), locked(folder / tufset.LOCK, seconds=0.1):
            pass
        assert newest(folder) == 0
    thread.join()
    assert newest(folder) == 1


def test_signed_time(tmp_path: Path) -> None:
    folder, nonce = make(tmp_path / "hub"), "0f" * 16
    root = tufset.read(folder).root.signed
    data = repository.signed_time(folder, nonce, NOW)
    assert len(data) < hubtime.STATEMENT_BYTES / 2
    assert hubtime.verify(data, nonce, root) == int(NOW)
    keys.rotate(folder, "timestamp", now=NOW)
    with pytest.raises(TrustError, match="not signed by its timestamp key"):
        hubtime.verify(repository.signed_time(folder, nonce, NOW), nonce, root)
    for wrong in ("", "0f", "0F" * 16, "0f" * 17, '"' * 32):
        with pytest.raises(DataError, match="nonce"):
            repository.signed_time(folder, wrong)


def test_an_unsynced_rename_is_not_taken_for_done(tmp_path: Path) -> None:
    """What publish returned is on the disk."""
    folder = make(tmp_path / "hub", 1)
    power = Power(10**9)
    with pytest.MonkeyPatch.context() as patch:
        power(patch)
        publish(folder, 2)
    power.settle(LOST)
    assert newest(folder) == 2
