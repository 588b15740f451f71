"""What a device may install, by The Update Framework: https://theupdateframework.github.io/specification/v1.0.34

Nothing that comes is believed for where it comes from. The device is given the hash of the first root; every root signs the next,
and the newest names the keys of all other metadata and of the hub's time (hubtime.py), by which alone things expire.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgecl import files
from edgecl.sync import targets, trusted
from edgecl.sync.errors import NetworkError, TrustError
from edgecl.sync.fetcher import Http
from edgecl.sync.hubtime import HubClock
from edgecl.sync.lock import locked
from edgecl.sync.targets import Target
from edgecl.sync.trusted import Trusted
from edgecl.sync.updater import ABSENT, CONFIG, Clock, Fetcher, Keeping, explained, outdated
from edgecl.types import ConfigError

if TYPE_CHECKING:
    from tuf.api.metadata import TargetFile

LOCK = ".lock"
__all__ = ["NetworkError", "Source", "Target", "Trust", "TrustError", "first_root"]


class Source(NamedTuple):
    """Where a repository is. Addresses of folders have no slash at the end."""

    metadata: str
    targets: str
    time: str

    @staticmethod
    def of(url: str) -> Source:
        """Of a hub's address, such as https://hub.example:8443."""
        base = url.rstrip("/")
        return Source(f"{base}/tuf/metadata", f"{base}/tuf/targets", f"{base}/v1/time")


def first_root(url: str, digest: str, http: Http | None = None) -> bytes:
    """The hub's first root, for Trust, by its SHA-256 (64 hex digits) of the join token. Raises NetworkError, TrustError."""
    address = f"{Source.of(url).metadata}/1.root.json"
    answer = (http or Http()).read(address, CONFIG.root_max_length)
    if answer.status != 200:
        raise NetworkError(f"{address}: the hub answered with status {answer.status}")
    if hashlib.sha256(answer.body).hexdigest() != digest:
        raise TrustError(f"{address}: is not the root that the join token names")
    return answer.body


