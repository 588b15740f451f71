"""At whatever write, sync or rename the power goes: what the database says is stored is there, whole, and a hub goes on."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
from hub_cases import Device, bare, enrolled
from power import EMPTIED, FATES, Power, PowerCut

from edgecl.hub import serve, settings, store
from edgecl.hub.refusal import Refusal
from edgecl.hub.service import Service
from edgecl.hub.settings import Limits
from edgecl.update.envelope import seal

CHUNK = 3000
PAYLOAD = random.Random(0).randbytes(7000)
DIGEST = hashlib.sha256(PAYLOAD).hexdigest()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here needs the real disk to sync. SQLite's own files are not cut: that it keeps what it committed is its own."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


def start(folder: Path) -> tuple[Path, Device]:
    """A hub's folder with a device that is let in."""
    here = bare(folder / "hub", Limits(free_bytes=1))
    engine = store.connect(settings.database_url(here, settings.read(here)))
    store.prepare(engine)
    device = enrolled(here, engine, "d")
    engine.dispose()
    return here.root, device


def send(service: Service, device: Device) -> str:
    """As a device does it; the state at the end, or the refusal's status."""
    upload = ""
    try:
        said = service.begin(seal(device.key, device.id, 1, service.nonces.give(device.id), PAYLOAD))
        while "upload" in said.body or said.status == 204:
            upload = said.body.get("upload", "") or upload
            at = said.offset or 0
            said = service.append(upload, at, PAYLOAD[at : at + CHUNK])
        return str(said.body["state"])
    except Refusal as e:
        return str(e.status)


def stored(service: Service, device: Device) -> bool:
    """Whether the row is there; if so, the files have to be."""
    if store.update(service.engine, device.id, 1) is None:
        return False
    path, envelope = service.place.update(device.id, 1), service.place.envelope(device.id, 1)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == DIGEST
    assert 0 < envelope.stat().st_size <= 512
    return True


def cut_at(root: Path, device: Device, at: int, fate: str, *, deaf: bool = False) -> bool:
    """Whether the power went while the device sent."""
    service, power = serve.open_service(root), Power(at, deaf=deaf)
    with pytest.MonkeyPatch.context() as patch:
        power(patch)
        with suppress(PowerCut):
            send(service, device)
    service.close()
    service.engine.dispose()
    if power.off:
        power.settle(fate)
    return power.off


@pytest.mark.parametrize("fate", FATES)
def test_uploads(tmp_path: Path, fate: str) -> None:
    first, device = start(tmp_path / "first")
    for at in count(1):
        root = tmp_path / str(at) / "hub"
        shutil.copytree(first, root)
        if not cut_at(root, device, at, fate):
            break
        service = serve.open_service(root)
        before = stored(service, device)
        again = send(service, device)
        if again == "409":  # what was cut was no prefix: it began over, once
            again = send(service, device)
        assert again == "stored", (at, before)
        assert stored(service, device), at
        assert not any(service.place.uploads.iterdir()), at
        service.close()
        service.engine.dispose()
        shutil.rmtree(root)
    assert at > 12


def test_these_cuts_find_a_missing_sync(tmp_path: Path) -> None:
    """The row is committed, the files were never synced: they are empty."""
    first, device = start(tmp_path / "first")
    found = []
    for at in count(1):
        root = tmp_path / str(at) / "hub"
        shutil.copytree(first, root)
        if not cut_at(root, device, at, EMPTIED, deaf=True):
            break
        service = serve.open_service(root)
        try:
            stored(service, device)
        except AssertionError:
            found.append(at)
        service.close()
        service.engine.dispose()
    assert found


def test_what_a_killed_process_wrote_is_synced_before_it_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was killed when all bytes were written and the device's folder was made, and nothing of it was synced."""
    root, device = start(tmp_path)
    service = serve.open_service(root)
    upload = service.begin(seal(device.key, device.id, 1, service.nonces.give(device.id), PAYLOAD)).body["upload"]
    part, folder = service.place.part(upload), service.place.updates / device.id
    part.write_bytes(PAYLOAD)
    folder.mkdir()
    service.close()
    service.engine.dispose()
    service, synced = serve.open_service(root), list[str]()
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    assert send(service, device) == "stored"
    assert {str(part), str(folder.parent), str(folder)} <= set(synced)
    service.close()
    service.engine.dispose()
