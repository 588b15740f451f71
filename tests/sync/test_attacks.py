"""Without TLS somebody in between cuts, repeats and changes what is sent: nothing false is taken, and nothing is lost."""

from __future__ import annotations

import hashlib
import random
import shutil
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from fake_hub import line
from hub_here import Device, new_hub, served
from sync_cases import newest, samples, teach

from edgecl import slots
from edgecl.hub import store
from edgecl.hub.service import Service
from edgecl.sync.place import Place, base_of, read_state


@pytest.fixture(scope="module")
def made_hub(made: Path, base: Path) -> Path:
    return new_hub(made / "attacked", base)


@pytest.fixture
def hub(made_hub: Path, tmp_path: Path) -> Iterator[Service]:
    shutil.copytree(made_hub, tmp_path / "hub")
    with served(tmp_path / "hub") as service:
        yield service


def kept(hub: Service) -> dict[tuple[str, int], str]:
    """What the hub has of updates, by its files."""
    found = {}
    for u in store.updates(hub.engine):
        data = hub.place.update(u.device, u.sequence).read_bytes()
        found[u.device, u.sequence] = hashlib.sha256(data).hexdigest()
        assert found[u.device, u.sequence] == u.sha256
    return found


def test_what_was_sent_before_is_worth_nothing_again(hub: Service, tmp_path: Path) -> None:
    with line(hub.port, lambda n: None) as between:
        pi = Device.joined(tmp_path / "pi", hub, between.port, trial="selftest")
        assert pi.do("pull") == ""
        teach(pi.slot / "lessons", newest(pi.slot), samples([3], 20))
        assert pi.do("push") == ""
        before, sent = kept(hub), bytes(between.seen)
    assert len(before) == 1
    assert b"/v1/uploads" in sent
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", hub.port)) as sock, suppress(OSError):
            sock.settimeout(3)
            sock.sendall(sent)
            while sock.recv(65536):
                pass
    assert kept(hub) == before
    assert len(store.devices(hub.engine)) == 1


def test_what_is_changed_on_the_way_is_not_taken_either_way(hub: Service, tmp_path: Path) -> None:
    """One byte in about three packets is another, for some rounds; then the line is good, and all is there."""
    draw = random.Random(7)

    def spoil(data: bytes) -> bytes:
        if draw.random() > 0.3:
            return data
        at = draw.randrange(len(data))
        return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]

    with line(hub.port, lambda n: None) as between:
        pi = Device.joined(tmp_path / "pi", hub, between.port, trial="selftest")
        between.change = between.back = spoil
        for _ in range(4):
            pi.do("pull")
            assert slots.current(pi.root) is None or base_of(pi.slot) == store.current(hub.engine).snapshot
        between.change = between.back = lambda data: data
        pi.until("pull")
        teach(pi.slot / "lessons", newest(pi.slot), samples([3], 20))
        between.change = spoil
        for _ in range(4):
            pi.do("push")
            kept(hub)  # each is what its device signed
        between.change = lambda data: data
        pi.until("push")
    here = Place(pi.root)
    aside = sorted((here.outbox / "aside").glob("*.update"))
    assert len(kept(hub)) + len(aside) == 1  # taken as it was, or still here with the hub's reason
    assert read_state(here).pulled["number"] == 1
