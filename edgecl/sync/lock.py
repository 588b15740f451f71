"""One writer at a time, across threads and processes. The system frees a lock when its holder dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgecl import files
from edgecl.types import StoreError

PAUSE = 0.02  # seconds between two tries


@contextmanager
def locked(path: Path, seconds: float = 30.0) -> Iterator[None]:
    """Nobody else is in such a block of the file `path`, which is made and never removed.

    Raises StoreError where another holds it for all of `seconds`.
    """
    with files.naming(path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _wait(fd, path, seconds)
        yield
    finally:
        os.close(fd)


def _wait(fd: int, path: Path, seconds: float) -> None:
    end = time.monotonic() + seconds
    while True:
        with files.naming(path):
            try:
                return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise StoreError(f"{path}: another process holds it since {seconds:g} s") from None
        time.sleep(PAUSE)
