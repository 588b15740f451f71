"""What a device signs: which update it sends, or how it fares. A few hundred bytes, checked before anything else is read.

A record is CBOR [signed, signature]: `signed` is the CBOR of a map, `signature` its device's Ed25519 over the record's kind,
a zero byte and `signed`. So a record of one kind is never one of another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from edgecl.bundle import signature
from edgecl.types import ConfigError
from edgecl.update import cbor
from edgecl.update.errors import UpdateError
from edgecl.update.header import COUNT

ENVELOPE, REPORT = "edgecl-update", "edgecl-report"
LIMITS = {ENVELOPE: 512, REPORT: 1024}
"""Bytes of a record of each kind at most."""

NONCE_BYTES = 16
SIZES = {"device": 8, "nonce": NONCE_BYTES, "sha256": 32}
KEYS = {"bytes", "device", "nonce", "sequence", "sha256"}


class Envelope(NamedTuple):
    """An update on its way."""

    device: str  # 16 hex digits: the beginning of the sha256 of its public key's 32 bytes
    sequence: int
    nonce: bytes  # the hub's
    bytes: int  # of the payload
    sha256: str  # of the payload, 64 hex digits


def seal(private: Path, device: str, sequence: int, nonce: bytes, payload: bytes) -> bytes:
    """The envelope of a payload, signed with the key in the PEM file `private`; ConfigError where that is not the device's."""
    own = signature.sign(private, b"").split()[1].decode()
    if own != device:
        raise ConfigError(f"{private}: is the key of device {own}, not of {device}")
    body = {"device": bytes.fromhex(device), "sequence": sequence, "nonce": nonce, "bytes": len(payload)}
    return seal_record(private, ENVELOPE, {**body, "sha256": hashlib.sha256(payload).digest()})


def open_envelope(data: bytes, public_raw: bytes) -> Envelope:
    """Raises UpdateError unless it was signed by the key of these 32 bytes, and names the device that has it."""
    envelope = _envelope(open_record(data, public_raw, ENVELOPE))
    if envelope.device != device_of(public_raw):
        raise UpdateError(f"envelope: names device {envelope.device}, but is signed by {device_of(public_raw)}")
    return envelope


def peek_envelope(data: bytes) -> Envelope:
    """What it says, before it is known whether that is true: to look its key up. Raises UpdateError."""
    return _envelope(_signed(data, ENVELOPE)[0])


def device_of(public_raw: bytes) -> str:
    """A device's id."""
    return hashlib.sha256(public_raw).hexdigest()[:16]


def seal_record(private: Path, kind: str, body: Mapping[str, Any]) -> bytes:
    """Signs a map of what `cbor` knows. Raises UpdateError where it is too large, ConfigError for a wrong key."""
    signed = cbor.encode(body)
    line = signature.sign(private, kind.encode() + b"\0" + signed)
    data = cbor.encode([signed, bytes.fromhex(line.split()[2].decode())])
    if len(data) > LIMITS[kind]:
        raise UpdateError(f"{kind}: has {len(data)} bytes, more than {LIMITS[kind]}")
    return data


def open_record(data: bytes, public_raw: bytes, kind: str) -> dict[str, Any]:
    """The map, once its signature holds; byte strings as bytes. Raises UpdateError."""
    body, signed, made = _signed(data, kind)
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public_raw).verify(made, kind.encode() + b"\0" + signed)
    except (InvalidSignature, ValueError):
        raise UpdateError(f"{kind}: is damaged or forged (not signed by device {device_of(public_raw)})") from None
    return body


def _signed(data: bytes, kind: str) -> tuple[dict[str, Any], bytes, bytes]:
    """(the map, the bytes that are signed, the signature)."""
    if len(data) > LIMITS[kind]:
        raise UpdateError(f"{kind}: has more than {LIMITS[kind]} bytes")
    record = cbor.decode(kind, data)
    if not isinstance(record, list) or len(record) != 2 or not all(isinstance(part, memoryview) for part in record):
        raise UpdateError(f"{kind}: is no pair of what is signed and its signature")
    signed, made = map(bytes, record)
    body = cbor.decode(kind, signed)
    if not isinstance(body, dict) or len(made) != 64:
        raise UpdateError(f"{kind}: what is signed is no map, or its signature has not 64 bytes")
    return {k: bytes(v) if isinstance(v, memoryview) else v for k, v in body.items()}, signed, made


def _envelope(body: dict[str, Any]) -> Envelope:
    if set(body) != KEYS:
        raise UpdateError(f"envelope: has keys {', '.join(sorted(body))[:80]}, not {', '.join(sorted(KEYS))}")
    for key, size in SIZES.items():
        if not isinstance(body[key], bytes) or len(body[key]) != size:
            raise UpdateError(f"envelope: {key} has not {size} bytes")
    for key in ("bytes", "sequence"):
        if type(body[key]) is not int or body[key] >= COUNT:
            raise UpdateError(f"envelope: {key} is no number below 2^63")
    return Envelope(body["device"].hex(), body["sequence"], body["nonce"], body["bytes"], body["sha256"].hex())
