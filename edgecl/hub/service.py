"""What the HTTP API does, without HTTP: each function answers with plain values or raises Refusal. Called from many threads."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from typing import Any, NamedTuple

from sqlalchemy import Engine

from edgecl.hub import repository, store
from edgecl.hub.ingest import Writer
from edgecl.hub.nonces import Nonces
from edgecl.hub.place import DEVICE, LAST, Place
from edgecl.hub.refusal import Refusal, elsewhere, later
from edgecl.hub.settings import Settings
from edgecl.hub.store.devices import APPROVED, REVOKED
from edgecl.hub.store.updates import New
from edgecl.hub.uploads import Opening, Upload, Uploads
from edgecl.types import DataError
from edgecl.update.envelope import ENVELOPE, LIMITS, REPORT, open_envelope, open_record, peek_envelope

ENROLL = b"edgecl-enroll\0"
WAIT_SECONDS = 30  # for a PATCH of the same upload
SHORT = re.compile(r"[^\x00-\x1f\x7f]{1,100}")


class Answer(NamedTuple):
    """A status, a JSON body and headers."""

    status: int
    body: dict[str, Any]
    offset: int | None = None


class Service:
    """An open hub."""

    def __init__(self, place: Place, settings: Settings, engine: Engine) -> None:
        self.place, self.settings, self.engine = place, settings, engine
        self.limits = settings.limits
        self.nonces = Nonces(settings.limits.nonce_seconds)
        self.uploads = Uploads(place, settings.limits)
        self.writer = Writer(engine)
        self.recovered = self.uploads.recover(self._read)

    def close(self) -> None:
        """Ends the writer."""
        self.writer.close()

    # enrolment

    def enroll(self, body: bytes) -> Answer:
        """See docs/hub.md."""
        said = _object(body)
        token, name = _text(said, "token", 200), _text(said, "name", 100)
        key, signature = _base64(said, "public_key", 32), _base64(said, "signature", 64)
        _verify(key, signature, ENROLL + token.encode())
        about = {"name": name, "machine": _text(said, "machine", 40), "edgecl": _text(said, "edgecl", 40)}
        try:
            device = store.enroll(self.engine, token, key, about, self.limits.devices, self.limits.pending_devices)
        except DataError as e:
            raise Refusal(403, str(e)) from None
        if device.state == REVOKED:
            raise Refusal(403, f"device {device.id} was revoked")
        model = store.current(self.engine)
        place = {"net": model.net, "model": model.number} if model else {"net": "", "model": 0}
        return Answer(200, {"device": device.id, "state": device.state, "place": place})

    # uploads

    def nonce(self, device: str) -> Answer:
        """Of any device id: what it is good for is decided when it comes back, signed."""
        return Answer(200, {"nonce": self.nonces.give(_device(device)).hex()})

    def begin(self, body: bytes) -> Answer:
        """POST /v1/uploads."""
        opening = self._signed(body)
        if not 1 <= opening.sequence <= LAST:
            raise Refusal(400, f"sequence {opening.sequence} is not 1 to {LAST}")
        if not 1 <= opening.bytes <= self.limits.update_bytes:
            raise Refusal(413, f"an update has 1 to {self.limits.update_bytes} bytes here, not {opening.bytes}")
        known = store.update(self.engine, opening.device, opening.sequence)
        if known is not None:
            return _known(known, opening)
        self._quota(opening)
        upload, new = self.uploads.begin(opening, body)
        if upload.offset == opening.bytes:  # all of it came before a process was killed
            return self.append(upload.id, upload.offset, b"")
        return Answer(201 if new else 200, {"upload": upload.id, "offset": upload.offset}, upload.offset)

    def offset(self, own: str) -> Answer:
        """HEAD /v1/uploads/{upload}."""
        return Answer(200, {}, self.uploads.get(own).offset)

    def append(self, own: str, offset: int, data: bytes) -> Answer:
        """PATCH /v1/uploads/{upload}."""
        upload = self.uploads.get(own)
        if not upload.lock.acquire(timeout=WAIT_SECONDS):
            raise elsewhere(upload.offset)
        try:
            if not self.uploads.append(upload, offset, data):
                return Answer(204, {}, upload.offset)
            return self._complete(upload)
        finally:
            upload.lock.release()

    def _complete(self, upload: Upload) -> Answer:
        """Files first, then the row, then the answer."""
        opening = upload.opening
        self._may(upload)
        known = store.update(self.engine, opening.device, opening.sequence)
        if known is None:
            self.uploads.place(upload)
            new = New(opening.device, opening.sequence, opening.sha256, opening.bytes)
            if not self.writer.insert(new):
                raise Refusal(409, f"sequence {opening.sequence} has another payload already")
        self.uploads.forget(upload)
        return Answer(200, {"state": "stored"}) if known is None else _known(known, opening)

    def _may(self, upload: Upload) -> None:
        """Raises Refusal where the device was revoked since the upload began, which is gone then."""
        try:
            self._sender(upload.opening.device)
        except Refusal:
            self.uploads.forget(upload)
            raise

    def update(self, device: str, sequence: int) -> Answer:
        """GET /v1/devices/{id}/updates/{sequence}."""
        found = store.update(self.engine, _device(device), sequence) if 1 <= sequence <= LAST else None
        if found is None:
            raise Refusal(404, f"device {device} has sent no update {sequence}")
        return Answer(200, {"state": found.state, "reason": found.reason, "model": found.model})

    # reports

    def report(self, own: str, body: bytes) -> Answer:
        """POST /v1/devices/{id}/report: a record of update/envelope.py, with `device` and `nonce`, and what it tells."""
        if len(body) > LIMITS[REPORT]:
            raise Refusal(413, f"a report has {LIMITS[REPORT]} bytes at most")
        device = self._sender(_device(own))
        try:
            said = open_record(body, device.public_key, REPORT)
        except DataError as e:
            raise Refusal(400, str(e)) from None
        if said.pop("device", None) != bytes.fromhex(own):
            raise Refusal(400, "the report is not of this device")
        self._fresh(device, said.pop("nonce", None), pending=True)
        store.report(self.engine, own, {k: v for k, v in said.items() if isinstance(v, (str, int))})
        model = store.current(self.engine)
        return Answer(200, {"state": device.state, "model": model.number if model else 0})

    def time(self, nonce: str) -> bytes:
        """GET /v1/time."""
        try:
            return repository.signed_time(self.place.root, nonce)
        except DataError as e:
            raise Refusal(400, str(e)) from None

    # what the above have in common

    def _sender(self, own: str) -> store.Device:
        device = store.device(self.engine, own)
        if device is None or device.state == REVOKED:
            raise Refusal(403, f"device {own} {'was revoked' if device else 'is not enrolled here'}")
        return device

    def _signed(self, data: bytes) -> Opening:
        """What a fresh envelope of a device that may send says. Raises Refusal."""
        if len(data) > LIMITS[ENVELOPE]:
            raise Refusal(413, f"an envelope has {LIMITS[ENVELOPE]} bytes at most")
        try:
            device = self._sender(peek_envelope(data).device)
            envelope = open_envelope(data, device.public_key)
        except DataError as e:
            raise Refusal(400, str(e)) from None
        self._fresh(device, envelope.nonce, pending=False)
        return Opening(device.id, envelope.sequence, envelope.sha256, envelope.bytes)

    def _fresh(self, device: store.Device, nonce: object, *, pending: bool) -> None:
        """425 is to be tried again: a device doesn't give an update up for it."""
        if device.state != APPROVED and not pending:
            raise later(f"device {device.id} waits for the operator's approval", 300, 425)
        if not isinstance(nonce, bytes) or not self.nonces.take(device.id, nonce):
            raise later("this nonce is too old or was used; ask for another", 1, 425)

    def _read(self, data: bytes) -> Opening | None:
        """Of an envelope that was taken before this process began; None where it is damaged or its device revoked."""
        try:
            device = self._sender(peek_envelope(data).device)
            said = open_envelope(data, device.public_key)
        except (DataError, Refusal):
            return None
        return Opening(said.device, said.sequence, said.sha256, said.bytes)

    def _quota(self, opening: Opening) -> None:
        limits, size = self.limits, opening.bytes + self.uploads.beside(opening)
        day, kept = store.stored_bytes(self.engine, opening.device, limits.keep_days)
        if day + size > limits.device_bytes_a_day:
            raise later(f"this device has sent its {limits.device_bytes_a_day} bytes of a day", 3600)
        if kept + size > limits.device_bytes:
            raise later(f"updates of this device take the {limits.device_bytes} bytes that it may have here", 3600)
        disk = os.statvfs(self.place.root)
        if disk.f_bavail * disk.f_frsize - opening.bytes < limits.free_bytes:
            raise later("the hub's disk is full", 600, 503)


