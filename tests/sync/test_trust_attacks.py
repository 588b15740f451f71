"""Every attack that the TUF specification names (1.5.2), against a device on loopback: nothing is taken, and said in one line."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tuf")
pytest.importorskip("urllib3")

from sync.mirror import CARD, Mirror, device, publish, serving
from tuf.api.metadata import Metadata

from edgecl.hub import keyfiles, keys, repository, tufset
from edgecl.hub.tufset import DAY, Lifetimes
from edgecl.sync.trust import NetworkError, Source, Trust, TrustError, first_root

NOW = time.time()
LIFE = Lifetimes()
METADATA = "/tuf/metadata"
BOTH = (NetworkError, TrustError)


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    """Of a hub with one model."""
    (tmp_path / "hub").mkdir()
    repository.init(tmp_path / "hub")
    publish(tmp_path / "hub", 1)
    with serving(Mirror(tmp_path / "hub")) as found:
        yield found


def at_one(tmp_path: Path, mirror: Mirror) -> Trust:
    """A device that knows model 1."""
    trust = device(tmp_path / "device", mirror)
    trust.refresh()
    assert number(trust) == 1
    return trust


def number(trust: Trust) -> int | None:
    found = trust.newest()
    return None if found is None else found.number


def refuses(trust: Trust, match: str, errors: Any = TrustError) -> None:
    """A refresh fails in one line, and a new process of the device trusts no less and no more than before."""
    before = trust.metadata
    with pytest.raises(errors, match=match) as e:
        trust.refresh()
    assert "\n" not in str(e.value)
    again = Trust(trust.folder, trust.source.metadata.removesuffix(METADATA), http=trust.http)
    for role, data in before.items():
        assert version(again.metadata[role]) >= version(data)


def version(data: bytes) -> int:
    return int(json.loads(data)["signed"]["version"])


def stolen(mirror: Mirror, roles: tuple[str, ...], change: Callable[[tufset.TufSet], None]) -> None:
    """What a thief of the hub's online keys publishes: `change`, signed for `roles`."""
    tuf = tufset.read(mirror.folder)
    change(tuf)
    signers = {role: [keyfiles.load(mirror.folder / f"keys/{role}.pem")] for role in ("models", "snapshot", "timestamp")}
    tufset.write(tuf, roles, signers, LIFE, NOW)


def serve_old(mirror: Mirror, tmp_path: Path) -> Path:
    """A copy of the hub's folder as it is now, to be served later."""
    return shutil.copytree(mirror.folder, tmp_path / "old")


def from_folder(folder: Path) -> Callable[[str], Any]:
    """All but the time, of another folder."""

    def twist(path: str) -> Any:
        file = folder / path.lstrip("/")
        return None if path == "/v1/time" else file.read_bytes() if file.is_file() else (404, b"")

    return twist


# Arbitrary software installation


@pytest.mark.parametrize("bad", [b"model 1 " * 99 + b"malware!", b"malware", b"model 1 " * 100 + b"malware", b""])
def test_arbitrary_installation_by_a_file(tmp_path: Path, mirror: Mirror, bad: bytes) -> None:
    trust, down = at_one(tmp_path, mirror), tmp_path / "down"
    target = trust.newest()
    assert target is not None
    mirror.twist = lambda path: bad if path.startswith("/tuf/targets") else None
    with pytest.raises(BOTH, match=r"not the file that was signed|more than the|ended after"):
        trust.download(target, down)
    assert not (down / "0001.edgecl.gz").exists()
    mirror.twist = lambda path: None
    assert trust.download(target, down).read_bytes() == b"model 1 " * 100


def test_arbitrary_installation_by_metadata(tmp_path: Path, mirror: Mirror) -> None:
    """Another repository, of the same form, in the place of ours: all of it, and role by role."""
    other = tmp_path / "other"
    other.mkdir()
    repository.init(other)
    for n in range(1, 4):
        publish(other, n)
    trust = at_one(tmp_path, mirror)
    publish(mirror.folder, 2)
    mirror.twist = from_folder(other)
    refuses(trust, "was signed by 0/1 keys")
    for role in ("timestamp", "snapshot", "models"):
        mirror.twist = lambda path, role=role: from_folder(other)(path) if f"{role}.json" in path else None
        refuses(trust, "was signed by 0/1 keys|does not match expected|length|status 404", BOTH)
    mirror.twist = lambda path: None
    trust.refresh()
    assert number(trust) == 2


