"""A bundle made from a snapshot. Equal inputs give equal bytes: no times, no owners, files in the order of their names."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgecl import __version__, files
from edgecl.bundle import contents as parts
from edgecl.bundle import signature as signatures
from edgecl.bundle import templates
from edgecl.bundle.container import pack
from edgecl.bundle.contents import Contents
from edgecl.bundle.manifest import MANIFEST, MANIFEST_BYTES, SIGNATURE, Entry, Manifest, SelfTest, check_files, check_path
from edgecl.bundle.selftest import expectation
from edgecl.bundle.targets import Target, target, this_machine
from edgecl.model import open_model
from edgecl.types import ConfigError


@dataclass(frozen=True)
class Wish:
    """What a bundle shall hold besides the card and the licences."""

    target: str
    snapshot: int | None = None  # number; None: the newest
    learner: bool = True
    models: Sequence[Path] = ()  # .onnx, .tflite
    exports: Sequence[str] = ()  # models to make now: onnx-int8, litert-int8, …
    wheels: Path | None = None  # folder
    notes: Path | None = None  # licence notes of the user's, appended
    limits: Mapping[str, int] | None = None  # in place of those of the target, by name


def quiet(line: str) -> None:
    """Says nothing."""


def create(run: Path, out: Path, private: Path, wish: Wish, warn: Callable[[str], object] = quiet) -> Manifest:
    """Writes the bundle file `out`, whole or not at all, signed with the key of the PEM file `private`.

    `run` is a run folder, or a folder `snapshots/NNN` in one; `warn` gets lines for people.

    Raises ConfigError for a wish that can't be granted, StoreError for files that can't be read or written.
    """
    made_for = target(wish.target)
    contents, test = _gather(*_chosen(run, wish.snapshot), made_for, wish, warn)
    entries = {path: _entry(source) for path, source in sorted(contents.items())}
    check_files(str(out), entries)
    limits = {**made_for.limits, **(wish.limits or {})}
    manifest = Manifest(made_for.name, made_for.machine or this_machine(), __version__, entries, limits, test)
    data = manifest.encode()
    if len(data) > MANIFEST_BYTES:
        raise ConfigError(f"{out}: its manifest would be larger than {MANIFEST_BYTES} bytes")
    head: Contents = {MANIFEST: data, SIGNATURE: signatures.sign(private, data)}
    members = [(k, v, _entry(v)) for k, v in head.items()] + [(k, contents[k], e) for k, e in entries.items()]
    _write(out, pack(out, ((k, e.bytes, e.sha256, _pieces(v)) for k, v, e in members)))
    return manifest


def _chosen(path: Path, number: int | None) -> tuple[Path, int | None]:
    """The run folder and the snapshot's number."""
    full = path.resolve()
    if full.parent.name != "snapshots" or not full.name.isdigit():
        return path, number
    if number not in (None, int(full.name)):
        raise ConfigError(f"{path}: is snapshot {int(full.name)}, but --snapshot asks for {number}")
    return full.parents[1], int(full.name)


def _gather(
    run: Path, number: int | None, made_for: Target, wish: Wish, warn: Callable[[str], object]
) -> tuple[Contents, SelfTest]:
    model = open_model(run, number)
    machine, learns = made_for.machine or this_machine(), wish.learner and made_for.learner
    contents = {**parts.card(model), **parts.models(wish.models, made_for)}
    made = parts.exported(model, wish.exports, made_for, machine, warn)
    if twice := made.keys() & contents.keys():
        raise ConfigError(f"{min(twice)}: both --model and --export would make it")
    contents |= made
    if learns:
        contents |= parts.learner(run, model)
    elif not wish.models and not made:
        raise ConfigError(
            f"a bundle for {made_for.name} without a learner needs a model: --model FILE or --export {made_for.export}"
        )
    if wish.wheels:
        contents |= parts.wheels(wish.wheels, machine, own=made_for.learner)
    if made_for.services:
        contents |= templates.services({**made_for.limits, **(wish.limits or {})}, learns)
    contents[parts.LICENSES] = parts.licenses(model, contents, wish.notes)
    for path in contents:
        check_path("bundle", path)
    return contents, expectation(model) if learns else SelfTest()


def _entry(source: bytes | Path) -> Entry:
    digest, size = hashlib.sha256(), 0
    for piece in _pieces(source):
        digest.update(piece)
        size += len(piece)
    return Entry(size, digest.hexdigest())


def _pieces(source: bytes | Path) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    with files.naming(source), source.open("rb") as file:
        while piece := file.read(files.BLOCK):
            yield piece


def _write(out: Path, pieces: Iterable[bytes]) -> None:
    tmp = out.with_name(f".{out.name}.{secrets.token_hex(4)}.tmp")
    with files.naming(out):
        try:
            files.write_chunks(tmp, pieces)
            os.replace(tmp, out)
        finally:
            with suppress(OSError):
                os.unlink(tmp)
        files.sync(out.parent)
