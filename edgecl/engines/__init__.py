"""F2: engines behind one protocol, by name. Each is imported only when it is made, so torch is not where it isn't asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgecl.engines.base import Engine
from edgecl.nets.graph import Net
from edgecl.types import ConfigError


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


ENGINES: dict[str, Callable[..., Engine]] = {"torch": _torch, "native": _native}


def make_engine(name: str, net: Net, **options: Any) -> Engine:
    """The engine `name` for a net; raises ConfigError where it is unknown or can't run here."""
    if name not in ENGINES:
        raise ConfigError(f"engine.name: unknown engine {name!r}; known: {', '.join(ENGINES)}")
    return ENGINES[name](net, **options)


__all__ = ["ENGINES", "Engine", "make_engine"]
