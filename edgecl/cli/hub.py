"""`edgecl hub`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from edgecl.hub.place import Place
    from edgecl.hub.settings import Settings

EXAMPLE = """\b
Example:
  edgecl hub """


@click.group(epilog=EXAMPLE + "serve hub/")
def command() -> None:
    """Gather what devices learned, merge it, and give a better model to all."""


DIR = click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
WHO = click.option("--who", envvar="USER", default="operator", metavar="NAME", help="Name for the audit log. [$USER]")
LIMIT = click.option("--limit", type=click.IntRange(1, 10_000), default=50, metavar="N", help="Show no more than these. [50]")


@contextmanager
def _opened(folder: Path) -> Iterator[tuple[Place, Settings, Engine]]:
    """A hub's folder, its settings and its database."""
    from edgecl.hub import extra

    extra.need()
    from edgecl.hub import place, settings, store

    here = place.opened(folder)
    known = settings.read(here)
    engine = store.connect(settings.database_url(here, known))
    store.prepare(engine)
    try:
        yield here, known, engine
    finally:
        engine.dispose()


def _show(rows: list[Any], as_json: bool, line: Any) -> None:
    if as_json:
        print(json.dumps([{**row._asdict(), **({"public_key": None} if hasattr(row, "public_key") else {})} for row in rows]))
        return
    for row in rows:
        print(line(row))


def _when(seconds: int) -> str:
    import datetime

    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%d %H:%M")


@command.command("init", epilog=EXAMPLE + "init hub/ --model runs/mine --held-out test.npz --url https://hub.example.org")
@DIR
@click.option(
    "--model", "run", type=click.Path(path_type=Path), required=True, metavar="RUN", help="Run whose model devices begin with."
)
@click.option(
    "--held-out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="Samples with labels, .npz, that judge each merge.",
)
@click.option(
    "--url", default="http://127.0.0.1:8470", metavar="URL", help="Address that devices come to. [http://127.0.0.1:8470]"
)
@click.option("--database", default="", metavar="URL", help="Such as postgresql+psycopg://user@host/name. [hub.db in DIR]")
@click.option("--bundle-target", default="host", metavar="NAME", help="What models are made for: rpi or host. [host]")
@click.option("--wheels", type=click.Path(path_type=Path), metavar="DIR", help="Wheels to put into each model's bundle.")
def init(folder: Path, run: Path, held_out: Path, url: str, database: str, bundle_target: str, wheels: Path | None) -> None:
    """Make a hub: folder, keys, database, and model 1."""
    from edgecl.hub import extra

    extra.need()
    from edgecl.hub.settings import Settings
    from edgecl.hub.setup import init as make

    wish = Settings(url, database, bundle_target, str(wheels.resolve()) if wheels else "")
    offline = make(folder, run, held_out, wish, print)
    print(f"{folder}: ready; `edgecl hub serve {folder}` serves it, `edgecl hub token {folder}` lets a device in")
    print(f"{offline}: move it off this machine: whoever takes it can name the keys that devices trust")


