"""What a device signs."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from edgecl.types import ConfigError
from edgecl.update import UpdateError, open_envelope, open_record, peek_envelope, seal, seal_record
from edgecl.update.envelope import ENVELOPE, LIMITS, REPORT, device_of

NONCE = bytes(range(16))


def test_sealed_and_opened(private: Path, public: bytes) -> None:
    device = device_of(public)
    data = seal(private, device, 2**62, NONCE, b"payload")
    assert len(data) <= 512
    found = open_envelope(data, public)
    assert found == peek_envelope(data)
    assert found == (device, 2**62, NONCE, 7, hashlib.sha256(b"payload").hexdigest())


def test_every_flipped_bit_is_seen(private: Path, public: bytes) -> None:
    data = seal(private, device_of(public), 3, NONCE, b"payload")
    for at in range(8 * len(data)):
        bad = bytearray(data)
        bad[at // 8] ^= 1 << at % 8
        with pytest.raises(UpdateError):
            open_envelope(bytes(bad), public)


def test_no_device_speaks_for_another(private: Path, public: bytes) -> None:
    with pytest.raises(ConfigError, match=f"key of device {device_of(public)}, not of 0000000000000000"):
        seal(private, "0" * 16, 3, NONCE, b"")
    body = {"device": bytes(8), "sequence": 3, "nonce": NONCE, "bytes": 0, "sha256": bytes(32)}
    with pytest.raises(UpdateError, match="names device"):
        open_envelope(seal_record(private, ENVELOPE, body), public)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"device": bytes(7)}, "device has not 8 bytes"),
        ({"nonce": "x" * 16}, "nonce has not 16 bytes"),
        ({"sha256": bytes(33)}, "sha256 has not 32 bytes"),
        ({"sequence": 1 << 63}, "sequence is no number below"),
        ({"bytes": None}, "bytes is no number below"),
        ({"more": 1}, "has keys bytes, device, more"),
    ],
)
def test_what_is_no_envelope(private: Path, public: bytes, changes: dict[str, Any], why: str) -> None:
    body = {"device": bytes.fromhex(device_of(public)), "sequence": 3, "nonce": NONCE, "bytes": 0, "sha256": bytes(32)}
    data = seal_record(private, ENVELOPE, {**body, **changes})
    for read in (peek_envelope, lambda d: open_envelope(d, public)):
        with pytest.raises(UpdateError, match=why):
            read(data)


def test_one_kind_is_not_another(private: Path, public: bytes) -> None:
    report = seal_record(private, REPORT, {"version": "1", "battery": 80})
    assert open_record(report, public, REPORT) == {"version": "1", "battery": 80}
    with pytest.raises(UpdateError, match="damaged or forged"):
        open_record(report, public, ENVELOPE)


def test_too_large(private: Path, public: bytes) -> None:
    with pytest.raises(UpdateError, match="more than 1024"):
        seal_record(private, REPORT, {"x": "y" * 1024})
    with pytest.raises(UpdateError, match="more than 512"):
        peek_envelope(bytes(LIMITS[ENVELOPE] + 1))
