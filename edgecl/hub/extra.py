"""Whether the packages of the extra `hub` are there."""

from __future__ import annotations

import importlib.util

from edgecl.types import ConfigError

NEEDED = ("sqlalchemy", "fastapi", "uvicorn", "argon2", "tuf", "cryptography")


def need(*names: str) -> None:
    """Raises ConfigError that names the first of these packages, or of all, that is not installed."""
    for name in names or NEEDED:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f'the hub needs the package {name}; pip install "edgecl[hub]"')
