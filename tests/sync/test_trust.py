"""A device and its hub: what is new comes, once, and nothing of it is asked again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("tuf")
pytest.importorskip("urllib3")

from sync.mirror import Mirror, device, publish, serving

from edgecl.hub import keys, repository
from edgecl.sync.trust import Trust
from edgecl.types import ConfigError


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    (tmp_path / "hub").mkdir()
    repository.init(tmp_path / "hub")
    with serving(Mirror(tmp_path / "hub")) as found:
        yield found


def test_a_model_comes(tmp_path: Path, mirror: Mirror) -> None:
    trust = device(tmp_path / "device", mirror)
    assert trust.refresh()
    assert trust.newest() is None
    data = publish(mirror.folder, 1)
    assert trust.refresh()
    target = trust.newest()
    assert target is not None
    assert (target.number, target.path, target.length, target.classes) == (1, "models/0001.edgecl.gz", len(data), ("cat", "dog"))
    path = trust.download(target, tmp_path / "down")
    assert path.read_bytes() == data
    mirror.paths()
    assert trust.download(target, tmp_path / "down") == path
    assert not trust.refresh()
    assert mirror.paths() == ["/tuf/metadata/timestamp.json"]
    again = Trust(tmp_path / "device", mirror.url)
    assert not again.refresh()
    assert again.newest() == target


@pytest.mark.parametrize("role", keys.ROLES)
def test_a_device_follows_a_new_key(tmp_path: Path, mirror: Mirror, role: str) -> None:
    trust = device(tmp_path / "device", mirror)
    publish(mirror.folder, 1)
    trust.refresh()
    keys.rotate(mirror.folder, role)
    data = publish(mirror.folder, 2)
    trust.refresh()
    target = trust.newest()
    assert target is not None
    assert trust.download(target, tmp_path).read_bytes() == data


def test_no_model_of_a_revoked_role(tmp_path: Path, mirror: Mirror) -> None:
    trust = device(tmp_path / "device", mirror)
    publish(mirror.folder, 1)
    trust.refresh()
    assert trust.newest() is not None
    keys.revoke(mirror.folder)
    trust.refresh()
    assert trust.newest() is None
    with pytest.raises(ConfigError, match="revoked"):
        publish(mirror.folder, 2)
    keys.rotate(mirror.folder, "models")
    trust.refresh()
    assert trust.newest() is None
    publish(mirror.folder, 1, b"other")
    trust.refresh()
    target = trust.newest()
    assert target is not None
    assert trust.download(target, tmp_path).read_bytes() == b"other"
