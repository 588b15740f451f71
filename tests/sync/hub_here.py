"""A real hub on loopback, and devices that talk to it, through a line that may be cut."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from sync_cases import samples

from edgecl import slots
from edgecl.hub import joining, merging, serve, setup, store
from edgecl.hub.service import Service
from edgecl.hub.settings import Settings
from edgecl.sync.client import Client
from edgecl.sync.enrolling import enroll
from edgecl.sync.fetcher import Limits
from edgecl.sync.place import Place, read_config
from edgecl.sync.transport import Api

QUICK = Limits(connect=5.0, silent=10.0, whole=30.0)


def new_hub(root: Path, run: Path) -> Path:
    """Held-out samples are of all ten digits; those of unknown classes don't count."""
    shown = samples(range(10), 15, test=True)
    np.savez(root.parent / f"{root.name}.npz", x=shown.x, y=np.array(shown.labels))
    setup.init(root, run, root.parent / f"{root.name}.npz", Settings(url="http://127.0.0.1:1"), lambda line: None)
    return root


@contextmanager
def served(root: Path) -> Iterator[Service]:
    """In this process; `service.port` says where."""
    service = serve.open_service(root)
    with serve.listen("127.0.0.1", 0) as sock:
        server = serve.server(service)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        service.port = sock.getsockname()[1]  # type: ignore[attr-defined]
        _wait(f"http://127.0.0.1:{service.port}/openapi.json")  # type: ignore[attr-defined]
        try:
            yield service
        finally:
            server.should_exit = True
            thread.join(20)
            service.close()
            service.engine.dispose()


def _wait(url: str) -> None:
    for _ in range(400):
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError("the hub does not answer")


def token(service: Service, port: int, *, approve: bool = True) -> str:
    """For a device that reaches the hub at this port."""
    known = replace(service.settings, url=f"http://127.0.0.1:{port}")
    return joining.token(service.place, known, service.engine, store.Token(approve=approve), "test")


def merge(service: Service) -> list[merging.Outcome]:
    return merging.run(service.place, service.settings, service.engine)


@dataclass
class Device:
    """A root of slots, enrolled; what it says is kept."""

    root: Path
    url: str
    said: list[dict[str, Any]] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)

    @staticmethod
    def joined(root: Path, service: Service, port: int, **options: Any) -> Device:
        root.mkdir(parents=True, exist_ok=True)
        given = token(service, port, approve=options.pop("approve", True))
        for _ in range(20):  # the line may be cut
            try:
                enroll(Place(root), given, options, Api(f"http://127.0.0.1:{port}", limits=QUICK))
                break
            except Exception as e:
                last = e
        else:
            raise last
        return Device(root, f"http://127.0.0.1:{port}")

    @contextmanager
    def client(self, **changes: Any) -> Iterator[Client]:
        """As a process that starts and ends."""
        config = replace(read_config(Place(self.root)), **changes)
        api = Api(config.url, limits=QUICK)
        try:
            yield Client(Place(self.root), config, lambda e: self.said.append(dict(e)), sleep=self.slept.append, api=api)
        finally:
            api.close()

    def do(self, what: str, **changes: Any) -> str:
        """Why it waits; "" where it does not."""
        with self.client(**changes) as client:
            getattr(client, what)()
            return client.state.waits.get(what, "")

    def until(self, what: str, tries: int = 30, **changes: Any) -> None:
        """Through a line that is cut now and then."""
        for _ in range(tries):
            why = self.do(what, **changes)
            if not why:
                return
        raise AssertionError(why)

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [e for e in self.said if e["event"] == kind]

    @property
    def slot(self) -> Path:
        found = slots.current(self.root)
        assert found is not None
        return found

    def confirm(self) -> None:
        slots.confirm(self.root)
