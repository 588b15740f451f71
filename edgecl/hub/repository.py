"""The hub's TUF repository: what devices may install, signed. https://theupdateframework.github.io/specification/v1.0.34

Root and targets are signed by offline keys and name the keys of snapshot, timestamp and of the role `models`, which are online:
`models` may name `models/*` and nothing else. Every function takes the hub's folder, waits for whoever changes it (30 s), and
raises StoreError or ConfigError. `now` is in UTC seconds; it is the clock's where none is given.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edgecl import files
from edgecl.hub import keyfiles, tufset
from edgecl.hub.tufset import KEYS, METADATA, MODELS, OFFLINE, TARGETS, Lifetimes, TufSet
from edgecl.sync import hubtime
from edgecl.sync.lock import locked
from edgecl.types import ConfigError, DataError, StoreError

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner

LISTED = 3  # models that models.json names: the newest
CUSTOM_BYTES = 1 << 16  # of a model's card as JSON
ONLINE = ("timestamp", "snapshot", MODELS)


class Published(NamedTuple):
    """What a device is to fetch."""

    path: str  # the target: models/NNNN.edgecl.gz
    file: Path  # where it lies
    length: int
    sha256: str


def init(folder: Path, offline: Path | None = None, life: Lifetimes | None = None, now: float | None = None) -> Path:
    """Makes keys and the first metadata; the folder of the offline keys, `offline` or folder/offline, which is to be moved away.

    What a power cut left is used again. Raises StoreError where a repository is there.
    """
    life, now, kept = life or Lifetimes(), now_or(now), offline or folder / OFFLINE
    for path in (folder / KEYS, kept):
        keyfiles.make_folder(path)
    with files.naming(folder):
        os.makedirs(folder / METADATA, exist_ok=True)
        os.makedirs(folder / TARGETS / MODELS, exist_ok=True)
    with locked(folder / tufset.LOCK):
        if (folder / METADATA / "timestamp.json").exists():
            raise StoreError(f"{folder}: has a repository already")
        signers = {role: [keyfiles.make(folder / KEYS / f"{role}.pem")] for role in ONLINE}
        signers |= {role: [keyfiles.make(kept / f"{role}.pem")] for role in ("root", "targets")}
        bundle_key(folder)
        tuf = _first(folder, {role: keys[0] for role, keys in signers.items()}, life, now)
        tufset.write_root(tuf, signers["root"], life, now, first=True)
        _sync_folders(folder)
        tufset.write(tuf, ("targets", MODELS), signers, life, now, first=True)
    return kept


def publish(
    folder: Path, file: Path, custom: Mapping[str, Any], life: Lifetimes | None = None, now: float | None = None
) -> Published:
    """Copies `file` (a deflated bundle) in as the newest model.

    `custom` is {number, snapshot, net, classes, bytes (unpacked)}; the bundle key is added. A device sees all of it or nothing.
    Raises DataError for a number that is not above those before.
    """
    life, now = life or Lifetimes(), now_or(now)
    with locked(folder / tufset.LOCK):
        tuf = tufset.read(folder)
        if not tuf.key_ids(MODELS):
            raise ConfigError(f"{folder}: the role models is revoked; `edgecl hub keys rotate` gives it a new key")
        card = {"bundle_key": bundle_key(folder), **custom}
        done = _copy(folder, file, _path(tuf, card))
        _list(tuf, done, card)
        signers = {role: [tuf.signer(role)] for role in ONLINE}
        tufset.write(tuf, (MODELS,), signers, life, now)
        tufset.clear(tuf)
    return done


def refresh_timestamp(folder: Path, life: Lifetimes | None = None, now: float | None = None) -> bool:
    """Signs anew what of the online roles has less than half of its life left; whether anything. Call it every hour or so."""
    life, now = life or Lifetimes(), now_or(now)
    with locked(folder / tufset.LOCK):
        tuf = tufset.read(folder)
        roles = [r for r in ONLINE if tuf.key_ids(r)]
        signers = {role: [tuf.signer(role)] for role in roles}  # which also ends what a power cut left of a rotation
        due = [r for r in roles if tuf.role(r).signed.expires.timestamp() - now < life.half(r)]
        if due:
            tufset.write(tuf, due, signers, life, now)
    return bool(due)


def signed_time(folder: Path, nonce: str, now: float | None = None) -> bytes:
    """The answer to `GET /v1/time?nonce=`: JSON, see sync/hubtime.py. Raises DataError where the nonce is not 32 hex digits."""
    if not hubtime.NONCE.fullmatch(nonce):
        raise DataError("nonce: must be 32 lower-case hex digits")
    seconds, signer = int(now_or(now)), keyfiles.load(folder / KEYS / "timestamp.pem")
    signature = signer.sign(hubtime.signed_bytes(nonce, seconds))
    said = {"_type": hubtime.TYPE, "nonce": nonce, "time": seconds}
    signatures = [{"keyid": signature.keyid, "sig": signature.signature}]
    return json.dumps({"signatures": signatures, "signed": said}, separators=(",", ":")).encode()


def root_hash(folder: Path) -> str:
    """SHA-256 of the first root, for join tokens. Raises StoreError."""
    return tufset.sha256(folder / METADATA / "1.root.json")


def bundle_key(folder: Path) -> str:
    """The public key of bundles, in PEM. The private one is keys/bundle.pem, made where it is absent."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = keyfiles.make(folder / KEYS / "bundle.pem").public_key._crypto_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _first(folder: Path, keys: Mapping[str, CryptoSigner], life: Lifetimes, now: float) -> TufSet:
    from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

    root = Root(version=1, expires=life.end("root", now), consistent_snapshot=True)
    for role in ("root", "targets", "snapshot", "timestamp"):
        root.add_key(keys[role].public_key, role)
    targets = Targets(1, expires=life.end("targets", now))
    delegate(targets, keys[MODELS])
    models = Targets(1, expires=life.end(MODELS, now))
    snapshot, timestamp = Snapshot(1, expires=life.end("snapshot", now)), Timestamp(1, expires=life.end("timestamp", now))
    return TufSet(folder, Metadata(root), Metadata(targets), Metadata(models), Metadata(snapshot), Metadata(timestamp))


