"""One writer at a time, across threads and processes, with some patience."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from edgecl import files


def locked(path: Path, seconds: float = 30.0) -> AbstractContextManager[None]:
    """`files.locked` for those who wait. Raises StoreError where another holds it for all of `seconds`."""
    return files.locked(path, f"{path}: another process holds it since {seconds:g} s", seconds)
