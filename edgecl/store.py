"""F3: snapshots, `snapshots/NNN/` of a run folder: three safetensors files, and state.json with their hashes.

A snapshot is written beside its place and renamed, so that one that has its name is whole. Loading checks every
byte all the same: disks and cards go bad. `runfolder.py` has the rest of the run folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from edgecl import files, tensors
from edgecl.tensors import Arrays
from edgecl.types import Bools, ConfigError, Named, StoreError

FORMAT = 1  # of a snapshot; raise it when an older reader would go wrong
PARTS = ("weights.safetensors", "masks.safetensors", "memory.safetensors")
STATE = "state.json"
_UNSEALED = "0" * 64  # stands in for the checksum while it is computed


class Snapshot(NamedTuple):
    """All that a run needs to go on, bit for bit. Names keep their order."""

    weights: Arrays  # parameters, buffers, momentum
    masks: dict[str, Bools]  # of any shape
    memory: Arrays  # the replay buffer: x [M, C, H, W] uint8, y [M] int64, logits [M, K] float32, …
    state: dict[str, Any]  # counters, schedule, random numbers: what JSON gives back equal (no tuples, no NaN)


class _DamagedError(StoreError):
    """A file of a snapshot is missing, or not as it was written."""


def save(run: Path, number: int, snapshot: Snapshot, keep: int = 2) -> Path:
    """Writes `snapshots/NNN/` of the run folder and removes all but the newest `keep`; returns its path.

    Raises StoreError that names the path, the reason and the last good snapshot if the disk fails, if an array or
    the state can't be stored, or if `number` is not above every snapshot there; ConfigError if `keep` is not positive.
    """
    final = place(run, number)
    tmp = final.with_name(f".{final.name}.tmp")
    with naming_last_good(run):
        _prepare(run, number, keep)
        try:
            _write(tmp, final, snapshot)
            files.replace_dir(tmp, final)
        finally:
            shutil.rmtree(tmp, ignore_errors=True)
        with files.naming(final.parent):
            _prune(run, keep)
    return final


def latest(run: Path) -> int | None:
    """Number of the newest snapshot, or None. Its bytes are not checked: `load` does. Raises StoreError."""
    return max(_numbers(run), default=None)


def last_good(run: Path) -> int | None:
    """Number of the newest snapshot of which every byte is as it was written, or None. Raises StoreError."""
    return next((n for n in reversed(_numbers(run)) if _is_good(run, n)), None)


def load(run: Path, number: int) -> Snapshot:
    """Reads `snapshots/NNN/`; every array is a new, writable one.

    Raises StoreError that names the file that is missing or damaged, and the way back to an older snapshot if there
    is one; or both format versions, if it has another.
    """
    folder, numbers = place(run, number), _numbers(run)
    if number not in numbers:
        raise StoreError(f"{run}: no snapshot {folder.name}; it has {', '.join(map(_name, numbers)) or 'none'}")
    try:
        return _load(folder)
    except _DamagedError as e:
        raise StoreError(f"{e}{_way_back(run, number)}") from e


@contextmanager
def naming_last_good(run: Path) -> Iterator[None]:
    """Adds the last good snapshot, if there is one, to what a StoreError of its block says of a failing disk."""
    try:
        yield
    except StoreError as e:
        good = None
        with suppress(StoreError):
            good = last_good(run) if isinstance(e.__cause__, OSError) else None
        raise StoreError(f"{e}" + ("" if good is None else f"; last good snapshot: {_name(good)}")) from e.__cause__


# Folders


def _name(number: int) -> str:
    return f"{number:03d}"


def place(run: Path, number: int) -> Path:
    """Where a snapshot lies, or would."""
    return run / "snapshots" / _name(number)


def _numbers(run: Path) -> list[int]:
    """Of all snapshots, rising."""
    folder = run / "snapshots"
    with files.naming(folder):
        names = os.listdir(folder) if folder.is_dir() else []
    return sorted(int(n) for n in names if re.fullmatch("[0-9]{3,}", n) and _name(int(n)) == n)


def _prepare(run: Path, number: int, keep: int) -> None:
    """Makes `snapshots/` and clears what killed saves left there: on a full disk, the space may be needed now."""
    snapshots, newest = run / "snapshots", latest(run)
    if keep < 1:
        raise ConfigError(f"keep is {keep}: at least 1 snapshot has to stay")
    if number <= (-1 if newest is None else newest):
        raise StoreError(f"{snapshots}: {number} is not above the newest snapshot, {newest}")
    with files.naming(snapshots):
        snapshots.mkdir(exist_ok=True)
        files.sync(run)
    _sweep(snapshots)


def _prune(run: Path, keep: int) -> None:
    """Removes old snapshots. Each loses its name before its first file, so that none is ever seen in part."""
    old = [place(run, n) for n in _numbers(run)[:-keep]]
    for folder in old:
        os.replace(folder, folder.with_name(f".{folder.name}.old"))
    if old:
        files.sync(run / "snapshots")
    _sweep(run / "snapshots")


def _sweep(snapshots: Path) -> None:
    for path in snapshots.glob(".*"):
        if re.fullmatch(r"\.[0-9]{3,}\.(tmp|old)", path.name):
            shutil.rmtree(path, ignore_errors=True)


def _way_back(run: Path, number: int) -> str:
    """What to remove so that an older, good snapshot is the newest."""
    numbers = _numbers(run)
    good = next((n for n in reversed(numbers) if n < number and _is_good(run, n)), None)
    if good is None or number != numbers[-1]:
        return ""
    bad = " and ".join(f"snapshots/{_name(n)}" for n in reversed(numbers) if n > good)
    return f"; remove {bad} to resume from {_name(good)}"


# Files


def _write(tmp: Path, final: Path, snapshot: Snapshot) -> None:
    """Fills the folder `tmp`; what fails is named as it would be in `final`."""
    with files.naming(final):
        tmp.mkdir()
    entries = {}
    for part, (arrays, metadata) in _contents(final, snapshot).items():
        with _naming_array(final / part):
            size, digest = files.write_chunks(tmp / part, tensors.encode(arrays, metadata))
        entries[part] = {"bytes": size, "sha256": digest}
    body = {"format": FORMAT, "files": entries, "state": _plain(final / STATE, snapshot.state)}
    with files.naming(final / STATE):
        files.write_chunks(tmp / STATE, [_seal(body)])


def _contents(final: Path, snapshot: Snapshot) -> dict[str, tuple[Named, Mapping[str, str]]]:
    """Arrays and metadata by file."""
    weights, masks, memory = PARTS
    with _naming_array(final / masks):
        packed = tensors.pack(snapshot.masks)
    return {weights: (snapshot.weights, {}), masks: packed, memory: (snapshot.memory, {})}


@contextmanager
def _naming_array(path: Path) -> Iterator[None]:
    """Puts the path before what can't be stored there, or not now."""
    try:
        with files.naming(path):
            yield
    except ValueError as e:
        raise StoreError(f"{path}: {e}") from e


