"""What of the waiting updates goes into one merge: nobody keeps others waiting, and the order of arrival changes no bit."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_cases import Fleet, enrolled, put
from test_merge_job import Hub, open_hub, send_all, tree

from edgecl.hub import merging, store, window
from edgecl.hub.store.updates import PERSONAL
from edgecl.update import cbor
from edgecl.update.difference import difference
from edgecl.update.payload import decode


@pytest.fixture
def hub(made_hub: Path, tmp_path: Path) -> Iterator[Hub]:
    shutil.copytree(made_hub, tmp_path / "hub")
    opened = open_hub(tmp_path / "hub")
    yield opened
    opened.engine.dispose()


def test_what_waits_for_a_class_keeps_nobody_waiting(hub: Hub, fleet: Fleet) -> None:
    """More of them than go into one merge came first; they stay stored beside what is merged, and are released by a share."""
    for n in range(3):
        put(hub.here, hub.engine, enrolled(hub.here, hub.engine, f"new{n}"), 1, fleet.payload(fleet.new))
    send_all(hub, fleet)
    done = hub.with_(at_most=2, may_lose=1.0, rules={"points": 100.0}).merge()
    assert [d.model for d in done] == [0, 2, 3]  # two that wait; the third and one; two
    assert hub.states() == [("merged", 2, ""), ("merged", 3, ""), ("merged", 3, ""), *[("stored", 0, PERSONAL)] * 3]
    assert store.senders(hub.engine) == []
    store.share(hub.engine, "6", "ann")
    assert len(store.senders(hub.engine)) == 3


def test_what_was_refused_together_keeps_nobody_waiting(hub: Hub, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A window that was tried stays as it is; those that came later are merged."""
    hub = hub.with_(at_most=1, attempts=9, may_lose=0.3, rules={"points": 100.0})
    put(hub.here, hub.engine, enrolled(hub.here, hub.engine, "d0"), 1, fleet.payloads()[0])
    with monkeypatch.context() as patched:
        patched.setattr(merging._Job, "_accuracy", lambda self, merged: 0.0)
        assert [d.model for d in hub.merge()] == [0]
    assert hub.merge() == []
    put(hub.here, hub.engine, enrolled(hub.here, hub.engine, "d1"), 1, fleet.payloads()[1])
    assert [d.model for d in hub.merge()] == [2, 3]  # the later one, then the first on a new base


def test_of_a_device_a_needless_update_is_not_decoded(hub: Hub, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it take the place of another device's."""
    one = enrolled(hub.here, hub.engine, "d0")
    for n in range(1, 6):
        put(hub.here, hub.engine, one, n, fleet.payloads()[0])
    put(hub.here, hub.engine, enrolled(hub.here, hub.engine, "d1"), 1, fleet.payloads()[1])
    read: list[int] = []
    monkeypatch.setattr(merging, "decode", lambda payload, base: read.append(1) or decode(payload, base))
    (done,) = hub.with_(at_most=2).merge()
    assert (done.model, done.updates, len(read)) == (2, 2, 2)
    assert [u.state for u in store.updates(hub.engine, one.id)] == ["merged", *["refused"] * 4]


def test_a_damaged_newest_leaves_the_one_before(hub: Hub, fleet: Fleet) -> None:
    one = enrolled(hub.here, hub.engine, "d0")
    for n in (1, 2):
        put(hub.here, hub.engine, one, n, fleet.payloads()[0])
    hub.here.update(one.id, 2).unlink()
    assert [d.model for d in hub.merge()] == [2]
    assert [u.state for u in store.updates(hub.engine)] == ["refused", "merged"]


def test_a_row_names_few_classes(hub: Hub, fleet: Fleet) -> None:
    """Those with most samples, in their order; what is merged or waits, alike."""
    update = difference(fleet.base, fleet.learned[0])
    names = (*update.classes, *(f"own {i}" for i in range(200)))
    assert window.told(names, range(len(names))) == names[-window.NAMED :]
    many = {f"own {i}": 1000 - i for i in range(200)}
    counts = (*(0 for _ in update.classes), *many.values())
    payload = with_classes(fleet, (*update.classes, *many), counts)
    put(hub.here, hub.engine, enrolled(hub.here, hub.engine, "d0"), 1, payload)
    hub.merge()
    (row,) = store.updates(hub.engine)
    assert (row.state, row.reason, row.samples) == ("stored", PERSONAL, sum(counts))
    assert row.classes == tuple(many)[: window.NAMED]


def with_classes(fleet: Fleet, classes: tuple[str, ...], samples: tuple[int, ...]) -> bytes:
    """An update that a header tells so much of; its arrays are never looked at."""
    body = cbor.decode("update", fleet.payloads()[0])
    assert isinstance(body, dict)
    return cbor.encode({**body, "classes": list(classes), "samples": list(samples)})


def test_the_order_of_a_devices_updates_changes_no_bit(made_hub: Path, fleet: Fleet, tmp_path: Path) -> None:
    came = [(device, sequence) for device in range(2) for sequence in (1, 2)]
    digests = set()
    for n, order in enumerate((came, came[::-1], [came[2], came[1], came[0], came[3]])):
        shutil.copytree(made_hub, tmp_path / f"{n}")
        own = open_hub(tmp_path / f"{n}")
        devices = [enrolled(own.here, own.engine, f"d{i}") for i in range(2)]
        for device, sequence in order:
            put(own.here, own.engine, devices[device], sequence, fleet.payloads()[device + sequence - 1])
        assert [(d.model, d.updates) for d in own.merge()] == [(2, 2)]
        assert {(u.sequence, u.state) for u in store.updates(own.engine)} == {(1, "refused"), (2, "merged")}
        digests.add(tree(own.here.model(2)))
        own.engine.dispose()
    assert len(digests) == 1
