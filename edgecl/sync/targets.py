"""Target files: what the hub says of a model, and its bytes, fetched in as many pieces as the link breaks them into."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edgecl import files
from edgecl.sync.errors import NetworkError, TrustError
from edgecl.sync.lock import locked

if TYPE_CHECKING:
    from tuf.api.metadata import TargetFile

    from edgecl.sync.fetcher import Http, Reply

ROLE = "models"
PATH = re.compile(r"models/(\d{4}|[1-9]\d{4,8})\.edgecl\.gz")
ANY = f"{ROLE}/0000.edgecl.gz"  # a path that the role may name
CLASSES, NAME, KEY_BYTES = 4096, 200, 4096  # at most: classes, characters of a name, of a PEM
LARGEST = 1 << 31  # bytes of a model, deflated or not
SYNC = 1 << 20  # bytes between two syncs of a part: what a power cut can cost
_HASH = re.compile(r"[0-9a-f]{64}")


class Target(NamedTuple):
    """A model that the hub vouches for."""

    number: int
    path: str  # models/NNNN.edgecl.gz
    length: int  # bytes of the file
    sha256: str
    snapshot: str  # of the model, 64 hex digits
    net: str
    classes: tuple[str, ...]
    bytes: int  # of the bundle, unpacked
    bundle_key: str  # public key of its signature, PEM


def number(path: str) -> int:
    """Of a path that matches PATH."""
    return int(path.split("/")[1].split(".")[0])


def clear_parts(folder: Path, path: Path) -> None:
    """Removes what is left of downloads of other models than that of `path`."""
    with files.naming(folder):
        os.makedirs(folder, exist_ok=True)
        for part in folder.glob("*.edgecl.gz.part"):
            if part.name != f"{path.name}.part":
                part.unlink(missing_ok=True)


def parse(info: TargetFile) -> Target:
    """Raises TrustError where what is signed makes no sense."""
    path, custom = PATH.fullmatch(info.path), info.custom
    sha256 = info.hashes.get("sha256", "")
    match custom:
        case {
            "number": int(number),
            "snapshot": str(snapshot),
            "net": str(net),
            "classes": [*classes],
            "bytes": int(size),
            "bundle_key": str(key),
        } if path and number == int(path[1]) and _sane(snapshot, sha256, net, classes, key):
            if 0 < info.length <= LARGEST and 0 < size <= LARGEST:
                return Target(number, info.path, info.length, sha256, snapshot, net, tuple(classes), size, key)
    raise TrustError(f"{info.path[:NAME]}: what the hub signed of it makes no sense; it is not taken")


def _sane(snapshot: str, sha256: str, net: str, classes: list[Any], key: str) -> bool:
    names = [net, *classes]
    texts = len(classes) <= CLASSES and all(isinstance(n, str) and 0 < len(n) <= NAME for n in names)
    return texts and len(key) <= KEY_BYTES and bool(_HASH.fullmatch(snapshot) and _HASH.fullmatch(sha256))


def download(http: Http, url: str, info: TargetFile, path: Path) -> Path:
    """The file of `info` at `path`, whole and synced. What a broken link, a kill or a power cut left in PATH.part is used.

    Raises NetworkError where the link breaks (the part stays), TrustError where the bytes are not those that were signed.
    """
    part = path.with_name(f"{path.name}.part")
    with locked(path.with_name(f".{path.name}.lock")):
        if _holds(info, path):
            return path
        resumed = part.exists() and part.stat().st_size > 0
        _fill(http, url, info, part)
        if not _holds(info, part) and resumed:  # what was there may have been torn: once more, from the first byte
            _remove(part)
            _fill(http, url, info, part)
        if not _holds(info, part):
            _remove(part)
            raise TrustError(f"{url}: is not the file that was signed; it is thrown away")
        with files.naming(path):
            os.replace(part, path)
            files.sync(path.parent)
    return path


def _holds(info: TargetFile, path: Path) -> bool:
    from tuf.api.exceptions import LengthOrHashMismatchError

    if not path.exists():
        return False
    with files.naming(path), path.open("rb") as file:
        try:
            info.verify_length_and_hashes(file)
        except LengthOrHashMismatchError:
            return False
    return True


def _fill(http: Http, url: str, info: TargetFile, part: Path) -> None:
    with files.naming(part):
        fd = os.open(part, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            start = min(os.fstat(fd).st_size, info.length)
            os.ftruncate(fd, start)
            files.sync(part.parent)
            if start < info.length:
                _receive(http, url, info.length, start, fd)
            os.fsync(fd)
        except TrustError:
            part.unlink(missing_ok=True)  # nothing of it is of use
            raise
        finally:
            os.close(fd)


def _receive(http: Http, url: str, length: int, start: int, fd: int) -> None:
    headers = {"Range": f"bytes={start}-"} if start else {}
    with http.open(url, length - start, headers) as reply:
        at = _begin(url, reply, length, start)
        os.ftruncate(fd, at)
        os.lseek(fd, at, os.SEEK_SET)
        synced = at
        for chunk in reply.chunks:
            at += len(chunk)
            if at > length:
                raise TrustError(f"{url}: more than the {length} bytes that were signed")
            files.write_all(fd, chunk)
            if at - synced >= SYNC:
                os.fsync(fd)
                synced = at
    if at < length:
        raise NetworkError(f"{url}: ended after {at} of {length} bytes")


def _begin(url: str, reply: Reply, length: int, start: int) -> int:
    """Where the answer's first byte belongs."""
    if reply.status == 200:
        return 0
    if start and reply.status == 206:
        if reply.headers.get("Content-Range", "").startswith(f"bytes {start}-{length - 1}/"):
            return start
        raise NetworkError(f"{url}: the hub sent another range than was asked for")
    raise NetworkError(f"{url}: the hub answered with status {reply.status}")


def _remove(part: Path) -> None:
    with files.naming(part):
        part.unlink(missing_ok=True)
        files.sync(part.parent)