def _known(known: store.Update, opening: Opening) -> Answer:
    if known.sha256 != opening.sha256:
        raise Refusal(409, f"sequence {opening.sequence} has another payload already")
    return Answer(200, {"state": known.state, "reason": known.reason, "model": known.model})


def _device(own: str) -> str:
    if not DEVICE.fullmatch(own):
        raise Refusal(404, "a device id has 16 hex digits")
    return own


def _object(body: bytes) -> dict[str, Any]:
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal(400, "the body is not JSON") from None
    if not isinstance(said, dict):
        raise Refusal(400, "the body is not a JSON object")
    return said


def _text(said: dict[str, Any], key: str, most: int) -> str:
    value = said.get(key)
    if not isinstance(value, str) or len(value) > most or not SHORT.fullmatch(value[:100]) or not value.isprintable():
        raise Refusal(400, f"{key} is not 1 to {most} printable characters")
    return value


def _base64(said: dict[str, Any], key: str, size: int) -> bytes:
    value = said.get(key)
    try:
        data = base64.b64decode(value, validate=True) if isinstance(value, str) and len(value) < 200 else b""
    except (binascii.Error, ValueError):
        data = b""
    if len(data) != size:
        raise Refusal(400, f"{key} is not the base64 of {size} bytes")
    return data


def _verify(key: bytes, signature: bytes, message: bytes) -> None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise Refusal(403, "the signature is not that of this public key over the token") from None
