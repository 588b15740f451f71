"""/tuf/metadata and /tuf/targets: files, with ETag, If-None-Match and Range (RFC 9110). Plain ASGI, GET and HEAD."""

from __future__ import annotations

import asyncio
import os
import re
import stat
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, NamedTuple

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
NAME = r"[\w-][\w.-]{0,199}"
PATH = re.compile(rf"/tuf/(metadata/{NAME}\.json|targets/(?:{NAME}/)?{NAME})", re.ASCII)
BLOCK = 256 << 10
KEPT_BYTES = 64 << 10
"""Files up to this are kept in memory, until they change."""
RANGE = re.compile(rb"bytes=(\d{0,15})-(\d{0,15})")


class File(NamedTuple):
    """An open one, or a small one's bytes."""

    size: int
    etag: bytes
    data: bytes | None
    fd: int = -1


class Static:
    """Answers for the folder `root`, which has metadata/ and targets/."""

    def __init__(self, root: Path) -> None:
        self._root, self._kept = root, dict[str, tuple[tuple[int, int, int], File]]()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Send) -> None:
        match = PATH.fullmatch(scope["path"])
        if scope["method"] not in ("GET", "HEAD"):
            await _say(send, 405, [(b"allow", b"GET, HEAD")])
            return
        file = self._open(match[1]) if match else None
        if file is None:
            await _say(send, 404, [])
            return
        try:
            await _serve(scope, send, file)
        finally:
            if file.fd >= 0:
                os.close(file.fd)

    def _open(self, name: str) -> File | None:
        """Small files come from memory while their time, size and number stay: a poll costs one `stat`."""
        path = self._root / name
        try:
            info = os.lstat(path)
            if not stat.S_ISREG(info.st_mode):
                return None
            key = (info.st_mtime_ns, info.st_size, info.st_ino)
            kept = self._kept.get(name)
            if kept is not None and kept[0] == key:
                return kept[1]
            return self._read(name, path)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _read(self, name: str, path: Path) -> File | None:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        info = os.fstat(fd)
        etag = b'"%x-%x-%x"' % (info.st_mtime_ns, info.st_size, info.st_ino)
        if info.st_size > KEPT_BYTES:
            return File(info.st_size, etag, None, fd)
        try:
            file = File(info.st_size, etag, os.read(fd, KEPT_BYTES))
        finally:
            os.close(fd)
        if len(self._kept) > 1000:  # names of old versions
            self._kept.clear()
        self._kept[name] = ((info.st_mtime_ns, info.st_size, info.st_ino), file)
        return file


async def _serve(scope: MutableMapping[str, Any], send: Send, file: File) -> None:
    asked = {k: v for k, v in scope["headers"] if k in (b"if-none-match", b"range", b"if-range")}
    head = [(b"etag", file.etag), (b"cache-control", b"no-cache"), (b"accept-ranges", b"bytes")]
    if file.etag in asked.get(b"if-none-match", b""):
        await _say(send, 304, head[:2])
        return
    part = _range(asked, file)
    if part is None:
        await _say(send, 416, [(b"content-range", b"bytes */%d" % file.size)])
        return
    start, end, status = part
    if status == 206:
        head.append((b"content-range", b"bytes %d-%d/%d" % (start, end - 1, file.size)))
    kind = b"application/json" if scope["path"].endswith(".json") else b"application/octet-stream"
    head += [(b"content-length", b"%d" % (end - start)), (b"content-type", kind)]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await _send_bytes(send, file, start, end if scope["method"] == "GET" else start)


def _range(asked: dict[bytes, bytes], file: File) -> tuple[int, int, int] | None:
    """(start, end, status); None where nothing of the file is in the range. One range; what is none is not heeded."""
    match = RANGE.fullmatch(asked.get(b"range", b""))
    whole = (0, file.size, 200)
    if not match or match[0] == b"bytes=-" or asked.get(b"if-range", file.etag) != file.etag:
        return whole
    if not match[1]:
        return (max(0, file.size - int(match[2])), file.size, 206) if int(match[2]) and file.size else None
    start, end = int(match[1]), min(int(match[2]) + 1 if match[2] else file.size, file.size)
    if match[2] and int(match[2]) < start:
        return whole
    return (start, end, 206) if start < file.size else None


async def _send_bytes(send: Send, file: File, start: int, end: int) -> None:
    if file.data is not None or start >= end:
        await send({"type": "http.response.body", "body": (file.data or b"")[start:end]})
        return
    while start < end:
        block = await asyncio.to_thread(os.pread, file.fd, min(BLOCK, end - start), start)
        if not block:
            raise OSError(f"a file of /tuf shrank while it was sent, at {start}")
        start += len(block)
        await send({"type": "http.response.body", "body": block, "more_body": start < end})


async def _say(send: Send, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    body = (
        b"" if status == 304 else b'{"error": "%s"}' % {404: b"no such file", 405: b"GET or HEAD", 416: b"no such range"}[status]
    )
    if body:
        headers = [*headers, (b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
