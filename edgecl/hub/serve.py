"""`edgecl hub serve`: one process. Merges are made by children, TUF's timestamps by a thread: serving never waits for them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgecl import files
from edgecl.hub import app, extra, gate, keys, merging, place, repository, settings, store
from edgecl.hub.place import Place
from edgecl.hub.service import Service
from edgecl.types import ConfigError, EdgeclError, StoreError

KEEP_ALIVE_SECONDS = 75
TICK_SECONDS = 5.0
REFRESH_SECONDS, AGAIN_SECONDS = 3600.0, 60.0  # between looks at TUF's timestamps; after one that failed
JOB_SECONDS = 3600.0  # that a merge job may take
TOLD_BYTES = 1000  # of what it said at last
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
    """Keeps TUF's timestamps young, and starts the merge job in its time, a child at a time. No failure of one ends the other."""
    root, every = service.place.root, service.settings.merging.every_seconds
    child: _Child | None = None
    refresh, merge = 0.0, time.monotonic() + every
    while True:
        now = time.monotonic()
        if now >= refresh:
            refresh = now + (REFRESH_SECONDS if _refreshed(root, say) else AGAIN_SECONDS)
        if child is not None and child.ended(say):
            child = None
        if child is None and now >= merge:
            merge, child = now + every, _started(root, say)
        if stop.wait(TICK_SECONDS):
            break
    if child is not None:
        child.stop()


def _refreshed(root: Path, say: Callable[[str], object]) -> bool:
    try:
        repository.refresh_timestamp(root)
    except (EdgeclError, OSError) as e:
        say(f"timestamp: {e}")
        return False
    return True


class _Child:
    """`edgecl hub merge` at a lower priority. What it says goes to a file without a name: a full pipe would stop it.

    Raises OSError or SubprocessError where it can't be started.
    """

    def __init__(self, root: Path) -> None:
        self.log = tempfile.TemporaryFile()  # noqa: SIM115
        self.late = time.monotonic() + JOB_SECONDS
        try:
            self.process = subprocess.Popen(
                _command(root), stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT, preexec_fn=_nicely
            )
        except BaseException:
            self.log.close()
            raise

    def ended(self, say: Callable[[str], object]) -> bool:
        """Whether; then what it said is told. One that takes too long is killed: the next goes on where it was."""
        if self.process.poll() is None:
            if time.monotonic() < self.late:
                return False
            self.process.kill()
            self.process.wait()
            say(f"merge: took more than {JOB_SECONDS} s and was ended")
        if told := self._told():
            say(f"merge: {told}")
        return True

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()
        self.log.close()

    def _told(self) -> str:
        with self.log as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - TOLD_BYTES))
            return log.read(TOLD_BYTES).decode(errors="replace").strip()


def _started(root: Path, say: Callable[[str], object]) -> _Child | None:
    try:
        return _Child(root)
    except (OSError, subprocess.SubprocessError) as e:
        say(f"merge: can't be started: {e}")
        return None


def _command(root: Path) -> list[str]:
    return [sys.executable, "-m", "edgecl", "hub", "merge", str(root)]


def _nicely() -> None:
    os.nice(10)
