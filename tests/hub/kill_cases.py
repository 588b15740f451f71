"""A hub that is killed again and again under load. It is forked, so that a start costs milliseconds, and loses all at a kill."""

from __future__ import annotations

import hashlib
import http.client
import json
import multiprocessing
import os
import random
import signal
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hub_cases import CHUNK, Device, bare, enrolled

from edgecl.hub import serve, settings, store
from edgecl.hub.place import Place
from edgecl.hub.settings import Limits
from edgecl.update.envelope import seal

FORK = multiprocessing.get_context("fork")
CHUNK_BYTES = 32 << 10
LIMITS = Limits(device_bytes=1 << 50, device_bytes_a_day=1 << 50, requests_a_second=10**6, request_burst=10**6, free_bytes=1)


@dataclass
class Sender:
    """A device that sends updates, repeats some, and keeps what was acknowledged."""

    device: Device
    port: int
    seed: int
    stop: threading.Event
    acknowledged: dict[int, str] = field(default_factory=dict)  # sequence → sha256
    wrong: list[str] = field(default_factory=list)
    resumed: int = 0
    repeated: int = 0

    def run(self) -> None:
        draw, sequence = random.Random(self.seed), 0
        while not self.stop.is_set():
            sequence += 1
            self._until_acknowledged(sequence, payload_of(self.seed, sequence), draw)
            if draw.random() < 0.2 and self.acknowledged:
                old = draw.choice(list(self.acknowledged))
                self.repeated += 1
                self._until_acknowledged(old, payload_of(self.seed, old), draw)

    def _until_acknowledged(self, sequence: int, payload: bytes, draw: random.Random) -> None:
        while not self.stop.is_set():
            link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            try:
                self._send(link, sequence, payload)
                self.acknowledged[sequence] = hashlib.sha256(payload).hexdigest()
                return
            except (OSError, http.client.HTTPException):
                time.sleep(draw.uniform(0.001, 0.02))
            finally:
                link.close()

    def _send(self, link: http.client.HTTPConnection, sequence: int, payload: bytes) -> None:
        nonce = bytes.fromhex(self._ask(link, "GET", f"/v1/devices/{self.device.id}/nonce")["nonce"])
        said = self._ask(link, "POST", "/v1/uploads", seal(self.device.key, self.device.id, sequence, nonce, payload))
        if "upload" not in said:
            assert said["state"] == "stored", said
            return
        at = said["offset"]
        self.resumed += at > 0
        while at < len(payload):
            headers = {**CHUNK, "Upload-Offset": str(at)}
            said = self._ask(link, "PATCH", f"/v1/uploads/{said['upload']}", payload[at : at + CHUNK_BYTES], headers) or said
            at += CHUNK_BYTES
        if said.get("state") != "stored":
            self.wrong.append(f"{sequence}: {said}")

    def _ask(
        self, link: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None, headers: Any = None
    ) -> Any:
        link.request(method, path, body, headers or {})
        answer = link.getresponse()
        data = answer.read()
        if answer.status in (404, 425, 429):  # an upload or a nonce of before the kill
            raise http.client.HTTPException(data)
        if answer.status >= 300:
            self.wrong.append(f"{method} {path}: {answer.status} {data!r}")
            raise http.client.HTTPException(data)
        return json.loads(data) if data else {}


def payload_of(seed: int, sequence: int) -> bytes:
    draw = random.Random(seed * 1_000_003 + sequence)
    return draw.randbytes(draw.choice((1, 5_000, CHUNK_BYTES, 100_000, 200_000)))


def serve_forked(root: Path, sock: socket.socket) -> int:
    """The process id of a hub that answers on the socket."""
    pid = os.fork()
    if pid:
        return pid
    try:
        serve.server(serve.open_service(root)).run(sockets=[sock])
    finally:
        os._exit(1)


def answered(port: int) -> None:
    """Returns once the hub answers: kills are to meet it at work, not at its start."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    link.request("GET", f"/v1/devices/{'0' * 16}/nonce")
    assert link.getresponse().status == 200
    link.close()


def _clients(devices: list[Device], port: int, until: Any, answers: Any) -> None:
    stop = threading.Event()
    senders = [Sender(d, port, i, stop) for i, d in enumerate(devices)]
    threads = [threading.Thread(target=s.run, daemon=True) for s in senders]
    for t in threads:
        t.start()
    until.wait()
    stop.set()
    for t in threads:
        t.join(30)
    answers.put([(s.device.id, s.acknowledged, s.wrong, s.resumed, s.repeated) for s in senders])


def killed_under_load(root: Path, kills: int, clients: int, seed: int = 0) -> dict[str, Any]:
    """Kills the hub so often; what was acknowledged, and what of it is not there afterwards."""
    here, draw = bare(root, LIMITS), random.Random(seed)
    engine = store.connect(settings.database_url(here, settings.read(here)))
    store.prepare(engine)
    devices = [enrolled(here, engine, f"d{i}") for i in range(clients)]
    engine.dispose()
    sock, until, answers = serve.listen("127.0.0.1", 0), FORK.Event(), FORK.Queue()
    process = FORK.Process(target=_clients, args=(devices, sock.getsockname()[1], until, answers))
    process.start()
    began = time.monotonic()
    for _ in range(kills):
        pid = serve_forked(root, sock)
        answered(sock.getsockname()[1])
        time.sleep(draw.uniform(0.0, 0.3))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    pid = serve_forked(root, sock)  # so that every client ends
    answered(sock.getsockname()[1])
    until.set()
    found = answers.get(timeout=120)
    process.join()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    sock.close()
    return {"kills": kills, "clients": clients, "seconds": round(time.monotonic() - began, 1), **_compared(here, found)}


def _compared(here: Place, found: list[Any]) -> dict[str, Any]:
    engine = store.connect(settings.database_url(here, settings.read(here)))
    lost, wrong = [], [w for one in found for w in one[2]]
    for device, acknowledged, *_ in found:
        rows = {u.sequence: u.sha256 for u in store.updates(engine, device, limit=10**6)}
        for sequence, digest in acknowledged.items():
            path = here.update(device, sequence)
            whole = path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == digest
            if rows.get(sequence) != digest or not whole or not here.envelope(device, sequence).is_file():
                lost.append(f"{device} {sequence}")
    engine.dispose()
    return {
        "acknowledged": sum(len(one[1]) for one in found),
        "resumed": sum(one[3] for one in found),
        "repeated": sum(one[4] for one in found),
        "lost": lost,
        "wrong": wrong,
    }
