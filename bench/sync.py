#!/usr/bin/env python3
"""A device's side of sync against a hub on loopback: bytes and seconds of what it does, and memory.

    python bench/sync.py [--quick]

The hub serves from a process of its own, on the same cores. The network is a small one of digits, so that packing and installing
show what the processes need at least; the update that is timed has the size of ResNet-18 w64's, 645 kB of random bytes. Bytes are
those of bodies and headers, both ways, without TLS and TCP. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from edgecl import config as configs
from edgecl import environment, lesson, session, slots
from edgecl.hub import joining, setup, store
from edgecl.hub import place as hubs
from edgecl.hub import settings as hub_settings
from edgecl.hub.settings import Settings, database_url
from edgecl.lesson import Labelled
from edgecl.model import open_model
from edgecl.sync import child
from edgecl.sync.client import Client
from edgecl.sync.enrolling import enroll
from edgecl.sync.place import Place, read_config
from edgecl.train import train

SMALL = {
    "data": {"name": "digits", "samples_per_class": 60, "classes_per_task": 8, "tasks": 1},
    "net": {"name": "mlp", "width": 64},
    "train": {"epochs": 15, "batch": 16, "rate": 0.05, "snapshot_every": 15},
    "memory": {"capacity": 90},
    "mask": {"sparsity": 0.5},
    "engine": {"threads": 1},
}
BYTES = 645_000
RUN = ["from edgecl.cli import main; main()"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    rounds = 3 if parser.parse_args().quick else 9
    with tempfile.TemporaryDirectory() as made:
        print(json.dumps({"bench": "sync", **environment.describe(), **measured(Path(made), rounds)}))


def measured(folder: Path, rounds: int) -> dict[str, Any]:
    """All figures."""
    stream = learned(folder / "base")
    port = free_port()
    token = new_hub(folder, stream, port)
    hub = subprocess.Popen(
        [*child.python(RUN[0]), "hub", "serve", str(folder / "hub"), "--port", str(port)], stdout=subprocess.PIPE
    )
    try:
        assert hub.stdout is not None
        hub.stdout.readline()  # it serves
        return device(folder, token, stream, rounds)
    finally:
        hub.terminate()
        hub.wait()


def device(folder: Path, token: str, stream: Any, rounds: int) -> dict[str, Any]:
    place = Place(folder / "pi")
    enroll(place, token, {"trial": "selftest"})
    client = Client(place, read_config(place), lambda event: None)
    installed = timed(client, client.pull)
    slots.confirm(place.root)
    uploads = [timed(client, partial(send, client, n)) for n in range(rounds)]
    idle = [timed(client, partial(look, client)) for _ in range(rounds)]
    teach(place, stream)
    packed = timed(client, client.pack)
    pushed = timed(client, client.push)
    client.api.close()
    return {
        "update_bytes": BYTES,
        "upload_seconds": statistics.median(u["seconds"] for u in uploads),
        "upload_overhead_bytes": statistics.median(u["up"] + u["down"] for u in uploads) - BYTES,
        "idle_round_seconds": statistics.median(i["seconds"] for i in idle),
        "idle_round_bytes": statistics.median(i["up"] + i["down"] for i in idle),
        "pack_seconds": packed["seconds"],
        "small_update_bytes_up": pushed["up"],
        "first_install_seconds": installed["seconds"],
        "children_peak_kb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss,
        "service_peak_kb": service(place),
    }


def timed(client: Client, act: Any) -> dict[str, Any]:
    """Seconds on the wall, and bytes."""
    began, up, down = time.perf_counter(), client.api.up, client.api.down
    act()
    return {"seconds": time.perf_counter() - began, "up": client.api.up - up, "down": client.api.down - down}


def look(client: Client) -> None:
    """A round in which there is nothing to do."""
    client.report()
    client.pull()


def send(client: Client, number: int) -> None:
    file = client.place.folder / "packed"
    file.write_bytes(random.Random(number).randbytes(BYTES))
    client.outbox.put(file, f"{number:064x}", f"{number:064x}")
    client.push()
    assert not client.outbox.items()


def service(place: Place) -> int:
    """VmHWM of two rounds of `edgecl sync run`, in kB."""
    run = subprocess.Popen([*child.python(RUN[0]), "sync", "run", "--place", str(place.root), "--json"], stdout=subprocess.PIPE)
    time.sleep(8)
    text = Path(f"/proc/{run.pid}/status").read_text()
    run.terminate()
    run.wait()
    return int(next(line for line in text.splitlines() if line.startswith("VmHWM")).split()[1])


def learned(run: Path) -> Any:
    config = configs.resolve("digits", [SMALL])
    stream = session.read_stream(config)
    for _ in train(*session.begin(run, session.make(config, stream, set(configs.dotted(SMALL))), stream)):
        pass
    return stream


def teach(place: Place, stream: Any) -> None:
    """A lesson of some more threes."""
    slot = place.slot()
    assert slot is not None
    samples = stream.tasks[0].train
    x = np.asarray(samples.x[samples.y == 3])[:30]
    model, run = open_model(slot / "learner"), slot / "lessons/001"
    run.parent.mkdir()
    lesson.begin(run, model, lesson.prepare(model, Labelled(x, ["3"] * len(x))))
    setup_, state = session.resume(run)
    for _ in train(setup_, state):
        pass
    state.metrics.close()


def new_hub(folder: Path, stream: Any, port: int) -> str:
    """A join token for it."""
    test = stream.tests[0]
    np.savez(folder / "test.npz", x=np.asarray(test.x[:]), y=test.y)
    setup.init(folder / "hub", folder / "base", folder / "test.npz", Settings(url=f"http://127.0.0.1:{port}"), lambda line: None)
    here = hubs.opened(folder / "hub")
    known = hub_settings.read(here)
    engine = store.connect(database_url(here, known))
    token = joining.token(here, known, engine, store.Token(approve=True), "bench")
    engine.dispose()
    return token


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    main()