@command.command("serve", epilog=EXAMPLE + "serve hub/ --host 0.0.0.0 --port 8470")
@DIR
@click.option("--host", default="127.0.0.1", metavar="ADDRESS", help="Address to listen on. [127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), default=8470, metavar="N", help="Port; 0 takes a free one. [8470]")
def serve(folder: Path, host: str, port: int) -> None:
    """Serve devices, and merge what they send, until stopped.

    Merges come every merging.every_seconds of hub.yaml, 15 minutes. `--url` of `init` is what devices are told.
    """
    from edgecl.hub import extra

    extra.need()
    from edgecl.hub.serve import serve as run

    run(folder, host, port, lambda line: print(line, flush=True))


@command.command("token", epilog=EXAMPLE + "token hub/ --uses 20 --note 'greenhouse'")
@DIR
@click.option("--uses", type=click.IntRange(1, 100_000), default=1, metavar="N", help="Devices that may enrol with it. [1]")
@click.option("--days", type=click.IntRange(1, 3650), default=7, metavar="N", help="Days that it holds. [7]")
@click.option("--approve", is_flag=True, help="Approve whoever enrols with it at once.")
@click.option("--note", default="", metavar="TEXT", help="For the audit log.")
@WHO
def token(folder: Path, uses: int, days: int, approve: bool, note: str, who: str) -> None:
    """Make a join token, for edgecl sync enroll TOKEN on a device."""
    with _opened(folder) as (here, known, engine):
        from edgecl.hub import joining, store

        print(joining.token(here, known, engine, store.Token(uses, days * 86_400, approve, note), who))


@command.command("devices", epilog=EXAMPLE + "devices hub/")
@DIR
@click.option(
    "--state",
    type=click.Choice(["pending", "approved", "revoked"]),
    metavar="STATE",
    help="Only those that are pending, approved or revoked.",
)
@JSON
def devices(folder: Path, state: str | None, as_json: bool) -> None:
    """List the devices: state, when last seen, what they told."""
    with _opened(folder) as (_, _, engine):
        from edgecl.hub import store

        _show(
            store.devices(engine, state or ""), as_json,
            lambda d: f"{d.id}  {d.state:8}  seen {_when(d.last_seen)}  model {d.model:<4}  {d.bytes:>11,} B {d.name} {d.health}",
        )  # fmt: skip


@command.command("approve", epilog=EXAMPLE + "approve hub/ 0123456789abcdef")
@DIR
@click.argument("device")
@WHO
def approve(folder: Path, device: str, who: str) -> None:
    """Let a device that enrolled send updates."""
    with _opened(folder) as (_, _, engine):
        from edgecl.hub import store

        print(f"{store.approve(engine, device, who).id}: approved")


@command.command("revoke", epilog=EXAMPLE + "revoke hub/ 0123456789abcdef")
@DIR
@click.argument("device")
@WHO
def revoke(folder: Path, device: str, who: str) -> None:
    """Take nothing more from a device; refuse what waits of it."""
    with _opened(folder) as (_, _, engine):
        from edgecl.hub import store

        print(f"{store.revoke(engine, device, who).id}: revoked; what is merged of it stays in the models")


@command.command("updates", epilog=EXAMPLE + "updates hub/ --state refused")
@DIR
@click.option("--device", default="", metavar="ID", help="Only those of this device.")
@click.option(
    "--state",
    type=click.Choice(["stored", "merged", "refused"]),
    metavar="STATE",
    help="Only those that are stored, merged or refused.",
)
@LIMIT
@JSON
def updates(folder: Path, device: str, state: str | None, limit: int, as_json: bool) -> None:
    """List updates, the newest first, and why each was refused."""
    with _opened(folder) as (_, _, engine):
        from edgecl.hub import store

        _show(
            store.updates(engine, device, state or "", limit), as_json,
            lambda u: f"{u.device} {u.sequence:<6} {_when(u.received)}  {u.bytes:>10,} B  {u.state}"
            + (f" in model {u.model}" if u.model else "") + (f": {u.reason}" if u.reason else ""),
        )  # fmt: skip


@command.command("merge", epilog=EXAMPLE + "merge hub/")
@DIR
@JSON
def merge(folder: Path, as_json: bool) -> None:
    """Merge what waits, and publish it if it is good enough.

    The held-out samples tell. `edgecl hub serve` does this by itself.
    Also signs TUF's timestamp anew, and ends what a power cut left undone.
    """
    with _opened(folder) as (here, known, engine):
        from edgecl.hub import merging

        _show(merging.run(here, known, engine), as_json, _outcome)


def _outcome(done: Any) -> str:
    shares = " → ".join("?" if v is None else f"{100 * v:.2f} %" for v in (done.before, done.accuracy))
    what = f"model {done.model} of {done.updates} updates" if done.model else f"refused: {done.reason}"
    return f"{what} ({shares} of the held-out samples)"


@command.command("models", epilog=EXAMPLE + "models hub/")
@DIR
@JSON
def models(folder: Path, as_json: bool) -> None:
    """List the models, the newest first, with held-out accuracy."""
    with _opened(folder) as (_, _, engine):
        from edgecl.hub import store

        _show(
            store.models(engine), as_json,
            lambda m: f"{m.number:04}  {_when(m.created)}  {'?' if m.accuracy is None else f'{100 * m.accuracy:.2f} %':>8}  "
            f"{len(m.classes)} classes  {m.bytes:>12,} B  {m.note}{'' if m.published else '; not published yet'}",
        )  # fmt: skip


@command.command("rollback", epilog=EXAMPLE + "rollback hub/ 3")
@DIR
@click.argument("number", type=click.IntRange(1))
@WHO
def rollback(folder: Path, number: int, who: str) -> None:
    """Give all devices model NUMBER again, under a new number."""
    with _opened(folder) as (here, known, engine):
        from edgecl.hub import place, publishing

        with place.alone(here, "merge"):
            done = publishing.rollback(here, known, engine, number, who)
        print(f"model {done.number}: is model {number} again")


@command.command("share", epilog=EXAMPLE + "share hub/ kestrel")
@DIR
@click.argument("name", metavar="CLASS")
@WHO
def share(folder: Path, name: str, who: str) -> None:
    """Merge a class that devices named, which is personal until then."""
    with _opened(folder) as (_, _, engine):
        from edgecl.hub import store

        store.share(engine, name, who)
        known = "" if name in store.taught(engine) else "; no device has taught it so far"
        print(f"{name}: shared from the next merge on{known}")


@command.command("user", epilog=EXAMPLE + "user hub/ ann")
@DIR
@click.argument("name")
@click.option("--remove", is_flag=True, help="Take the operator out.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input, one line.")
@WHO
def user(folder: Path, name: str, remove: bool, password_stdin: bool, who: str) -> None:
    """Add an operator for the page, or give one a new password."""
    with _opened(folder) as (_, _, engine):
        from edgecl.hub import store

        if remove:
            store.remove_operator(engine, name, who)
            print(f"{name}: removed")
            return
        if password_stdin:
            password = sys.stdin.readline(1002).rstrip("\n")
        else:
            password = click.prompt("Password", hide_input=True, confirmation_prompt=True)
        store.add_operator(engine, name, password, who)
        print(f"{name}: may use the operator's page")


def _add_keys() -> None:
    from edgecl.cli.hubkeys import keys

    command.add_command(keys)


_add_keys()
