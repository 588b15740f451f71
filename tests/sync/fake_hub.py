"""A hub of a few lines, to be cut off at any byte; and a line between it and a device that fails as it is told to."""

from __future__ import annotations

import hashlib
import json
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DEVICE = "0123456789abcdef"
Answer = tuple[int, dict[str, Any], dict[str, str]]


def seal(number: int, payload: bytes) -> Callable[[bytes], bytes]:
    """In place of a signed envelope: JSON."""
    said = {"sequence": number, "bytes": len(payload), "sha256": hashlib.sha256(payload).hexdigest()}
    return lambda nonce: json.dumps({"nonce": nonce.hex(), **said}).encode()


@dataclass
class Hub:
    """What it keeps, and what it was asked. `odd` may answer instead of it: (method, path) → an answer, or None."""

    stored: dict[int, bytes] = field(default_factory=dict)
    uploads: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[tuple[str, str, int]] = field(default_factory=list)  # method, path, bytes of the body
    nonces: set[str] = field(default_factory=set)
    odd: Callable[[str, str], Answer | None] = lambda method, path: None
    connections: int = 0

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> Answer:
        self.asked.append((method, path, len(body)))
        strange = self.odd(method, path)
        if strange is not None:
            return strange
        if path.endswith("/nonce"):
            nonce = secrets.token_hex(16)
            self.nonces.add(nonce)
            return 200, {"nonce": nonce}, {}
        if path == "/v1/uploads":
            return self._begin(json.loads(body))
        upload = self.uploads.get(path.rsplit("/", 1)[1])
        if upload is None:
            return 404, {"error": "no such upload"}, {}
        if method == "HEAD":
            return 200, {}, {"Upload-Offset": str(len(upload["data"]))}
        return self._append(path.rsplit("/", 1)[1], upload, int(headers["Upload-Offset"]), body)

    def _begin(self, said: dict[str, Any]) -> Answer:
        if said["nonce"] not in self.nonces:
            return 425, {"error": "nonce was used"}, {"Retry-After": "1"}
        self.nonces.remove(said["nonce"])
        known = self.stored.get(said["sequence"])
        if known is not None:
            same = hashlib.sha256(known).hexdigest() == said["sha256"]
            return (200, {"state": "stored"}, {}) if same else (409, {"error": "another payload"}, {})
        for own, upload in self.uploads.items():
            if upload["said"]["sha256"] == said["sha256"]:
                return 200, {"upload": own, "offset": len(upload["data"])}, {}
        own = secrets.token_hex(8)
        self.uploads[own] = {"said": said, "data": b""}
        return 201, {"upload": own, "offset": 0}, {}

    def _append(self, own: str, upload: dict[str, Any], offset: int, body: bytes) -> Answer:
        if offset != len(upload["data"]):
            return 409, {"error": "offset"}, {"Upload-Offset": str(len(upload["data"]))}
        upload["data"] += body
        said = upload["said"]
        if len(upload["data"]) < said["bytes"]:
            return 204, {}, {"Upload-Offset": str(len(upload["data"]))}
        del self.uploads[own]
        if hashlib.sha256(upload["data"]).hexdigest() != said["sha256"]:
            return 422, {"error": "wrong hash"}, {}
        self.stored[said["sequence"]] = upload["data"]
        return 200, {"state": "stored"}, {}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def setup(self) -> None:
        self.hub.connections += 1
        super().setup()

    def _do(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size)
        if len(body) < size:  # cut off: nothing was asked
            self.close_connection = True
            return
        status, said, headers = self.hub.answer(self.command, self.path, self.headers, body)
        data = b"" if status == 204 or self.command == "HEAD" else json.dumps(said).encode()
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        if status != 204:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PATCH = do_HEAD = _do

    def log_message(self, *args: Any) -> None:
        """Tests print nothing."""


@contextmanager
def serving(hub: Hub) -> Iterator[int]:
    """The port on which it answers."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub, "timeout": 20}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


class Line:
    """A TCP line to `port` that is cut: connection n after `cuts(n)` bytes of both directions together, or never (None)."""

    def __init__(self, port: int, cuts: Callable[[int], int | None]) -> None:
        self.to, self.cuts, self.count, self.dropped, self.closing = port, cuts, 0, 0, False
        self.seen = bytearray()  # of what the device sent
        self.change: Callable[[bytes], bytes] = lambda data: data  # to the hub
        self.back: Callable[[bytes], bytes] = lambda data: data
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while not self.closing:
                near, _ = self.server.accept()
                self.count += 1
                threading.Thread(target=self._join, args=(near, self.cuts(self.count)), daemon=True).start()

    def _join(self, near: socket.socket, left: int | None) -> None:
        try:
            far = socket.create_connection(("127.0.0.1", self.to))
        except OSError:
            near.close()
            return
        room, lock = [left], threading.Lock()
        pumps = [
            threading.Thread(target=self._pump, args=(near, far, room, lock, True), daemon=True),
            threading.Thread(target=self._pump, args=(far, near, room, lock, False), daemon=True),
        ]
        for pump in pumps:
            pump.start()
        for pump in pumps:
            pump.join()
        near.close()
        far.close()

    def _pump(self, source: socket.socket, sink: socket.socket, room: list[int | None], lock: threading.Lock, up: bool) -> None:
        with suppress(OSError):
            while data := source.recv(4096):
                with lock:
                    if room[0] is not None:
                        data = data[: room[0]]
                        room[0] -= len(data)
                    over = room[0] == 0
                if up:
                    self.seen += data
                sink.sendall((self.change if up else self.back)(data))
                if over:
                    self.dropped += 1
                    break
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.closing = True
        with suppress(OSError):
            self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()


@contextmanager
def line(port: int, cuts: Callable[[int], int | None]) -> Iterator[Line]:
    made = Line(port, cuts)
    try:
        yield made
    finally:
        made.close()
