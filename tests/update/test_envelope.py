"""What a device signs."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

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
    with pytest.raises(UpdateError, match="names device"):
        open_envelope(seal(private, "0" * 16, 3, NONCE, b""), public)


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
