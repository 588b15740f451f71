"""A local socket: lines of JSON in, lines of JSON out. Samples with a label are learned, others are predicted."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from edgecl import files
from edgecl.runtime.device import Device
from edgecl.runtime.frames import LINE_BYTES, parse_line
from edgecl.types import DataError, EdgeclError, StoreError

CLIENTS = 8  # at a time; further ones wait to be accepted
IDLE = 600.0  # seconds after which a client that says nothing is let go


class Server:
    """Answers on the Unix socket `path` (permission 600) while it is entered."""

    def __init__(self, path: Path, device: Device) -> None:
        self.path, self.device = path, device
        self._socket: socket.socket | None = None
        self._slots = threading.BoundedSemaphore(CLIENTS)
        self._closing = False

    def __enter__(self) -> Server:
        """Raises StoreError where the path is taken, or can't be had."""
        _clear(self.path)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)  # the socket is never anybody else's, not even for a moment
        try:
            with files.naming(self.path):
                listening.bind(str(self.path))
        finally:
            os.umask(before)
        listening.listen(CLIENTS)
        self._socket = listening
        threading.Thread(target=self._accept, args=(listening,), name="edgecl-serve", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closing = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
        self.path.unlink(missing_ok=True)

    def _accept(self, listening: socket.socket) -> None:
        while not self._closing:
            self._slots.acquire()
            try:
                client, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(client,), daemon=True).start()

    def _talk(self, client: socket.socket) -> None:
        client.settimeout(IDLE)
        try:
            with client, client.makefile("rwb") as lines, suppress(OSError):  # a client that goes is no error
                while not self._closing and (line := lines.readline(LINE_BYTES + 1)):
                    lines.write(json.dumps(self.answer(line), allow_nan=False).encode() + b"\n")
                    lines.flush()
                    if len(line) > LINE_BYTES:
                        return  # what follows is the rest of that line
        finally:
            self._slots.release()

    def answer(self, line: bytes) -> dict[str, Any]:
        """The answer to one line; `error` for one that is wrong, and nothing else happens then."""
        try:
            frame, said = parse_line(self.device.card, line, "line")
            if frame is None:
                return self._do(said)
            if frame.label is None:
                return self.device.predict(frame.x).to_dict()
            return {"waiting": self.device.learn(frame.x, frame.label)}
        except EdgeclError as e:
            return {"error": " ".join(str(e).split())}

    def _do(self, said: Mapping[str, Any]) -> dict[str, Any]:
        if said.get("do") == "save":
            return {"snapshot": str(self.device.save())}
        if said.get("do") == "card":
            return {"card": self.device.card.to_dict(), "backend": self.device.backend}
        raise DataError("line: has none of path, image, pixels, and no 'do' that is save or card")


def _clear(path: Path) -> None:
    """Removes a socket that a killed process left. Raises StoreError where another listens, or something else lies there."""
    with files.naming(path):
        if not path.exists():
            return
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise StoreError(f"{path}: exists, and is no socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
                return
    raise StoreError(f"{path}: another process listens there")
