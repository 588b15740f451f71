"""How many updates a second a hub takes for good, and how quickly it answers idle polls.

    python bench/hub.py [--quick] [--seconds 20] [--clients 16] [--bytes 645000] [--devices 1000] [--folder DIR] [--record]

Ingest: clients (threads of one process, a connection each) send updates the whole way: nonce, envelope, chunks of 256 KiB. An
update counts when the hub has said `stored`, which is after its files and its row are synced. `--folder` says on which disk.
Poll: `--devices` connections, each of which asks for timestamp.json with If-None-Match once in `--every` seconds, at a time of
its own; a percentile is over all answers. Both: the hub is one process; its CPU time is read from the system. Client and hub
share the cores that this process may use. `raw` is what the disk alone does: the same bytes written and synced one by one.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "hub")]

from hub_cases import CHUNK, Device, bare  # type: ignore[import-not-found]  # noqa: E402

from edgecl import environment  # noqa: E402
from edgecl.hub import settings, store  # noqa: E402
from edgecl.hub.settings import Limits  # noqa: E402
from edgecl.update.envelope import seal  # noqa: E402

CHUNK_BYTES = 256 << 10
LIMITS = Limits(
    device_bytes=1 << 50, device_bytes_a_day=1 << 50, requests_a_second=10**6, request_burst=10**6, enrolments_a_minute=10**6,
    free_bytes=1,
)  # fmt: skip
SERVE = """
import sys
from pathlib import Path
from edgecl.hub import serve
serve.serve(Path(sys.argv[1]), "127.0.0.1", 0, lambda line: print(line, flush=True))
"""


@contextmanager
def hub(root: Path) -> Iterator[tuple[int, int]]:
    """(port, process id)."""
    child = subprocess.Popen([sys.executable, "-c", SERVE, str(root)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert child.stdout is not None
    line = child.stdout.readline()
    try:
        yield int(line.split("http://127.0.0.1:")[1].split()[0]), child.pid
    finally:
        child.terminate()
        child.wait()


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_bytes(pid: int) -> int:
    line = next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


class Client(threading.Thread):
    """A device that sends one update after the other until it is told to stop."""

    def __init__(self, device: Device, port: int, size: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.device, self.stop, self.size, self.port = device, stop, size, port
        self.seconds: list[float] = []
        self.done: list[float] = []

    def run(self) -> None:
        link = http.client.HTTPConnection("127.0.0.1", self.port)
        base, sequence = bytearray(random.Random(self.device.id).randbytes(self.size)), 0
        while not self.stop.is_set():
            sequence += 1
            base[:8] = sequence.to_bytes(8, "big")
            began = time.perf_counter()
            self.send(link, sequence, bytes(base))
            self.done.append(time.perf_counter())
            self.seconds.append(self.done[-1] - began)

    def send(self, link: http.client.HTTPConnection, sequence: int, payload: bytes) -> None:
        nonce = bytes.fromhex(ask(link, "GET", f"/v1/devices/{self.device.id}/nonce")["nonce"])
        said = ask(link, "POST", "/v1/uploads", seal(self.device.key, self.device.id, sequence, nonce, payload))
        path = f"/v1/uploads/{said['upload']}"
        for at in range(0, len(payload), CHUNK_BYTES):
            said = ask(link, "PATCH", path, payload[at : at + CHUNK_BYTES], {**CHUNK, "Upload-Offset": str(at)})
        assert said == {"state": "stored"}, said


def ask(link: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None, headers: Any = None) -> Any:
    link.request(method, path, body, headers or {})
    answer = link.getresponse()
    data = answer.read()
    assert answer.status < 300, (answer.status, data)
    return json.loads(data) if data else {}


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def ingest(root: Path, clients: int, size: int, seconds: float) -> dict[str, Any]:
    here = bare(root, LIMITS)
    engine = store.connect(settings.database_url(here, settings.read(here)))
    store.prepare(engine)
    made = [Device(root / "clients", "http://127.0.0.1:1", f"c{i}") for i in range(clients)]
    token = store.add_token(engine, store.Token(uses=clients, approve=True), "bench")
    for d in made:
        store.enroll(engine, token, d.public, {"name": d.name, "machine": "", "edgecl": ""}, clients, clients)
    engine.dispose()
    with hub(root) as (port, pid):
        stop = threading.Event()
        threads = [Client(d, port, size, stop) for d in made]
        for t in threads:
            t.start()
        time.sleep(min(2, seconds / 4))  # until all are under way
        began, used = time.perf_counter(), cpu_seconds(pid)
        time.sleep(seconds)
        ended, used = time.perf_counter(), cpu_seconds(pid) - used
        stop.set()
        for t in threads:
            t.join()
        memory = memory_bytes(pid)
    done = sum(began <= at < ended for t in threads for at in t.done)
    each = [s for t in threads for s, at in zip(t.seconds, t.done, strict=True) if began <= at < ended]
    return {
        "clients": clients,
        "bytes": size,
        "seconds": round(ended - began, 2),
        "ingests_a_second": round(done / (ended - began), 1),
        "hub_cpu_ms_each": round(1000 * used / max(done, 1), 2),
        "median_ms": round(1000 * percentile(each, 0.5), 1),
        "p99_ms": round(1000 * percentile(each, 0.99), 1),
        "hub_peak_mb": round(memory / 1e6, 1),
    }


def raw(folder: Path, size: int, count: int = 60) -> float:
    """Files of this size a second, each written and synced before the next."""
    data, began = os.urandom(size), time.perf_counter()
    for i in range(count):
        fd = os.open(folder / f"raw{i}", os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(fd, data)
        os.fsync(fd)
        os.close(fd)
    taken = time.perf_counter() - began
    for i in range(count):
        (folder / f"raw{i}").unlink()
    return round(count / taken, 1)


def poll(root: Path, devices: int, every: float, seconds: float) -> dict[str, Any]:
    here = bare(root, LIMITS)
    (here.tuf / "metadata/timestamp.json").write_text("x" * 500)
    with hub(root) as (port, pid):
        used = cpu_seconds(pid)
        times, sizes = asyncio.run(_poll(port, devices, every, seconds))
        used = cpu_seconds(pid) - used
    return {
        "devices": devices,
        "every_seconds": every,
        "polls": len(times),
        "median_ms": round(1000 * percentile(times, 0.5), 2),
        "p99_ms": round(1000 * percentile(times, 0.99), 2),
        "largest_ms": round(1000 * max(times), 2),
        "poll_bytes": max(sizes),
        "hub_cpu_us_each": round(1e6 * used / len(times)),
    }


async def _poll(port: int, devices: int, every: float, seconds: float) -> tuple[list[float], list[int]]:
    times: list[float] = []
    sizes: list[int] = []
    until = time.perf_counter() + seconds
    await asyncio.gather(*(_device(port, every, until, times, sizes, i) for i in range(devices)))
    return times, sizes


async def _device(port: int, every: float, until: float, times: list[float], sizes: list[int], seed: int) -> None:
    draw, etag = random.Random(seed), ""
    await asyncio.sleep(draw.uniform(0, every))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.perf_counter() < until:
        match = f"If-None-Match: {etag}\r\n" if etag else ""
        asked = f"GET /tuf/metadata/timestamp.json HTTP/1.1\r\nHost: 127.0.0.1\r\n{match}\r\n".encode()
        began = time.perf_counter()
        writer.write(asked)
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " in head.splitlines()[0]:
            etag = next(x for x in head.decode().splitlines() if x.startswith("etag:")).split(" ", 1)[1]
            await reader.readexactly(500)
        else:
            assert b" 304 " in head.splitlines()[0], head
            times.append(time.perf_counter() - began)
            sizes.append(len(asked) + len(head))
        await asyncio.sleep(draw.uniform(0.5, 1.5) * every)
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--bytes", type=int, default=645_000)
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--every", type=float, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="where the hub's folder is made, for the disk that it is on")
    parser.add_argument("--record", action="store_true", help="append to bench/records/hub.jsonl")
    args = parser.parse_args()
    seconds = min(args.seconds, 4) if args.quick else args.seconds
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        where, load = environment.describe(), os.getloadavg()[0]
        row = {
            "what": "bench/hub.py",
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            **{k: where[k] for k in ("commit", "python", "system", "cpu")},
            "cores": len(os.sched_getaffinity(0)),
            "load": round(load, 1),
            "raw_files_a_second": raw(Path(folder), args.bytes),
            "ingest": ingest(Path(folder) / "ingest", args.clients, args.bytes, seconds),
            "poll": poll(Path(folder) / "poll", args.devices, args.every, max(seconds, 2 * args.every)),
        }
    if args.record:
        with (ROOT / "bench/records/hub.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
    print(json.dumps(row))


if __name__ == "__main__":
    main()
