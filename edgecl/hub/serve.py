"""`edgecl hub serve`: one process. Merges and TUF's timestamps are made by children, so that serving never waits for them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgecl import files
from edgecl.hub import app, extra, gate, keys, merging, place, settings, store
from edgecl.hub.place import Place
from edgecl.hub.service import Service
from edgecl.types import ConfigError, StoreError

KEEP_ALIVE_SECONDS = 75
TICK_SECONDS = 5
BACKLOG = 1024


def open_service(root: Path) -> Service:
    """The hub of a folder, checked. Raises ConfigError or StoreError with what is wrong."""
    extra.need()
    here = place.opened(root)
    known = settings.read(here)
    engine = store.connect(settings.database_url(here, known))
    check(here)
    merging.rules_of(known)
    store.prepare(engine)
    return Service(here, known, engine)


def check(here: Place) -> None:
    """Raises StoreError or ConfigError that names what of the folder is missing, can't be written or can be read by others."""
    for folder in (here.uploads, here.updates, here.models):
        if not folder.is_dir():
            raise StoreError(f"{folder}: is missing; the hub's folder is not whole")
        if not os.access(folder, os.W_OK):
            raise StoreError(f"{folder}: can't be written by this user")
    if here.keys.is_dir():
        for key in sorted(here.keys.glob("*.pem")):
            with files.naming(key):
                if key.stat().st_mode & 0o077:
                    raise ConfigError(f"{key}: others than its owner may read or write this key; chmod 600 it")


def listen(host: str, port: int) -> socket.socket:
    """Raises ConfigError where the address is not free, or none of this machine."""
    try:
        kind = socket.AF_INET6 if ":" in host else socket.AF_INET
        # With its protocol named, asyncio switches Nagle's wait off: an answer's head and body go at once, not 40 ms apart.
        sock = socket.socket(kind, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)  # who comes before the server runs waits
    except OSError as e:
        raise ConfigError(f"--host {host} --port {port}: {os.strerror(e.errno).lower() if e.errno else e}") from None
    sock.set_inheritable(False)
    return sock


def server(service: Service) -> Any:
    """A uvicorn server of it; `run(sockets=[…])` serves until SIGINT or SIGTERM."""
    import uvicorn

    from edgecl.hub.protocol import Protocol, Server

    made = app.make(service)
    config = uvicorn.Config(
        made, http=Protocol, ws="none", lifespan="on", log_level="error", access_log=False, server_header=False,
        h11_max_incomplete_event_size=gate.HEAD_BYTES, timeout_keep_alive=KEEP_ALIVE_SECONDS, timeout_graceful_shutdown=10,
        limit_concurrency=service.limits.connections, backlog=BACKLOG,
    )  # fmt: skip
    return Server(config)


def serve(root: Path, host: str, port: int, say: Callable[[str], object]) -> None:
    """Until SIGINT or SIGTERM. Raises ConfigError, StoreError."""
    with place.alone(place.opened(root), "serve"), listen(host, port) as sock:
        service = open_service(root)  # under the lock: it removes what lies in uploads/ and is no upload yet
        stop = threading.Event()
        jobs = threading.Thread(target=_jobs, args=(service, stop, say), daemon=True)
        jobs.start()
        for path in keys.kept_online(root):
            say(f"{path}: move it off this machine: whoever takes it can name the keys that devices trust")
        say(f"{root}: serves on http://{host}:{sock.getsockname()[1]} ({service.recovered} uploads go on)")
        try:
            server(service).run(sockets=[sock])
        finally:
            stop.set()
            jobs.join()


def _jobs(service: Service, stop: threading.Event, say: Callable[[str], object]) -> None:
    """Starts the merge job in its time, a child at a time."""
    every = service.settings.merging.every_seconds
    waited, child = 0.0, None
    while not stop.wait(TICK_SECONDS):
        waited += TICK_SECONDS
        if child is not None and child.poll() is not None:
            if told := (child.communicate()[0] or "").strip():
                say(f"merge: {told[-1000:]}")
            child = None
        if child is None and waited >= every:
            waited = 0.0
            child = _merge(service.place.root)
    if child is not None:
        child.terminate()
        child.wait()


def _merge(root: Path) -> subprocess.Popen[str]:
    """`edgecl hub merge` at a lower priority."""
    command = [sys.executable, "-m", "edgecl", "hub", "merge", str(root)]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=_nicely
    )


def _nicely() -> None:
    os.nice(10)
