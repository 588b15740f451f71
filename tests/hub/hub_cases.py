"""A hub in this process, over real HTTP on loopback, and devices that talk to it."""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sqlalchemy import Engine

from edgecl.hub import serve, settings, store
from edgecl.hub.place import Place
from edgecl.hub.service import ENROLL, Service
from edgecl.hub.settings import Limits, Settings
from edgecl.hub.store.updates import New, insert
from edgecl.model import Model
from edgecl.update import Base
from edgecl.update.difference import difference
from edgecl.update.envelope import seal, seal_record
from edgecl.update.payload import encode

CHUNK = {"Content-Type": "application/offset+octet-stream"}


def bare(root: Path, limits: Limits | None = None, url: str = "") -> Place:
    """A hub's folder without a model: enough for all but merging."""
    here = Place(root)
    for folder in (here.root, here.uploads, here.updates, here.models, here.tuf / "metadata", here.tuf / "targets"):
        folder.mkdir(parents=True, exist_ok=True)
    settings.write(here, Settings(url="http://127.0.0.1", database=url, limits=limits or Limits()))
    return here


@contextmanager
def served(root: Path) -> Iterator[tuple[str, Service]]:
    """Its URL, and the service behind it."""
    service = serve.open_service(root)
    with serve.listen("127.0.0.1", 0) as sock:
        server = serve.server(service)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        wait_for(url)
        try:
            yield url, service
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()
            service.engine.dispose()


def wait_for(url: str) -> None:
    for _ in range(400):
        try:
            if httpx.get(f"{url}/openapi.json").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError("the hub does not answer")


class Device:
    """A key and a connection."""

    def __init__(self, folder: Path, url: str, name: str = "pi", seed: bytes | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name, self.key = name, folder / f"{name}.pem"
        secret = Ed25519PrivateKey.from_private_bytes(seed) if seed else Ed25519PrivateKey.generate()
        self.key.write_bytes(secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        self.key.chmod(0o600)
        self.secret, self.public = secret, secret.public_key().public_bytes_raw()
        self.id = hashlib.sha256(self.public).hexdigest()[:16]
        self.http = httpx.Client(base_url=url, timeout=60, trust_env=False)

    def at(self, url: str) -> Device:
        """The same device at another address: a hub that began anew."""
        self.http.close()
        self.http = httpx.Client(base_url=url, timeout=60, trust_env=False)
        return self

    def enroll(self, given: str, /, **changes: Any) -> httpx.Response:
        signature = self.secret.sign(ENROLL + given.encode())
        said = {
            "token": given,
            "public_key": base64.b64encode(self.public).decode(),
            "name": self.name,
            "machine": "aarch64",
            "edgecl": "0.1.0",
            "signature": base64.b64encode(signature).decode(),
        }
        return self.http.post("/v1/enroll", json={**said, **changes})

    def joined(self, service: Service) -> Device:
        """Enrolled and approved."""
        token = store.add_token(service.engine, store.Token(approve=True), "test")
        assert self.enroll(token).json()["state"] == "approved"
        return self

    def nonce(self) -> bytes:
        return bytes.fromhex(self.http.get(f"/v1/devices/{self.id}/nonce").json()["nonce"])

    def begin(self, sequence: int, payload: bytes, nonce: bytes | None = None) -> httpx.Response:
        return self.http.post("/v1/uploads", content=seal(self.key, self.id, sequence, nonce or self.nonce(), payload))

    def patch(self, upload: str, offset: int, data: bytes) -> httpx.Response:
        return self.http.patch(f"/v1/uploads/{upload}", content=data, headers={**CHUNK, "Upload-Offset": str(offset)})

    def offset(self, upload: str) -> int:
        return int(self.http.head(f"/v1/uploads/{upload}").headers["Upload-Offset"])

    def send(self, sequence: int, payload: bytes, chunk: int = 1 << 18) -> httpx.Response:
        """The whole way; the last answer."""
        began = self.begin(sequence, payload)
        if "upload" not in began.json():
            return began
        upload, at, last = began.json()["upload"], began.json()["offset"], began
        while at < len(payload):
            last = self.patch(upload, at, payload[at : at + chunk])
            if last.status_code != 204:
                return last
            at = int(last.headers["Upload-Offset"])
        return last

    def state(self, sequence: int) -> dict[str, Any]:
        return dict(self.http.get(f"/v1/devices/{self.id}/updates/{sequence}").json())

    def report(self, nonce: bytes | None = None, **said: Any) -> httpx.Response:
        body = {"device": bytes.fromhex(self.id), "nonce": nonce or self.nonce(), **said}
        return self.http.post(f"/v1/devices/{self.id}/report", content=seal_record(self.key, "edgecl-report", body))


class Fleet(NamedTuple):
    """What devices learned on top of one base."""

    base: Model
    learned: list[Model]
    new: Model  # classes that the base does not know

    def payloads(self) -> list[bytes]:
        """The update of each of `learned`."""
        return [encode(difference(self.base, m), Base.of(self.base)) for m in self.learned]

    def payload(self, learned: Model) -> bytes:
        return encode(difference(self.base, learned), Base.of(self.base))


def put(here: Place, engine: Engine, device: Device, sequence: int, payload: bytes) -> None:
    """An update as an upload leaves it, without the network."""
    folder = here.updates / device.id
    folder.mkdir(exist_ok=True)
    here.update(device.id, sequence).write_bytes(payload)
    here.envelope(device.id, sequence).write_bytes(seal(device.key, device.id, sequence, bytes(16), payload))
    with store.writing(engine) as db:
        assert insert(db, New(device.id, sequence, hashlib.sha256(payload).hexdigest(), len(payload)))


def enrolled(here: Place, engine: Engine, name: str) -> Device:
    """An approved device, without the network. The same name gives the same key."""
    device = Device(here.root / "devices", "http://127.0.0.1:1", name, hashlib.sha256(name.encode()).digest())
    token = store.add_token(engine, store.Token(approve=True), "test")
    store.enroll(engine, token, device.public, {"name": name, "machine": "", "edgecl": ""}, 1000, 1000)
    return device
