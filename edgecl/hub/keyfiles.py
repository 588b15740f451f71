"""Ed25519 private keys of the hub, in PEM (PKCS 8), each whole or absent and for its owner only."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edgecl import files
from edgecl.types import ConfigError

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner

KEY_BYTES = 4096  # more is no key


def load(path: Path) -> CryptoSigner:
    """Raises ConfigError where the file is no such key or others may read it, StoreError where it can't be read."""
    with files.naming(path):
        mode = path.stat().st_mode
    if mode & 0o077:
        raise ConfigError(f"{path}: others than its owner may read or write this key; chmod 600 it")
    key = _parse(files.read_bounded(path, KEY_BYTES))
    if key is None:
        raise ConfigError(f"{path}: holds no Ed25519 private key in PEM without a password")
    return key


def make(path: Path) -> CryptoSigner:
    """The key at `path`; a new one where there is none."""
    if path.exists():
        return load(path)
    new = signers().generate_ed25519()
    files.write_private(path, new.private_bytes)
    return load(path)


def next_of(path: Path) -> Path:
    """Where the successor of a key lies until the metadata name it."""
    return path.with_name(f"{path.stem}.next{path.suffix}")


def settle(path: Path, listed: Callable[[str], bool]) -> None:
    """Puts the successor in its place once it is in force: `listed` knows the key ids. A power cut may have left that to do."""
    new = next_of(path)
    if new.exists() and listed(load(new).public_key.keyid):
        with files.naming(path):
            os.replace(new, path)
            files.sync(path.parent)


def make_folder(path: Path) -> None:
    """One that its owner alone may enter."""
    with files.naming(path):
        os.makedirs(path, 0o700, exist_ok=True)
        files.sync(path.parent)


def signers() -> type[CryptoSigner]:
    """Raises ConfigError where a package is missing."""
    try:
        import cryptography  # noqa: F401
        import tuf  # noqa: F401
        from securesystemslib.signer import CryptoSigner
    except ModuleNotFoundError as e:
        if e.name not in ("securesystemslib", "tuf", "cryptography"):
            raise
        raise ConfigError(f'the hub\'s keys need the package {e.name}; pip install "edgecl[hub]"') from None
    return CryptoSigner


def _parse(data: bytes) -> CryptoSigner | None:
    make = signers()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    with suppress(ValueError, TypeError, UnsupportedAlgorithm):
        key = load_pem_private_key(data, None)
        if isinstance(key, Ed25519PrivateKey):
            return make(key)
    return None
