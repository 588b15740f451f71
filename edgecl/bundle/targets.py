"""What a bundle can be made for."""

from __future__ import annotations

import difflib
import platform
import sys
from dataclasses import dataclass, field

from edgecl.profiles import ISA_NAMES
from edgecl.types import ConfigError, StoreError

MEMORY, CPU = "memory_bytes", "cpu_percent"
"""Keys of a manifest's limits: of a service's memory, and of its CPU time, where 100 is one core."""


@dataclass(frozen=True)
class Target:
    """`machine` is "" for the one that edgecl runs on; `models` are the model files that run there."""

    name: str
    machine: str
    about: str
    models: tuple[str, ...] = ("model.onnx", "model.tflite")
    export: str = "onnx-int8"  # what suits it best
    learner: bool = True
    services: bool = False
    limits: dict[str, int] = field(default_factory=lambda: {MEMORY: 512 * 10**6, CPU: 200})


TARGETS = {
    "rpi": Target("rpi", "aarch64", "Raspberry Pi with a 64-bit system: predicts and learns", services=True),
    "rpi-32": Target(
        "rpi-32",
        "armv7l",
        "Raspberry Pi with a 32-bit system: inference only, through tflite-runtime; it cannot learn",
        models=("model.tflite",),
        export="litert-int8",
        learner=False,
    ),
    "host": Target("host", "", "a computer such as the one that made the bundle"),
}


def target(name: str) -> Target:
    """Raises ConfigError that names the nearest."""
    if name not in TARGETS:
        near = difflib.get_close_matches(name, TARGETS, 1)
        raise ConfigError(f"no target {name!r}; {f'did you mean {near[0]!r}?' if near else 'known: ' + ', '.join(TARGETS)}")
    return TARGETS[name]


def this_machine() -> str:
    """What programs here are compiled for. A 32-bit system under a 64-bit kernel, usual on a Raspberry Pi, is the former."""
    name = platform.machine().lower()
    name = ISA_NAMES.get(name, name)
    if sys.maxsize < 1 << 32:
        name = {"aarch64": "armv7l", "armv8l": "armv7l", "x86_64": "i686"}.get(name, name)
    return name


def check_machine(where: object, target: str, machine: str, here: str = "") -> None:
    """Raises StoreError for a bundle that was made for another chip than `here` (this one)."""
    here = here or this_machine()
    if machine != here:
        raise StoreError(f"{where}: is for {target} ({machine}), but this machine is {here}")
