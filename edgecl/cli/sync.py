"""`edgecl sync`."""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edgecl.sync.client import Client
    from edgecl.sync.place import Config

EXAMPLE = """\b
Example:
  edgecl sync """


@click.group(epilog=EXAMPLE + "enroll edgecl-join:eyJ1cmwiOi… --place /opt/edgecl")
def command() -> None:
    """Send what this device learned to its hub, and fetch better models."""


PLACE = click.option("--place", type=click.Path(path_type=Path), required=True, metavar="ROOT", help="Folder of the slots.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print lines of JSON.")


@command.command("enroll", epilog=EXAMPLE + "enroll edgecl-join:eyJ1cmwiOi… --place /opt/edgecl --name kitchen")
@click.argument("token")
@PLACE
@click.option("--name", metavar="NAME", help="What the hub's operator calls it. [the host's name]")
@click.option("--lessons", metavar="DIR", help="Folder of lessons by bundle, such as /var/lib/edgecl. [lessons/ in the slot]")
@click.option("--ca", metavar="FILE", help="Certificates, PEM, to trust instead of the system's.")
@click.option("--insecure-http", is_flag=True, default=None, help="Talk http to another machine, without TLS.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Set a key of config.json, such as bytes_a_day=5000000.")
def enroll(token: str, place: Path, sets: tuple[str, ...], **given: Any) -> None:
    """Join a hub, with the token that `edgecl hub token` printed.

    Again, with the same token: change options.

    Where ROOT has no slots yet, `pull` installs the hub's model there.
    """
    from edgecl.sync.enrolling import enroll as join
    from edgecl.sync.place import Place, alone

    options = {k: v for k, v in given.items() if v is not None} | dict(_parsed(text) for text in sets)
    for key in ("lessons", "ca"):
        if options.get(key):
            options[key] = str(Path(options[key]).resolve())
    here = Place(place.resolve())
    here.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with alone(here):
        config, state = join(here, token, options)
    _warn(config)
    print(f"device {config.device} ({config.name}) at {config.url}: {state}")
    if state == "pending":
        print(f"its operator has to approve it (on the hub: edgecl hub approve DIR {config.device}); until then it waits")


def _parsed(text: str) -> tuple[str, Any]:
    """A key and its value, of the key's type. Raises ConfigError."""
    from edgecl.sync.place import Config
    from edgecl.types import ConfigError

    key, _, value = text.partition("=")
    kind = Config.__dataclass_fields__[key].type if key in Config.__dataclass_fields__ else None
    words = {"true": True, "false": False}
    try:
        if kind == "bool":
            return key, words[value]
        return key, {"int": int, "float": float, "str": str}[str(kind)](value)
    except (KeyError, ValueError):
        known = ", ".join(Config.__dataclass_fields__)
        raise ConfigError(f"--set {text}: " + (f"{value!r} is no {kind}" if kind else f"no such key; known: {known}")) from None


@command.command("push", epilog=EXAMPLE + "push --place /opt/edgecl")
@PLACE
@JSON
def push(place: Path, as_json: bool) -> None:
    """Send the updates of lessons that are learned."""
    _once(place, as_json, "push", lambda client: client.push())


@command.command("pull", epilog=EXAMPLE + "pull --place /opt/edgecl")
@PLACE
@JSON
def pull(place: Path, as_json: bool) -> None:
    """Fetch a newer model, if any; what was learned here comes along."""
    _once(place, as_json, "pull", lambda client: client.pull())


def _once(place: Path, as_json: bool, what: str, act: Callable[[Client], object]) -> None:
    """Raises DataError with what it waits for."""
    from edgecl.types import DataError

    said: list[object] = []
    with _client(place, as_json, ("waits",), said) as client:
        client.report()
        act(client)
        client.keep()
        hub, waits = client.state.hub, client.state.waits
    if why := waits.get(what) or (not said and waits.get("report")):
        raise DataError(why)
    if not said and not as_json:
        print(f"{what}: nothing new; to the hub this device is {hub}")


@command.command("run", epilog=EXAMPLE + "run --place /opt/edgecl")
@PLACE
@JSON
@click.option("--rounds", type=click.IntRange(1), metavar="N", help="End after so many. [none]")
def run(place: Path, as_json: bool, rounds: int | None) -> None:
    """Report, push and pull, again and again, until SIGTERM or Ctrl-C."""
    from edgecl.sync import service

    with service.stopping():
        try:
            with _client(place, as_json) as client:
                why = service.loop(client, rounds)
        except service.Stopped:
            why = "asked to"
    _say(as_json, {"event": "stopped", "why": why})


@contextmanager
def _client(place: Path, as_json: bool, quiet: tuple[str, ...] = (), said: list[object] | None = None) -> Iterator[Client]:
    from edgecl.sync.client import Client
    from edgecl.sync.place import Place, alone, read_config

    here = Place(place.resolve())
    config = read_config(here)
    _warn(config)

    def say(event: Mapping[str, Any]) -> None:
        if event["event"] not in quiet:
            _say(as_json, event)
            if said is not None:
                said.append(event)

    with alone(here):
        client = Client(here, config, say)
        try:
            yield client
        finally:
            client.api.close()


def _warn(config: Config) -> None:
    from edgecl.sync.device import plain

    if plain(config.url):
        print(f"edgecl: warning: {config.url} is without TLS: others can read what is sent", file=sys.stderr)


def _say(as_json: bool, event: Mapping[str, Any]) -> None:
    if as_json:
        print(json.dumps(event), flush=True)
        return
    parts = [f"{k} {v}" for k, v in event.items() if k != "event" and v not in (None, "", [], ())]
    print(f"{event['event']}: {', '.join(parts)}", flush=True)


@command.command("status", epilog=EXAMPLE + "status --place /opt/edgecl")
@PLACE
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def status(place: Path, as_json: bool) -> None:
    """Show what waits, why, and what was done last. Asks no network."""
    from edgecl.sync.place import Place
    from edgecl.sync.status import status as told

    known = told(Place(place.resolve()))
    if as_json:
        print(json.dumps(known))
        return
    from edgecl.cli.look import console, grid

    console().print(grid([(key.replace("_", " "), _text(value, key)) for key, value in known.items()]))


def _text(value: Any, key: str = "") -> str:
    if key in ("time", "hub_time") and isinstance(value, int):
        return datetime.datetime.fromtimestamp(value, datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC") if value else "–"
    if key == "snapshot":
        return str(value)[:12]
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {_text(v, k)}" for k, v in value.items()) or "–"
    if isinstance(value, list):
        return "; ".join(map(_text, value)) or "–"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "–" if value in (None, "") else str(value)