def test_a_wrong_first_root(tmp_path: Path, mirror: Mirror) -> None:
    digest = repository.root_hash(mirror.folder)
    root = first_root(mirror.url, digest)
    mirror.twist = lambda path: root + b" "
    with pytest.raises(TrustError, match="is not the root that the join token names"):
        first_root(mirror.url, digest)
    mirror.twist = lambda path: (503, b"")
    with pytest.raises(NetworkError, match="status 503"):
        first_root(mirror.url, digest)


# Endless data, slow retrieval


def endless(handler: Any) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
    with suppress(OSError):
        for _ in range(100_000):
            handler.wfile.write(b" " * 10_000)


def slow(handler: Any) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 800\r\n\r\n")
    with suppress(OSError):
        for _ in range(100):
            handler.wfile.write(b" ")
            time.sleep(0.1)


@pytest.mark.parametrize("role", ["2.root", "timestamp", "3.snapshot", "1.targets", "3.models"])
@pytest.mark.parametrize(("bad", "match"), [(endless, "more than the"), (slow, "no whole answer")])
def test_endless_and_slow_metadata(tmp_path: Path, mirror: Mirror, role: str, bad: Any, match: str) -> None:
    trust = device(tmp_path / "device", mirror) if "targets" in role else at_one(tmp_path, mirror)
    publish(mirror.folder, 2)
    mirror.twist = lambda path: bad if path == f"{METADATA}/{role}.json" else None
    refuses(trust, match, BOTH)
    mirror.twist = lambda path: None
    trust.refresh()
    assert number(trust) == 2


@pytest.mark.parametrize(("bad", "match"), [(endless, "more than the 800 bytes"), (slow, "no whole answer")])
def test_endless_and_slow_files(tmp_path: Path, mirror: Mirror, bad: Any, match: str) -> None:
    trust = at_one(tmp_path, mirror)
    target = trust.newest()
    assert target is not None
    mirror.twist = lambda path: bad if path.startswith("/tuf/targets") else None
    with pytest.raises(BOTH, match=match):
        trust.download(target, tmp_path / "down")
    assert sum(p.stat().st_size for p in (tmp_path / "down").iterdir()) <= target.length
    mirror.twist = lambda path: None
    assert trust.download(target, tmp_path / "down").read_bytes() == b"model 1 " * 100


# Extraneous dependencies, and what a role may not name


@pytest.mark.parametrize(
    "path", ["other/0009.edgecl.gz", "models/../0009.edgecl.gz", "models/deep/0009.edgecl.gz", "/etc/passwd"]
)
def test_the_role_models_names_its_own_folder_only(tmp_path: Path, mirror: Mirror, path: str) -> None:
    trust = at_one(tmp_path, mirror)
    info = repository_target(mirror, path, 9)
    stolen(mirror, ("models",), lambda tuf: tuf.models.signed.targets.update({path: info}))
    trust.refresh()
    assert number(trust) == 1
    assert (path.count("/") == 1 and path.startswith("models/")) or trust.info(path) is None


def repository_target(mirror: Mirror, path: str, n: int) -> Any:
    from tuf.api.metadata import TargetFile

    custom = {**CARD, "number": n, "bundle_key": "key"}
    return TargetFile(3, {"sha256": "00" * 32}, path, {"custom": custom})


@pytest.mark.parametrize(
    "custom",
    [
        {"number": 8},
        {"number": "9"},
        {"number": None},
        {"snapshot": "../x"},
        {"classes": "cat"},
        {"classes": [1]},
        {"classes": ["x"] * 5000},
        {"net": ""},
        {"bytes": -1},
        {"bytes": 1 << 40},
        {"bundle_key": "k" * 5000},
    ],
)
def test_a_model_whose_card_makes_no_sense(tmp_path: Path, mirror: Mirror, custom: dict[str, Any]) -> None:
    trust, path = at_one(tmp_path, mirror), "models/0009.edgecl.gz"
    info = repository_target(mirror, path, 9)
    info.unrecognized_fields["custom"].update(custom)
    stolen(mirror, ("models",), lambda tuf: tuf.models.signed.targets.update({path: info}))
    with pytest.raises(TrustError, match="makes no sense"):
        trust.refresh()


