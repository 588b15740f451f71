"""The operator's page over a real hub: what devices sent is shown, and what an operator does is done."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hub_cases import Device, bare, served

from edgecl.hub import publishing, store
from edgecl.hub.service import Service
from edgecl.hub.store import tables
from edgecl.hub.store.updates import MERGED, REFUSED, Judged
from edgecl.hub.view import View

PASSWORD = "a long password"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[str, Service]]:
    with served(bare(tmp_path / "hub").root) as opened:
        store.add_operator(opened[1].engine, "ann", PASSWORD, "test")
        yield opened


def model(service: Service, number: int, content: int, accuracy: float) -> None:
    row = store.Model(number, f"{content:064x}", number - 1, content, "mlp", ("mug",), 5, accuracy, None, 1, 700, "m", 1)
    with store.writing(service.engine) as db:
        store.add_model(db, row, "hub")


def view(service: Service) -> View:
    return View(service.place, service.settings, service.engine)


def test_an_operator_approves_a_device_over_http(service: tuple[str, Service], tmp_path: Path) -> None:
    url, hub = service
    device = Device(tmp_path, url)
    device.enroll(store.add_token(hub.engine, store.Token(), "test"), name="<b>shelf</b>")
    with httpx.Client(base_url=url, trust_env=False) as browser:
        assert browser.get("/").headers["location"] == "/login"
        assert browser.post("/login", data={"name": "ann", "password": "another one"}).status_code == 401
        assert browser.post("/login", data={"name": "ann", "password": PASSWORD}).status_code == 303
        page = browser.get(f"/devices/{device.id}").text
        assert "&lt;b&gt;shelf&lt;/b&gt;" in page
        assert "<b>shelf" not in page
        token = re.search(r'name="csrf" value="([^"]+)"', page)
        assert token
        assert browser.post(f"/devices/{device.id}/approve", data={"csrf": token[1]}).status_code == 303
        assert browser.get("/nothing").json()["error"]
    found = view(hub).device(device.id)
    assert found
    assert found.state == "approved"
    assert [(a.who, a.what) for a in view(hub).audit(0, 1)] == [("ann", f"approve {device.id} <b>shelf</b>")]


def test_a_removed_operator_is_logged_out(service: tuple[str, Service], monkeypatch: pytest.MonkeyPatch) -> None:
    url, hub = service
    new, gone = (
        (lambda: store.add_operator(hub.engine, "ann", PASSWORD, "x")),
        lambda: store.remove_operator(hub.engine, "ann", "x"),
    )
    later = time.time() + 5
    with httpx.Client(base_url=url, trust_env=False) as browser:
        for end in (new, gone):
            assert browser.post("/login", data={"name": "ann", "password": PASSWORD}).status_code == 303
            assert browser.get("/").status_code == 200
            with monkeypatch.context() as patch:
                patch.setattr(time, "time", lambda: later)
                end()
            assert browser.get("/").headers["location"] == "/login"


def test_updates_say_what_became_of_them(service: tuple[str, Service], tmp_path: Path) -> None:
    url, hub = service
    device = Device(tmp_path, url).joined(hub)
    model(hub, 1, 1, 0.7)
    model(hub, 2, 2, 0.8)
    for sequence in (1, 2, 3):
        upload = device.begin(sequence, b"x" * sequence).json()["upload"]
        assert device.patch(upload, 0, b"x" * sequence).status_code == 200
    seen = [
        Judged(device.id, 1, MERGED, "", 2, base=f"{1:064x}", samples=9, classes=("mug", "jar")),
        Judged(device.id, 2, REFUSED, "mug falls", base=f"{1:064x}", samples=3, classes=("mug",)),
    ]
    store.refuse(hub.engine, seen)
    rows = view(hub).updates()
    assert [(u.sequence, u.state, u.reason, u.base, u.model) for u in rows] == [
        (3, "stored", "", None, None), (2, "refused", "mug falls", 1, None), (1, "merged", "", 1, 2),
    ]  # fmt: skip
    assert view(hub).updates("refused", device.id, 0, 5) == [rows[1]]
    assert view(hub).updates("", "", 1, 1) == [rows[1]]
    assert view(hub).update_counts() == {"stored": 1, "merged": 1, "refused": 1}
    (shown,) = view(hub).devices("approved")
    assert (shown.updates, shown.bytes_up, shown.name) == (3, 6, "pi")
    assert view(hub).device_counts() == {"pending": 0, "approved": 1, "revoked": 0}


def test_a_base_that_was_given_again_keeps_the_number_that_the_device_had(service: tuple[str, Service], tmp_path: Path) -> None:
    url, hub = service
    device = Device(tmp_path, url).joined(hub)
    model(hub, 1, 1, 0.7)
    upload = device.begin(1, b"x").json()["upload"]
    assert device.patch(upload, 0, b"x").status_code == 200
    store.refuse(hub.engine, [Judged(device.id, 1, MERGED, "", 1, base=f"{1:064x}", samples=9, classes=("mug",))])
    again = store.Model(2, f"{1:064x}", 1, 1, "mlp", ("mug",), 2**31 - 1, 0.7, None, 0, 700, "model 1 again", 1)
    with store.writing(hub.engine) as db:
        store.add_model(db, again, "hub")
    assert [u.base for u in view(hub).updates()] == [1]


def test_old_payloads_go_and_rows_stay_however_many(service: tuple[str, Service], tmp_path: Path) -> None:
    url, hub = service
    device = Device(tmp_path, url).joined(hub)
    for n in range(1, 8):
        assert device.send(n, b"x").json() == {"state": "stored"}
    store.refuse(hub.engine, [Judged(device.id, n, REFUSED, "old") for n in range(1, 7)])
    with store.writing(hub.engine) as db:
        db.execute(tables.updates.update().where(tables.updates.c.sequence != 3).values(received=5))
    gone = [1, 2, 4, 5, 6]
    assert [u.sequence for limit in (1, 2, 5, 9) for u in store.outlived(hub.engine, 90, limit)] == gone * 4
    assert publishing.remove_payloads(hub.place, hub.settings, hub.engine) == 10
    assert sorted(p.name for p in (hub.place.updates / device.id).glob("*.update")) == ["000003.update", "000007.update"]
    assert len(store.updates(hub.engine)) == 7


def test_devices_that_are_well_are_not_warned_of(service: tuple[str, Service], tmp_path: Path) -> None:
    url, hub = service
    device = Device(tmp_path, url).joined(hub)
    assert device.report(health="well").status_code == 200
    assert [d.health for d in view(hub).devices()] == [""]
    assert device.report(health="hot").status_code == 200
    assert [d.health for d in view(hub).devices()] == ["hot"]


def test_classes_are_personal_until_they_are_shared(service: tuple[str, Service], tmp_path: Path) -> None:
    url, hub = service
    device = Device(tmp_path, url).joined(hub)
    model(hub, 1, 1, 0.7)
    assert device.patch(device.begin(1, b"x").json()["upload"], 0, b"x").status_code == 200
    store.refuse(hub.engine, [Judged(device.id, 1, MERGED, "", 1, base=f"{1:064x}", samples=9, classes=("mug", "jar"))])
    assert [(c.name, c.devices, c.shared) for c in view(hub).classes()] == [("jar", 1, False)]
    view(hub).share("jar", "ann")
    assert [(c.name, c.shared) for c in view(hub).classes()] == [("jar", True)]


def test_a_rollback_is_marked_by_what_devices_have(service: tuple[str, Service], monkeypatch: pytest.MonkeyPatch) -> None:
    _, hub = service
    for number, content in ((1, 1), (2, 2), (3, 1)):
        model(hub, number, content, 0.5)
    assert [(m.number, m.state) for m in view(hub).models()] == [(3, "current"), (2, "published"), (1, "same")]
    asked: list[tuple[int, str]] = []
    monkeypatch.setattr(publishing, "rollback", lambda here, known, engine, number, who: asked.append((number, who)))
    view(hub).rollback(2, "ann")
    assert asked == [(2, "ann")]
