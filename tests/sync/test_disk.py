"""A disk that is full or fails holds a device up; it loses nothing, and ends nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgecl import files
from edgecl.sync import client as clients
from edgecl.sync import service
from edgecl.sync.client import Client
from edgecl.sync.place import Config, Place, read_state
from edgecl.types import StoreError

NOWHERE = "http://127.0.0.1:1"


@pytest.fixture
def said() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def client(tmp_path: Path, said: list[dict[str, Any]]) -> Client:
    """With an update that waits, and a hub that is not there."""
    place = Place(tmp_path)
    place.folder.mkdir()
    config = Config(NOWHERE, "0123456789abcdef", "t", "pi")
    made = Client(place, config, lambda e: said.append(dict(e)), sleep=lambda s: None)
    (tmp_path / "update").write_bytes(b"x" * 1000)
    made.outbox.put(tmp_path / "update", "b" * 64, "s" * 64)
    return made


def fails(*args: object) -> None:
    raise StoreError("/here: Input/output error")


def test_an_update_that_can_not_be_read_now_waits(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "sha256", fails)
    client.push()
    assert "Input/output" in client.state.waits["push"]
    assert ([i.sequence for i in client.outbox.items()], client.outbox.aside()) == ([1], [])


@pytest.mark.parametrize("left", [b"y" * 1000, None])
def test_an_update_that_is_damaged_or_lost_is_set_aside(client: Client, left: bytes | None) -> None:
    payload = client.place.outbox / "000001.update"
    payload.unlink() if left is None else payload.write_bytes(left)
    client.push()
    assert "push" not in client.state.waits
    assert (client.outbox.items(), [i.sequence for i in client.outbox.aside()]) == ([], [1])


def test_a_full_disk_is_said_once_and_the_rounds_go_on(
    client: Client, said: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "write_state", fails)
    assert service.loop(client, 3, lambda seconds: None) == "done"
    assert [e["what"] for e in said if e["event"] == "waits"].count("state") == 1
    assert not client.place.state.exists()
    monkeypatch.undo()
    service.one(client)
    assert read_state(client.place).waits == client.state.waits != {}


def test_an_outbox_that_can_not_be_read_does_not_end_a_round(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client.outbox, "items", fails)
    service.one(client)
    assert "Input/output" in client.state.waits["report"]
