"""A device's key, its id, and what it signs. The extra `sync` has the package that computes Ed25519 (RFC 8032)."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from edgecl import files
from edgecl.types import ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PREFIX = "edgecl-join:"
TOKEN_CHARS = 4096
KEY_BYTES = 4096
ENROLL = b"edgecl-enroll\0"
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Join(NamedTuple):
    """What a join token says."""

    url: str
    token: str
    root: str  # SHA-256 of 1.root.json: 64 hex digits


def parse_token(text: str) -> Join:
    """`edgecl-join:` and the base64url of a JSON object. Raises ConfigError."""
    body = text.strip().removeprefix(PREFIX)
    if not text.strip().startswith(PREFIX) or len(text) > TOKEN_CHARS:
        raise ConfigError(f"the join token does not begin with {PREFIX} (edgecl hub token prints one)")
    try:
        said = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        join = Join(*(str(said[k]) for k in Join._fields))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ConfigError("the join token is damaged: copy all of it") from None
    if not re.fullmatch("[0-9a-f]{64}", join.root) or not join.token.isprintable() or not join.token:
        raise ConfigError("the join token is damaged: copy all of it")
    return join._replace(url=join.url.rstrip("/"))


def check_url(url: str, insecure: bool) -> None:
    """Raises ConfigError for an address that is none, and for http to another machine unless that is meant."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and not parts.query and not parts.fragment
        _ = parts.port  # which may be none
    except ValueError:
        good, parts = None, urlsplit("")
    if not good or parts.username:
        raise ConfigError(f"{url[:200]!r}: is no http:// or https:// address of a hub")
    if plain(url) and not insecure:
        raise ConfigError(
            f"{url}: without TLS whoever is in between can read what is sent and make it vanish, though change neither updates"
            " nor models; use https, or say --insecure-http"
        )


def plain(url: str) -> bool:
    """Whether it is http to another machine."""
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname not in LOOPBACK


def make_key(path: Path) -> None:
    """A new private key in PEM (PKCS 8), for its owner only; one that is there stays. Raises StoreError."""
    if path.exists():
        return
    _crypto()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    data = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    files.write_private(path, data)


def load_key(path: Path) -> Ed25519PrivateKey:
    """Raises ConfigError where it is no such key or others may read it.

    As bundle.signature does, whose package is too large for a service that stays small.
    """
    _crypto()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = files.read_bounded(path, KEY_BYTES)
    with files.naming(path):
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"{path}: others than its owner may read this device's key; chmod 600 it")
    with suppress(ValueError, TypeError, UnsupportedAlgorithm):
        key = load_pem_private_key(data, None)
        if isinstance(key, Ed25519PrivateKey):
            return key
    raise ConfigError(f"{path}: holds no Ed25519 private key in PEM")


def public_of(path: Path) -> bytes:
    """The 32 bytes of the public key that belongs to a private one."""
    return bytes(load_key(path).public_key().public_bytes_raw())


def device_id(public: bytes) -> str:
    """The first 16 hex digits of the SHA-256 of a public key's 32 bytes."""
    return hashlib.sha256(public).hexdigest()[:16]


def sign_enrolment(path: Path, token: str) -> bytes:
    """Proves that the key is the sender's."""
    return bytes(load_key(path).sign(ENROLL + token.encode()))


def _crypto() -> None:
    try:
        import cryptography  # noqa: F401
    except ModuleNotFoundError as e:
        if e.name != "cryptography":
            raise
        raise ConfigError('sync needs the package cryptography; pip install "edgecl[sync]"') from None
