"""What a device trusts: the newest metadata that were verified, in one file, twice.

A write puts both copies, whole and synced, one after the other: whatever a power cut or a bad block does to one, the other has
the versions below which nothing is taken. Where both are damaged nothing is guessed: the device has to be enrolled again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgecl import files
from edgecl.types import StoreError

COPIES = ("trusted.json", "trusted.copy.json")
FORMAT = 1
BYTES = 1 << 21


@dataclass
class Trusted:
    """Of one hub."""

    first: str  # SHA-256 of the root that the device was given
    serial: int = 0  # writes so far
    metadata: dict[str, bytes] = field(default_factory=dict)  # role → as it was signed; root the newest
    etag: str = ""  # of the timestamp in `metadata`
    floor: int = 0  # the newest model's number so far
    floor_keys: tuple[str, ...] = ()  # ids of the keys of the role that named it

    def to_bytes(self) -> bytes:
        """A line with the SHA-256 of the JSON that follows."""
        packed = {role: base64.b64encode(data).decode() for role, data in self.metadata.items()}
        data = json.dumps({**self.__dict__, "metadata": packed, "format": FORMAT}).encode()
        return hashlib.sha256(data).hexdigest().encode() + b"\n" + data


def parse(data: bytes) -> Trusted | None:
    """None where it is damaged."""
    digest, _, rest = data.partition(b"\n")
    if hashlib.sha256(rest).hexdigest().encode() != digest:
        return None
    try:
        found: dict[str, Any] = json.loads(rest)
        if found.pop("format") != FORMAT:
            return None
        metadata = {role: base64.b64decode(text) for role, text in found.pop("metadata").items()}
        return Trusted(metadata=metadata, floor_keys=tuple(found.pop("floor_keys")), **found)
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
        return None


def there(folder: Path) -> bool:
    """Whether anything was ever saved."""
    return any((folder / name).exists() for name in COPIES)


def load(folder: Path) -> Trusted | None:
    """The newer of the copies that are whole; None where there is neither. Raises StoreError where both is damaged."""
    paths = [folder / name for name in COPIES if (folder / name).exists()]
    found = [t for path in paths if (t := parse(files.read_bounded(path, BYTES))) is not None]
    if paths and not found:
        raise StoreError(f"{folder}: what this device trusted is damaged in both copies; enrol it again")
    return max(found, key=lambda t: t.serial, default=None)


def save(folder: Path, trusted: Trusted) -> None:
    """Raises StoreError; what was there then stands, in one copy at least."""
    trusted.serial += 1
    data = trusted.to_bytes()
    for name in COPIES:
        files.write_atomic(folder / name, data)


def heal(folder: Path, trusted: Trusted) -> None:
    """Writes a copy that is absent, damaged or older anew."""
    data = trusted.to_bytes()
    for name in COPIES:
        path = folder / name
        if not path.exists() or files.read_bounded(path, BYTES) != data:
            files.write_atomic(path, data)
