"""F0: files and folders that are whole or absent, at whatever moment the power goes.

The standard library only, and POSIX: a rename lasts once its folder is synced. Every public function raises
StoreError in one line, `<path>: <reason>`, where the operating system says no.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgecl.types import StoreError

BLOCK = 1 << 20  # bytes read at a time
PAUSE = 0.02  # seconds between two tries to have a lock


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turns an OSError of its block into a StoreError such as "runs/a/ledger.json: no space left on device"."""
    try:
        yield
    except OSError as e:
        reason = os.strerror(e.errno).lower() if e.errno else str(e)
        raise StoreError(f"{path}: {reason}") from e


def write_atomic(path: Path, data: bytes) -> None:
    """Writes `data` at `path`: after a crash the file holds all of it, or what it held before.

    Raises StoreError; the old file then stands, and nothing is left beside it.
    """
    # A name of its own for every writer, so that two at once leave one's file whole.
    tmp = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with naming(path):
        try:
            write_chunks(tmp, [data])
            os.replace(tmp, path)
        finally:
            with suppress(OSError):  # it is gone already, if all went well
                os.unlink(tmp)
        sync(path.parent)


def write_private(path: Path, data: bytes) -> None:
    """`write_atomic` for what nobody but the owner may ever read. Raises StoreError."""
    tmp = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with naming(path):
        try:
            write_chunks(tmp, [data], 0o600)
            os.replace(tmp, path)
        finally:
            with suppress(OSError):
                os.unlink(tmp)
        sync(path.parent)


@contextmanager
def locked(path: Path, said: str, seconds: float = 0.0) -> Iterator[None]:
    """No other thread or process is in such a block of the file `path`, which is made and never removed.

    The system frees the lock when its holder dies. Raises StoreError with the line `said` where another holds it for all of
    `seconds`.
    """
    with naming(path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with naming(path):
            _lock(fd, said, time.monotonic() + seconds)
        yield
    finally:
        os.close(fd)


def _lock(fd: int, said: str, end: float) -> None:
    while True:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                raise StoreError(said) from None
        time.sleep(PAUSE)


def replace_dir(tmp: Path, final: Path) -> None:
    """Renames the folder `tmp` to its sibling `final`, absent or empty, once all within is on the disk.

    Raises StoreError if `final` holds anything, or the disk fails; `tmp` is then removed.
    """
    with naming(final):
        try:
            for folder, _, names in os.walk(tmp, topdown=False):
                for name in names:
                    sync(Path(folder, name))
                sync(Path(folder))
            os.replace(tmp, final)
        finally:
            shutil.rmtree(tmp, ignore_errors=True)
        sync(final.parent)


def read_bounded(path: Path, limit: int) -> bytes:
    """A file of at most `limit` bytes. Raises StoreError that names it where it is larger or can't be read."""
    with naming(path), path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise StoreError(f"{path}: has more than the {limit} bytes that are read of such a file")
    return data


def sha256(path: Path) -> str:
    """The hex digest of a file of any size. Raises StoreError."""
    digest = hashlib.sha256()
    with naming(path), open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def write_chunks(path: Path, chunks: Iterable[bytes | memoryview], mode: int = 0o666) -> tuple[int, str]:
    """Writes and syncs a new file, one chunk of bytes after the other; its size and its sha256 hex digest.

    Raises OSError, so that the caller can name the path that its reader knows.
    """
    digest, size = hashlib.sha256(), 0
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        for chunk in chunks:
            write_all(fd, chunk)
            digest.update(chunk)
            size += len(chunk)
        os.fsync(fd)
    finally:
        os.close(fd)
    return size, digest.hexdigest()


def write_all(fd: int, data: bytes | memoryview) -> None:
    """All of `data`: the system may take less at a time, as it does when a disk fills up. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def sync(path: Path) -> None:
    """Returns once a file's bytes, or a folder's names, are on the disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as e:
        # Some network file systems can't sync a folder and say so; their renames need none.
        if e.errno != errno.EINVAL or not path.is_dir():
            raise
    finally:
        os.close(fd)
