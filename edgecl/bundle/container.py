"""The file around a bundle's files: a plain ustar archive of which every byte follows from the names, sizes and contents.

`tar -tf` lists it. The reader takes no header on trust: it makes the one that has to be there, and compares.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from edgecl import files
from edgecl.types import StoreError

BLOCK = 512
NAME, PREFIX = 100, 155  # bytes that a header has for the end of a path, and for its beginning
END = bytes(2 * BLOCK)


def header(path: str, size: int) -> bytes:
    """The 512 bytes before a file's: mode 644, owner 0, time 0, no names of users (POSIX.1-1988, ustar)."""
    number = b"0000000\0"
    folder, name = split(path)
    head = name.encode("ascii").ljust(NAME, b"\0") + b"0000644\0" + number + number + b"%011o\0" % size + b"00000000000\0"
    tail = b"0" + bytes(100) + b"ustar\x0000" + bytes(64) + number + number + folder.encode("ascii")
    tail = tail.ljust(BLOCK - len(head) - 8, b"\0")
    checksum = sum(head) + sum(tail) + 8 * ord(" ")  # its own field counts as spaces
    return head + b"%06o\0 " % checksum + tail


def split(path: str) -> tuple[str, str]:
    """What goes into a header's fields `prefix` and `name`: a path too long for the latter is parted at its last slash."""
    folder, _, name = path.rpartition("/")
    return ("", path) if len(path) <= NAME else (folder, name)


def padding(size: int) -> bytes:
    """The zeros behind `size` bytes, up to the next block."""
    return bytes(-size % BLOCK)


def pack(where: Path, members: Iterable[tuple[str, int, str, Iterable[bytes]]]) -> Iterator[bytes]:
    """The archive, in pieces, of (path, size, sha256, pieces). Raises StoreError where a file is not
    the one that was hashed.
    """
    for path, size, digest, pieces in members:
        yield header(path, size)
        seen, told = hashlib.sha256(), 0
        for piece in pieces:
            seen.update(piece)
            told += len(piece)
            yield piece
        if (told, seen.hexdigest()) != (size, digest):
            raise StoreError(f"{where}: {path}: has changed while the bundle was written")
        yield padding(size)
    yield END


class Reader:
    """One archive from its start to its end. Every fault is a StoreError that names the file; nothing is read beyond bounds."""

    def __init__(self, file: BinaryIO, where: Path) -> None:
        self._file, self._where = file, where

    def peek(self) -> tuple[str, int]:
        """Path and size by the next header, which is taken; ("", 0) at the archive's end."""
        block = self._take(BLOCK, "a header")
        if block == bytes(BLOCK):
            return "", 0
        try:
            name, folder = (block[a:b].rstrip(b"\0").decode("ascii") for a, b in ((0, NAME), (345, 345 + PREFIX)))
            path, size = f"{folder}/{name}" if folder else name, int(block[124:135].decode("ascii"), 8)
            if size >= 0 and header(path, size) == block:
                return path, size
        except ValueError:
            pass
        raise StoreError(f"{self._where}: is no bundle, or damaged (a header is not as edgecl writes it)")

    def pieces(self, path: str, size: int) -> Iterator[bytes]:
        """The bytes of the member whose header was just taken, and a look at the zeros behind them."""
        left = size
        while left:
            piece = self._take(min(left, files.BLOCK), path)
            left -= len(piece)
            yield piece
        if any(self._take(-size % BLOCK, path)):
            raise StoreError(f"{self._where}: is damaged (bytes behind {path} that belong to no file)")

    def finish(self) -> None:
        """Raises StoreError unless the second half of the end mark is all that is left."""
        if any(self._take(BLOCK, "its end")) or self._file.read(1):
            raise StoreError(f"{self._where}: is damaged (there is something behind its end)")

    def _take(self, size: int, what: str) -> bytes:
        with files.naming(self._where):
            data = self._file.read(size)
        if len(data) != size:
            raise StoreError(f"{self._where}: is cut off within {what}")
        return data
