"""Downloads a data set from its official address: resumable, checked against published hashes before it is unpacked.

    for progress in get("cifar10", root): print(progress)

Nothing happens until the iterator is consumed; the last item's path is the data set's folder.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from edgecl import __version__
from edgecl.data import DATASETS, cifar, resolve
from edgecl.data.source import data_root, reason
from edgecl.types import ConfigError, DataError, StoreError

CHUNK = 1 << 18  # bytes read at a time
TIMEOUT = 30.0  # seconds without a byte until a connection counts as lost
PAUSES = (1.0, 2.0, 4.0, 8.0)  # seconds before each further try; they start over when a try has brought something
MAYBE_LATER = (408, 425, 429)  # of the 4xx answers; the others are final, as is a 3xx that leads nowhere


@dataclass(frozen=True)
class Archive:
    """A .tar.gz as its authors publish it. `members` are the files that are unpacked, with the most bytes each may have."""

    url: str
    size: int  # bytes
    hashes: Mapping[str, str]  # by hashlib's name
    folder: str
    members: Mapping[str, int]

    @property
    def filename(self) -> str:
        return self.url.rsplit("/", 1)[-1]


ARCHIVES: dict[str, Archive] = {
    # MD5 from the data set's page; size and SHA-256 as TensorFlow Datasets pins them (url_checksums/cifar10.txt).
    "cifar10": Archive(
        url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        size=170_052_171,
        hashes={
            "md5": "c32a1d4ab5d03f1284b67883e8d87530",
            "sha256": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        },
        folder=cifar.FOLDER,
        members=dict.fromkeys((*cifar.TRAIN_FILES, cifar.TEST_FILE), cifar.RECORDS * cifar.RECORD) | {cifar.META_FILE: 1024},
    ),
}


class Progress(NamedTuple):
    """What is being done, and how far it is."""

    step: str  # "present" (nothing to do), "download", "wait" (before a further try), "check", "unpack" or "done"
    done: int  # bytes
    total: int
    path: Path  # the file that is written, or read; the data set's folder for "present" and "done"


def get(name: str, root: str = "", *, url: str | None = None) -> Iterator[Progress]:
    """Puts a data set under `root` (see `data_root`); `url` is another address of the same archive.

    An archive that already lies under the root is used instead of the network, and kept. Raises DataError for a download
    that fails or has a wrong hash, StoreError for a file that can't be written, ConfigError for a name or url that is none.
    """
    key = resolve(name)
    present = DATASETS[key].find(root)
    if present is not None:
        yield Progress("present", 0, 0, present)
    elif key not in ARCHIVES:
        raise DataError(f"{key} is no download; to have it: {DATASETS[key].hint}")
    else:
        yield from fetch(ARCHIVES[key], data_root(root), url)


def fetch(archive: Archive, root: Path, url: str | None = None) -> Iterator[Progress]:
    """Download, check, unpack. A part file stays for the next time, except one whose hash is wrong."""
    url = url or archive.url
    if not url.startswith(("https://", "http://")):
        raise ConfigError(f"{url!r} is no http or https address")
    given, part = root / archive.filename, root / f"{archive.filename}.part"
    with _writing(root):
        root.mkdir(parents=True, exist_ok=True)
        by_hand = given.is_file()
    if not by_hand:
        _check_room(archive, part)
        yield from _download(archive, part, url)
    yield from _check(archive, given if by_hand else part)
    yield from _unpack(archive, given if by_hand else part, root)
    part.unlink(missing_ok=True)
    yield Progress("done", archive.size, archive.size, root / archive.folder)


def _download(archive: Archive, part: Path, url: str) -> Iterator[Progress]:
    """Tries until the part file is whole; gives up after len(PAUSES) further tries that brought nothing new."""
    best, failed = _size(part), 0
    while _size(part) != archive.size:
        problem = yield from _pull(archive, part, url)
        if _size(part) == archive.size:
            return
        failed = 1 if _size(part) > best else failed + 1
        best = max(best, _size(part))
        if failed > len(PAUSES):
            raise DataError(f"no download from {url}: {problem}. {_by_hand(archive, part)}")
        yield Progress("wait", _size(part), archive.size, part)
        time.sleep(PAUSES[failed - 1])


def _pull(archive: Archive, part: Path, url: str) -> Generator[Progress, None, str]:
    """One request, from where the part file ends. Returns what went wrong; raises DataError for what no further try mends."""
    if _size(part) > archive.size:
        part.unlink()
    have = _size(part)
    headers = {"User-Agent": f"edgecl/{__version__}"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as reply:
            yield from _save(archive, part, reply, have if _resumes(archive, part, reply, have) else 0)
    except urllib.error.HTTPError as e:
        e.close()
        if e.code == 416:  # the server has no such range: begin anew
            part.unlink(missing_ok=True)
        elif e.code < 500 and e.code not in MAYBE_LATER:
            raise DataError(f"no download from {url}: HTTP {e.code} {e.reason}. {_by_hand(archive, part)}") from None
        return f"HTTP {e.code} {e.reason}"
    except urllib.error.URLError as e:
        return reason(e.reason) if isinstance(e.reason, Exception) else str(e.reason)
    except (OSError, http.client.HTTPException) as e:
        return reason(e)
    return "the connection was cut"


def _resumes(archive: Archive, part: Path, reply: http.client.HTTPResponse, have: int) -> bool:
    """Whether the reply goes on at `have`, or (False) begins anew. Raises DataError if it is of another size: another file."""
    ranged = reply.status == 206
    length = reply.headers.get("Content-Range", "").rpartition("/")[2] if ranged else reply.headers.get("Content-Length", "")
    if length.isdigit() and int(length) != archive.size:
        problem = f"{reply.url} answers with {length} bytes, not the archive's {archive.size}"
        raise DataError(f"{problem}. {_by_hand(archive, part)}")
    if ranged and not reply.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        raise http.client.HTTPException("the server answers with another range than asked for")
    return ranged


def _save(archive: Archive, part: Path, reply: IO[bytes], start: int) -> Iterator[Progress]:
    """Writes the reply at `start`, up to the archive's size."""
    with _writing(part):
        file = part.open("ab" if start else "wb")
    with file:
        done = start
        while done < archive.size and (chunk := reply.read(min(CHUNK, archive.size - done))):
            with _writing(part):
                file.write(chunk)
                file.flush()  # here, for what fails at the file's end would look like a lost connection
            done += len(chunk)
            yield Progress("download", done, archive.size, part)