def _load(folder: Path) -> Snapshot:
    entries, state = _read_state(folder / STATE)
    (weights, _), masks, (memory, _) = (_decode(folder / part, *entries[part]) for part in PARTS)
    try:
        return Snapshot(weights, tensors.unpack(*masks), memory, state)
    except ValueError as e:
        raise _DamagedError(f"{folder / PARTS[1]}: {e}") from None


def _decode(path: Path, size: int, digest: str) -> tuple[Arrays, dict[str, str]]:
    try:
        return tensors.decode(_read(path, size, digest))
    except ValueError as e:
        raise _DamagedError(f"{path}: {e}") from None


def _is_good(run: Path, number: int) -> bool:
    folder = place(run, number)
    try:
        entries, _ = _read_state(folder / STATE)
        for part in PARTS:
            _read(folder / part, *entries[part])
    except StoreError:
        return False
    return True


def _read(path: Path, size: int | None = None, digest: str = "") -> bytes:
    """A file's bytes, checked if `size` is given."""
    try:
        with files.naming(path):
            data = path.read_bytes()
    except StoreError as e:
        raise _DamagedError(str(e)) from e.__cause__
    if size is not None and len(data) != size:
        raise _DamagedError(f"{path}: has {len(data)} bytes, not the {size} that were written")
    if size is not None and hashlib.sha256(data).hexdigest() != digest:
        raise _DamagedError(f"{path}: is damaged (its sha256 is not the one in {STATE})")
    return data


# state.json


def _plain(path: Path, state: Mapping[str, Any]) -> Mapping[str, Any]:
    """The state itself, once it is sure that JSON gives it back equal: a resumed run must not see a list for a tuple."""
    try:
        back = json.loads(json.dumps(state, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as e:
        raise StoreError(f"{path}: the state is not JSON: {e}") from e
    for key, value in state.items():
        if key not in back or back[key] != value:
            raise StoreError(f"{path}: JSON can't give {key!r} back as it is (a tuple, or a key that is no text)")
    return state


def _seal(body: Mapping[str, Any]) -> bytes:
    """JSON whose first key, `checksum`, is the sha256 of the file itself with 64 zeros in the checksum's place.

    The rule holds for every format version, so that a newer file can be told from a damaged one.
    """
    text = json.dumps({"checksum": _UNSEALED, **body}, indent=1, allow_nan=False) + "\n"
    return text.replace(_UNSEALED, hashlib.sha256(text.encode()).hexdigest(), 1).encode()


def _read_state(path: Path) -> tuple[dict[str, tuple[int, str]], dict[str, Any]]:
    """Size and hash by file, and the caller's state."""
    data = _read(path)
    try:
        body = json.loads(data.decode())
        checksum = str(body["checksum"])
        unsealed = data.replace(checksum.encode(), _UNSEALED.encode(), 1)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _DamagedError(f"{path}: is damaged (not whole, or not JSON)") from None
    if hashlib.sha256(unsealed).hexdigest() != checksum:
        raise _DamagedError(f"{path}: is damaged (its sha256 is not its checksum)")
    if body.get("format") != FORMAT:
        raise StoreError(f"{path}: snapshot format {body.get('format')}, but this edgecl reads format {FORMAT}")
    try:
        return {part: (int(e["bytes"]), str(e["sha256"])) for part in PARTS for e in [body["files"][part]]}, dict(body["state"])
    except (ValueError, KeyError, TypeError) as e:
        raise _DamagedError(f"{path}: is no snapshot's state: {e}") from None