class Trust:
    """One device's view of one hub, kept in `folder`. For one thread; processes may share the folder."""

    def __init__(
        self,
        folder: Path,
        url: str,
        root: bytes | None = None,
        http: Http | None = None,
        *,
        source: Source | None = None,
        clock: Clock | None = None,
        models: bool = True,
    ) -> None:
        """`root` is the first root, needed where `folder` has nothing yet. `models`: whether refresh() loads that role.

        Raises ConfigError where a root is needed, or is another hub's than the folder's; TrustError where it is none; StoreError.
        """
        self.folder, self.http, self.source = folder, http or Http(), source or Source.of(url)
        self._clock: Clock = clock or HubClock(self.http, self.source.time)
        self._models = models
        self._updater: Keeping | None = None
        with files.naming(folder):
            os.makedirs(folder, exist_ok=True)
            files.sync(folder.parent)
        with locked(folder / LOCK), explained(self.source.metadata):
            self._trusted = self._load(root)
            self._keeping(Fetcher(self.http))

    def refresh(self) -> bool:
        """Asks the hub for what is new; whether there is anything. All that was verified is kept, also if the rest fails.

        Raises NetworkError where the hub, or its time, can't be had; TrustError where something is not as the trusted keys say,
        or too old. Nothing is taken then, and newest() needs another refresh.
        """
        self._updater = None
        with locked(self.folder / LOCK):
            self._trusted = trusted.load(self.folder) or self._trusted
            with explained(self.source.metadata), self._saved() as before:
                updater = self._run()
                self._hold_floor(updater)
                self._updater = updater
        return self._trusted.to_bytes() != before

    def newest(self) -> Target | None:
        """The model with the highest number, of those that were signed when refresh() was last called; None where there is none.

        Raises ConfigError before a refresh.
        """
        return _newest(self._refreshed())

    def download(self, target: Target, folder: Path) -> Path:
        """folder/NNNN.edgecl.gz, verified and synced; what of it is there already is not fetched again. Parts of others go.

        Raises NetworkError (call it again: it goes on where it was), TrustError, StoreError.
        """
        info = self._refreshed().get_targetinfo(target.path)
        if info is None or targets.parse(info) != target:
            raise TrustError(f"{target.path}: the hub no longer vouches for it")
        path = folder / Path(target.path).name
        targets.clear_parts(folder, path)
        return self.fetch(info, path)

    def fetch(self, info: TargetFile, path: Path) -> Path:
        """As download(), of any file that the metadata name."""
        return targets.download(self.http, f"{self.source.targets}/{self._refreshed().remote_path(info)}", info, path)

    def info(self, path: str) -> TargetFile | None:
        """What the metadata say of any target; delegated metadata are fetched for it. Raises as refresh() does."""
        with locked(self.folder / LOCK), explained(self.source.metadata), self._saved():
            return self._refreshed().get_targetinfo(path)

    @property
    def metadata(self) -> dict[str, bytes]:
        """What is trusted, by role, as it was signed."""
        return dict(self._trusted.metadata)

    @property
    def floor_keys(self) -> tuple[str, ...]:
        """Ids of the keys that named the newest model so far; a number means nothing beside those of others."""
        return self._trusted.floor_keys

    def _refreshed(self) -> Keeping:
        if self._updater is None:
            raise ConfigError(f"{self.folder}: refresh() first: nothing is taken on old metadata")
        return self._updater

    def _load(self, root: bytes | None) -> Trusted:
        found = trusted.load(self.folder)
        first = None if root is None else hashlib.sha256(root).hexdigest()
        if found is None:
            if root is None or first is None:
                raise ConfigError(f"{self.folder}: has no trusted root yet, and none was given")
            found = Trusted(first, metadata={"root": root})
        if first not in (None, found.first):
            raise ConfigError(f"{self.folder}: trusts another hub; use another folder for this one")
        return found

    @contextmanager
    def _saved(self) -> Iterator[bytes]:
        """What is trusted after the block is on the disk, however it ends."""
        before = self._trusted.to_bytes()
        try:
            yield before
        finally:
            if self._trusted.to_bytes() != before or not trusted.there(self.folder):
                trusted.save(self.folder, self._trusted)
            else:
                trusted.heal(self.folder, self._trusted)

    def _run(self) -> Keeping:
        """One request, as a rule, where the hub says that nothing is newer and none of what is kept is too old."""
        fetcher = Fetcher(self.http)
        if self._trusted.etag and not fetcher.newer(self._timestamp, self._trusted.etag):
            with outdated():
                return self._refresh(self._as_kept(fetcher))
            fetcher = Fetcher(self.http)  # too old: there may be a newer root
        updater = self._refresh(self._keeping(fetcher))
        body, etag = fetcher.seen.get(self._timestamp, (b"", ""))
        self._trusted.etag = etag if self._trusted.metadata["timestamp"] == body else ""
        return updater

    def _as_kept(self, fetcher: Fetcher) -> Keeping:
        updater = self._keeping(fetcher)
        next_root = f"{self.source.metadata}/{updater.root.version + 1}.root.json"
        fetcher.known = {next_root: ABSENT, self._timestamp: self._trusted.metadata["timestamp"]}
        return updater

    @property
    def _timestamp(self) -> str:
        return f"{self.source.metadata}/timestamp.json"

    def _keeping(self, fetcher: Fetcher) -> Keeping:
        return Keeping(self._trusted.metadata, self.source.metadata, fetcher, self._clock)

    def _refresh(self, updater: Keeping) -> Keeping:
        updater.refresh()
        if self._models:
            updater.get_targetinfo(targets.ANY)
        return updater

    def _hold_floor(self, updater: Keeping) -> None:
        """Raises TrustError where the same keys that named a model name a lower one now. Other keys begin anew."""
        newest, keys = _newest(updater), updater.keys(targets.ROLE)
        number = 0 if newest is None else newest.number
        if keys and keys == self._trusted.floor_keys and number < self._trusted.floor:
            raise TrustError(
                f"{targets.ROLE}: the newest that is named is {number}, after {self._trusted.floor}; it is not taken"
            )
        if number:
            self._trusted.floor, self._trusted.floor_keys = number, keys


def _newest(updater: Keeping) -> Target | None:
    roles = [t for role in ("targets", targets.ROLE) if (t := updater.targets(role))]
    for path in sorted({p for t in roles for p in t.targets if targets.PATH.fullmatch(p)}, key=targets.number, reverse=True):
        if info := updater.get_targetinfo(path):  # None: a role named what it may not
            return targets.parse(info)
    return None
