"""Device profiles: what a named device can do, each number with its unit and where it was read or measured.

A profile is a YAML file. Names are those of the files in `deploy/`; a user's own file is named by its path.
What `seconds` and `joules` say are predictions: print them apart from what was measured.
"""

from __future__ import annotations

import difflib
import math
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from edgecl.types import ConfigError

TEXTS = ("title", "cpu", "isa", "energy_source")

UNITS = {
    "core_count": "cores",
    "clock_ghz": "GHz",
    "peak_gflops_fp32": "GFLOP/s",
    "bandwidth_gbs": "GB/s",
    "ram_bytes": "B",
    "l2_bytes": "B",
    "l3_bytes": "B",
    "training_efficiency": "share of peak",
    "power_idle_w": "W",
    "power_load_w": "W",
}

MAY_BE_ZERO = ("l2_bytes", "l3_bytes", "power_idle_w")

WATTS_A_CORE = 10.0
WATTS_SOURCE = (
    "estimate: 10 W a usable core, about twice the rated power a core of server processors (280 W for the 64 cores of an "
    "AMD EPYC 7763), for memory, board and supply"
)

ISA_NAMES = {"amd64": "x86_64", "arm64": "aarch64"}  # what Windows and macOS call them → what Linux does


@dataclass(frozen=True)
class Figure:
    """One number. `value` is None where it is unknown, or is yet to be measured."""

    value: float | None
    unit: str
    source: str  # something a reader can look up; starts with "estimate" where it was reasoned, not read

    @property
    def estimated(self) -> bool:
        """True if nobody published it: the source says how it was reasoned."""
        return self.source.startswith("estimate")


@dataclass(frozen=True)
class Profile:
    """A device. Field names carry the unit that their figure has."""

    name: str
    title: str
    cpu: str
    isa: str  # aarch64, x86_64, …
    energy_source: str  # what feeds the device, and where its power was taken
    core_count: Figure
    clock_ghz: Figure  # of all cores at work; the mean where they differ
    peak_gflops_fp32: Figure  # of one core
    bandwidth_gbs: Figure  # RAM, one core copying, read plus written
    ram_bytes: Figure
    l2_bytes: Figure  # that one core can fill
    l3_bytes: Figure
    training_efficiency: Figure  # share of all cores' peak that a dense fp32 training step reaches
    power_idle_w: Figure  # of the whole device
    power_load_w: Figure  # with all cores at work

    @property
    def cores(self) -> int:
        return int(self.core_count.value or 1)


def profile_names() -> tuple[str, ...]:
    """Names that `load_profile` knows, sorted."""
    return tuple(sorted(p.stem for p in _folder().glob("*.yaml")))


def load_profile(name: str) -> Profile:
    """The profile of that name, or the one in the YAML file at that path. `host` is filled in from this machine.

    Raises ConfigError for an unknown name (with the nearest), an unreadable file, an unknown or missing key, a wrong
    unit or an impossible value; it names the file and the key.
    """
    if Path(name).suffix in (".yaml", ".yml") or "/" in name or os.sep in name:
        return _require_cores(_read(Path(name), name))
    if name not in profile_names():
        raise ConfigError(f"unknown profile {name!r}{_nearest(name, profile_names())}")
    profile = _read(_folder() / f"{name}.yaml", f"{name}.yaml")
    return _measured_here(profile) if name == "host" else _require_cores(profile)


def seconds(profile: Profile, flops: float) -> float | None:
    """Predicted time of `flops` (2 a multiply-add) of training in one process on all cores. An estimate, not a measurement.

    flops / (peak of a core × cores × training_efficiency); None if the profile lacks one of them, as `host` does.
    The efficiency is a dense net's: masks that leave out work seldom save as much time, and depthwise layers reach less.
    """
    peak, efficiency = profile.peak_gflops_fp32.value, profile.training_efficiency.value
    if peak is None or efficiency is None:
        return None
    return flops / (peak * 1e9 * profile.cores * efficiency)


def joules(profile: Profile, seconds: float | None) -> float | None:
    """Predicted energy of the whole device under load for that long, its idle draw among it. An estimate.

    None if the time is not known, or the profile has no power_load_w.
    """
    power = profile.power_load_w.value
    return None if power is None or seconds is None else power * seconds


def _folder() -> Path:
    """Where the profiles lie: inside an installed package, else in the checkout."""
    package = Path(__file__).parent
    installed = package / "_deploy"
    return installed if installed.is_dir() else package.parent / "deploy"


def _read(path: Path, where: str) -> Profile:
    """`where` is what messages call the file."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise ConfigError(f"{where}: can't read this profile: {' '.join(str(e).split())}") from None
    d = _checked(raw, (*TEXTS, *UNITS), where)
    values: dict[str, Any] = {k: _text(d[k], f"{where}: {k}") for k in TEXTS}
    values |= {k: _figure(d[k], k, f"{where}: {k}") for k in UNITS}
    return Profile(name=path.stem, **values)


def _checked(raw: Any, keys: Iterable[str], where: str) -> Mapping[str, Any]:
    """`raw`, if it is a mapping of exactly these keys."""
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{where}: needs the keys {', '.join(keys)}")
    unknown = [str(k) for k in raw if k not in keys]
    if unknown:
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}{_nearest(unknown[0], keys)}")
    missing = [k for k in keys if k not in raw]
    if missing:
        raise ConfigError(f"{where}: no key {missing[0]!r}")
    return raw


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{where}: needs a text, got {value!r}")
    return value


def _figure(raw: Any, key: str, where: str) -> Figure:
    d = _checked(raw, ("value", "unit", "source"), where)
    if d["unit"] != UNITS[key]:
        raise ConfigError(f"{where}: unit is {d['unit']!r}, not {UNITS[key]!r}")
    return Figure(_value(d["value"], key, where), UNITS[key], _text(d["source"], f"{where}: source"))


def _value(value: Any, key: str, where: str) -> float | None:
    """A number above zero (some may be zero), or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigError(f"{where}: value {value!r} is no number")
    if value < 0 or (value == 0 and key not in MAY_BE_ZERO):
        raise ConfigError(f"{where}: value {value} must be above 0")
    if key == "training_efficiency" and value > 1:
        raise ConfigError(f"{where}: value {value} is a share, at most 1")
    if key == "core_count" and value != int(value):
        raise ConfigError(f"{where}: value {value} is no whole number")
    return value


def _require_cores(profile: Profile) -> Profile:
    """Only `host` can count its cores when it is loaded."""
    if profile.core_count.value is None:
        raise ConfigError(f"profile {profile.name}: core_count needs a value")
    return profile


def _nearest(name: str, known: Iterable[str]) -> str:
    known = tuple(known)
    near = difflib.get_close_matches(name, known, 1, 0.4)
    return f"; nearest: {near[0]!r}" if near else f"; known: {', '.join(known)}"


def _measured_here(profile: Profile) -> Profile:
    """What the operating system tells at once, and a guess of its power. Peak and bandwidth take a measurement."""
    machine, cores = platform.machine().lower(), usable_cores()
    guess = Figure(WATTS_A_CORE * cores, "W", WATTS_SOURCE)
    return replace(
        profile,
        isa=ISA_NAMES.get(machine, machine) or "unknown",
        core_count=replace(profile.core_count, value=cores),
        ram_bytes=replace(profile.ram_bytes, value=_ram()),
        power_load_w=guess if profile.power_load_w.value is None else profile.power_load_w,
    )


def usable_cores() -> int:
    """Cores that this process may run on, where the system tells; else all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _ram() -> int | None:
    """Physical memory in bytes; None where POSIX sysconf does not know (Windows)."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
