"""`edgecl hub keys`."""

from __future__ import annotations

from pathlib import Path

import click

EXAMPLE = """\b
Example:
  edgecl hub keys """


@click.group(epilog=EXAMPLE + "show hub/")
def keys() -> None:
    """See and replace the keys that devices trust; withdraw a role."""


FOLDER = click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
OFFLINE = click.option(
    "--offline",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of root.pem and targets.pem. They are read there, and not kept. [DIR/offline]",
)


@keys.command("show", epilog=EXAMPLE + "show hub/")
@FOLDER
def show(folder: Path) -> None:
    """Each role's key in force, its version, and until when it holds."""
    from edgecl.hub import keys

    for row in keys.listing(folder):
        print(f"{row.role:9}  {row.key or 'revoked':16}  version {row.version:<5}  until {row.expires:%Y-%m-%d %H:%M} UTC")
    for path in keys.kept_online(folder):
        print(f"{path}: move it off this machine: whoever takes it can name the keys that devices trust")


@keys.command("rotate", epilog=EXAMPLE + "rotate hub/ timestamp --offline /media/stick")
@FOLDER
@click.argument("role", type=click.Choice(["root", "targets", "snapshot", "timestamp", "models", "bundle", "online"]))
@OFFLINE
def rotate(folder: Path, role: str, offline: Path | None) -> None:
    """Replace the key of ROLE. Devices follow at their next sync.

    `online` is snapshot, timestamp and models.
    """
    from edgecl.hub import keys

    found = None if role == "bundle" else keys.offline_folder(folder, offline)
    for name in ("timestamp", "snapshot", "models") if role == "online" else (role,):
        key = keys.rotate(folder, name, found)
        print(f"{name}: new key {key[:16]}" if name != "bundle" else "bundle: new key, for the models published from now on")


@keys.command("revoke", epilog=EXAMPLE + "revoke hub/ --offline /media/stick")
@FOLDER
@OFFLINE
def revoke(folder: Path, offline: Path | None) -> None:
    """Take the role of models back.

    No device takes another model until it has a new key.
    """
    from edgecl.hub import keys

    keys.revoke(folder, keys.offline_folder(folder, offline))
    print("models: revoked; `edgecl hub keys rotate DIR models` gives the role a new key, then publish again")


@keys.command("renew", epilog=EXAMPLE + "renew hub/ --offline /media/stick")
@FOLDER
@OFFLINE
def renew(folder: Path, offline: Path | None) -> None:
    """Sign root and targets anew, before they expire."""
    from edgecl.hub import keys

    keys.renew(folder, keys.offline_folder(folder, offline))
    for row in keys.listing(folder)[:2]:
        print(f"{row.role}: version {row.version}, until {row.expires:%Y-%m-%d %H:%M} UTC")
