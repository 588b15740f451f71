"""Ed25519 keys and the signature over manifest.json (RFC 8032). The extra `bundle` has the package that computes it."""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edgecl import files
from edgecl.types import ConfigError, StoreError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

KEY_BYTES = 4096  # more is no key
SIGNATURE_BYTES = 154
_FORM = re.compile(rb"ed25519 ([0-9a-f]{16}) ([0-9a-f]{128})\n")


def keygen(private: Path) -> tuple[Path, str]:
    """Makes a key pair: `private` in PEM (PKCS 8), to be read by its owner only, and beside it NAME.pub. (path of that, key id)

    Raises StoreError where one of the files is there already.
    """
    _crypto()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    public = private.with_suffix(".pub")
    if public == private:
        raise ConfigError(f"{private}: .pub is the public key's name; name the private one otherwise, such as key.pem")
    for path in (private, public):
        if path.exists() or path.is_symlink():
            raise StoreError(f"{path}: is there already; a key is never overwritten")
    key = Ed25519PrivateKey.generate()
    _write_new(public, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), 0o644)
    _write_new(private, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    return public, _id(key.public_key())


def sign(private: Path, data: bytes) -> bytes:
    """manifest.sig for the bytes of manifest.json. Raises ConfigError where `private` is no such key, or others may read it."""
    key = _private(private)
    return f"ed25519 {_id(key.public_key())} {key.sign(data).hex()}\n".encode()


def check(where: Path, public: Path, data: bytes, signature: bytes) -> None:
    """Raises StoreError unless `signature` is that of `data` by the key in the file `public`, ConfigError if that holds none."""
    key, said = load_public(public), key_id(where, signature)
    if said != _id(key):
        raise StoreError(f"{where}: was signed by key {said}, not by {_id(key)} of {public}")
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(bytes.fromhex(signature[25:].decode()), data)
    except InvalidSignature:
        raise StoreError(f"{where}: is damaged or forged (its signature is not that of key {said} over its manifest)") from None


def key_id(where: Path, signature: bytes) -> str:
    """Which key made it, by its own word: the first 16 hex digits of the SHA-256 of the 32 bytes of the public key."""
    match = _FORM.fullmatch(signature)
    if not match:
        raise StoreError(f"{where}: is damaged (manifest.sig is no Ed25519 signature)")
    return match[1].decode()


def load_public(path: Path) -> Ed25519PublicKey:
    """Raises ConfigError where the file holds no Ed25519 public key in PEM, StoreError where it can't be read."""
    _crypto()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    with suppress(ValueError, UnsupportedAlgorithm):
        key = load_pem_public_key(_read(path))
        if isinstance(key, Ed25519PublicKey):
            return key
    raise ConfigError(f"{path}: holds no Ed25519 public key in PEM (`edgecl bundle keygen` makes a pair)")


def _private(path: Path) -> Ed25519PrivateKey:
    _crypto()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = _read(path)
    with files.naming(path):
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"{path}: others than its owner may read or write this key; chmod 600 it")
    with suppress(ValueError, TypeError, UnsupportedAlgorithm):
        key = load_pem_private_key(data, None)
        if isinstance(key, Ed25519PrivateKey):
            return key
    raise ConfigError(f"{path}: holds no Ed25519 private key in PEM without a password (`edgecl bundle keygen` makes a pair)")


def _read(path: Path) -> bytes:
    with files.naming(path), path.open("rb") as file:
        data = file.read(KEY_BYTES + 1)
    if len(data) > KEY_BYTES:
        raise ConfigError(f"{path}: is too large for a key")
    return data


def _write_new(path: Path, data: bytes, mode: int) -> None:
    with files.naming(path):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            files.write_all(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)
        files.sync(path.parent)


def _id(key: Ed25519PublicKey) -> str:
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def _crypto() -> None:
    try:
        import cryptography  # noqa: F401
    except ModuleNotFoundError as e:
        if e.name != "cryptography":
            raise
        raise ConfigError('signatures need the package cryptography; pip install "edgecl[bundle]"') from None
