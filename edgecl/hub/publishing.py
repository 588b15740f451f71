"""A model on its way to devices: run folder → signed bundle → deflated → TUF target. What a cut left undone is done next time."""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Engine

from edgecl import bundle, files
from edgecl.bundle import Wish
from edgecl.hub import repository, store, tufset
from edgecl.hub.place import Place
from edgecl.hub.settings import Settings
from edgecl.model import Model, open_model
from edgecl.types import ConfigError

GZIP = 31  # zlib's word for a gzip header: no name, no time, so that equal bundles give equal bytes
LEVEL = 6


def row(number: int, model: Model, note: str, **more: object) -> store.Model:
    """A model as the database has it before it is published."""
    own = store.Model(
        number, model.card.snapshot, 0, number, model.net.name, model.card.classes, store.now(), None, None, 0, 0, note, 0
    )
    return own._replace(**more)  # type: ignore[arg-type]


def publish_pending(here: Place, known: Settings, engine: Engine) -> list[int]:
    """Publishes what was made and is not out yet, the oldest first; their numbers. The lock `merge` is held."""
    done = []
    for made in store.unpublished(engine):
        size = listed(here.root, made.number) or _publish(here, known, made)
        store.was_published(engine, made.number, size)
        done.append(made.number)
    return done


def listed(root: Path, number: int) -> int:
    """Length of the target of that number in TUF's metadata; 0 where it is not there."""
    targets = tufset.read(root).models.signed.targets.values()
    return next((int(t.length) for t in targets if t.custom["number"] == number), 0)


def _publish(here: Place, known: Settings, made: store.Model) -> int:
    work = here.root / ".publishing"
    shutil.rmtree(work, ignore_errors=True)
    with files.naming(work):
        work.mkdir(mode=0o700)
    try:
        plain, packed = work / "model.edgecl", work / "model.edgecl.gz"
        wish = Wish(known.bundle_target, wheels=Path(known.wheels) if known.wheels else None)
        bundle.create(here.model(made.content), plain, here.bundle_key, wish)
        with files.naming(packed):
            files.write_chunks(packed, deflated(plain))
            size = plain.stat().st_size
        custom = {"number": made.number, "snapshot": made.snapshot, "net": made.net, "classes": list(made.classes), "bytes": size}
        return repository.publish(here.root, packed, custom).length
    finally:
        shutil.rmtree(work, ignore_errors=True)


def deflated(path: Path) -> Iterator[bytes]:
    """The bytes of a gzip file of `path`, the same for the same contents. Raises OSError."""
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, GZIP)
    with path.open("rb") as file:
        while block := file.read(files.BLOCK):
            yield packer.compress(block)
    yield packer.flush()


def rollback(here: Place, known: Settings, engine: Engine, number: int, who: str) -> store.Model:
    """Publishes model `number` again, under a new number: devices never go back to an older one. The lock `merge` is held.

    Raises ConfigError where there is no such model, or it is what devices have.
    """
    now, old = store.current(engine), store.model(engine, number)
    if now is None or old is None:
        raise ConfigError(f"model {number}: there is none; `edgecl hub models` lists them")
    if old.content == now.content:
        raise ConfigError(f"model {number}: is what devices have (as model {now.number})")
    open_model(here.model(old.content))  # whole, or an error before anything changes
    new = old._replace(
        number=now.number + 1, parent=now.number, created=store.now(), before=now.accuracy, updates=0, bytes=0, published=0,
        note=f"model {number} again, by {who}",
    )  # fmt: skip
    with store.writing(engine) as db:
        store.add_model(db, new, who)
    publish_pending(here, known, engine)
    return store.model(engine, new.number) or new


def remove_payloads(here: Place, known: Settings, engine: Engine) -> int:
    """Removes payloads of merged and refused updates that are older than limits.keep_days; how many."""
    gone = 0
    for old in store.outlived(engine, known.limits.keep_days):
        for path in (here.update(old.device, old.sequence), here.envelope(old.device, old.sequence)):
            if path.exists():
                with files.naming(path):
                    os.unlink(path)
                gone += 1
    return gone
