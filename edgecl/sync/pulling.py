"""A newer model: named by the trusted metadata, fetched, unpacked, and installed with what was learned here on top.

The bytes come to `ROOT/sync/down/`, go on where a cut left them, and are removed once they are in a slot. While the slot in use
is on trial nothing is installed: the other one is then the only one that is known to work.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecl import files, slots
from edgecl.sync import child, rules
from edgecl.sync.errors import TrustError
from edgecl.sync.place import base_of
from edgecl.sync.trust import Target, Trust
from edgecl.types import EdgeclError, StoreError

if TYPE_CHECKING:
    from edgecl.sync.client import Client

TRIES = 3  # of installing one and the same model
BLOCK = 1 << 16
COMMAND_SECONDS = 300


def pull(client: Client) -> str:
    """Why nothing newer is in use; "" where that is so because there is nothing newer, or it is now. Raises EdgeclError."""
    trust = _refreshed(client)
    target = trust.newest()
    if target is None or not _wanted(client, trust, target):
        return ""
    why = trial(client)
    if why:
        return why
    if int(client.state.failed.get("number", 0)) == target.number and client.state.failed.get("tries", 0) >= TRIES:
        return f"model {target.number} could not be installed {TRIES} times: {client.state.failed.get('why', '')}"
    if not rules.may_download(target.length, client.state.bytes, client.config.bytes_a_day or None):
        return f"model {target.number} has {target.length:,} B, more than the day's bytes that are left"
    return _fetch_and_install(client, trust, target)


def _refreshed(client: Client) -> Trust:
    root = files.read_bounded(client.place.first_root, 1 << 20)
    trust = Trust(client.place.tuf, client.config.url, root, client.api, clock=client.time)
    trust.refresh()
    return trust


def _wanted(client: Client, trust: Trust, target: Target) -> bool:
    """Not one that was installed before, even if the device returned from it, nor the one in use.

    Numbers are compared below the same keys only: a thief's may have been the highest, and new keys begin anew.
    """
    was, keys = client.state.pulled, list(trust.floor_keys)
    if was.get("keys", keys) == keys and target.number <= int(was.get("number", 0)):
        return False
    same = (was.get("number"), was.get("snapshot")) == (target.number, target.snapshot)
    if not same and base_of(client.place.slot()) != target.snapshot:
        return True
    client.keep(pulled=_pulled(client, trust, target))
    return False


def _pulled(client: Client, trust: Trust, target: Target) -> dict[str, Any]:
    now = int(client.time.now() or 0)
    return {"number": target.number, "snapshot": target.snapshot, "time": now, "keys": list(trust.floor_keys)}


def trial(client: Client) -> str:
    """Why the slot in use is on trial still; "" where it is not, or no longer after a second self-test."""
    root = client.place.root
    if slots.on_trial(root) is None:
        return ""
    if client.config.trial == "wait":
        return (
            f"{client.place.slot()}: is on trial; a newer model waits until it is confirmed (edgecl bundle confirm --root {root})"
        )
    said = child.run("install", {"root": str(root), "config": client.config_of_child(), "confirm": True})
    client.say({"event": "confirmed", "slot": said["slot"], "tested": said["tested"]})
    return ""


def _fetch_and_install(client: Client, trust: Trust, target: Target) -> str:
    down = client.place.down
    with files.naming(down):
        down.mkdir(exist_ok=True)
    packed = trust.download(target, down)
    client.keep()
    client.say({"event": "fetched", "model": target.number, "bytes": target.length})
    bundle, key = down / f"{target.number:04d}.edgecl", down / "bundle.pub"
    unpack(packed, bundle, target.bytes)
    files.write_atomic(key, target.bundle_key.encode())
    _command(client, "before")
    try:
        said = _install(client, target, {"bundle": str(bundle), "key": str(key), "down": str(down)})
    except EdgeclError as e:
        _failed(client, target, e)
        return f"model {target.number}: {e}"
    finally:
        _command(client, "after")
    if "again" in said:
        return f"model {target.number}: {said['again']}"
    _installed(client, trust, target, said)
    return ""


def _install(client: Client, target: Target, given: dict[str, Any]) -> dict[str, Any]:
    """What was learned is packed first: an update can only be made beside its own base."""
    client.pack()
    more = {"root": str(client.place.root), "config": client.config_of_child(), "packed": client.outbox.packed()}
    return child.run("install", {**given, **more})


def _failed(client: Client, target: Target, error: EdgeclError) -> None:
    """Counts, unless it is somebody who learns there that it waits for."""
    if "learns there" in str(error):
        return
    was = client.state.failed
    tries = int(was.get("tries", 0)) + 1 if was.get("number") == target.number else 1
    client.keep(failed={"number": target.number, "tries": tries, "why": " ".join(str(error).split())[:300]})


def _installed(client: Client, trust: Trust, target: Target, said: dict[str, Any]) -> None:
    client.keep(pulled=_pulled(client, trust, target), failed={})
    client.say({"event": "installed", "model": target.number, "slot": said["slot"], "tested": said["tested"], **said["carried"]})
    client.renewed = client.config.venv
    shutil.rmtree(client.place.down, ignore_errors=True)


def _command(client: Client, which: str) -> None:
    """The owner's command before or after an install. Raises StoreError where it fails."""
    text = getattr(client.config, which)
    if not text:
        return
    try:
        done = subprocess.run(
            shlex.split(text), timeout=COMMAND_SECONDS, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as e:
        raise StoreError(f"{client.place.config}: {which}: {' '.join(str(e).split())[:200]}") from None
    if done.returncode:
        raise StoreError(f"{client.place.config}: {which}: exit code {done.returncode}")


def unpack(packed: Path, out: Path, size: int) -> None:
    """Inflates a file that has to hold exactly `size` bytes, and never writes more. Raises TrustError where it does not."""
    unpacker, left = zlib.decompressobj(wbits=31), size
    with files.naming(out), packed.open("rb") as source, out.open("wb") as sink:
        try:
            while data := (unpacker.unconsumed_tail or source.read(BLOCK)):
                piece = unpacker.decompress(data, BLOCK)
                left -= len(piece)
                if left < 0:
                    raise TrustError(f"{packed}: holds more than the {size} bytes that were signed")
                sink.write(piece)
                if unpacker.eof:
                    break
        except zlib.error as e:
            raise TrustError(f"{packed}: can't be inflated ({e})") from None
        whole = unpacker.eof and not unpacker.unused_data and not source.read(1)
        sink.flush()
        os.fsync(sink.fileno())
    if left or not whole:
        raise TrustError(f"{packed}: does not hold the {size} bytes that were signed")