# Fast-forward


def test_fast_forward_heals_with_new_keys(tmp_path: Path, mirror: Mirror) -> None:
    """A thief of all online keys pushes every version and number to the top; with new keys the hub is followed again."""
    trust, far = at_one(tmp_path, mirror), 2**31

    def forward(tuf: tufset.TufSet) -> None:
        tuf.timestamp.signed.version = tuf.snapshot.signed.version = tuf.models.signed.version = far
        tuf.models.signed.targets["models/99999.edgecl.gz"] = repository_target(mirror, "models/99999.edgecl.gz", 99999)

    good = shutil.copytree(mirror.folder, tmp_path / "good")
    stolen(mirror, ("models",), forward)
    trust.refresh()
    assert number(trust) == 99999
    mirror.folder = good  # restored from before the theft
    refuses(trust, "version")
    for role in ("models", "snapshot", "timestamp"):
        keys.rotate(good, role)
    publish(good, 2)
    trust.refresh()
    assert number(trust) == 2


# Indefinite freeze


@pytest.mark.parametrize("days", [1.5, 40, 800])
@pytest.mark.parametrize("fresh", [False, True])
def test_freeze(tmp_path: Path, mirror: Mirror, days: float, fresh: bool) -> None:
    """The same set for ever (304, too, since it is known): it ends when the hub's time passes it."""
    trust = device(tmp_path / "device", mirror) if fresh else at_one(tmp_path, mirror)
    mirror.now = NOW + days * DAY  # type: ignore[assignment]
    trust = Trust(trust.folder, mirror.url, first_root(mirror.url, repository.root_hash(mirror.folder)), trust.http)
    refuses(trust, "expired")
    with pytest.raises(Exception, match="refresh"):
        trust.newest()
    if days < 30:
        repository.refresh_timestamp(mirror.folder, now=mirror.now)
        trust.refresh()
        assert number(trust) == 1


# Malicious mirrors


@pytest.mark.parametrize(
    "answer", [b"", b"{}", b"[" * 10_000, b"\xff" * 100, (403, b""), (404, b""), (500, b""), (302, b""), (304, b"")]
)
def test_a_mirror_that_answers_everything_alike(tmp_path: Path, mirror: Mirror, answer: Any) -> None:
    trust = at_one(tmp_path, mirror)
    publish(mirror.folder, 2)
    mirror.twist = lambda path: None if path == "/v1/time" else answer
    if answer != (304, b""):
        refuses(trust, ".", BOTH)
    else:  # it may keep a device where it is until the timestamp expires (freeze)
        assert not trust.refresh()
        assert number(trust) == 1
    mirror.twist = lambda path: None
    trust.refresh()
    assert number(trust) == 2


# Mix and match


@pytest.mark.parametrize("role", ["snapshot", "models"])
def test_mix_and_match(tmp_path: Path, mirror: Mirror, role: str) -> None:
    """Every file was signed by the hub once, but they are not of one set."""
    trust = at_one(tmp_path, mirror)
    old = (mirror.folder / f"tuf/metadata/2.{role}.json").read_bytes()
    publish(mirror.folder, 2)
    mirror.twist = lambda path: old if path == f"{METADATA}/3.{role}.json" else None
    refuses(trust, "length|hash|digest|match")
    mirror.twist = lambda path: None
    trust.refresh()
    assert number(trust) == 2


# Rollback


def test_rollback(tmp_path: Path, mirror: Mirror) -> None:
    trust, old = at_one(tmp_path, mirror), serve_old(mirror, tmp_path)
    publish(mirror.folder, 2)
    trust.refresh()
    mirror.twist = from_folder(old)
    refuses(trust, "version")
    refuses(Trust(trust.folder, mirror.url, http=trust.http), "version")


def test_rollback_of_the_number_by_a_thief(tmp_path: Path, mirror: Mirror) -> None:
    """All metadata rise, and name an older model."""
    trust = at_one(tmp_path, mirror)
    publish(mirror.folder, 2)
    trust.refresh()
    stolen(mirror, ("models",), lambda tuf: tuf.models.signed.targets.pop("models/0002.edgecl.gz") and None)
    refuses(trust, "the newest that is named is 1, after 2")
    refuses(Trust(trust.folder, mirror.url, http=trust.http), "after 2")
    publish(mirror.folder, 3)
    trust.refresh()
    assert number(trust) == 3


