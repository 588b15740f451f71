"""`edgecl bundle`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edgecl.bundle import Head

EXAMPLE = """\b
Example:
  edgecl bundle """


@click.group(epilog=EXAMPLE + "create runs/mine --target rpi -o mine.edgecl --key key.pem")
def command() -> None:
    """Make signed bundles for devices, check them, and install them."""


FILE = click.argument("file", type=click.Path(path_type=Path))
PUB = click.option("--pub", type=click.Path(path_type=Path), required=True, metavar="KEY", help="Public key that signed it, PEM.")
ROOT = click.option("--root", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Folder of the slots.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")


@command.command("keygen", epilog=EXAMPLE + "keygen key.pem")
@click.argument("key", type=click.Path(path_type=Path))
def keygen(key: Path) -> None:
    """Make a key pair: KEY, to keep secret, and its .pub beside it."""
    from edgecl.bundle import keygen as make

    public, key_id = make(key)
    print(f"{key}: private key, for its owner only; keep it off the devices\n{public}: public key {key_id}, for the devices")


@command.command("create", epilog=EXAMPLE + "create runs/mine --target rpi -o mine.edgecl --key key.pem --wheels wheels/")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--target", required=True, metavar="NAME", help="What it is for: rpi, rpi-32 or host.")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, metavar="FILE", help="The bundle, NAME.edgecl.")
@click.option("--key", type=click.Path(path_type=Path), required=True, metavar="FILE", help="Private key to sign with, PEM.")
@click.option("--snapshot", type=int, metavar="N", help="Number of the snapshot. [the newest]")
@click.option(
    "--model",
    "models",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Exported model to add; may be given again.",
)
@click.option(
    "--export",
    "exports",
    multiple=True,
    metavar="FORMAT",
    help="Model to make now, such as onnx-int8 or litert-int8; may be given again.",
)
@click.option("--no-learner", is_flag=True, help="Leave out weights, masks and memory: it then only predicts, with --model.")
@click.option("--wheels", type=click.Path(path_type=Path), metavar="DIR", help="Wheels to add, for an install without network.")
@click.option("--licenses", type=click.Path(path_type=Path), metavar="FILE", help="Licence notes to append to LICENSES.txt.")
@click.option("--memory", metavar="SIZE", help="Memory limit of its services, such as 256MB. [512MB]")
@click.option(
    "--cpu", type=click.IntRange(1, 10_000), metavar="PERCENT", help="CPU limit of its services; 100 is one core. [200]"
)
def create(
    run: Path,
    target: str,
    out: Path,
    key: Path,
    snapshot: int | None,
    models: tuple[Path, ...],
    exports: tuple[str, ...],
    no_learner: bool,
    wheels: Path | None,
    licenses: Path | None,
    memory: str | None,
    cpu: int | None,
) -> None:
    """Make a signed bundle from a run's snapshot.

    RUN is a run folder, or a folder snapshots/NNN in one.
    """
    from edgecl.bundle import TARGETS, Wish
    from edgecl.bundle import create as make

    wish = Wish(target, snapshot, not no_learner, models, exports, wheels, licenses, _limits(memory, cpu))
    made = make(run, out, key, wish, lambda line: click.echo(f"edgecl: warning: {line}", err=True))
    print(f"{out}: {len(made.files)} files, {sum(e.bytes for e in made.files.values()):,} B, for {target} ({made.machine})")
    print(TARGETS[target].about)


def _limits(memory: str | None, cpu: int | None) -> dict[str, int]:
    from edgecl import budget
    from edgecl.bundle.targets import CPU, MEMORY
    from edgecl.types import ConfigError

    limits = {} if cpu is None else {CPU: cpu}
    if memory is not None:
        size = budget.parse(memory).memory
        if size is None:
            raise ConfigError(f"--memory: {memory!r} is no size such as 256MB")
        limits[MEMORY] = int(size)
    return limits


@command.command("verify", epilog=EXAMPLE + "verify mine.edgecl --pub key.pub")
@FILE
@PUB
def verify(file: Path, pub: Path) -> None:
    """Check every byte of a bundle against a public key."""
    from edgecl.bundle import verify as check

    head = check(file, pub)
    print(f"{file}: whole, and signed by {head.key}: {len(head.manifest.files)} files for {head.manifest.target}")


@command.command("inspect", epilog=EXAMPLE + "inspect mine.edgecl")
@FILE
@click.option("--pub", type=click.Path(path_type=Path), metavar="KEY", help="Public key to check it against, PEM.")
@JSON
def inspect(file: Path, pub: Path | None, as_json: bool) -> None:
    """Show what is in a bundle."""
    import json

    from edgecl import bundle

    head = bundle.inspect(file) if pub is None else bundle.verify(file, pub)
    if as_json:
        said = json.loads(head.data)
        print(json.dumps({"file": str(file), "verified": pub is not None, "key": head.key, **said, "about": _about(head)}))
    else:
        _show(file, head, pub)


def _about(head: Head) -> str:
    from edgecl.bundle import TARGETS

    return TARGETS[head.manifest.target].about if head.manifest.target in TARGETS else ""


def _show(file: Path, head: Head, pub: Path | None) -> None:
    from edgecl.cli.look import console, grid, table

    m = head.manifest
    trust = f"not verified (give --pub KEY); by its own word signed by {head.key}"
    rows: list[tuple[str, str]] = [
        ("bundle", str(file)),
        ("signature", trust if pub is None else f"verified, by {head.key}"),
        ("target", f"{m.target} ({m.machine}): {_about(head) or 'not known to this edgecl'}"),
        ("edgecl", m.edgecl),
        ("limits", ", ".join(f"{k} {v:,}" for k, v in m.limits.items())),
        ("self-test", f"{len(m.selftest.samples)} samples ({m.selftest.source})"),
    ]
    t = table("Files", "path", "bytes", "sha256", right=["bytes"])
    for path, entry in m.files.items():
        t.add_row(path, f"{entry.bytes:,}", entry.sha256[:16])
    console().print(grid(rows), t)


@command.command("install", epilog=EXAMPLE + "install mine.edgecl --root /opt/edgecl --pub key.pub")
@FILE
@ROOT
@PUB
@click.option("--venv", is_flag=True, help="Make a virtual environment in the slot, from the bundle's wheels alone.")
@click.option("--self-test", "test", metavar="CMD", help="Command to run besides, with the slot's folder behind it; 0 is good.")
def install(file: Path, root: Path, pub: Path, venv: bool, test: str | None) -> None:
    """Put a bundle into the idle slot, test it, and switch to it."""
    import shlex

    from edgecl.bundle import install as put

    done = put(file, root, pub, venv=venv, command=shlex.split(test or ""))
    print(f"{done.slot}: in use; self-test: {done.tested}")


@command.command("rollback", epilog=EXAMPLE + "rollback --root /opt/edgecl")
@ROOT
def rollback(root: Path) -> None:
    """Return to the other slot."""
    _say("in use", "rollback", root)


@command.command("boot", epilog=EXAMPLE + "boot --root /opt/edgecl")
@ROOT
def boot(root: Path) -> None:
    """Count a start of a slot on trial; return after three of them."""
    _say("in use", "boot", root)


@command.command("confirm", epilog=EXAMPLE + "confirm --root /opt/edgecl")
@ROOT
def confirm(root: Path) -> None:
    """End the trial of the slot in use: it works."""
    _say("confirmed", "confirm", root)


def _say(what: str, action: str, root: Path) -> None:
    from edgecl import slots

    actions: dict[str, Any] = {"rollback": slots.rollback, "boot": slots.boot, "confirm": slots.confirm}
    print(f"{actions[action](root)}: {what}")


@command.command("selftest", epilog=EXAMPLE + "selftest /opt/edgecl/current")
@click.argument("folder", type=click.Path(path_type=Path))
def selftest(folder: Path) -> None:
    """Test whether an unpacked bundle predicts as where it was made."""
    from edgecl.bundle import read_manifest
    from edgecl.bundle.selftest import check

    print(check(folder, read_manifest(folder)))
