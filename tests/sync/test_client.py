"""A device and a real hub on loopback: enrol, report, push, pull."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_hub import line
from hub_here import Device, merge, new_hub, served, token
from sync_cases import newest, right, samples, teach

from edgecl import bundle, slots
from edgecl.bundle import Wish
from edgecl.hub import keys, publishing, repository, store
from edgecl.hub.service import Service
from edgecl.model import open_model
from edgecl.sync import pulling
from edgecl.sync.device import device_id, parse_token, public_of
from edgecl.sync.enrolling import enroll
from edgecl.sync.place import Place, read_config, read_state
from edgecl.sync.status import status
from edgecl.types import ConfigError, DataError


@pytest.fixture(scope="session")
def made_hub(made: Path, base: Path) -> Path:
    return new_hub(made / "hub", base)


@pytest.fixture
def hub(made_hub: Path, tmp_path: Path) -> Iterator[Service]:
    shutil.copytree(made_hub, tmp_path / "hub")
    with served(tmp_path / "hub") as service:
        yield service


@pytest.fixture
def pi(hub: Service, tmp_path: Path) -> Device:
    """Enrolled and approved, with the hub's first model installed."""
    device = Device.joined(tmp_path / "pi", hub, hub.port, trial="selftest")
    assert device.do("pull") == ""
    return device


def learn(device: Device, classes: list[int], n: int = 20, first: int = 0) -> None:
    teach(device.slot / "lessons", newest(device.slot), samples(classes, n, first))


# enrolment


def test_enrolling_makes_a_key_of_its_own_and_keeps_the_root_of_trust(hub: Service, pi: Device) -> None:
    here = Place(pi.root)
    config = read_config(here)
    assert config.device == device_id(public_of(here.key))
    assert stat.S_IMODE(here.key.stat().st_mode) == stat.S_IMODE(here.config.stat().st_mode) == 0o600
    assert stat.S_IMODE(here.folder.stat().st_mode) == 0o700
    assert store.device(hub.engine, config.device).state == "approved"
    assert json.loads(here.first_root.read_bytes())["signed"]["_type"] == "root"


def test_enrolling_again_changes_options_and_no_key(hub: Service, tmp_path: Path) -> None:
    here, given = Place(tmp_path / "pi"), token(hub, hub.port)
    first, _ = enroll(here, given, {"name": "kitchen"})
    key = here.key.read_bytes()
    second, state = enroll(here, given, {"every": 60.0})
    assert (second.name, second.every, second.device, state) == ("kitchen", 60.0, first.device, "approved")
    assert here.key.read_bytes() == key
    with pytest.raises(ConfigError, match="is enrolled at"):
        enroll(here, token(hub, hub.port), {})


def test_a_token_serves_one_device(hub: Service, tmp_path: Path) -> None:
    given = token(hub, hub.port)
    enroll(Place(tmp_path / "a"), given, {})
    with pytest.raises(DataError, match="used already"):
        enroll(Place(tmp_path / "b"), given, {})
    assert not Place(tmp_path / "b").config.exists()


def test_a_root_that_is_not_the_tokens_is_not_trusted(hub: Service, tmp_path: Path) -> None:
    with line(hub.port, lambda n: None) as between:
        between.back = lambda data: data.replace(b'"_type": "root"', b'"_type":  "root"').replace(b"snapshot", b"snapshoT")
        with pytest.raises(DataError, match="not the root that the join token names"):
            enroll(Place(tmp_path / "a"), token(hub, between.port), {})
    assert not Place(tmp_path / "a").config.exists()


TOKENS = ["", "edgecl-join:", "edgecl-join:e30", "edgecl-join:!!", "x" * 5000, "edgecl-join:bnVsbA", "other:e30"]


@pytest.mark.parametrize("text", TOKENS)
def test_what_is_no_token_is_said_in_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match="join token"):
        parse_token(text)


def test_http_to_another_machine_has_to_be_meant(hub: Service, tmp_path: Path) -> None:
    import base64

    said = {**parse_token(token(hub, hub.port))._asdict(), "url": "http://192.0.2.1:1"}
    given = "edgecl-join:" + base64.urlsafe_b64encode(json.dumps(said).encode()).decode()
    with pytest.raises(ConfigError, match="without TLS"):
        enroll(Place(tmp_path / "a"), given, {})


