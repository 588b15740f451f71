"""F2: methods by the field's names, one file a family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from edgecl.methods.base import ByPart, Loss, Method
from edgecl.methods.derpp import Derpp
from edgecl.methods.er import Er, ErAce
from edgecl.methods.sgd import Joint, Sgd
from edgecl.types import ConfigError

METHODS: dict[str, type[Any]] = {"sgd": Sgd, "joint": Joint, "er": Er, "derpp": Derpp, "er_ace": ErAce}


def options(name: str) -> dict[str, Any]:
    """A method's options with their defaults."""
    return {f.name: f.default for f in fields(METHODS[name])}


def make_method(name: str, chosen: Mapping[str, Any]) -> Method:
    """The method with its options; an unknown name, option or value raises ConfigError that names it."""
    if name not in METHODS:
        raise ConfigError(f"method.name: unknown method {name!r}; known: {', '.join(METHODS)}")
    unknown = [key for key in chosen if key not in options(name)]
    if unknown:
        raise ConfigError(f"unknown key 'method.{unknown[0]}': {name} has {', '.join(options(name))}")
    method: Method = METHODS[name](**chosen)
    return method


__all__ = ["METHODS", "ByPart", "Loss", "Method", "make_method", "options"]
