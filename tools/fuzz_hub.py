#!/usr/bin/env python3
"""Sends a hub what no device would, and kills it under load.

    tools/fuzz_hub.py [--seconds 600 | --cases N] [--kills 1000] [--seed 0] [-o bench/records/soak-hub.json]

Fuzzing: a hub in this process over HTTP on loopback. Each case is a request, or bytes that are none, built from valid ones:
paths, methods, headers, JSON, envelopes, chunks. A fault is an answer of 500, none at all to a whole request, an answer whose
error is not one line, an update that is stored though its bytes are not the signed ones, or a hub that no longer takes a right
update afterwards. Kills: see tests/hub/kill_cases.py; a fault is an update that was acknowledged and is not there. Exits with 1
on a fault.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import random
import select
import socket
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "hub")]

from hub_cases import Device, bare, served  # noqa: E402
from kill_cases import killed_under_load  # noqa: E402

from edgecl import environment  # noqa: E402
from edgecl.hub import store  # noqa: E402
from edgecl.hub.settings import Limits  # noqa: E402
from edgecl.update import cbor  # noqa: E402
from edgecl.update.envelope import seal, seal_record  # noqa: E402

LIMITS = Limits(
    requests_a_second=10**6, request_burst=10**6, enrolments_a_minute=10**6, devices=10**6, pending_devices=10**6,
    device_uploads=10**6, uploads=2000, device_bytes=1 << 50, device_bytes_a_day=1 << 50, free_bytes=1, chunk_bytes=1 << 18,
)  # fmt: skip
WORDS = (
    b"", b"0", b"-1", b"1e9", b"99999999999999999999", b"\xff\xfe", b"\x00", b"../../x", b"%2e%2e", b"null", b"true", b"[]",
    b"{}", b"\xe2\x80\xae", b"a" * 300, b"'; DROP TABLE devices; --", b"{{7*7}}", b"\xed\xa0\x80", b"1" * 5000,
)  # fmt: skip
METHODS = (b"GET", b"POST", b"PATCH", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"CONNECT", b"BREW")
HEADERS = (
    b"Upload-Offset", b"Content-Type", b"Range", b"If-None-Match", b"If-Range", b"Transfer-Encoding", b"Content-Length",
    b"Expect", b"X-Forwarded-For", b"Host", b"Connection", b"Upgrade", b"Cookie",
)  # fmt: skip


class Fault(Exception):
    """What must not be."""


class Fuzz:
    """Cases against one hub. `device` is enrolled; what it begins is known."""

    def __init__(self, rng, url, device, service):
        self.rng, self.device, self.service = rng, device, service
        self.address = ("127.0.0.1", int(url.rpartition(":")[2]))
        self.sequence, self.upload, self.payload = 0, "0" * 32, b"x"

    def word(self):
        return self.rng.choice((self.rng.choice(WORDS), self.rng.randbytes(self.rng.randrange(1, 40))))

    def path(self):
        rng, own = self.rng, self.device.id.encode()
        known = [
            b"/v1/enroll", b"/v1/uploads", b"/v1/uploads/" + self.upload.encode(), b"/v1/devices/%b/nonce" % own,
            b"/v1/devices/%b/report" % own,
            b"/v1/devices/%b/updates/%d" % (own, rng.choice((0, 1, -1)) * 10 ** rng.choice((0, 0, 18, 19, 40))),
            b"/v1/time?nonce=" + b"ab" * 16,
            b"/tuf/metadata/timestamp.json", b"/tuf/targets/models/x", b"/docs", b"/openapi.json", b"/",
        ]  # fmt: skip
        path = rng.choice(known)
        if rng.random() < 0.5:
            parts = path.split(b"/")
            parts[rng.randrange(len(parts))] = quoted(self.word())
            path = b"/".join(parts)
        return path if path.startswith(b"/") or rng.random() < 0.1 else b"/" + path

    # ---- kinds of cases: each gives (bytes to send, whether they are a whole request) ----

    def anything(self):
        """Method, path, headers and body, each at random."""
        head = [(self.rng.choice(HEADERS), header(self.word())) for _ in range(self.rng.randrange(4))]
        return request(self.rng.choice(METHODS), self.path(), head, self.word() * self.rng.choice((0, 1, 50))), False

    def garbage(self):
        """Bytes damaged, cut or drawn."""
        data = bytearray(request(b"POST", b"/v1/uploads", [], self.envelope()))
        for _ in range(self.rng.randrange(1, 9)):
            data[self.rng.randrange(len(data))] = self.rng.randrange(256)
        return bytes(data[: self.rng.randrange(1, len(data) + 1)]), False

    def enrolment(self):
        said = {"token": "x", "public_key": "A" * 44, "name": "n", "machine": "m", "edgecl": "e", "signature": "A" * 88}
        for _ in range(self.rng.randrange(1, 3)):
            said[self.rng.choice(list(said))] = self.rng.choice(
                (None, 1, -1, 1e308, [], {}, True, "", "\ud800", "x" * 400, "\n", [[]])
            )
        text = self.rng.choice((json.dumps(said).encode(), json.dumps([said]).encode(), b"[" * 30000, self.word()))
        return request(b"POST", b"/v1/enroll", [], text), True

    def envelope(self):
        self.sequence += 1
        self.payload = self.rng.randbytes(self.rng.choice((1, 100, 70_000)))
        nonce = self.service.nonces.give(self.device.id)
        return seal(self.device.key, self.device.id, self.sequence, nonce, self.payload)

    def forged(self):
        """An envelope with something of it changed, whether signed by the right key or not."""
        rng, data = self.rng, bytearray(self.envelope())
        if rng.random() < 0.5:
            for _ in range(rng.choice((1, 1, 4))):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            return request(b"POST", b"/v1/uploads", [], bytes(data)), True
        body = {
            "device": bytes.fromhex(self.device.id), "sequence": self.sequence, "bytes": 5, "sha256": bytes(32),
            "nonce": self.service.nonces.give(self.device.id),
        }  # fmt: skip
        body[rng.choice(list(body))] = rng.choice((0, 1, (1 << 63) - 1, (1 << 64) - 1, b"", b"x" * 300, "", [], {}))
        kind = rng.choice(("edgecl-update", "edgecl-report"))
        path = rng.choice((b"/v1/uploads", b"/v1/devices/%b/report" % self.device.id.encode()))
        return request(b"POST", path, [], seal_record(self.device.key, kind, body)), True

    def strange(self):
        """CBOR of no sense where an envelope is looked for."""
        values = (0, b"x", "x", [], {}, [b"", b""], [{}, b"x" * 64], [cbor.encode({}), bytes(64)], [cbor.encode([]), bytes(64)])
        data = cbor.encode(self.rng.choice(values)) + self.rng.choice((b"", b"", b"\0"))
        return request(
            b"POST", self.rng.choice((b"/v1/uploads", b"/v1/devices/%b/report" % self.device.id.encode())), [], data
        ), True

    def chunk(self):
        """A PATCH of an upload that is open, at an offset and with bytes of all kinds. Those that fit go on to the hash."""
        rng = self.rng
        if rng.random() < 0.5:
            status, _, body = self.ask(request(b"POST", b"/v1/uploads", [], self.envelope()))
            if status != 201:
                raise Fault(f"a right envelope: {status} {body[:200]!r}")
            self.upload = json.loads(body)["upload"]
        offset = rng.choice((b"0", b"0", b"0", b"1", b"65536", header(self.word())))
        data = rng.choice((self.payload[: 1 << 16], self.payload[:1], self.payload[:50][::-1], b"", rng.randbytes(1 << 16)))
        head = [(b"Upload-Offset", offset), (b"Content-Type", b"application/offset+octet-stream")]
        return request(b"PATCH", b"/v1/uploads/" + self.upload.encode(), head, data), offset in (b"0", b"1", b"65536")

    def ranges(self):
        value = b"bytes=" + self.rng.choice(
            (b"0-", b"-5", b"5-2", b"0-0,2-3", b"9-", b"-", b"99999999999999999999-", self.word())
        )
        return request(b"GET", b"/tuf/metadata/timestamp.json", [(b"Range", header(value))], b""), False

    # ---- the wire ----

    def ask(self, data, whole=True):
        """(status, head, body); status 0 where nothing came."""
        with socket.create_connection(self.address, timeout=20 if whole else 2) as sock:
            got = b""
            try:
                sock.sendall(data)
                if not whole and not select.select([sock], [], [], PATIENCE)[0]:
                    sock.shutdown(socket.SHUT_WR)  # the hub waits for more, rightly
                while more := sock.recv(1 << 16):
                    got += more
            except TimeoutError:
                if whole:
                    raise Fault(f"no end of the answer {got[:200]!r} to {data[:300]!r}") from None
            except (ConnectionResetError, BrokenPipeError):
                pass  # it was refused before it was read
        head, _, body = got.partition(b"\r\n\r\n")
        words = head.split(b" ", 2)
        return (int(words[1]) if len(words) > 1 and words[1].isdigit() else 0), head, body

    def case(self, kind):
        data, whole = getattr(self, kind)()
        status, head, body = self.ask(data, whole)
        if status == 500 or (whole and not status):
            raise Fault(f"{kind}: {status} to {data[:300]!r}")
        if (
            status >= 400
            and b"application/json" in head
            and body
            and b"\n" in json.loads(body.split(b"HTTP/1.1")[0])["error"].encode()
        ):
            raise Fault(f"{kind}: {body!r}")
        return status

    def check(self):
        """What is stored has the bytes that were signed, and a right update is taken."""
        self.sequence += 1
        right = self.rng.randbytes(100_000)
        if self.device.send(self.sequence, right, 1 << 16).json() != {"state": "stored"}:
            raise Fault("a right update is not taken any more")
        for update in store.updates(self.service.engine, limit=50):
            path = self.service.place.update(update.device, update.sequence)
            if hashlib.sha256(path.read_bytes()).hexdigest() != update.sha256:
                raise Fault(f"{path}: is not what was signed")


PATIENCE = 0.3
KINDS = ("anything", "garbage", "enrolment", "forged", "strange", "chunk", "ranges")


def quoted(data):
    return b"".join(b"%%%02X" % c if c <= 32 or c >= 127 or c in b"%?#" else bytes([c]) for c in data)


def header(data):
    """A value that a client can send."""
    return bytes(c for c in data if c >= 32 and c != 127)


def request(method, path, headers, body):
    lines = [b"%b %b HTTP/1.1" % (method, path), b"Host: hub", b"Connection: close"]
    lines += [b"%b: %b" % h for h in headers]
    if not any(k in (b"Content-Length", b"Transfer-Encoding") for k, _ in headers):
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def soak(seconds, cases, seed):
    """(cases by kind, answers by status)."""
    rng, done, answers = random.Random(seed), Counter(), Counter()
    with tempfile.TemporaryDirectory() as folder:
        here = bare(Path(folder, "hub"), LIMITS)
        (here.tuf / "metadata/timestamp.json").write_text("x" * 500)
        with served(here.root) as (url, service):
            fuzz = Fuzz(rng, url, Device(Path(folder, "device"), url).joined(service), service)
            until = time.monotonic() + seconds
            while (sum(done.values()) < cases) if cases else (time.monotonic() < until):
                for kind in KINDS:
                    answers[fuzz.case(kind)] += 1
                    done[kind] += 1
                if sum(done.values()) % (100 * len(KINDS)) == 0:
                    fuzz.check()
            fuzz.check()
    return done, answers


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--cases", type=int, default=0, help="so many, however long they take")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    where, began = environment.describe(), time.monotonic()
    kills = {}
    if args.kills:
        with tempfile.TemporaryDirectory() as folder:
            kills = killed_under_load(Path(folder, "hub"), args.kills, args.clients, args.seed)
        if kills["lost"] or kills["wrong"]:
            sys.exit(f"fuzz_hub: kills: {kills}")
    fuzzed = time.monotonic()
    try:
        done, answers = soak(args.seconds, args.cases, args.seed)
    except Fault as e:
        sys.exit(f"fuzz_hub: seed {args.seed}: {e}")
    record = {
        "what": "tools/fuzz_hub.py: a hub killed under load, and fed with what no device sends",
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        **{k: where[k] for k in ("commit", "python", "system", "cpu", "edgecl")},
        "seed": args.seed,
        "seconds": round(time.monotonic() - began, 1),
        "kills": {k: v if not isinstance(v, list) else len(v) for k, v in kills.items()},
        "fuzz": {
            "seconds": round(time.monotonic() - fuzzed, 1),
            "cases": sum(done.values()),
            "faults": 0,
            "by_kind": dict(done),
            "by_status": {str(k): v for k, v in sorted(answers.items())},
        },
    }
    text = json.dumps(record, indent=1)
    if args.out:
        args.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