def _check(archive: Archive, path: Path) -> Iterator[Progress]:
    """Raises DataError if a hash differs; then the part file is removed, for no further try can mend it."""
    digests = {name: hashlib.new(name, usedforsecurity=False) for name in archive.hashes}
    with path.open("rb") as file:
        while chunk := file.read(CHUNK * 4):
            for digest in digests.values():
                digest.update(chunk)
            yield Progress("check", file.tell(), archive.size, path)
    for name, digest in digests.items():
        if digest.hexdigest() != archive.hashes[name]:
            again = "; it was removed, run this again to download it anew" if path.suffix == ".part" else "; remove it"
            if path.suffix == ".part":
                path.unlink()
            raise DataError(f"{path}: its {name} is {digest.hexdigest()}, not the published {archive.hashes[name]}{again}")


def _unpack(archive: Archive, path: Path, root: Path) -> Iterator[Progress]:
    """Into a sibling of the folder, which then takes the folder's name. Raises DataError for a member that is no such file."""
    sibling, missing, done = root / f"{archive.folder}.unpacking", set(archive.members), 0
    with _writing(sibling):
        shutil.rmtree(sibling, ignore_errors=True)
        sibling.mkdir()
    try:
        with tarfile.open(path, "r:gz") as tar:
            for member in tar:
                name = _expected(archive, path, member)
                if name in missing:
                    missing.remove(name)
                    _extract(tar, member, sibling / name)
                    done += member.size
                    yield Progress("unpack", done, sum(archive.members.values()), sibling / name)
        if missing:
            raise DataError(f"{path}: has no {archive.folder}/{min(missing)}")
        _install(sibling, root / archive.folder)
    except (tarfile.TarError, EOFError, OSError, zlib.error) as e:
        raise DataError(f"{path}: {reason(e)}") from None
    finally:
        shutil.rmtree(sibling, ignore_errors=True)


def _expected(archive: Archive, path: Path, member: tarfile.TarInfo) -> str:
    """The file's name if it is one to unpack, else "". No other path is ever written, whatever the archive says."""
    folder, _, name = member.name.rpartition("/")
    if folder != archive.folder or name not in archive.members:
        return ""
    if not member.isreg() or member.size > archive.members[name]:
        raise DataError(f"{path}: {member.name} is no file of at most {archive.members[name]} bytes")
    return name


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    source = tar.extractfile(member)
    assert source is not None  # a regular file
    with _writing(target):
        file = target.open("xb")
    with source, file:
        while chunk := source.read(CHUNK * 4):
            with _writing(target):
                file.write(chunk)
        with _writing(target):
            file.flush()
            os.fsync(file.fileno())


def _install(sibling: Path, folder: Path) -> None:
    """One rename; into a folder that is there but incomplete, one a file, and what else lies in it stays."""
    with _writing(folder):
        if folder.exists():
            for file in sorted(sibling.iterdir()):
                os.replace(file, folder / file.name)
        else:
            os.replace(sibling, folder)
        for changed in (folder, folder.parent):
            _sync_folder(changed)


def _sync_folder(folder: Path) -> None:
    """A rename is on the disk only once its folder is; Windows has no such call."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _check_room(archive: Archive, part: Path) -> None:
    need = archive.size - _size(part) + sum(archive.members.values())
    free = shutil.disk_usage(part.parent).free
    if free < need:
        raise StoreError(f"{part.parent}: {free >> 20} MiB free, the data set needs {need >> 20} MiB")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Tells a disk that can't be written from a connection that can't be read: both are OSError."""
    try:
        yield
    except OSError as e:
        raise StoreError(f"{path}: {reason(e)}") from None


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _by_hand(archive: Archive, part: Path) -> str:
    return f"By hand: put {archive.filename} into {part.parent} and run this again, or unpack it there"
