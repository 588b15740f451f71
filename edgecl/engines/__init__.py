"""F2: engines behind one protocol, by name. Each is imported only when it is made, so torch is not where it isn't asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from edgecl import kernels
from edgecl.engines.base import Engine
from edgecl.nets.graph import Net
from edgecl.types import ConfigError

AUTO = "auto"
"""In place of an engine's name: `pick` chooses."""

FP32, FP16 = "fp32", "fp16"


def _torch(net: Net, **options: Any) -> Engine:
    try:
        from edgecl.engines.torch import TorchEngine
    except ModuleNotFoundError as e:
        if e.name != "torch":
            raise
        raise ConfigError('engine torch: torch is not installed; pip install "edgecl[torch]"') from None
    return TorchEngine(net, **options)


def _native(net: Net, **options: Any) -> Engine:
    from edgecl.engines.native import NativeEngine

    return NativeEngine(net, **options)


def _numpy(net: Net, **options: Any) -> Engine:
    from edgecl.engines.numpy_engine import NumpyEngine

    return NumpyEngine(net, **options)


ENGINES: dict[str, Callable[..., Engine]] = {"torch": _torch, "native": _native, "numpy": _numpy}


class Choice(NamedTuple):
    """An engine's name and why it was taken; `slow` says so, and how to get a faster one, where it is a makeshift."""

    name: str
    why: str
    slow: str = ""


def pick(name: str, device: str = "cpu", precision: str = "fp32") -> Choice:
    """What runs here when `name` is asked for: another name than AUTO stays.

    AUTO is torch for a GPU or another precision than fp32; else native where its kernels run; else numpy.
    """
    if name != AUTO:
        return Choice(name, "it was asked for")
    if (device, precision) != ("cpu", "fp32"):
        return Choice("torch", f"only it has engine.device={device} with engine.precision={precision}")
    try:
        return Choice("native", f"its kernels run here ({kernels.load().isa})")
    except ConfigError as e:
        lack = str(e).removeprefix("engine native: ")
        return Choice("numpy", f"native can't run: {lack}", f"native engine: {lack}; until then the slow numpy engine runs")


def make_engine(name: str, net: Net, **options: Any) -> Engine:
    """The engine `name` for a net; raises ConfigError where it is unknown or can't run here."""
    if name not in ENGINES:
        raise ConfigError(f"engine.name: unknown engine {name!r}; known: {', '.join(ENGINES)}")
    check_storage(name, options.get("storage", FP32))
    if name != "native":
        options.pop("storage", None)
    return ENGINES[name](net, **options)


def check_storage(name: str, storage: str) -> None:
    """Raises ConfigError where engine `name` cannot store activations so."""
    if storage not in (FP32, *([FP16] if name == "native" else [])):
        raise ConfigError(f"engine.storage: engine {name} has only {FP32}{f' and {FP16}' * (name == 'native')}, not {storage!r}")


__all__ = ["AUTO", "ENGINES", "Choice", "Engine", "check_storage", "make_engine", "pick"]