@pytest.mark.parametrize(
    "options", [{"url": "x"}, {"trial": "never"}, {"every": 0.0}, {"colour": "red"}, {"name": "a\nb"}], ids=str
)
def test_wrong_options_are_named(hub: Service, tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        enroll(Place(tmp_path / "a"), token(hub, hub.port), options)
    assert not Place(tmp_path / "a").config.exists()


# up


def test_a_lesson_goes_up_once(hub: Service, pi: Device) -> None:
    assert pi.do("push") == ""
    assert pi.said[-1]["event"] != "sent"
    learn(pi, [3])
    for _ in range(3):
        assert pi.do("push") == ""
    (update,) = store.updates(hub.engine)
    assert (update.sequence, update.state) == (1, "stored")
    assert [e["sequence"] for e in pi.events("sent")] == [1]
    assert status(Place(pi.root))["waiting"] == []
    learn(pi, [4])
    assert pi.do("push") == ""
    assert [u.sequence for u in store.updates(hub.engine)] in ([1, 2], [2, 1])


def test_a_device_that_waits_for_approval_keeps_its_update(hub: Service, tmp_path: Path) -> None:
    pi = Device.joined(tmp_path / "pi", hub, hub.port, approve=False)
    pi.do("pull")
    learn(pi, [3])
    assert "waits for the operator's approval" in pi.do("push")
    pi.do("report")
    known = status(Place(pi.root))
    assert known["state"] == "pending"
    assert [u["sequence"] for u in known["waiting"]] == [1]
    assert "waits for the operator" in known["waits_for"]["push"]
    store.approve(hub.engine, read_config(Place(pi.root)).device, "test")
    assert pi.do("push") == ""
    assert len(store.updates(hub.engine)) == 1


def test_a_revoked_device_stops_and_says_so(hub: Service, pi: Device) -> None:
    store.revoke(hub.engine, read_config(Place(pi.root)).device, "test")
    learn(pi, [3])
    assert "revoked" in pi.do("push")
    pi.do("report")
    known = status(Place(pi.root))
    assert "revoked" in known["state"]
    assert len(known["waiting"]) == 1
    assert pi.slept == []


def test_a_report_tells_how_it_fares(hub: Service, pi: Device) -> None:
    assert pi.do("report") == ""
    found = store.device(hub.engine, read_config(Place(pi.root)).device)
    assert (found.model, found.health) == (1, "well")
    assert found.reported["outbox"] == 0


# down


def two_others(hub: Service, tmp_path: Path) -> None:
    """Teach the hub something, so that it has a second model."""
    other = Device.joined(tmp_path / "other", hub, hub.port)
    assert other.do("pull") == ""
    learn(other, [3, 4, 5], 20, 60)
    assert other.do("push") == ""
    (done,) = merge(hub)
    assert done.model == 2


def test_the_first_model_comes_into_an_empty_root(hub: Service, pi: Device) -> None:
    (done,) = pi.events("installed")
    assert (done["model"], done["slot"]) == (1, "a")
    assert slots.on_trial(pi.root) is None
    assert read_state(Place(pi.root)).pulled["number"] == 1
    assert not Place(pi.root).down.exists()
    assert pi.do("pull") == ""
    assert len(pi.events("installed")) == 1


def test_a_newer_model_comes_with_what_was_learned_here(hub: Service, pi: Device, tmp_path: Path) -> None:
    learn(pi, [8], 40)
    before = right(open_model(newest(pi.slot)), samples([8], 30, test=True))
    two_others(hub, tmp_path)
    assert pi.do("pull") == ""
    done = pi.events("installed")[-1]
    assert (done["model"], done["slot"], done["classes"]) == (2, "b", ["8"])
    assert [e["sequence"] for e in pi.events("packed")] == [1]  # beside its own base, before that was left
    model = open_model(newest(pi.slot))
    assert "8" in [model.card.classes[k] for k in model.card.seen]
    assert right(model, samples([8], 30, test=True)) > 0.3 < before
    assert right(model, samples(range(8), 30, test=True)) > 0.9
    assert pi.do("push") == ""
    assert pi.do("push") == ""
    mine = [u for u in store.updates(hub.engine) if u.device == read_config(Place(pi.root)).device]
    assert [u.sequence for u in mine] == [1]  # and what was carried over is none


def test_a_slot_on_trial_waits_for_its_confirmation(hub: Service, pi: Device, tmp_path: Path) -> None:
    two_others(hub, tmp_path)
    assert pi.do("pull", trial="wait") == ""
    assert slots.on_trial(pi.root) == 0
    learn(pi, [2], 20, 80)
    assert pi.do("push") == ""
    merge(hub)
    assert "is on trial" in pi.do("pull", trial="wait")
    assert slots.current(pi.root).name == "b"
    assert pi.do("pull", trial="selftest") == ""
    assert pi.events("confirmed")
    assert pi.events("installed")[-1]["model"] == 3
    assert slots.current(pi.root).name == "a"


def test_a_model_that_the_device_returned_from_does_not_come_again(hub: Service, pi: Device, tmp_path: Path) -> None:
    two_others(hub, tmp_path)
    assert pi.do("pull") == ""
    slots.rollback(pi.root)
    assert pi.do("pull") == ""
    assert slots.current(pi.root).name == "a"
    assert [e["model"] for e in pi.events("installed")] == [1, 2]


def test_while_somebody_learns_nothing_is_switched(hub: Service, pi: Device, tmp_path: Path) -> None:
    from edgecl.runfolder import lock_run

    two_others(hub, tmp_path)
    learn(pi, [2])
    with lock_run(pi.slot / "lessons"):
        for _ in range(pulling.TRIES + 1):
            assert "it learns there" in pi.do("pull")
    assert slots.current(pi.root).name == "a"
    assert pi.do("pull") == ""
    assert slots.current(pi.root).name == "b"


def test_commands_stop_and_start_what_learns(hub: Service, pi: Device, tmp_path: Path) -> None:
    two_others(hub, tmp_path)
    log = tmp_path / "log"
    (tmp_path / "note").write_text(f'#!/bin/sh\necho "$1 $(readlink {pi.root}/current)" >> {log}\n')
    (tmp_path / "note").chmod(0o755)
    assert pi.do("pull", before=f"{tmp_path}/note stop", after=f"{tmp_path}/note start") == ""
    assert log.read_text() == "stop slots/a\nstart slots/b\n"


def test_a_model_that_can_not_be_installed_is_given_up_after_three_tries(hub: Service, pi: Device, tmp_path: Path) -> None:
    two_others(hub, tmp_path)
    (pi.root / "slots" / "b").write_text("in the way")
    for n in range(pulling.TRIES + 2):
        why = pi.do("pull")
        assert "model 2" in why
        assert ("3 times" in why) == (n >= pulling.TRIES)
    assert slots.current(pi.root).name == "a"
    assert "model 2" in status(Place(pi.root))["waits_for"]["pull"]


def test_a_model_larger_than_the_days_bytes_waits(hub: Service, pi: Device, tmp_path: Path) -> None:
    two_others(hub, tmp_path)
    pi.do("report")
    spent = read_state(Place(pi.root)).bytes.total
    assert "more than the day's bytes" in pi.do("pull", bytes_a_day=spent + 2000)
    assert pi.do("pull") == ""


def test_what_was_tampered_with_is_not_installed(hub: Service, pi: Device, tmp_path: Path) -> None:
    two_others(hub, tmp_path)
    (target,) = (hub.place.root / "tuf/targets/models").glob("*0002.edgecl.gz")
    data = bytearray(target.read_bytes())
    data[len(data) // 2] ^= 1
    target.write_bytes(data)
    assert "not the file that was signed" in pi.do("pull")
    assert slots.current(pi.root).name == "a"
    data[len(data) // 2] ^= 1
    target.write_bytes(data)
    assert pi.do("pull") == ""


# keys that change


def steal(hub: Service, run: Path, folder: Path, number: int) -> None:
    """What a thief of the hub's online keys publishes."""
    card, folder = open_model(run).card, folder / "theft"
    folder.mkdir()
    bundle.create(run, folder / "model.edgecl", hub.place.bundle_key, Wish("host"))
    (folder / "model.gz").write_bytes(b"".join(publishing.deflated(folder / "model.edgecl")))
    said = {"number": number, "snapshot": card.snapshot, "net": "mlp", "classes": list(card.classes)}
    repository.publish(hub.place.root, folder / "model.gz", {**said, "bytes": (folder / "model.edgecl").stat().st_size})


def test_after_a_theft_new_keys_lead_to_the_hubs_models_again(hub: Service, pi: Device, tmp_path: Path, later: Path) -> None:
    """A thief pushes the number to the top. Revoked, rotated and published anew, the hub's next model has a lower one."""
    two_others(hub, tmp_path)
    steal(hub, later, tmp_path, 999_999)
    assert pi.do("pull") == ""
    assert pi.events("installed")[-1]["model"] == 999_999
    keys.revoke(hub.place.root)
    pi.do("pull")
    for role in ("models", "snapshot", "timestamp"):
        keys.rotate(hub.place.root, role)
    publishing._publish(hub.place, hub.settings, store.model(hub.engine, 2))
    for _ in range(2):
        assert pi.do("pull") == ""
    assert [e["model"] for e in pi.events("installed")] == [1, 999_999, 2]
    assert read_state(Place(pi.root)).pulled["number"] == 2


def test_new_keys_alone_bring_no_model_again(hub: Service, pi: Device, tmp_path: Path) -> None:
    """Also where the device returned from it."""
    two_others(hub, tmp_path)
    assert pi.do("pull") == ""
    slots.rollback(pi.root)
    keys.rotate(hub.place.root, "models")
    for _ in range(2):
        assert pi.do("pull") == ""
    assert [e["model"] for e in pi.events("installed")] == [1, 2]
    assert slots.current(pi.root).name == "a"


# what is inflated


@pytest.mark.parametrize(("size", "tail"), [(999, b""), (1001, b""), (1000, b"x"), (1000, None)])
def test_a_file_that_inflates_to_another_size_is_refused(tmp_path: Path, size: int, tail: bytes | None) -> None:
    import gzip

    from edgecl.sync.errors import TrustError

    data = gzip.compress(bytes(1000))
    (tmp_path / "a.gz").write_bytes(data[:-9] if tail is None else data + tail)
    with pytest.raises(TrustError, match=r"a\.gz"):
        pulling.unpack(tmp_path / "a.gz", tmp_path / "a", size)
    (tmp_path / "a.gz").write_bytes(data)
    pulling.unpack(tmp_path / "a.gz", tmp_path / "a", 1000)
    assert (tmp_path / "a").read_bytes() == bytes(1000)


def test_a_bomb_is_stopped_at_the_size_that_was_signed(tmp_path: Path) -> None:
    import gzip

    from edgecl.sync.errors import TrustError

    (tmp_path / "a.gz").write_bytes(gzip.compress(bytes(50_000_000)))
    with pytest.raises(TrustError, match="more than the 70000 bytes"):
        pulling.unpack(tmp_path / "a.gz", tmp_path / "a", 70_000)
    assert (tmp_path / "a").stat().st_size <= 70_000


# lessons that another user keeps


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as edgecl-sync.service is")
def test_lessons_beside_the_slots_come_along_and_stay_their_users(hub: Service, tmp_path: Path) -> None:
    from edgecl.runtime import lessons
    from edgecl.runtime import place as places
    from edgecl.sync.place import lessons_of

    kept = tmp_path / "kept"
    kept.mkdir()
    os.chown(kept, 12345, 12345)
    pi = Device.joined(tmp_path / "pi", hub, hub.port, trial="selftest", lessons=str(kept))
    assert pi.do("pull") == ""
    config = read_config(Place(pi.root))
    teach(lessons_of(config, pi.slot), pi.slot / "learner", samples([8], 30))
    two_others(hub, tmp_path)
    assert pi.do("pull") == ""
    folder = lessons_of(config, pi.slot)
    newest_one = lessons.newest(places.find(pi.slot), folder)
    assert newest_one == folder / "001"
    assert {(p.stat().st_uid, p.stat().st_gid) for p in kept.rglob("*")} == {(12345, 12345)}
    assert len(list(kept.iterdir())) == 2
    assert not (pi.slot / "lessons").exists()
