"""Enrolment, nonces, uploads and what became of them, over HTTP."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hub_cases import CHUNK, Device, bare, served

from edgecl.hub import store
from edgecl.hub.service import Service
from edgecl.hub.settings import Limits
from edgecl.update.envelope import seal

LIMITS = Limits(
    update_bytes=1 << 20, chunk_bytes=1 << 18, device_bytes_a_day=3 << 20, device_bytes=4 << 20, device_uploads=2, free_bytes=1,
    pending_devices=3, enrolments_a_minute=1000,
)  # fmt: skip
Hub = tuple[str, Service]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    root = bare(tmp_path_factory.mktemp("hub") / "hub", LIMITS).root
    with served(root) as opened:
        yield opened


@pytest.fixture
def device(hub: Hub, tmp_path: Path) -> Device:
    return Device(tmp_path, hub[0]).joined(hub[1])


def token(hub: Hub, **wish: object) -> str:
    return store.add_token(hub[1].engine, store.Token(**wish), "test")  # type: ignore[arg-type]


def payload(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def on_disk(hub: Hub, device: Device, sequence: int) -> bytes:
    return hub[1].place.update(device.id, sequence).read_bytes()


# ---- enrolment ----


def test_a_device_waits_until_it_is_approved(hub: Hub, tmp_path: Path) -> None:
    one, given = Device(tmp_path, hub[0]), token(hub)
    first = one.enroll(given)
    assert (first.status_code, first.json()) == (200, {"device": one.id, "state": "pending", "place": {"net": "", "model": 0}})
    assert one.enroll(given).json() == first.json()  # repeated: harmless
    early = one.begin(1, b"x")
    assert (early.status_code, "approval" in early.json()["error"], early.headers["Retry-After"]) == (425, True, "300")
    store.approve(hub[1].engine, one.id, "ann")
    assert one.begin(1, b"x").status_code == 201
    assert one.enroll(given).json()["state"] == "approved"
    store.revoke(hub[1].engine, one.id, "ann")
    for answer in (one.begin(2, b"x"), one.enroll(given), one.report(health="ok")):
        assert (answer.status_code, answer.json()["error"]) == (403, f"device {one.id} was revoked")


def test_a_token_is_good_once(hub: Hub, tmp_path: Path) -> None:
    given = token(hub, approve=True)
    one, two = Device(tmp_path, hub[0], "one"), Device(tmp_path, hub[0], "two")
    assert one.enroll(given).json()["state"] == "approved"
    again = two.enroll(given)
    assert (again.status_code, again.json()["error"]) == (403, "this join token was used already")
    other = one.enroll(token(hub))
    assert (other.status_code, "with another token" in other.json()["error"]) == (403, True)
    assert two.enroll(token(hub, seconds=-1)).json()["error"] == "this join token has expired"
    assert two.enroll("no such").json()["error"] == "this join token is not known here"


def test_a_key_is_its_senders(hub: Hub, tmp_path: Path) -> None:
    one, two, given = Device(tmp_path, hub[0], "one"), Device(tmp_path, hub[0], "two"), token(hub)
    stolen = one.enroll(given, public_key=__import__("base64").b64encode(two.public).decode())
    assert (stolen.status_code, "signature" in stolen.json()["error"]) == (403, True)
    assert one.enroll(given).status_code == 200  # the token is not spent by that


@pytest.mark.parametrize(
    "wrong",
    [
        {"token": ""}, {"token": 7}, {"token": "x" * 201}, {"name": "a\nb"}, {"name": "x" * 101}, {"name": None},
        {"public_key": "AAAA"}, {"public_key": "é"}, {"signature": 1}, {"signature": ""}, {"machine": []}, {"edgecl": "\u202e"},
    ],
)  # fmt: skip
def test_what_is_no_enrolment(hub: Hub, tmp_path: Path, wrong: dict[str, object]) -> None:
    answer = Device(tmp_path, hub[0]).enroll("x", **wrong)
    assert answer.status_code == 400
    assert next(iter(wrong)) in answer.json()["error"]


def test_not_too_many_wait(tmp_path: Path) -> None:
    with served(bare(tmp_path / "hub", LIMITS).root) as own:
        codes = [Device(tmp_path, own[0], f"d{i}").enroll(token(own)).status_code for i in range(4)]
    assert codes == [200, 200, 200, 403]


# ---- uploads ----


@pytest.mark.parametrize("size", [1, 1000, (1 << 18) - 1, 1 << 18, (1 << 18) + 1, 1 << 20])
def test_an_update_arrives(hub: Hub, device: Device, size: int) -> None:
    data = payload(size)
    last = device.send(1, data)
    assert (last.status_code, last.json()) == (200, {"state": "stored"})
    assert on_disk(hub, device, 1) == data
    assert device.state(1) == {"state": "stored", "reason": "", "model": 0}
    assert hub[1].place.envelope(device.id, 1).stat().st_size <= 512
    found = store.update(hub[1].engine, device.id, 1)
    assert found is not None
    assert (found.sha256, found.bytes) == (hashlib.sha256(data).hexdigest(), size)


def test_repeats_change_nothing(hub: Hub, device: Device) -> None:
    data = payload(1000)
    device.send(5, data)
    before = store.update(hub[1].engine, device.id, 5)
    for _ in range(3):
        again = device.begin(5, data)
        assert (again.status_code, again.json()) == (200, {"state": "stored", "reason": "", "model": 0})
    other = device.begin(5, data[:-1])
    assert (other.status_code, "Upload-Offset" in other.headers) == (409, False)
    assert store.update(hub[1].engine, device.id, 5) == before
    assert on_disk(hub, device, 5) == data


def test_it_goes_on_where_it_was(hub: Hub, device: Device) -> None:
    data = payload(300_000)
    upload = device.begin(1, data).json()["upload"]
    device.patch(upload, 0, data[:100_000])
    assert device.offset(upload) == 100_000
    again = device.begin(1, data)
    assert (again.status_code, again.json()) == (200, {"upload": upload, "offset": 100_000})
    for offset in (0, 50_000, 100_001, 300_000):
        wrong = device.patch(upload, offset, data[offset : offset + 10])
        assert (wrong.status_code, wrong.headers["Upload-Offset"]) == (409, "100000")
    assert device.patch(upload, 100_000, data[100_000:]).json() == {"state": "stored"}
    assert device.http.head(f"/v1/uploads/{upload}").status_code == 404
    assert on_disk(hub, device, 1) == data


def test_other_bytes_than_those_signed(hub: Hub, device: Device) -> None:
    data = payload(1000)
    upload = device.begin(1, data).json()["upload"]
    assert device.patch(upload, 0, data + b"x").status_code == 413
    wrong = device.patch(upload, 0, data[::-1])
    assert (wrong.status_code, "gone" in wrong.json()["error"]) == (422, True)
    assert device.patch(upload, 0, data).status_code == 404
    assert device.http.get(f"/v1/devices/{device.id}/updates/1").status_code == 404
    assert device.send(1, data).json() == {"state": "stored"}


def test_two_payloads_of_one_number(hub: Hub, device: Device) -> None:
    """The one that began later goes on; the first was not acknowledged."""
    one, two = payload(1000, 1), payload(1000, 2)
    first = device.begin(1, one).json()["upload"]
    second = device.begin(1, two).json()["upload"]
    assert device.patch(first, 0, one).status_code == 404
    assert device.patch(second, 0, two).json() == {"state": "stored"}
    assert on_disk(hub, device, 1) == two


def test_only_so_many_at_once(hub: Hub, device: Device) -> None:
    assert [device.begin(n, payload(1000, n)).status_code for n in range(1, 5)] == [201, 201, 429, 429]


def test_quotas(hub: Hub, device: Device) -> None:
    assert device.begin(1, payload((1 << 20) + 1)).status_code == 413
    for n in range(1, 4):
        assert device.send(n, payload(1 << 20, n)).json() == {"state": "stored"}
    full = device.begin(4, b"x")
    assert (full.status_code, "of a day" in full.json()["error"], full.headers["Retry-After"]) == (429, True, "3600")


def test_an_upload_that_goes_on_is_counted_once(hub: Hub, device: Device) -> None:
    for n in (1, 2):
        assert device.send(n, payload(1 << 20, n)).json() == {"state": "stored"}
    last = payload(1 << 20, 3)
    upload = device.begin(3, last).json()["upload"]
    assert device.begin(3, last).json() == {"upload": upload, "offset": 0}
    assert device.send(3, last).json() == {"state": "stored"}


def test_a_device_that_is_revoked_ends_no_upload(hub: Hub, device: Device) -> None:
    upload = device.begin(1, b"xyz").json()["upload"]
    store.revoke(hub[1].engine, device.id, "ann")
    answer = device.patch(upload, 0, b"xyz")
    assert (answer.status_code, "revoked" in answer.json()["error"]) == (403, True)
    assert device.http.head(f"/v1/uploads/{upload}").status_code == 404
    assert store.updates(hub[1].engine, device.id) == []
    assert not hub[1].place.part(upload).exists()


def test_a_full_disk(hub: Hub, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgecl.hub import uploads

    def full(fd: int, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    upload = device.begin(1, b"xyz").json()["upload"]
    monkeypatch.setattr(uploads.files, "write_all", full)
    answer = device.patch(upload, 0, b"xyz")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "60")
    monkeypatch.undo()
    assert device.patch(upload, 0, b"xyz").json() == {"state": "stored"}


# ---- freshness and signatures ----


def test_a_nonce_is_good_once_for_its_device(hub: Hub, device: Device, tmp_path: Path) -> None:
    nonce = device.nonce()
    assert device.begin(1, b"x", nonce).status_code == 201
    assert device.begin(2, b"y", nonce).status_code == 425
    other = Device(tmp_path, hub[0], "other").joined(hub[1])
    assert device.begin(2, b"y", other.nonce()).status_code == 425
    assert device.begin(2, b"y", bytes(16)).status_code == 425


def test_replayed_and_tampered_envelopes(hub: Hub, device: Device) -> None:
    envelope = seal(device.key, device.id, 1, device.nonce(), b"xyz")
    draw = random.Random(0)
    for _ in range(300):
        damaged = bytearray(envelope)
        damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        assert device.http.post("/v1/uploads", content=bytes(damaged)).status_code in (400, 403, 404), damaged.hex()
    assert device.http.post("/v1/uploads", content=envelope).status_code == 201
    assert device.http.post("/v1/uploads", content=envelope).status_code == 425  # the same again


def test_reports(hub: Hub, device: Device) -> None:
    nonce = device.nonce()
    answer = device.report(nonce, edgecl="0.2.0", model=3, health="51 °C", bytes=1234)
    assert (answer.status_code, answer.json()) == (200, {"state": "approved", "model": 0})
    assert device.report(nonce, health="again").status_code == 425
    found = store.device(hub[1].engine, device.id)
    assert found is not None
    assert (found.edgecl, found.model, found.health, found.reported["bytes"]) == ("0.2.0", 3, "51 °C", 1234)
    assert device.http.post(f"/v1/devices/{device.id}/report", content=b"{}").status_code == 400
    assert device.http.post(f"/v1/devices/{'0' * 16}/report", content=b"{}").status_code == 403


def test_a_report_commands_no_terminal(hub: Hub, device: Device) -> None:
    assert device.report(edgecl="0\0.1", health="\x1b[2Jwell\x9b\u202e\n").status_code == 200
    found = store.device(hub[1].engine, device.id)
    assert found is not None
    assert (found.edgecl, found.health) == ("0\ufffd.1", "\ufffd[2Jwell\ufffd\ufffd\ufffd")


# ---- what is not asked rightly ----


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status"),
    [
        ("GET", "/nothing", {}, b"", 404),
        ("GET", "/v1/uploads", {}, b"", 405),
        ("POST", "/v1/enroll", {}, b"{", 400),
        ("POST", "/v1/enroll", {}, b"[" * 50_000, 400),
        ("POST", "/v1/enroll", {}, b"x" * 70_000, 413),
        ("POST", "/v1/uploads", {}, b"", 400),
        ("POST", "/v1/uploads", {}, b"x" * 513, 413),
        ("GET", "/v1/devices/xyz/nonce", {}, b"", 404),
        ("GET", f"/v1/devices/{'0' * 16}/updates/x", {}, b"", 400),
        ("GET", f"/v1/devices/{'0' * 16}/updates/{10**30}", {}, b"", 404),
        ("GET", f"/v1/devices/{'0' * 16}/updates/-1", {}, b"", 404),
        ("GET", f"/v1/devices/{'0' * 16}/updates/-{10**30}", {}, b"", 404),
        ("GET", "/v1/time", {}, b"", 400),
        ("GET", "/v1/time?nonce=xyz", {}, b"", 400),
        ("HEAD", f"/v1/uploads/{'0' * 32}", {}, b"", 404),
        ("PATCH", f"/v1/uploads/{'0' * 32}", CHUNK, b"x", 400),
        ("PATCH", f"/v1/uploads/{'0' * 32}", {**CHUNK, "Upload-Offset": "-1"}, b"x", 400),
        ("PATCH", f"/v1/uploads/{'0' * 32}", {**CHUNK, "Upload-Offset": "²"}, b"x", 400),
        ("PATCH", f"/v1/uploads/{'0' * 32}", {"Upload-Offset": "0"}, b"x", 415),
        ("PATCH", f"/v1/uploads/{'0' * 32}", {**CHUNK, "Upload-Offset": "0"}, b"x", 404),
        ("PATCH", f"/v1/uploads/{'0' * 32}", {**CHUNK, "Upload-Offset": "0"}, b"x" * ((1 << 18) + 1), 413),
    ],
)
def test_errors_are_one_line_of_json(hub: Hub, method: str, path: str, headers: dict[str, str], body: bytes, status: int) -> None:
    raw = {k: v.encode() for k, v in headers.items()}
    answer = httpx.request(method, hub[0] + path, headers=raw, content=body, trust_env=False)
    assert answer.status_code == status
    if method != "HEAD":
        assert answer.json()["error"].count("\n") == 0


def test_a_body_of_unknown_length_is_bounded(hub: Hub) -> None:
    answer = httpx.post(f"{hub[0]}/v1/enroll", content=(bytes(1000) for _ in range(100)), trust_env=False)
    assert answer.status_code == 413


def test_too_many_requests(tmp_path: Path) -> None:
    with served(bare(tmp_path / "hub", Limits(requests_a_second=1, request_burst=20)).root) as own:
        client = httpx.Client(base_url=own[0], trust_env=False)
        answers = [client.get("/v1/devices/x/nonce") for _ in range(25)]
        assert [a.status_code for a in answers][-1] == 429
        assert answers[-1].headers["Retry-After"] == "5"
        assert client.get("/tuf/metadata/x.json").status_code == 404  # polls are not counted


# ---- the schema and its page ----


def test_the_schema_and_its_page(hub: Hub) -> None:
    schema = httpx.get(f"{hub[0]}/openapi.json", trust_env=False).json()
    page = httpx.get(f"{hub[0]}/docs", trust_env=False)
    for path in ("/v1/enroll", "/v1/uploads", "/v1/uploads/{upload}", "/v1/devices/{device}/nonce", "/v1/time"):
        assert path in schema["paths"]
        assert path in page.text
    assert "<script" not in page.text
    assert "http" not in page.text.replace("http-equiv", "")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
