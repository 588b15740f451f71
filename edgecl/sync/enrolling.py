"""A device joins a hub: it makes its key, proves that it has it, and keeps the root of trust that the join token names."""

from __future__ import annotations

import base64
import platform
import socket
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from edgecl import __version__, files
from edgecl.sync import device, rules
from edgecl.sync.device import Join
from edgecl.sync.errors import NetworkError
from edgecl.sync.place import Config, Place, check, read_config, read_state, write_config, write_state
from edgecl.sync.rules import Verdict
from edgecl.sync.transport import Api
from edgecl.sync.trust import first_root
from edgecl.types import ConfigError, DataError

FIXED = ("url", "device", "token")


def enroll(place: Place, token: str, options: Mapping[str, Any], api: Api | None = None) -> tuple[Config, str]:
    """Makes `ROOT/sync/` and says hello; (configuration, state: approved or pending). Doing it again changes options only.

    `options` are fields of Config. Raises ConfigError for a wrong token, address or option, NetworkError where the hub can't be
    reached, DataError where it refuses.
    """
    join = device.parse_token(token)
    with files.naming(place.folder):
        place.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.sync(place.root)
    config = _config(place, join, options)
    api = api or Api(join.url, ca=Path(config.ca) if config.ca else None)
    root = first_root(join.url, join.root, api)
    said = _ask(api, place, config)
    files.write_atomic(place.first_root, root)
    from dataclasses import replace

    write_state(place, replace(read_state(place), hub=said))
    write_config(place, config)  # last: with it the device is enrolled
    return config, said


def _config(place: Place, join: Join, options: Mapping[str, Any]) -> Config:
    """As it was, with what is given now."""
    known = read_config(place) if place.config.exists() else None
    if known is not None and (known.url, known.token) != (join.url, join.token):
        raise ConfigError(
            f"{place.folder}: is enrolled at {known.url}, with another token; its options are in config.json; "
            "remove this folder to leave that hub, its updates with it"
        )
    unknown = set(options) - {f.name for f in fields(Config)} | set(options) & set(FIXED)
    if unknown:
        raise ConfigError(f"sync: no option {min(unknown)!r}")
    device.check_url(join.url, bool(options.get("insecure_http", known.insecure_http if known else False)))
    device.make_key(place.key)
    own = device.device_id(device.public_of(place.key))
    was = vars(known) if known else {"name": socket.gethostname()[:100] or own}
    config = Config(**{**was, **options, "url": join.url, "token": join.token, "device": own})
    check(place.config, config)
    if not config.name.isprintable() or not 1 <= len(config.name) <= 100:
        raise ConfigError("sync: a name is 1 to 100 printable characters")
    return config


def _ask(api: Api, place: Place, config: Config) -> str:
    public = device.public_of(place.key)
    said = api.post(
        "/v1/enroll",
        {
            "token": config.token,
            "public_key": base64.b64encode(public).decode(),
            "name": config.name,
            "machine": platform.machine()[:40] or "unknown",
            "edgecl": __version__,
            "signature": base64.b64encode(device.sign_enrolment(place.key, config.token)).decode(),
        },
    )
    verdict = rules.verdict(said.status)
    if verdict == Verdict.RETRY:
        raise NetworkError(f"{config.url}: {said.error}; try again later")
    if verdict != Verdict.DONE or said.body.get("device") != config.device:
        raise DataError(f"{config.url}: the hub does not take this device ({said.error})")
    return str(said.body.get("state", ""))[:40]
