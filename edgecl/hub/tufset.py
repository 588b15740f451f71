"""The metadata of a TUF repository as a whole: read, changed, signed and written in the order in which a client may see them.

A set is what timestamp.json names: its snapshot, and by that the targets and models. Files of a version are new files, so that
writing timestamp.json, last, is what makes a set the current one; what lies there unnamed is overwritten by the next try. Roots
are in force by themselves, from the moment that they are there.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecl import files
from edgecl.hub import keyfiles
from edgecl.types import ConfigError, StoreError

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner
    from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

METADATA, TARGETS, KEYS, OFFLINE = "tuf/metadata", "tuf/targets", "keys", "offline"
LOCK = "tuf/.lock"
MODELS = "models"  # the delegated role, and the folder of its targets
METADATA_BYTES = 1 << 21
DAY = 86400.0
KEPT = 4  # versions of models.json and snapshot.json, and with them the target files that they name
Signers = Mapping[str, Sequence["CryptoSigner"]]


@dataclass(frozen=True)
class Lifetimes:
    """Seconds for which what is signed holds. Online roles are signed anew when half of it is over."""

    root: float = 730 * DAY
    targets: float = 365 * DAY
    models: float = 30 * DAY
    snapshot: float = 30 * DAY
    timestamp: float = DAY

    def end(self, role: str, now: float) -> datetime:
        """When metadata of `role` expire that are signed at `now`."""
        return datetime.fromtimestamp(int(now + getattr(self, role)), timezone.utc)

    def half(self, role: str) -> float:
        """Seconds."""
        return float(getattr(self, role)) / 2


@dataclass
class TufSet:
    """The current one of a hub's folder."""

    folder: Path
    root: Metadata[Root]
    targets: Metadata[Targets]
    models: Metadata[Targets]
    snapshot: Metadata[Snapshot]
    timestamp: Metadata[Timestamp]

    def role(self, name: str) -> Metadata[Any]:
        """By the role's name."""
        found: Metadata[Any] = getattr(self, name)
        return found

    def key_ids(self, role: str) -> list[str]:
        """Those in force; none for models where the role is revoked."""
        if role != MODELS:
            return list(self.root.signed.roles[role].keyids)
        roles = self.targets.signed.delegations.roles if self.targets.signed.delegations else None
        return list(roles[MODELS].keyids) if roles and MODELS in roles else []

    def signer(self, role: str, keys: Path | None = None) -> CryptoSigner:
        """The key in force, of the folder `keys` (the hub's, for an online role). Raises ConfigError where that has another."""
        path = (keys or self.folder / KEYS) / f"{role}.pem"
        keyfiles.settle(path, self.key_ids(role).__contains__)
        found = keyfiles.load(path)
        if found.public_key.keyid not in self.key_ids(role):
            raise ConfigError(f"{path}: is not the key that the hub's metadata name for {role}")
        return found


def read(folder: Path) -> TufSet:
    """Raises StoreError where a file is absent or no such metadata, ConfigError where the package tuf is missing."""
    keyfiles.signers()
    from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

    timestamp = _read(folder, "timestamp.json", Timestamp)
    snapshot = _read(folder, f"{timestamp.signed.snapshot_meta.version}.snapshot.json", Snapshot)
    versions = {name: meta.version for name, meta in snapshot.signed.meta.items()}
    targets, models = (_read(folder, f"{versions[f'{r}.json']}.{r}.json", Targets) for r in ("targets", MODELS))
    root = _read(folder, f"{newest_root(folder)}.root.json", Root)
    return TufSet(folder, root, targets, models, snapshot, timestamp)


def newest_root(folder: Path) -> int:
    """Its version; 0 where there is none."""
    with files.naming(folder / METADATA):
        names = os.listdir(folder / METADATA)
    return max((int(n.split(".")[0]) for n in names if n.endswith(".root.json") and n[0].isdigit()), default=0)


def write(tuf: TufSet, changed: Collection[str], signers: Signers, life: Lifetimes, now: float, *, first: bool = False) -> None:
    """New versions of the roles in `changed`, and of those that name them. Raises StoreError; the old set then stands."""
    from tuf.api.metadata import MetaFile

    snapshot = first or not {"timestamp"}.issuperset(changed)
    for role in ("targets", MODELS):
        if role in changed:
            data = _sign(tuf, role, signers, life, now, first)
            tuf.snapshot.signed.meta[f"{role}.json"] = MetaFile.from_data(tuf.role(role).signed.version, data, ["sha256"])
    if snapshot:
        data = _sign(tuf, "snapshot", signers, life, now, first)
        tuf.timestamp.signed.snapshot_meta = MetaFile.from_data(tuf.snapshot.signed.version, data, ["sha256"])
    _sign(tuf, "timestamp", signers, life, now, first)


def write_root(tuf: TufSet, signers: Sequence[CryptoSigner], life: Lifetimes, now: float, *, first: bool = False) -> None:
    """The next version of root, in force at once."""
    _sign(tuf, "root", {"root": signers}, life, now, first)


def _sign(tuf: TufSet, role: str, signers: Signers, life: Lifetimes, now: float, first: bool) -> bytes:
    metadata = tuf.role(role)
    metadata.signed.version += 0 if first else 1
    metadata.signed.expires = life.end(role, now)
    metadata.signatures.clear()
    for signer in signers[role]:
        metadata.sign(signer, append=True)
    data = metadata.to_bytes()
    name = f"{role}.json" if role == "timestamp" else f"{metadata.signed.version}.{role}.json"
    files.write_atomic(tuf.folder / METADATA / name, data)
    return data


def _read(folder: Path, name: str, kind: type[Any]) -> Metadata[Any]:
    from tuf.api.metadata import Metadata
    from tuf.api.serialization import DeserializationError

    path = folder / METADATA / name
    with_text = files.read_bounded(path, METADATA_BYTES)
    try:
        found: Metadata[Any] = Metadata.from_bytes(with_text)
    except DeserializationError:
        raise StoreError(f"{path}: is damaged (no TUF metadata)") from None
    if not isinstance(found.signed, kind):
        raise StoreError(f"{path}: is damaged (holds {found.signed.type})")
    return found


def clear(tuf: TufSet) -> None:
    """Removes what none of the last KEPT versions names. Roots and targets stay: a client may need each."""
    folder, target_folder = tuf.folder / METADATA, tuf.folder / TARGETS / MODELS
    wanted = set()
    for role in ("snapshot", MODELS):
        oldest = tuf.role(role).signed.version - KEPT + 1
        for path in folder.glob(f"*.{role}.json"):
            if path.name[0] != "." and int(path.name.split(".")[0]) < oldest:
                path.unlink(missing_ok=True)
            elif role == MODELS:
                wanted |= _named(tuf.folder, path.name)
    for path in target_folder.iterdir():
        if path.name not in wanted:
            path.unlink(missing_ok=True)


def _named(folder: Path, name: str) -> set[str]:
    from tuf.api.metadata import Targets

    found = _read(folder, name, Targets)
    return {prefixed(path, info.hashes["sha256"]).name for path, info in found.signed.targets.items()}


def prefixed(path: str, sha256: str) -> Path:
    """Of a target's path, that of its file among consistent snapshots: `models/SHA256.NAME`."""
    return Path(path).with_name(f"{sha256}.{Path(path).name}")


def sha256(path: Path) -> str:
    """Of metadata. Raises StoreError."""
    return hashlib.sha256(files.read_bounded(path, METADATA_BYTES)).hexdigest()
