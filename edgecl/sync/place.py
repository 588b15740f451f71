"""`ROOT/sync/`: what a device keeps of its hub, beside the slots that it syncs. One process works there at a time."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from edgecl import files, slots
from edgecl.sync.rules import Spent
from edgecl.types import ConfigError

FILE_BYTES = 64 << 10  # of config.json and state.json
TRIALS = ("wait", "selftest")
T = TypeVar("T", "Config", "State")


class Place(NamedTuple):
    """Where things lie below the root of the slots."""

    root: Path

    @property
    def folder(self) -> Path:
        return self.root / "sync"

    @property
    def config(self) -> Path:
        return self.folder / "config.json"

    @property
    def state(self) -> Path:
        return self.folder / "state.json"

    @property
    def key(self) -> Path:
        return self.folder / "key.pem"

    @property
    def first_root(self) -> Path:
        return self.folder / "root.json"

    @property
    def outbox(self) -> Path:
        return self.folder / "outbox"

    @property
    def tuf(self) -> Path:
        return self.folder / "tuf"

    @property
    def down(self) -> Path:
        return self.folder / "down"

    def slot(self) -> Path | None:
        """The slot in use, by its own name: `current` may lead elsewhere later. None where nothing is installed."""
        return slots.current(self.root)


@dataclass(frozen=True)
class Config:
    """config.json: how this device syncs. `enroll` writes it; an editor may change it while no sync runs."""

    url: str  # of the hub
    device: str  # id: 16 hex digits
    token: str  # it enrolled with
    name: str
    insecure_http: bool = False  # http to another machine is meant
    ca: str = ""  # PEM file of certificates to trust instead of the system's
    lessons: str = ""  # folder with a folder of lessons for each bundle; "": `lessons/` in the slot
    push: bool = True
    pull: bool = True
    every: float = 900.0  # seconds between two looks at the hub, about
    bytes_a_day: int = 0  # up and down together; 0: no limit
    quota: int = 64 << 20  # bytes of the outbox
    values: str = "int8"  # how weights are sent
    trial: str = "wait"  # who confirms a pulled slot: another program, or sync itself after a second self-test
    venv: bool = False  # a virtual environment in the slot, from the bundle's wheels
    relearn: int = 3  # epochs of a short lesson over the replay memory after a pull, where there are personal classes; 0: none
    before: str = ""  # command that stops what learns in the slot in use
    after: str = ""  # command that starts it again


@dataclass(frozen=True)
class State:
    """state.json: what is known of the hub, and what was done. Losing it costs nothing but knowledge of the past."""

    hub: str = ""  # what it said of this device: pending, approved, refused: why
    spent: Mapping[str, int] = field(default_factory=dict)
    pushed: Mapping[str, Any] = field(default_factory=dict)  # the last update that was acknowledged
    pulled: Mapping[str, Any] = field(default_factory=dict)  # the last model that was installed: number, snapshot, keys
    failed: Mapping[str, Any] = field(default_factory=dict)  # a model that could not be installed: number, tries, why
    waits: Mapping[str, str] = field(default_factory=dict)  # what waits → why
    time: float = 0.0  # the hub's, when it was last known

    @property
    def bytes(self) -> Spent:
        """What the day has spent."""
        return Spent(*(int(self.spent.get(k, 0)) for k in Spent._fields))


def read_config(place: Place) -> Config:
    """Raises ConfigError where the device is not enrolled, or a value is wrong."""
    if not place.config.exists():
        raise ConfigError(f"{place.root}: is not enrolled (edgecl sync enroll TOKEN --place {place.root})")
    config = _read(Config, place.config)
    check(place.config, config)
    return config


def check(where: Path, config: Config) -> None:
    """Raises ConfigError that names the key."""
    wrong = {
        "trial": config.trial not in TRIALS,
        "every": not 1 <= config.every <= 7 * 86_400,
        "bytes_a_day": not 0 <= config.bytes_a_day < 1 << 50,
        "relearn": not 0 <= config.relearn <= 1000,
        "quota": not 1 <= config.quota < 1 << 50,
    }
    for key, bad in wrong.items():
        if bad:
            raise ConfigError(f"{where}: {key} is {getattr(config, key)!r}" + (f", not {' or '.join(TRIALS)}" * (key == "trial")))


def read_state(place: Place) -> State:
    """The empty one where there is none, or where it is damaged."""
    try:
        return _read(State, place.state) if place.state.exists() else State()
    except ConfigError:
        return State()


def write_config(place: Place, config: Config) -> None:
    """For its owner only: it holds the join token. Raises StoreError."""
    _write(place.config, asdict(config))
    with files.naming(place.config):
        os.chmod(place.config, 0o600)


def write_state(place: Place, state: State) -> None:
    """Raises StoreError."""
    _write(place.state, asdict(state))


def _write(path: Path, values: Mapping[str, Any]) -> None:
    files.write_atomic(path, json.dumps(values, indent=1).encode() + b"\n")


def _read(kind: type[T], path: Path) -> T:
    known = {f.name: f.type for f in fields(kind)}
    try:
        said = json.loads(files.read_bounded(path, FILE_BYTES))
        unknown = [k for k in said if k not in known]
        if unknown:
            raise ConfigError(f"{path}: unknown key {unknown[0]!r}; known: {', '.join(known)}")
        wrong = [k for k, v in said.items() if not _fits(str(known[k]), v)]
        if wrong:
            raise ConfigError(f"{path}: {wrong[0]} is {said[wrong[0]]!r}, not {known[wrong[0]]}")
        return kind(**said)
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise ConfigError(f"{path}: is damaged (not whole, not JSON, or lacks a key)") from None


def _fits(kind: str, value: Any) -> bool:
    if kind.startswith("Mapping"):
        return isinstance(value, dict)
    if kind == "float":
        return type(value) in (int, float)
    return type(value).__name__ == kind


def alone(place: Place) -> AbstractContextManager[None]:
    """No other process syncs this root meanwhile. Raises StoreError at once where one does."""
    return files.locked(place.folder / ".lock", f"{place.folder}: another edgecl sync is at work there")


# lessons


def lessons_of(config: Config, slot: Path) -> Path:
    """Where what was learned on top of a slot's bundle is kept. In `config.lessons`, as edgecl-learn.service has it, that is a
    folder named by the first 16 hex digits of the SHA-256 of the bundle's manifest."""
    if not config.lessons:
        return slot / "lessons"
    with files.naming(slot / "manifest.json"):
        digest = hashlib.sha256((slot / "manifest.json").read_bytes()).hexdigest()
    return Path(config.lessons) / digest[:16]


def base_of(slot: Path | None) -> str:
    """The snapshot that a slot's bundle brought: SHA-256 of its state.json; "" where it has no learner. Raises StoreError."""
    if slot is None:
        return ""
    found = sorted((slot / "learner" / "snapshots").glob("[0-9]*/state.json"), key=lambda p: int(p.parent.name))
    return files.sha256(found[-1]) if found else ""


def look(folder: Path) -> str:
    """Changes whenever a lesson is learned; costs no more than a listing."""
    found = sorted(folder.glob("[0-9]*/snapshots/[0-9]*/state.json"))
    stats = [(str(p), p.stat().st_mtime_ns, p.stat().st_size) for p in found if p.exists()]
    return hashlib.sha256(repr(stats).encode()).hexdigest()
