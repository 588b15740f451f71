"""From updates on the disk to a model that devices can fetch, and back."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hub_cases import Fleet, enrolled, put
from sqlalchemy import Engine

from edgecl import bundle, files
from edgecl.hub import merging, place, publishing, repository, settings, store, tufset
from edgecl.hub.place import Place
from edgecl.hub.settings import Settings
from edgecl.hub.store.updates import PERSONAL
from edgecl.model import open_model
from edgecl.types import ConfigError, StoreError
from edgecl.update import Base
from edgecl.update.difference import difference
from edgecl.update.payload import encode


class Hub(NamedTuple):
    here: Place
    known: Settings
    engine: Engine

    def merge(self) -> list[merging.Outcome]:
        return merging.run(*self)

    def current(self) -> int:
        return store.models(self.engine)[0].number

    def states(self) -> list[tuple[str, int, str]]:
        return sorted((u.state, u.model, u.reason) for u in store.updates(self.engine))

    def with_(self, **merging: object) -> Hub:
        return self._replace(known=replace(self.known, merging=replace(self.known.merging, **merging)))  # type: ignore[arg-type]


def open_hub(root: Path) -> Hub:
    here = place.opened(root)
    known = settings.read(here)
    return Hub(here, known, store.connect(settings.database_url(here, known)))


@pytest.fixture
def hub(made_hub: Path, tmp_path: Path) -> Iterator[Hub]:
    shutil.copytree(made_hub, tmp_path / "hub")
    opened = open_hub(tmp_path / "hub")
    yield opened
    opened.engine.dispose()


def tree(folder: Path) -> str:
    """Of all files and their names."""
    lines = [f"{p.relative_to(folder)} {files.sha256(p)}" for p in sorted(folder.rglob("*")) if p.is_file()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def targets(hub: Hub) -> dict[str, dict[str, object]]:
    return {k: dict(v.custom) for k, v in tufset.read(hub.here.root).models.signed.targets.items()}


def send_all(hub: Hub, fleet: Fleet) -> None:
    for i, payload in enumerate(fleet.payloads()):
        put(hub.here, hub.engine, enrolled(hub.here, hub.engine, f"d{i}"), 1, payload)


# ---- init ----


def test_a_new_hub_has_its_model(hub: Hub, base_run: Path) -> None:
    (one,) = store.models(hub.engine)
    assert (one.number, one.snapshot, one.note) == (1, open_model(base_run).card.snapshot, "given to hub init")
    assert one.published
    assert 0.2 < (one.accuracy or 0) <= 1
    assert targets(hub)["models/0001.edgecl.gz"]["snapshot"] == one.snapshot
    assert open_model(hub.here.model(1)).card.snapshot == one.snapshot
    for folder in (hub.here.root, hub.here.keys, hub.here.root / "offline"):
        assert folder.stat().st_mode & 0o077 == 0, folder


def test_what_is_published_installs(hub: Hub, tmp_path: Path) -> None:
    (packed,) = (hub.here.tuf / "targets/models").glob("*.0001.edgecl.gz")
    plain = tmp_path / "model.edgecl"
    plain.write_bytes(gzip.decompress(packed.read_bytes()))
    key = tmp_path / "bundle.pub"
    key.write_text(str(targets(hub)["models/0001.edgecl.gz"]["bundle_key"]))
    assert targets(hub)["models/0001.edgecl.gz"]["bytes"] == plain.stat().st_size
    bundle.install(plain, tmp_path / "root", key)
    assert open_model(tmp_path / "root/current/learner").card.snapshot == store.models(hub.engine)[0].snapshot
    assert packed.read_bytes()[:10] == b"\x1f\x8b\x08\0\0\0\0\0\0\x03"  # no name, no time


def test_init_says_what_is_wrong(hub: Hub, base_run: Path, held_out: Path, tmp_path: Path) -> None:
    from edgecl.hub.setup import init

    good = Settings(url="http://127.0.0.1")
    with pytest.raises(StoreError, match="is a hub's folder already"):
        init(hub.here.root, base_run, held_out, good, print)
    with pytest.raises(ConfigError, match="--url: 'ftp://x' is no"):
        init(tmp_path / "x", base_run, held_out, Settings(url="ftp://x"), print)
    with pytest.raises(ConfigError, match="no target 'rip'"):
        init(tmp_path / "x", base_run, held_out, replace(good, bundle_target="rip"), print)
    with pytest.raises(StoreError, match="absent"):
        init(tmp_path / "x", tmp_path / "absent", held_out, good, print)
    assert not (tmp_path / "x").exists()


# ---- merging ----


def test_updates_become_a_model(hub: Hub, fleet: Fleet) -> None:
    send_all(hub, fleet)
    (done,) = hub.merge()
    assert (done.model, done.updates, done.reason) == (2, 3, "")
    assert done.accuracy is not None
    assert done.before is not None
    assert done.accuracy > done.before + 0.02  # they saw more samples
    assert hub.states() == [("merged", 2, "")] * 3
    two = store.current(hub.engine)
    assert two is not None
    assert (two.number, two.parent, two.accuracy, two.updates) == (2, 1, done.accuracy, 3)
    assert two.published
    assert [custom["number"] for custom in targets(hub).values()] == [1, 2]
    assert hub.merge() == []
    (merge,) = store.merges(hub.engine)
    assert (merge.model, merge.updates, merge.reason) == (2, 3, "")
    update = store.updates(hub.engine)[0]
    assert (update.base, update.classes) == (fleet.base.card.snapshot, tuple("01234"))


def test_order_and_repeats_change_no_bit(made_hub: Path, fleet: Fleet, tmp_path: Path) -> None:
    digests = set()
    for n in range(3):
        shutil.copytree(made_hub, tmp_path / f"{n}")
        own = open_hub(tmp_path / f"{n}")
        devices = [enrolled(own.here, own.engine, f"d{i}") for i in range(3)]
        order = list(enumerate(fleet.payloads()))
        random.Random(n).shuffle(order)
        for i, payload in order:
            for _ in range(max(1, 50 * n)):
                put(own.here, own.engine, devices[i], 1, payload)
        own.merge()
        digests.add(tree(own.here.model(2)))
        own.engine.dispose()
    assert len(digests) == 1


def test_personal_classes_stay_until_they_are_shared(hub: Hub, fleet: Fleet) -> None:
    device = enrolled(hub.here, hub.engine, "new")
    put(hub.here, hub.engine, device, 1, fleet.payload(fleet.new))
    (refused,) = hub.merge()
    assert (refused.model, refused.reason) == (0, "nothing to merge")
    assert hub.states() == [("stored", 0, PERSONAL)]
    assert hub.merge() == []
    store.share(hub.engine, "6", "ann")
    hub = hub.with_(may_lose=1.0, rules={"points": 100.0})  # a class more costs others some: that is not asked here
    (done,) = hub.merge()
    assert done.model == 2
    two = store.current(hub.engine)
    assert two is not None
    assert two.classes == (*fleet.base.card.classes, "6")
    assert "nine of mine" not in json.dumps([m._asdict() for m in store.models(hub.engine)])


def test_a_worse_model_is_refused(hub: Hub, fleet: Fleet) -> None:
    """Everyone sends noise: nothing is published, and after some tries they are refused with the reason."""
    hub = hub.with_(attempts=2, rules={"points": 100.0, "clip": 0.0})
    base, rng = Base.of(fleet.base), np.random.default_rng(0)
    update = difference(fleet.base, fleet.learned[0])
    noise = {k: (d + rng.normal(0, 0.5, d.shape) * (d != 0)).astype(np.float32) for k, d in update.delta.items()}
    noise |= {k: update.delta[k] for k in update.delta if k.endswith("running_var")}
    for n in (1, 2):
        put(hub.here, hub.engine, enrolled(hub.here, hub.engine, f"d{n}"), 1, encode(replace(update, delta=noise), base))
        done = hub.merge()  # the second time, what is left of both is tried alone
        assert [(d.model, "fell from" in d.reason) for d in done] == [(0, True)] * n
        assert hub.merge() == []  # the same again is not tried
    assert [(u.attempts, u.state, u.reason.endswith("in 2 merges")) for u in store.updates(hub.engine)] == [
        (2, "refused", True)
    ] * 2
    assert [m.number for m in store.models(hub.engine)] == [1]


def test_small_losses_do_not_add_up(hub: Hub, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = hub.with_(may_lose=0.05, at_most=1, attempts=1, rules={"points": 100.0})
    send_all(hub, fleet)
    first = store.models(hub.engine)[0].accuracy
    assert first is not None
    # Each model is below the one before by less than may_lose: 0, 0.02, 0.04, 0.06 below the first.
    monkeypatch.setattr(merging, "mean_accuracy", lambda found: first - 0.02 * (hub.current() - 1))
    monkeypatch.setattr(merging._Job, "_settled", lambda self, merged: (merged, first - 0.02 * hub.current()))
    done = hub.merge()
    assert [d.model for d in done] == [2, 3, 0]
    assert f"fell from {100 * first:.2f} to" in done[2].reason


def test_what_accuracy_was_reached(hub: Hub) -> None:
    one = store.models(hub.engine)[0]
    two = one._replace(number=2, updates=3, accuracy=0.7, before=0.75)
    three = two._replace(number=3, accuracy=0.6, before=0.7)
    again = two._replace(number=4, updates=0, accuracy=0.7, before=0.6)
    five = three._replace(number=5, accuracy=0.72, before=0.71)
    wider = five._replace(number=6, classes=(*five.classes, "x"), accuracy=0.9)
    seven = wider._replace(number=7, accuracy=0.5, before=0.51)
    chain = [one, two, three, again, five, wider, seven]
    best = [merging.reached(chain[:n][::-1]) for n in range(1, 8)]
    assert best == [0, 0.75, 0.75, 0, 0.72, 0, 0.51]


def test_harmful_updates_are_screened_out(hub: Hub, fleet: Fleet) -> None:
    send_all(hub, fleet)
    base, update = Base.of(fleet.base), difference(fleet.base, fleet.learned[0])
    turned = {k: d if k.endswith("running_var") else (-20 * d).astype(np.float32) for k, d in update.delta.items()}
    flipped = replace(update, delta=turned)
    put(hub.here, hub.engine, enrolled(hub.here, hub.engine, "evil"), 1, encode(flipped, base))
    (done,) = hub.merge()
    assert (done.model, done.updates) == (2, 3)
    (evil,) = [u for u in store.updates(hub.engine) if u.state == "refused"]
    assert "alone it costs" in evil.reason


def test_what_can_not_be_read_is_refused_with_its_reason(hub: Hub, fleet: Fleet) -> None:
    payloads = fleet.payloads()
    devices = [enrolled(hub.here, hub.engine, f"d{i}") for i in range(5)]
    put(hub.here, hub.engine, devices[0], 1, payloads[0])
    put(hub.here, hub.engine, devices[1], 1, b"no update")
    put(hub.here, hub.engine, devices[2], 1, payloads[1])
    hub.here.update(devices[2].id, 1).write_bytes(payloads[0].ljust(len(payloads[1]), b"x")[: len(payloads[1])])
    put(hub.here, hub.engine, devices[3], 1, payloads[2])
    hub.here.update(devices[3].id, 1).unlink()
    strange = difference(fleet.base, fleet.learned[0])
    put(
        hub.here,
        hub.engine,
        devices[4],
        1,
        encode(replace(strange, base="ab" * 32), Base.of(fleet.base)._replace(snapshot="ab" * 32)),
    )
    (done,) = hub.merge()
    assert (done.model, done.updates) == (2, 1)
    reasons = {u.device: u.reason for u in store.updates(hub.engine) if u.state == "refused"}
    assert reasons[devices[2].id] == "its file on the hub is damaged"
    assert reasons[devices[3].id] == "its file on the hub is missing or damaged"
    assert "is no model of this hub" in reasons[devices[4].id]
    assert len(reasons) == 4


def test_updates_of_an_older_base_count_too(hub: Hub, fleet: Fleet) -> None:
    hub = hub.with_(may_lose=0.3)  # the same lesson twice: what that does is not asked here
    payloads = fleet.payloads()
    devices = [enrolled(hub.here, hub.engine, f"d{i}") for i in range(3)]
    put(hub.here, hub.engine, devices[0], 1, payloads[0])
    assert hub.merge()[0].model == 2
    put(hub.here, hub.engine, devices[1], 1, payloads[1])
    assert hub.merge()[0].model == 3
    assert [u.model for u in store.updates(hub.engine)] == [3, 2]
    put(hub.here, hub.engine, devices[2], 1, payloads[2])
    (late,) = hub.with_(max_age=1).merge()
    assert late.model == 0
    assert "its base is 2 models old, more than 1" in store.updates(hub.engine)[0].reason


def test_of_a_device_the_newest_of_a_base_counts(hub: Hub, fleet: Fleet) -> None:
    device = enrolled(hub.here, hub.engine, "d0")
    for n, payload in enumerate(fleet.payloads()[:2], 1):
        put(hub.here, hub.engine, device, n, payload)
    (done,) = hub.merge()
    assert done.updates == 1
    assert [(u.sequence, u.state) for u in store.updates(hub.engine)] == [(2, "merged"), (1, "refused")]
    assert "newer update of the device" in store.updates(hub.engine)[1].reason


def test_of_two_bases_of_a_device_both_count(hub: Hub, fleet: Fleet) -> None:
    """A lesson on the old base, and one on the new, which has not the first in it."""
    hub = hub.with_(may_lose=0.3)
    one, two = enrolled(hub.here, hub.engine, "d0"), enrolled(hub.here, hub.engine, "d1")
    put(hub.here, hub.engine, one, 1, fleet.payloads()[0])
    hub.merge()
    new = open_model(hub.here.model(2))
    put(hub.here, hub.engine, two, 1, fleet.payloads()[1])
    same = difference(new, new)  # of the new base: nothing learned but counted
    put(hub.here, hub.engine, two, 2, encode(replace(same, samples=tuple(3 for _ in same.classes), steps=1), Base.of(new)))
    assert [d.model for d in hub.merge()] == [3, 4]
    assert [(u.sequence, u.model) for u in store.updates(hub.engine)] == [(2, 4), (1, 3), (1, 2)]


def test_of_a_revoked_device_nothing_is_merged(hub: Hub, fleet: Fleet) -> None:
    send_all(hub, fleet)
    gone = store.devices(hub.engine)[0]
    store.revoke(hub.engine, gone.id, "ann")
    (done,) = hub.merge()
    assert done.updates == 2
    assert [u.reason for u in store.updates(hub.engine, gone.id)] == ["its device was revoked"]


def test_memory_bounds_a_merge(hub: Hub, fleet: Fleet) -> None:
    send_all(hub, fleet)
    assert [d.model for d in hub.with_(memory_bytes=1, may_lose=0.3, rules={"points": 100.0}).merge()] == [2, 3, 4]


def test_only_one_merge_at_a_time(hub: Hub) -> None:
    with place.alone(hub.here, "merge"), pytest.raises(StoreError, match="another process is at it"):
        hub.merge()


def test_timestamps_are_signed_though_no_merge_is_possible(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    signed: list[Path] = []
    monkeypatch.setattr(repository, "refresh_timestamp", signed.append)
    with place.alone(hub.here, "merge"), pytest.raises(StoreError, match="another process"):
        hub.merge()
    assert signed == [hub.here.root]


def test_wrong_rules_name_the_key(hub: Hub, fleet: Fleet) -> None:
    send_all(hub, fleet)
    with pytest.raises(ConfigError, match="colour"):
        hub.with_(rules={"colour": 1}).merge()


# ---- cut off ----


def test_a_model_that_was_not_published_is_published_next(hub: Hub, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    send_all(hub, fleet)
    monkeypatch.setattr(publishing, "publish_pending", lambda *args: [])
    hub.merge()
    monkeypatch.undo()
    assert [m.number for m in store.unpublished(hub.engine)] == [2]
    assert len(targets(hub)) == 1
    assert hub.merge() == []
    assert len(targets(hub)) == 2
    assert store.unpublished(hub.engine) == []


def test_a_publishing_that_was_not_noted_is_not_repeated(hub: Hub, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    send_all(hub, fleet)
    monkeypatch.setattr(store, "was_published", lambda *args: None)
    hub.merge()
    monkeypatch.undo()
    before = tree(hub.here.tuf)
    assert hub.merge() == []
    assert tree(hub.here.tuf) == before
    assert store.unpublished(hub.engine) == []


def test_a_folder_without_a_row_is_made_anew(hub: Hub, fleet: Fleet) -> None:
    send_all(hub, fleet)
    hub.here.model(2).mkdir()
    (hub.here.model(2) / "half").write_text("x")
    assert hub.merge()[0].model == 2
    assert not (hub.here.model(2) / "half").exists()


# ---- rollback ----


def test_rollback(hub: Hub, fleet: Fleet) -> None:
    send_all(hub, fleet)
    hub.merge()
    done = publishing.rollback(hub.here, hub.known, hub.engine, 1, "ann")
    assert (done.number, done.content, done.snapshot) == (3, 1, fleet.base.card.snapshot)
    assert done.published
    assert [(c["number"], c["snapshot"] == done.snapshot) for c in targets(hub).values()] == [(1, True), (2, False), (3, True)]
    assert store.audit(hub.engine, 3)[1].who == "ann"
    with pytest.raises(ConfigError, match="is what devices have"):
        publishing.rollback(hub.here, hub.known, hub.engine, 1, "ann")
    with pytest.raises(ConfigError, match="there is none"):
        publishing.rollback(hub.here, hub.known, hub.engine, 9, "ann")
    late = enrolled(hub.here, hub.engine, "late")
    put(hub.here, hub.engine, late, 1, fleet.payloads()[0])
    (after,) = hub.merge()  # on model 3, which is model 1: of age 0
    assert after.model == 4


def test_old_payloads_go(hub: Hub, fleet: Fleet) -> None:
    send_all(hub, fleet)
    hub.merge()
    assert publishing.remove_payloads(hub.here, hub.known, hub.engine) == 0
    brief = replace(hub.known, limits=replace(hub.known.limits, keep_days=0))
    assert publishing.remove_payloads(hub.here, brief, hub.engine) == 6
    assert len(store.updates(hub.engine)) == 3
