"""Which files a bundle is made of, and what is said of their licences."""

from __future__ import annotations

import importlib
import json
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from edgecl import files, runfolder, store
from edgecl.bundle.selftest import CARD, LEARNER
from edgecl.bundle.targets import Target
from edgecl.data import DATASETS, resolve
from edgecl.model import Model
from edgecl.types import ConfigError

Contents: TypeAlias = dict[str, "bytes | Path"]
"""What lies where in the bundle: the bytes themselves, or the file that has them."""

LICENSES, WHEELS = "LICENSES.txt", "wheels"
METADATA_BYTES = 1 << 20
NOTES_BYTES = 1 << 20
OWN = "edgecl and its bundle files: Apache-2.0, https://www.apache.org/licenses/LICENSE-2.0"
RUNNABLE = {".onnx": "model.onnx", ".tflite": "model.tflite"}
EXPORTS = {"onnx": "model.onnx", "litert": "model.tflite"}
CHIPS = {"aarch64": "arm", "armv7l": "arm", "x86_64": "x86"}
_WHEEL = re.compile(
    r"([A-Za-z0-9._]+)-([A-Za-z0-9._!+]+)(-[0-9][A-Za-z0-9._]*)?-[A-Za-z0-9._]+-[A-Za-z0-9._]+-([A-Za-z0-9._]+)\.whl"
)


def card(model: Model) -> Contents:
    """card.json."""
    return {CARD: (json.dumps(model.card.to_dict(), indent=1, sort_keys=True) + "\n").encode()}


def learner(run: Path, model: Model) -> Contents:
    """A run folder with this snapshot only. Raises ConfigError where the run does not say what its classes are."""
    if "stream" not in runfolder.read_config(run):
        raise ConfigError(
            f"{run / runfolder.CONFIG}: has no 'stream': an older edgecl made this run; bundle it with --no-learner"
        )
    folder = f"{LEARNER}/snapshots/{model.folder.name}"
    parts: Contents = {f"{folder}/{name}": model.folder / name for name in (*store.PARTS, store.STATE)}
    return {f"{LEARNER}/{runfolder.CONFIG}": run / runfolder.CONFIG, **parts}


def models(paths: Iterable[Path], target: Target) -> Contents:
    """Predictors for other runtimes, by their suffix. Raises ConfigError for one that does not run there."""
    found: Contents = {}
    for path in paths:
        name = RUNNABLE.get(path.suffix)
        if name is None or name not in target.models:
            known = ", ".join(k for k, v in RUNNABLE.items() if v in target.models)
            raise ConfigError(f"{path}: target {target.name} runs files that end in {known}")
        if name in found:
            raise ConfigError(f"{path}: there is another {path.suffix} model already")
        found[name] = path
    return found


def exported(model: Model, names: Iterable[str], target: Target, machine: str, warn: Callable[[str], object]) -> Contents:
    """Model files made now, as `edgecl export --to NAME` makes them, int8 for the target's chip. Raises as that does.

    `warn` gets a line where int8 costs more than it should.
    """
    made: Contents = {}
    for name in names:
        path = next((v for k, v in EXPORTS.items() if name.startswith(k)), None)
        if path not in target.models or path in made:
            known = ", ".join(f"{k}, {k}-int8" for k, v in EXPORTS.items() if v in target.models)
            raise ConfigError(f"--export {name}: target {target.name} takes one of {known} for each model file")
        found = _export(model, name, CHIPS.get(machine, "") if name.startswith("onnx-int8") else "")
        made[path] = found.data
        if found.warning:
            warn(f"{path}: {found.warning}")
    return made


def _export(model: Model, name: str, chip: str) -> Any:
    """Loaded only here: it is heavy, and a device does without."""
    try:
        export = importlib.import_module("edgecl.export").export
    except AttributeError:
        raise ConfigError(f"--export {name}: this edgecl does not export; give a file with --model") from None
    return export(model, name, chip)


def wheels(folder: Path, machine: str, own: bool) -> Contents:
    """Every .whl of a folder. Raises ConfigError for one of another chip, and, with `own`, where there is none of edgecl."""
    with files.naming(folder):
        paths = sorted(p for p in folder.iterdir() if p.suffix == ".whl")
    for path in paths:
        match = _WHEEL.fullmatch(path.name)
        if not match:
            raise ConfigError(f"{path}: is not named as a wheel is")
        if not any(fits(tag, machine) for tag in match[4].split(".")):
            raise ConfigError(f"{path}: is a wheel for {match[4]}, not for {machine}")
    if own and not any(p.name.startswith("edgecl-") for p in paths):
        raise ConfigError(f"{folder}: has no wheel of edgecl itself (tools/wheels makes it)")
    return {f"{WHEELS}/{p.name}": p for p in paths}


def fits(tag: str, machine: str) -> bool:
    """Whether a wheel of this platform tag runs on a machine with glibc."""
    machines = {"armv7l": ("armv7l", "armv6l")}.get(machine, (machine,))
    return tag == "any" or (tag.startswith(("manylinux", "linux")) and tag.endswith(tuple(f"_{m}" for m in machines)))


def licenses(model: Model, contents: Mapping[str, bytes | Path], notes: Path | None) -> bytes:
    """LICENSES.txt: edgecl's, the data set's, every wheel's own word, then the user's notes."""
    name = model.config.data.name
    lines = [OWN, "", f"Learned from the data set {Path(name).name}; its licence: {_data_licence(name)}", ""]
    wheel_paths = [p for k, p in sorted(contents.items()) if k.startswith(f"{WHEELS}/") and isinstance(p, Path)]
    lines += [f"{p.name}: {_wheel_licence(p)}" for p in wheel_paths]
    text = "\n".join(lines).rstrip() + "\n"
    return text.encode() + (b"\n" + _notes(notes) if notes else b"")


def _notes(path: Path) -> bytes:
    with files.naming(path), path.open("rb") as file:
        data = file.read(NOTES_BYTES + 1)
    if len(data) > NOTES_BYTES:
        raise ConfigError(f"{path}: more than {NOTES_BYTES} bytes of licence notes")
    return data


def _data_licence(name: str) -> str:
    try:
        return DATASETS[resolve(name)].licence
    except ConfigError:
        return "not known to edgecl; whoever ships this bundle has to know it"


def _wheel_licence(path: Path) -> str:
    """What its METADATA says. Raises ConfigError for a file that is no wheel."""
    try:
        with files.naming(path), zipfile.ZipFile(path) as archive:
            (info,) = (i for i in archive.infolist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", i.filename))
            with archive.open(info) as file:
                text = file.read(METADATA_BYTES).decode("utf-8", "replace")
    except (zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError) as e:
        raise ConfigError(f"{path}: is no wheel ({e})") from None
    return _said(text.split("\n\n")[0].splitlines())


def _said(lines: Sequence[str]) -> str:
    for key in ("License-Expression: ", "License: ", "Classifier: License :: "):
        said = [line.removeprefix(key).strip() for line in lines if line.startswith(key)]
        if said and said[0] and said[0] != "UNKNOWN":
            return "; ".join(said)[:200]
    return "not stated in its metadata"
