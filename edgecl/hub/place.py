"""Where things lie in a hub's folder."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from edgecl import files
from edgecl.types import StoreError

DEVICE = re.compile(r"[0-9a-f]{16}")
UPLOAD = re.compile(r"[0-9a-f]{32}")
LAST = 10**12
"""Sequence numbers are 1 to this."""


class Place(NamedTuple):
    """A hub's folder. Names come from numbers and hex digits only, so that no request can name another file."""

    root: Path

    @property
    def settings(self) -> Path:
        return self.root / "hub.yaml"

    @property
    def database(self) -> Path:
        return self.root / "hub.db"

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def bundle_key(self) -> Path:
        return self.keys / "bundle.pem"

    @property
    def uploads(self) -> Path:
        return self.root / "uploads"

    @property
    def updates(self) -> Path:
        return self.root / "updates"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def held_out(self) -> Path:
        return self.root / "heldout.npz"

    @property
    def tuf(self) -> Path:
        return self.root / "tuf"

    def part(self, upload: str) -> Path:
        """What came of an upload so far."""
        return self.uploads / f"{upload}.part"

    def opening(self, upload: str) -> Path:
        """The envelope that began an upload."""
        return self.uploads / f"{upload}.envelope"

    def update(self, device: str, sequence: int) -> Path:
        return self.updates / device / f"{sequence:06}.update"

    def envelope(self, device: str, sequence: int) -> Path:
        return self.updates / device / f"{sequence:06}.envelope"

    def model(self, number: int) -> Path:
        """A run folder."""
        return self.models / f"{number:04}"


def opened(root: Path) -> Place:
    """Raises StoreError where the folder is no hub's."""
    place = Place(root)
    if not place.settings.is_file():
        raise StoreError(f"{root}: is no hub's folder (no hub.yaml); `edgecl hub init {root}` makes one")
    return place


def alone(place: Place, what: str) -> AbstractContextManager[None]:
    """Holds the lock `what` of the hub's folder. Raises StoreError where another process holds it."""
    return files.locked(place.root / f".{what}.lock", f"{place.root}: another process is at it ({what})")