def delegate(targets: Any, signer: CryptoSigner) -> None:
    """Makes `signer` the only key of the role models."""
    from tuf.api.metadata import DelegatedRole, Delegations

    key = signer.public_key
    role = DelegatedRole(MODELS, [key.keyid], 1, terminating=True, paths=[f"{MODELS}/*"])
    targets.delegations = Delegations({key.keyid: key}, {MODELS: role})


def _path(tuf: TufSet, card: Mapping[str, Any]) -> str:
    if len(json.dumps(card)) > CUSTOM_BYTES:
        raise DataError(f"model {card.get('number')}: its card has more than {CUSTOM_BYTES} bytes")
    listed = max((info.custom["number"] for info in tuf.models.signed.targets.values()), default=0)
    match card.get("number"):
        case int(number) if number > listed:
            return f"{MODELS}/{number:04d}.edgecl.gz"
    raise DataError(f"model {card.get('number')}: its number must be above {listed}, the newest that is published")


def _list(tuf: TufSet, done: Published, card: Mapping[str, Any]) -> None:
    from tuf.api.metadata import TargetFile

    targets = tuf.models.signed.targets
    targets[done.path] = TargetFile(done.length, {"sha256": done.sha256}, done.path, {"custom": dict(card)})
    for path in sorted(targets, key=lambda p: int(targets[p].custom["number"]))[:-LISTED]:
        del targets[path]


def _copy(folder: Path, file: Path, path: str) -> Published:
    target = folder / TARGETS / path
    tmp = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    with files.naming(target):
        try:
            length, digest = files.write_chunks(tmp, _blocks(file))
            final = folder / TARGETS / tufset.prefixed(path, digest)
            os.replace(tmp, final)
        finally:
            with suppress(OSError):
                os.unlink(tmp)
        files.sync(target.parent)
    return Published(path, final, length, digest)


def _blocks(file: Path) -> Iterator[bytes]:
    with files.naming(file), open(file, "rb") as stream:
        while block := stream.read(files.BLOCK):
            yield block


def _sync_folders(folder: Path) -> None:
    with files.naming(folder):
        for name in (METADATA, TARGETS, "tuf", "."):
            files.sync(folder / name)


def now_or(now: float | None) -> float:
    """UTC seconds."""
    return time.time() if now is None else now
