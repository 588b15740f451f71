"""A hub on loopback that serves a TUF repository, or what an attacker makes of it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from edgecl.hub import repository
from edgecl.sync.fetcher import Http, Limits
from edgecl.sync.trust import Trust, first_root

QUICK = Limits(connect=2, silent=0.5, whole=1.5, slowest=10_000)
CARD = {"snapshot": "ab" * 32, "net": "tiny_cnn", "classes": ["cat", "dog"], "bytes": 4000}


class Seen(NamedTuple):
    path: str
    headers: dict[str, str]
    status: int
    size: int  # bytes of the request and of the answer, headers among them


class Mirror:
    """`twist(path)` may answer in the repository's place: (status, body), bytes for 200, or a function of the handler."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.now = folder, None
        self.seen: list[Seen] = []
        self.twist: Callable[[str], Any] = lambda path: None
        self.url = ""

    def paths(self) -> list[str]:
        """Of what was asked since the last call."""
        found = [s.path for s in self.seen]
        self.seen.clear()
        return found

    def answer(self, path: str, query: dict[str, list[str]]) -> Any:
        if (twisted := self.twist(path)) is not None:
            return twisted
        if path == "/v1/time":
            return repository.signed_time(self.folder, query["nonce"][0], self.now)
        file = self.folder / path.lstrip("/")
        return file.read_bytes() if path.startswith("/tuf/") and file.is_file() else (404, b"not found")


@contextmanager
def serving(mirror: Mirror) -> Iterator[Mirror]:
    handler = type("Handler", (_Handler,), {"mirror": mirror})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    mirror.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield mirror
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    mirror: Mirror
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        found = self.mirror.answer(parts.path, parse_qs(parts.query))
        if callable(found):
            self.mirror.seen.append(Seen(parts.path, dict(self.headers), 0, 0))
            self.close_connection = True
            found(self)
            return
        status, body = (200, found) if isinstance(found, bytes) else found
        self.reply(parts.path, status, body)

    def reply(self, path: str, status: int, body: bytes) -> None:
        etag, headers = f'"{hashlib.sha256(body).hexdigest()[:16]}"', {}
        if status == 200 and self.headers.get("If-None-Match") == etag:
            status, body = 304, b""
        elif status == 200 and (asked := self.headers.get("Range")):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            status, body = 206, body[start:]
        headers |= {"ETag": etag} if status in (200, 304) else {}
        headers |= {} if status == 304 else {"Content-Length": str(len(body))}
        self.send(path, status, headers, body)

    def send(self, path: str, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        head = sum(len(line) for line in self._headers_buffer) + 2
        asked = len(self.requestline) + 2 + sum(len(k) + len(v) + 4 for k, v in self.headers.items()) + 2
        self.mirror.seen.append(Seen(path, dict(self.headers), status, head + len(body) + asked))
        self.end_headers()
        self.wfile.write(body)


def publish(folder: Path, number: int, content: bytes | None = None, **card: Any) -> bytes:
    """A model's bytes, published as the newest."""
    data = content if content is not None else b"model %d " % number * 100
    file = folder / "made"
    file.write_bytes(data)
    repository.publish(folder, file, {**CARD, "number": number, **card}, now=card.pop("now", None))
    return data


def device(folder: Path, mirror: Mirror, limits: Limits = QUICK) -> Trust:
    """One that was given the hash of the first root."""
    http = Http(limits)
    root = first_root(mirror.url, repository.root_hash(mirror.folder), http)
    return Trust(folder, mirror.url, root, http)
