"""What a bundle says of itself, manifest.json: for which chip it is, every file's size and hash, limits, the self-test.

The form is canonical: JSON with sorted keys, one space of indent and a newline at the end. Equal contents are equal bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from edgecl.bundle.container import NAME, PREFIX, split
from edgecl.types import StoreError

FORMAT = 1  # of a bundle; raise it when an older reader would go wrong
MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"

MANIFEST_BYTES = 1 << 20
FILES = 1000  # at most in a bundle, the two above aside
FILE_BYTES = 1 << 31
TOTAL_BYTES = 1 << 32
SAMPLES = 16  # of the self-test at most

_SEGMENT = re.compile(r"[A-Za-z0-9_+!][A-Za-z0-9._+!-]*")


class Entry(NamedTuple):
    """One file."""

    bytes: int
    sha256: str  # 64 hex digits


@dataclass(frozen=True)
class SelfTest:
    """What the learner must predict where it is installed. Without samples there is no self-test."""

    source: str = "none"  # memory: slots of the replay memory; pattern: see `selftest.pattern`
    samples: tuple[int, ...] = ()
    predicted: tuple[int, ...] = ()  # class ids


@dataclass(frozen=True)
class Manifest:
    """Paths are those of `check_path`; `limits` are whole numbers by name (see targets.py)."""

    target: str
    machine: str  # as `uname -m` says: aarch64, armv7l, x86_64
    edgecl: str  # version that made the bundle
    files: Mapping[str, Entry]
    limits: Mapping[str, int]
    selftest: SelfTest

    def encode(self) -> bytes:
        """The bytes of manifest.json, which are what is signed."""
        d = {**asdict(self), "format": FORMAT, "files": {k: v._asdict() for k, v in self.files.items()}}
        return (json.dumps(d, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def decode(where: str, data: bytes) -> Manifest:
    """The manifest of which `data` are the bytes.

    Raises StoreError that names `where` and the key: for another format, a wrong value, or bytes that are not canonical.
    """
    where = f"{where}: {MANIFEST}"
    try:
        d = json.loads(data.decode("ascii"))
    except (ValueError, RecursionError):
        raise StoreError(f"{where} is damaged (not whole, or not JSON)") from None
    if not isinstance(d, dict) or type(d.get("format")) is not int:
        raise StoreError(f"{where} holds no 'format'")
    if d["format"] != FORMAT:
        raise StoreError(f"{where}: bundle format {d['format']}, but this edgecl reads format {FORMAT}")
    manifest = _build(where, d)
    if manifest.encode() != data:
        raise StoreError(f"{where} is not in its one canonical form")
    return manifest


def _build(where: str, d: Mapping[str, Any]) -> Manifest:
    try:
        target, machine, edgecl = (_text(where, k, d[k]) for k in ("target", "machine", "edgecl"))
        files = {k: _entry(where, k, e) for k, e in d["files"].items()}
        limits = {k: _count(where, f"limits: {k}", v) for k, v in d["limits"].items()}
        t = d["selftest"]
        test = SelfTest(t["source"], tuple(t["samples"]), tuple(t["predicted"]))
    except (KeyError, TypeError, AttributeError, ValueError) as e:
        raise StoreError(f"{where} lacks a key or has a wrong one ({' '.join(str(e).split())[:80]})") from None
    check_files(where, files)
    _check_selftest(where, test)
    return Manifest(target, machine, edgecl, files, limits, test)


def _text(where: str, key: str, value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9._+-]{1,40}", value):
        raise StoreError(f"{where}: {key} is not a short word")
    return value


def _count(where: str, key: str, value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise StoreError(f"{where}: {key[:80]} is not a whole number from 0 up")
    return value


def _entry(where: str, path: str, e: Mapping[str, Any]) -> Entry:
    check_path(where, path)
    size, digest = _count(where, f"{path}: bytes", e["bytes"]), e["sha256"]
    if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
        raise StoreError(f"{where}: {path}: sha256 is not 64 hex digits")
    return Entry(size, digest)


def _check_selftest(where: str, t: SelfTest) -> None:
    numbers = all(type(n) is int and 0 <= n < 1 << 31 for n in t.samples + t.predicted)
    if t.source not in ("none", "memory", "pattern") or not numbers or len(t.samples) != len(t.predicted):
        raise StoreError(f"{where}: selftest is not a source and as many predicted classes as samples")
    if len(t.samples) > SAMPLES or bool(t.samples) != (t.source != "none"):
        raise StoreError(f"{where}: selftest has {len(t.samples)} samples of source {t.source!r}")


def check_path(where: str, path: str) -> None:
    """Raises StoreError unless a path stays below its folder on every system.

    Segments are letters, digits and `._+!-`, none begins with a dot or a dash. There are at most 100 bytes in all, or 100 behind
    the last slash and 155 before it.
    """
    folder, name = split(path)
    if len(name) > NAME or len(folder) > PREFIX or not all(_SEGMENT.fullmatch(s) for s in path.split("/")):
        raise StoreError(f"{where}: {path[:100]!r} is no path for a bundle (letters, digits and ._+!-; names of at most 100)")


def check_files(where: str, files: Mapping[str, Entry]) -> None:
    """Raises StoreError for too many files, too large ones, and names that some file system can't hold side by side."""
    if len(files) > FILES or sum(e.bytes for e in files.values()) > TOTAL_BYTES:
        raise StoreError(f"{where}: more than {FILES} files, or more than {TOTAL_BYTES >> 30} GiB in all")
    folders = {p[:i].lower() for p in files for i, c in enumerate(p) if c == "/"}
    taken = {MANIFEST, SIGNATURE} | folders
    if folders & {MANIFEST, SIGNATURE}:
        raise StoreError(f"{where}: a folder has the name of {MANIFEST} or {SIGNATURE}; there is a file of that name")
    for path, e in files.items():
        check_path(where, path)
        if e.bytes > FILE_BYTES:
            raise StoreError(f"{where}: {path}: more than {FILE_BYTES >> 30} GiB")
        if path.lower() in taken:
            raise StoreError(f"{where}: {path}: there is another file or folder of that name")
        taken.add(path.lower())
    if len({f for p in files for i, c in enumerate(p) if c == "/" for f in [p[:i]]}) != len(folders):
        raise StoreError(f"{where}: two folders differ only in upper and lower case")