# Key compromise


def test_online_keys_name_no_keys(tmp_path: Path, mirror: Mirror) -> None:
    """With all online keys: no new root, no new targets, no other role."""
    trust = at_one(tmp_path, mirror)
    thief = [keyfiles.load(mirror.folder / f"keys/{role}.pem") for role in ("models", "snapshot", "timestamp")]
    tuf = tufset.read(mirror.folder)
    tuf.root.signed.add_key(thief[0].public_key, "targets")
    tufset.write_root(tuf, thief, LIFE, NOW)
    publish(mirror.folder, 2)  # or a device would not ask for a root
    refuses(trust, "root was signed by 0/1 keys")
    (mirror.folder / "tuf/metadata/2.root.json").unlink()
    tuf = tufset.read(mirror.folder)
    tuf.targets.signed.targets["models/0009.edgecl.gz"] = repository_target(mirror, "models/0009.edgecl.gz", 9)
    signers = {"targets": thief, "models": thief[:1], "snapshot": thief[1:2], "timestamp": thief[2:]}
    tufset.write(tuf, ("targets",), signers, LIFE, NOW)
    refuses(trust, "targets was signed by 0/1 keys")


def test_the_models_key_alone_publishes_nothing(tmp_path: Path, mirror: Mirror) -> None:
    trust = at_one(tmp_path, mirror)
    forged = Metadata.from_bytes((mirror.folder / "tuf/metadata/2.models.json").read_bytes())
    forged.signed.targets["models/0009.edgecl.gz"] = repository_target(mirror, "models/0009.edgecl.gz", 9)
    forged.sign(keyfiles.load(mirror.folder / "keys/models.pem"))
    fresh = device(tmp_path / "fresh", mirror)
    mirror.twist = lambda path: forged.to_bytes() if path == f"{METADATA}/2.models.json" else None
    refuses(fresh, "more than|length|hash|digest|match")
    trust.refresh()
    assert number(trust) == 1


def test_revocation_ends_a_theft(tmp_path: Path, mirror: Mirror) -> None:
    trust, thief = at_one(tmp_path, mirror), shutil.copytree(mirror.folder / "keys", tmp_path / "stolen")
    keys.revoke(mirror.folder)
    keys.rotate(mirror.folder, "models")
    for role in ("snapshot", "timestamp"):
        keys.rotate(mirror.folder, role)
    publish(mirror.folder, 2)
    trust.refresh()
    tuf = tufset.read(mirror.folder)
    tuf.models.signed.targets["models/0009.edgecl.gz"] = repository_target(mirror, "models/0009.edgecl.gz", 9)
    tufset.write(
        tuf, ("models",), {r: [keyfiles.load(thief / f"{r}.pem")] for r in ("models", "snapshot", "timestamp")}, LIFE, NOW
    )
    refuses(trust, "timestamp was signed by 0/1 keys")


# Wrong software


def test_wrong_software(tmp_path: Path, mirror: Mirror) -> None:
    """A file that the hub did sign, as another model."""
    trust = at_one(tmp_path, mirror)
    first = trust.newest()
    publish(mirror.folder, 2)
    trust.refresh()
    second = trust.newest()
    assert first is not None
    assert second is not None
    assert first.length == second.length
    mirror.twist = lambda path: b"model 1 " * 100 if path.endswith("0002.edgecl.gz") else None
    with pytest.raises(TrustError, match="is not the file that was signed"):
        trust.download(second, tmp_path / "down")
    with pytest.raises(TrustError, match="no longer vouches"):
        trust.download(first._replace(sha256=second.sha256), tmp_path / "down")


def test_a_folder_of_another_hub(tmp_path: Path, mirror: Mirror) -> None:
    trust = at_one(tmp_path, mirror)
    other = tmp_path / "other"
    other.mkdir()
    repository.init(other)
    with pytest.raises(Exception, match="trusts another hub"):
        Trust(trust.folder, mirror.url, (other / "tuf/metadata/1.root.json").read_bytes())
    with pytest.raises(Exception, match="has no trusted root yet"):
        Trust(tmp_path / "new", mirror.url)
    with pytest.raises(TrustError):
        Trust(tmp_path / "new", mirror.url, b"no root")
    assert Source.of("https://hub/").time == "https://hub/v1/time"
