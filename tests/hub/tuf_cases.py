"""Devices that read a hub's folder without a network, and what is done to such a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface

from edgecl.hub import keys, repository
from edgecl.hub.tufset import DAY, Lifetimes
from edgecl.sync import targets
from edgecl.sync.trust import _newest
from edgecl.sync.updater import Keeping

NOW = 1_800_000_000.0
CARD = {"snapshot": "ab" * 32, "net": "tiny_cnn", "classes": ["cat", "dog"], "bytes": 4000}


class Disk(FetcherInterface):
    """`spy(name)` is called before each file is read."""

    def __init__(self, folder: Path, spy: Callable[[str], None] = lambda name: None) -> None:
        self.folder, self.spy = folder, spy

    def _fetch(self, url: str) -> Any:
        raise NotImplementedError

    def download_bytes(self, url: str, max_length: int) -> bytes:
        name = url.rsplit("/", 1)[1]
        self.spy(name)
        path = self.folder / "tuf/metadata" / name
        if not path.exists():
            raise DownloadHTTPError(name, 404)
        data = path.read_bytes()
        assert len(data) <= max_length
        return data


def newest(
    folder: Path, kept: dict[str, bytes] | None = None, now: float = NOW, spy: Callable[[str], None] = lambda name: None
) -> int:
    """The number of the newest model that a device finds there, its file checked; 0 where there is none."""
    kept = {"root": (folder / "tuf/metadata/1.root.json").read_bytes()} if kept is None else kept
    updater = Keeping(kept, "disk:", Disk(folder, spy), lambda root: datetime.fromtimestamp(now, timezone.utc))
    updater.refresh()
    updater.get_targetinfo(targets.ANY)
    target = _newest(updater)
    if target is None:
        return 0
    info = updater.get_targetinfo(target.path)
    assert info is not None
    data = (folder / "tuf/targets" / updater.remote_path(info)).read_bytes()
    assert hashlib.sha256(data).hexdigest() == target.sha256
    return target.number


def publish(folder: Path, number: int, now: float = NOW, **card: Any) -> repository.Published:
    file = folder / "made"
    file.write_bytes(b"model %d " % number * 100)
    return repository.publish(folder, file, {**CARD, "number": number, **card}, now=now)


def make(folder: Path, models: int = 0) -> Path:
    folder.mkdir()
    repository.init(folder, now=NOW)
    for number in range(1, models + 1):
        publish(folder, number)
    return folder


def renewed(folder: Path) -> None:
    keys.renew(folder, now=NOW + DAY)


ACTIONS: Mapping[str, Callable[[Path], object]] = {
    "publish": lambda folder: publish(folder, 7),
    "refresh": lambda folder: repository.refresh_timestamp(folder, now=NOW + DAY * 0.6),
    "refresh all": lambda folder: repository.refresh_timestamp(folder, Lifetimes(), now=NOW + 20 * DAY),
    "renew": renewed,
    "revoke": lambda folder: keys.revoke(folder, now=NOW),
    **{f"rotate {role}": (lambda folder, role=role: keys.rotate(folder, role, now=NOW)) for role in keys.ROLES},  # type: ignore[misc]
}
