"""Keys of the hub's TUF repository: new ones in the place of old ones, and the role `models` taken back.

A successor lies beside the old key until the metadata name it, and what both roots have to accept is signed by both keys before
the new root is there: a device that reads at any moment finds a set that holds, and a power cut leaves the old key in force or
the new one. Root's and targets' keys are read from the folder that the caller names, and successors are written there.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgecl import files
from edgecl.hub import keyfiles, tufset
from edgecl.hub.repository import ONLINE, bundle_key, delegate, now_or
from edgecl.hub.tufset import KEYS, MODELS, OFFLINE, Lifetimes, TufSet
from edgecl.sync.lock import locked
from edgecl.types import ConfigError

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner

ROLES = ("root", "targets", "snapshot", "timestamp", MODELS, "bundle")


class Row(NamedTuple):
    """What is in force."""

    role: str
    key: str  # first 16 hex digits of its id; empty where the role is revoked
    version: int
    expires: datetime  # UTC


def listing(folder: Path) -> list[Row]:
    """Every role's key. Raises StoreError, ConfigError."""
    tuf = tufset.read(folder)
    return [Row(r, "".join(tuf.key_ids(r))[:16], tuf.role(r).signed.version, tuf.role(r).signed.expires) for r in ROLES[:-1]]


def kept_online(folder: Path) -> list[Path]:
    """Offline keys that were not moved away."""
    return sorted((folder / OFFLINE).glob("*.pem"))


def rotate(folder: Path, role: str, offline: Path | None = None, life: Lifetimes | None = None, now: float | None = None) -> str:
    """A new key for `role`; its id. `offline` is the folder of root.pem and targets.pem, folder/offline where none is named.

    An online key that is lost needs no old one. Raises ConfigError where an offline key is not the one in force, StoreError.
    """
    if role not in ROLES:
        raise ConfigError(f"role {role!r}: is none of {', '.join(ROLES)}")
    life, now, kept = life or Lifetimes(), now_or(now), offline or folder / OFFLINE
    with locked(folder / tufset.LOCK):
        tuf = tufset.read(folder)
        if role == "bundle":
            files.write_private(folder / KEYS / "bundle.pem", keyfiles.signers().generate_ed25519().private_bytes)
            return bundle_key(folder)
        path = (kept if role in ("root", "targets") else folder / KEYS) / f"{role}.pem"
        old = [] if role in ONLINE and not path.exists() else [tuf.signer(role, path.parent)] if tuf.key_ids(role) else []
        new = keyfiles.make(keyfiles.next_of(path))
        _REPLACE.get(role, _replace_in_root)(tuf, role, old, new, kept, life, now)
        keyfiles.settle(path, tuf.key_ids(role).__contains__)
    return str(new.public_key.keyid)


def revoke(folder: Path, offline: Path | None = None, life: Lifetimes | None = None, now: float | None = None) -> None:
    """Takes the role `models` back: no device takes a model any more, until rotate() gives it a new key and one is published.

    Raises ConfigError where it is revoked already, or the targets key is not the one in force; StoreError.
    """
    life, now, kept = life or Lifetimes(), now_or(now), offline or folder / OFFLINE
    with locked(folder / tufset.LOCK):
        tuf = tufset.read(folder)
        if not tuf.key_ids(MODELS):
            raise ConfigError(f"{folder}: the role models is revoked already")
        tuf.targets.signed.delegations = None
        signers = {"targets": [tuf.signer("targets", kept)], **_online(tuf, "snapshot", "timestamp")}
        tufset.write(tuf, ("targets",), signers, life, now)
        with files.naming(folder / KEYS):
            (folder / KEYS / f"{MODELS}.pem").unlink(missing_ok=True)
            files.sync(folder / KEYS)


def renew(folder: Path, offline: Path | None = None, life: Lifetimes | None = None, now: float | None = None) -> None:
    """Signs root and targets for another lifetime, with the keys in force. Raises ConfigError, StoreError."""
    life, now, kept = life or Lifetimes(), now_or(now), offline or folder / OFFLINE
    with locked(folder / tufset.LOCK):
        tuf = tufset.read(folder)
        root, targets = tuf.signer("root", kept), tuf.signer("targets", kept)
        tufset.write(tuf, ("targets",), {"targets": [targets], **_online(tuf, "snapshot", "timestamp")}, life, now)
        tufset.write_root(tuf, [root], life, now)


def _online(tuf: TufSet, *roles: str) -> dict[str, list[CryptoSigner]]:
    return {role: [tuf.signer(role)] for role in roles}


def _replace_in_root(
    tuf: TufSet, role: str, old: list[CryptoSigner], new: CryptoSigner, kept: Path, life: Lifetimes, now: float
) -> None:
    root = tuf.signer("root", kept)
    others = {"snapshot": ["timestamp"], "targets": ["snapshot", "timestamp"]}.get(role, [])
    tufset.write(tuf, (role,), {role: [*old, new], **_online(tuf, *others)}, life, now)
    _name(tuf, role, new)
    tufset.write_root(tuf, [root], life, now)


def _replace_root(
    tuf: TufSet, role: str, old: list[CryptoSigner], new: CryptoSigner, kept: Path, life: Lifetimes, now: float
) -> None:
    _name(tuf, role, new)
    tufset.write_root(tuf, [*old, new], life, now)


def _replace_models(
    tuf: TufSet, role: str, old: list[CryptoSigner], new: CryptoSigner, kept: Path, life: Lifetimes, now: float
) -> None:
    if not tuf.key_ids(MODELS):  # what was listed when it was revoked may be an attacker's
        tuf.models.signed.targets.clear()
    signers = {MODELS: [new], "targets": [tuf.signer("targets", kept)], **_online(tuf, "snapshot", "timestamp")}
    delegate(tuf.targets.signed, new)
    tufset.write(tuf, ("targets", MODELS), signers, life, now)


_REPLACE = {"root": _replace_root, MODELS: _replace_models}


def _name(tuf: TufSet, role: str, new: CryptoSigner) -> None:
    for key in tuf.key_ids(role):
        tuf.root.signed.revoke_key(key, role)
    tuf.root.signed.add_key(new.public_key, role)


def offline_folder(folder: Path, named: Path | None) -> Path:
    """Where the offline keys are. Raises ConfigError where neither `named` nor folder/offline is there."""
    found = named or folder / OFFLINE
    if not os.path.isdir(found):
        raise ConfigError(f"{found}: no folder of offline keys there; name it: --offline DIR")
    return found
