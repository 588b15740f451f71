"""`edgecl hub init`: a folder, its keys, its database, and the first model."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import Engine

from edgecl import files, runfolder
from edgecl import store as snapshots
from edgecl.bundle.targets import target
from edgecl.hub import heldout, place, publishing, repository, settings, store, tufset
from edgecl.hub.place import Place
from edgecl.hub.settings import Settings
from edgecl.merge import mean_accuracy
from edgecl.model import Model, open_model
from edgecl.types import ConfigError, StoreError
from edgecl.update import Base


def init(root: Path, run: Path, held_out: Path, wish: Settings, say: Callable[[str], object]) -> Path:
    """Makes the hub's folder `root` with the newest snapshot of `run` as model 1; the folder of the offline keys.

    What a cut left half made is gone on with. Raises StoreError where a hub is there, ConfigError or DataError where the run or
    the held-out samples won't do.
    """
    here = Place(root)
    if here.settings.exists():
        raise StoreError(f"{root}: is a hub's folder already")
    _check(wish)
    model = open_model(run)
    accuracy = _accuracy(model, held_out)
    with files.naming(root):
        for folder in (root, here.uploads, here.updates, here.models):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)
    with place.alone(here, "merge"):
        if not (root / tufset.METADATA / "timestamp.json").exists():
            repository.init(root)
        _copy(held_out, here.held_out)
        if not here.model(1).exists():
            copy_run(run, model, here.model(1))
        engine = store.connect(settings.database_url(here, wish))
        store.prepare(engine)
        _add(engine, model, accuracy)
        publishing.publish_pending(here, wish, engine)
        engine.dispose()
        settings.write(here, wish)  # last: a folder that has it is whole
    say(f"model 1: {len(model.card.classes)} classes, {100 * accuracy:.1f} % of the held-out samples right")
    return root / tufset.OFFLINE


def _check(wish: Settings) -> None:
    target(wish.bundle_target)
    parts = urlsplit(wish.url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ConfigError(f"--url: {wish.url!r} is no http:// or https:// address")


def _accuracy(model: Model, held_out: Path) -> float:
    if model.memory is None or not model.memory.size:
        raise ConfigError(f"{model.folder}: has no replay memory: no device could go on learning from it")
    if model.state["step"] or not model.state["at"]:
        raise ConfigError(f"{model.folder}: lies within a task; edgecl train --resume {model.folder.parent.parent} ends it first")
    judge = heldout.judge(held_out, model.card, model.net, model.card.classes)
    return mean_accuracy(judge(Base.of(model).weights, model.live))


def _add(engine: Engine, model: Model, accuracy: float) -> None:
    if store.model(engine, 1) is None:
        with store.writing(engine) as db:
            store.add_model(db, publishing.row(1, model, "given to hub init", accuracy=accuracy), "hub init")


def copy_run(run: Path, model: Model, to: Path) -> None:
    """Copies config.yaml and this snapshot: what a model is, and nothing else of the run. Raises StoreError."""
    tmp = to.with_name(f".{to.name}.new")
    shutil.rmtree(tmp, ignore_errors=True)
    with files.naming(to):
        snapshot = tmp / "snapshots" / model.folder.name
        snapshot.mkdir(parents=True)
        shutil.copyfile(run / runfolder.CONFIG, tmp / runfolder.CONFIG)
        for name in (*snapshots.PARTS, snapshots.STATE):
            shutil.copyfile(model.folder / name, snapshot / name)
    files.replace_dir(tmp, to)


def _copy(source: Path, to: Path) -> None:
    tmp = to.with_name(f".{to.name}.tmp")
    tmp.unlink(missing_ok=True)
    with files.naming(source), source.open("rb") as file:
        files.write_chunks(tmp, iter(lambda: file.read(files.BLOCK), b""))
    with files.naming(to):
        os.replace(tmp, to)
        files.sync(to.parent)
