"""A bundle file read, checked and unpacked. Nothing is written before the signature holds, and no file under its own name
before all of it is checked.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from edgecl import files
from edgecl.bundle import manifest as manifests
from edgecl.bundle import signature as signatures
from edgecl.bundle.container import Reader
from edgecl.bundle.manifest import MANIFEST, MANIFEST_BYTES, SIGNATURE, Manifest
from edgecl.bundle.signature import SIGNATURE_BYTES
from edgecl.bundle.targets import check_machine
from edgecl.types import StoreError

Sink = Callable[[str, Iterable[bytes]], object]
"""Takes a path and the pieces of that file, and must take them all."""


class Head(NamedTuple):
    """What comes before the files."""

    manifest: Manifest
    data: bytes  # manifest.json
    signature: bytes  # manifest.sig
    key: str  # id of the key that signed, by its own word

    @property
    def digest(self) -> str:
        """SHA-256 of manifest.json: it names the bundle with all its bytes."""
        return hashlib.sha256(self.data).hexdigest()


def verify(path: Path, public: Path) -> Head:
    """Reads all of a bundle file: every byte is what the owner of the key `public` (a PEM file) signed.

    Raises StoreError in one line: damaged, incomplete, of another key, of a newer format, or unreadable.
    """
    return _read(path, public, _drain)


def inspect(path: Path) -> Head:
    """As `verify`, but takes the manifest's word for who signed it: the files are those of the manifest, no more."""
    return _read(path, None, _drain)


def unpack(path: Path, folder: Path, public: Path, machine: str = "") -> Head:
    """Writes a bundle's files, manifest.json and manifest.sig below `folder`, which must be empty, and checks them all.

    The caller syncs them, and throws away what is there if this raises. `machine` stands for this one.
    """
    made: set[Path] = {folder}

    def write(name: str, pieces: Iterable[bytes]) -> None:
        place = folder / name
        with files.naming(place):
            if place.parent not in made:
                place.parent.mkdir(parents=True)
                made.update(place.parents)
            files.write_chunks(place, pieces)

    head = _read(path, public, write, machine)
    for name, data in ((MANIFEST, head.data), (SIGNATURE, head.signature)):
        write(name, [data])
    return head


def open_bundle(path: Path, public: Path, into: Path | None = None, machine: str = "") -> Path:
    """A folder with the bundle's files, below `into` or beside the file: unpacked anew, or checked where it was already."""
    with _opened(path) as reader:
        head = _head(reader, path, public)
    final = (path.parent if into is None else into) / f"{path.stem}-{head.digest[:16]}"
    if final.is_dir():
        verify_folder(final, public, machine)
        return final
    tmp = final.with_name(f".{final.name}.{secrets.token_hex(4)}.tmp")
    try:
        with files.naming(tmp):
            tmp.mkdir(parents=True)
        unpack(path, tmp, public, machine)
        files.replace_dir(tmp, final)
    finally:
        shutil.rmtree(tmp, ignore_errors=True)
    return final


def verify_folder(folder: Path, public: Path, machine: str = "", extra: Iterable[str] = ()) -> Head:
    """Checks an unpacked bundle as `verify` does the file. `extra` names what else may lie at its top, such as a venv."""
    data, signature = (
        files.read_bounded(folder / n, limit) for n, limit in ((MANIFEST, MANIFEST_BYTES), (SIGNATURE, SIGNATURE_BYTES))
    )
    signatures.check(folder, public, data, signature)
    head = Head(manifests.decode(str(folder), data), data, signature, signatures.key_id(folder, signature))
    check_machine(folder, head.manifest.target, head.manifest.machine, machine)
    for path, entry in head.manifest.files.items():
        with files.naming(folder / path):
            found = os.stat(folder / path, follow_symlinks=False)
        if not stat.S_ISREG(found.st_mode) or found.st_size != entry.bytes or files.sha256(folder / path) != entry.sha256:
            raise StoreError(f"{folder / path}: is damaged (not the file of the manifest)")
    _check_nothing_else(folder, {*head.manifest.files, MANIFEST, SIGNATURE}, set(extra))
    return head


def read_manifest(folder: Path) -> Manifest:
    """Of an unpacked bundle, on trust. Raises StoreError."""
    return manifests.decode(str(folder), files.read_bounded(folder / MANIFEST, MANIFEST_BYTES))


def _check_nothing_else(folder: Path, known: set[str], extra: set[str]) -> None:
    for at, folders, names in os.walk(folder):
        if Path(at) == folder:
            folders[:] = [f for f in folders if f not in extra]
        for name in (*names, *(f for f in folders if Path(at, f).is_symlink())):
            path = Path(at, name).relative_to(folder).as_posix()
            if path not in known | extra:
                raise StoreError(f"{folder / path}: is no file of this bundle")


def _read(path: Path, public: Path | None, sink: Sink, machine: str | None = None) -> Head:
    """`machine` None: of any chip; else see `check_machine`."""
    with _opened(path) as reader:
        head = _head(reader, path, public)
        if machine is not None:
            check_machine(path, head.manifest.target, head.manifest.machine, machine)
        for name in sorted(head.manifest.files):
            _file(reader, path, name, head.manifest, sink)
        extra, _ = reader.peek()
        if extra:
            raise StoreError(f"{path}: holds {extra!r}, which is not in its manifest")
        reader.finish()
    return head


@contextmanager
def _opened(path: Path) -> Iterator[Reader]:
    with files.naming(path):
        file = path.open("rb")
    with file:
        yield Reader(file, path)


def _head(reader: Reader, path: Path, public: Path | None) -> Head:
    data = _member(reader, path, MANIFEST, MANIFEST_BYTES)
    signature = _member(reader, path, SIGNATURE, SIGNATURE_BYTES)
    key = signatures.key_id(path, signature)
    if public is not None:
        signatures.check(path, public, data, signature)
    return Head(manifests.decode(str(path), data), data, signature, key)


def _member(reader: Reader, path: Path, name: str, limit: int) -> bytes:
    found, size = reader.peek()
    if found != name:
        raise StoreError(f"{path}: is no bundle, or damaged ({name} is not where it has to be)")
    if size > limit:
        raise StoreError(f"{path}: {name} has {size} bytes; at most {limit} may be")
    return b"".join(reader.pieces(name, size))


def _file(reader: Reader, path: Path, name: str, manifest: Manifest, sink: Sink) -> None:
    """One file, in the order of names: size before it is read, hash before it counts."""
    entry, (found, size) = manifest.files[name], reader.peek()
    if found != name:
        extra = found and found not in manifest.files
        raise StoreError(f"{path}: " + (f"holds {found!r}, which is not in its manifest" if extra else f"{name} is missing"))
    if size != entry.bytes:
        raise StoreError(f"{path}: {name} has {size} bytes, not the {entry.bytes} of its manifest")
    digest = hashlib.sha256()
    sink(name, _hashing(reader.pieces(name, size), digest.update))
    if digest.hexdigest() != entry.sha256:
        raise StoreError(f"{path}: {name} is damaged (its sha256 is not the one of the manifest)")


def _hashing(pieces: Iterable[bytes], update: Callable[[bytes], object]) -> Iterator[bytes]:
    for piece in pieces:
        update(piece)
        yield piece


def _drain(_: str, pieces: Iterable[bytes]) -> None:
    for _piece in pieces:
        pass
