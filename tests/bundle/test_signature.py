"""Keys: made once, kept from others' eyes, told from files that are none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgecl import bundle
from edgecl.bundle import signature
from edgecl.types import ConfigError, StoreError


def test_a_new_pair(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    old = os.umask(0)
    try:
        public, name = bundle.keygen(key)
    finally:
        os.umask(old)
    assert public == tmp_path / "key.pub"
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----\n")
    signed = signature.sign(key, b"data")
    assert len(signed) == signature.SIGNATURE_BYTES
    assert signature.key_id(key, signed) == name
    signature.check(key, public, b"data", signed)
    with pytest.raises(StoreError, match="damaged or forged"):
        signature.check(key, public, b"date", signed)


def test_openssl_agrees(tmp_path: Path) -> None:
    bundle.keygen(tmp_path / "key.pem")
    (tmp_path / "data").write_bytes(b"data")
    (tmp_path / "sig").write_bytes(bytes.fromhex(signature.sign(tmp_path / "key.pem", b"data").split()[2].decode()))
    command = "openssl pkeyutl -verify -rawin -pubin -inkey key.pub -in data -sigfile sig"
    assert subprocess.run(command.split(), cwd=tmp_path, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("there", ["key.pem", "key.pub"])
def test_no_key_is_overwritten(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("mine")
    with pytest.raises(StoreError, match="never overwritten"):
        bundle.keygen(tmp_path / "key.pem")
    assert [p.name for p in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "mine"


def test_a_private_key_by_the_name_of_a_public_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="otherwise"):
        bundle.keygen(tmp_path / "key.pub")


def test_a_key_that_others_can_read(tmp_path: Path) -> None:
    bundle.keygen(tmp_path / "key.pem")
    (tmp_path / "key.pem").chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        signature.sign(tmp_path / "key.pem", b"")


@pytest.mark.parametrize(
    "data", [b"", b"\xff" * 100, b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", b"x" * 5000]
)
def test_files_that_are_no_keys(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(data)
    path.chmod(0o600)
    for read in (signature.load_public, lambda p: signature.sign(p, b"")):
        with pytest.raises(ConfigError, match="key"):
            read(path)
    with pytest.raises(StoreError, match="no such file"):
        signature.load_public(tmp_path / "absent")


def test_a_pair_the_wrong_way_round(tmp_path: Path) -> None:
    public, _ = bundle.keygen(tmp_path / "key.pem")
    public.chmod(0o600)
    with pytest.raises(ConfigError, match="no Ed25519 private key"):
        signature.sign(public, b"")
    with pytest.raises(ConfigError, match="no Ed25519 public key"):
        signature.load_public(tmp_path / "key.pem")


def test_a_key_of_another_kind(tmp_path: Path) -> None:
    command = "openssl genpkey -algorithm X25519 -out key.pem"
    subprocess.run(command.split(), cwd=tmp_path, capture_output=True, check=True)
    (tmp_path / "key.pem").chmod(0o600)
    with pytest.raises(ConfigError, match="no Ed25519 private key"):
        signature.sign(tmp_path / "key.pem", b"")


@pytest.mark.parametrize("text", [b"", b"ed25519 0 0\n", b"ed25519 " + b"0" * 16 + b" " + b"A" * 128 + b"\n"])
def test_what_is_no_signature(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(StoreError, match="no Ed25519 signature"):
        signature.key_id(tmp_path, text)


def test_the_package_is_imported_when_a_key_is_needed(tmp_path: Path) -> None:
    code = "import sys, edgecl.bundle, edgecl.cli.bundle; sys.exit('cryptography' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(ConfigError, match=r'pip install "edgecl\[bundle\]"'):
        bundle.keygen(tmp_path / "key.pem")
