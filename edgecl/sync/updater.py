"""python-tuf's Updater with other storage, another clock and another transport. The rules of the specification stay its own.

Updater keeps files unsynced, reads the device's clock and is for one instance only. This one keeps what it verified in a dict,
which trust.py stores, and asks a clock once the newest root is known. It overrides methods that Updater does not call public, so
the extra `sync` bounds the version of tuf, and tests/sync/test_trust.py holds every one of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from edgecl.sync.errors import NetworkError, TrustError
from edgecl.types import ConfigError

try:
    from tuf.api.exceptions import DownloadHTTPError, DownloadLengthMismatchError, RepositoryError
    from tuf.api.metadata import Root, TargetFile, Targets
    from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig
except ModuleNotFoundError as e:
    package = (e.name or "").split(".")[0]
    if package not in ("tuf", "securesystemslib"):
        raise
    raise ConfigError(f'sync needs the package {package}; pip install "edgecl[sync]"') from None

if TYPE_CHECKING:
    from edgecl.sync.fetcher import Http

Clock = Callable[[Root], datetime]
UNCHANGED, ABSENT = 304, 404
_ETAG = re.compile(r'(W/)?"[!#-~]{0,200}"')
NOWHERE = os.devnull  # a folder that can't be: nothing is read from a disk
CONFIG = UpdaterConfig(
    root_max_length=1 << 16, timestamp_max_length=1 << 14, snapshot_max_length=1 << 16, targets_max_length=1 << 19
)


class Fetcher(FetcherInterface):
    """Answers that are known already, then the hub's."""

    def __init__(self, http: Http) -> None:
        self._http = http
        self.known: dict[str, bytes | int] = {}  # address → body or status; each is given once
        self.seen: dict[str, tuple[bytes, str]] = {}  # address → body and its ETag

    def _fetch(self, url: str) -> Iterator[bytes]:
        raise NotImplementedError(url)  # no length is known here: download_bytes alone is asked

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """Raises DownloadHTTPError, DownloadLengthMismatchError, NetworkError."""
        found = self.known.pop(url, None)
        if found is None:
            found = self._ask(url, max_length, {})
        if isinstance(found, int):
            raise DownloadHTTPError(f"{url}: the hub answered with status {found}", found)
        return found

    def newer(self, url: str, etag: str) -> bool:
        """Whether the hub has another version; then it is known here. Raises as download_bytes does."""
        found = self._ask(url, CONFIG.timestamp_max_length, {"If-None-Match": etag})
        if found != UNCHANGED:
            self.known[url] = found
        return found != UNCHANGED

    def _ask(self, url: str, limit: int, headers: dict[str, str]) -> bytes | int:
        try:
            answer = self._http.read(url, limit, headers)
        except TrustError as e:
            raise DownloadLengthMismatchError(str(e)) from None
        etag = answer.headers.get("ETag", "")
        self.seen[url] = answer.body, etag if _ETAG.fullmatch(etag) else ""
        return answer.body if answer.status == 200 else answer.status


class Keeping(Updater):
    """`kept` has the newest trusted metadata by role, root among them, and gets what is verified."""

    def __init__(
        self, kept: dict[str, bytes], metadata_url: str, fetcher: FetcherInterface, clock: Clock, config: UpdaterConfig = CONFIG
    ) -> None:
        self._kept, self._clock = kept, clock
        super().__init__(NOWHERE, metadata_url, fetcher=fetcher, config=config, bootstrap=kept["root"])

    @property
    def root(self) -> Root:
        """The newest that is trusted."""
        return self._trusted_set.root

    def targets(self, role: str) -> Targets | None:
        """Of `targets` or a delegated role, once it was loaded as final."""
        found: Any = self._trusted_set.get(role)
        return found if isinstance(found, Targets) else None

    def keys(self, role: str) -> tuple[str, ...]:
        """Ids of those that may sign a role that `targets` delegates to; none where it does not."""
        found = self.targets("targets")
        roles = found.delegations.roles if found and found.delegations else None
        return tuple(sorted(roles[role].keyids)) if roles and role in roles else ()

    def remote_path(self, info: TargetFile) -> str:
        """Below the folder of targets."""
        if not (self.root.consistent_snapshot and self.config.prefix_targets_with_hash):
            return str(info.path)
        folder, slash, name = info.path.rpartition("/")
        return f"{folder}{slash}{next(iter(info.hashes.values()))}.{name}"

    def _load_timestamp(self) -> None:
        self._trusted_set.reference_time = self._clock(self.root)
        super()._load_timestamp()

    def _load_local_metadata(self, rolename: str) -> bytes:
        if rolename not in self._kept:
            raise FileNotFoundError(rolename)
        return self._kept[rolename]

    def _persist_metadata(self, rolename: str, data: bytes) -> None:
        self._kept[rolename] = data

    def _persist_root(self, version: int, data: bytes) -> None:
        self._kept["root"] = data

    def _update_root_symlink(self) -> None:
        pass


@contextmanager
def explained(where: str) -> Iterator[None]:
    """Says in one line what is wrong with metadata of `where`: NetworkError, TrustError."""
    try:
        yield
    except DownloadHTTPError as e:
        raise NetworkError(str(e)) from None
    except (DownloadLengthMismatchError, RepositoryError) as e:
        raise TrustError(f"{where}: {' '.join(str(e).split())[:300] or type(e).__name__}; nothing is taken") from None


def outdated() -> suppress:
    """A block that may find out that what is kept is too old."""
    return suppress(RepositoryError)
