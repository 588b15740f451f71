"""hub.yaml: what an operator can set, with bounds."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from edgecl import files
from edgecl.hub.place import Place
from edgecl.types import ConfigError

SETTINGS_BYTES = 1 << 16
MIB = 1 << 20
LOWEST = {"max_age": 0, "may_lose": 0, "chunk_bytes": 1 << 18}
"""Where it is not 1. Devices send chunks of 256 KiB."""


@dataclass(frozen=True)
class Limits:
    """What is more than this is refused; each is at least 1."""

    update_bytes: int = 64 * MIB  # of one update
    chunk_bytes: int = MIB  # of one PATCH
    device_bytes_a_day: int = 256 * MIB
    device_bytes: int = 2048 * MIB  # of all that a device's updates take on the disk
    keep_days: int = 90  # that the payload of a merged or refused update stays
    free_bytes: int = 256 * MIB  # of the disk that stay free
    devices: int = 10_000
    pending_devices: int = 1_000  # that nobody approved yet
    device_uploads: int = 4  # open at once
    uploads: int = 1_000  # open at once, of all devices
    upload_seconds: int = 86_400  # that an upload may rest
    nonce_seconds: int = 600
    requests_a_second: int = 2_000  # of one address, which may be a proxy's; /tuf aside
    request_burst: int = 4_000
    enrolments_a_minute: int = 60  # of one address
    connections: int = 4_000


@dataclass(frozen=True)
class Merging:
    """When and how updates are merged; `rules` go to edgecl.merge.Settings as they are."""

    every_seconds: int = 900
    at_least: int = 1  # updates that wait
    at_most: int = 500  # devices that one merge takes, those first whose update came first
    max_age: int = 16  # models that an update's base may lie behind
    memory_bytes: int = 1024 * MIB  # of decoded updates in one merge; more are merged after it
    attempts: int = 3  # refused merges that an update may have been in
    rates: int = 3  # tried where accuracy is lost: the rules' rate, half of it, a quarter
    may_lose: float = 0.01  # of accuracy on the held-out samples, to the best since one was given or rolled back to
    rules: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """All of hub.yaml."""

    url: str = ""  # under which devices reach the hub
    database: str = ""  # SQLAlchemy's URL; "" is hub.db in the folder
    bundle_target: str = "host"
    wheels: str = ""  # folder; its wheels go into each bundle
    limits: Limits = field(default_factory=Limits)
    merging: Merging = field(default_factory=Merging)


def write(place: Place, settings: Settings) -> None:
    """Raises StoreError."""
    files.write_atomic(place.settings, yaml.safe_dump(asdict(settings), sort_keys=False).encode())


def read(place: Place) -> Settings:
    """Raises ConfigError that names file and key, StoreError."""
    where, text = place.settings, files.read_bounded(place.settings, SETTINGS_BYTES)
    try:
        given = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        raise ConfigError(f"{where}: is not YAML") from None
    top = _known(where, "", Settings, given if given is not None else {})
    for name, kind in (("limits", Limits), ("merging", Merging)):
        if name in top:
            top[name] = kind(**_known(where, f"{name}.", kind, top[name]))
    settings = Settings(**top)
    check(where, settings)
    return settings


def check(where: Path | str, settings: Settings) -> None:
    """Raises ConfigError for a number out of bounds."""
    for prefix, part in (("limits", settings.limits), ("merging", settings.merging)):
        for key, value in vars(part).items():
            low = LOWEST.get(key, 1)
            if key != "rules" and not low <= value <= 1 << 50:
                raise ConfigError(f"{where}: {prefix}.{key} is {value!r}, not a number from {low} up")


def database_url(place: Place, settings: Settings) -> str:
    """The URL of hub.yaml, else that of hub.db in the folder."""
    return settings.database or f"sqlite:///{place.database.resolve()}"


def _known(where: Path, prefix: str, kind: Any, given: Any) -> dict[str, Any]:
    """The keys given, each known and of its default's type."""
    if not isinstance(given, dict):
        raise ConfigError(f"{where}: {prefix or 'the top'} is no mapping of keys to values")
    usual = kind()
    names = [f.name for f in fields(kind)]
    for key, value in given.items():
        if key not in names:
            raise ConfigError(f"{where}: unknown key {prefix}{key}; known: {', '.join(names)}")
        default = getattr(usual, key)
        kinds = {bool: (bool,), float: (int, float), int: (int,), str: (str,)}.get(type(default), (dict,))
        if not isinstance(value, kinds) or (isinstance(value, bool) and not isinstance(default, bool)):
            raise ConfigError(f"{where}: {prefix}{key} is {value!r}, not {kinds[-1].__name__}")
    return dict(given)
