"""`edgecl bundle` from keys to slots."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_cases import Cli

RUN = ("--net", "mlp", "--method", "er", "--samples-per-class", "20", "--epochs", "1", "--set", "engine.threads=1")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from edgecl.cli import main

    folder = tmp_path_factory.mktemp("cli") / "run"
    with pytest.raises(SystemExit):
        main(["train", *RUN, "--quiet", "--run", str(folder)])
    return folder


def test_from_keys_to_slots(cli: Cli, run: Path, tmp_path: Path) -> None:
    made = cli("bundle", "keygen", "key.pem")
    assert made.code == 0
    assert "keep it off the devices" in made.out
    made = cli(
        "bundle", "create", str(run), "--target", "host", "-o", "x.edgecl", "--key", "key.pem", "--memory", "64MB", "--cpu", "50"
    )
    assert made.err == ""
    assert "for host" in made.out
    assert "whole, and signed by" in cli("bundle", "verify", "x.edgecl", "--pub", "key.pub").out
    first = cli("bundle", "install", "x.edgecl", "--root", "root", "--pub", "key.pub")
    assert first.out.startswith("root/slots/a: in use; self-test: predicts ")
    assert cli("bundle", "install", "x.edgecl", "--root", "root", "--pub", "key.pub", "--self-test", "test -d").out.startswith(
        "root/slots/b"
    )
    third = cli("bundle", "install", "x.edgecl", "--root", "root", "--pub", "key.pub")
    assert third.code == 4
    assert "is on trial" in third.err
    assert [cli("bundle", "boot", "--root", "root").out[11] for _ in range(4)] == ["b", "b", "b", "a"]
    assert cli("bundle", "rollback", "--root", "root").out == "root/slots/b: in use\n"
    assert cli("bundle", "confirm", "--root", "root").out == "root/slots/b: confirmed\n"
    assert "predicts" in cli("bundle", "selftest", "root/current").out


def test_inspect_says_whether_it_was_verified(cli: Cli, run: Path, tmp_path: Path) -> None:
    cli("bundle", "keygen", "key.pem")
    cli("bundle", "create", str(run), "--target", "rpi", "-o", "x.edgecl", "--key", "key.pem")
    assert "not verified" in cli("bundle", "inspect", "x.edgecl").out
    assert "Raspberry Pi with a 64-bit system" in " ".join(cli("bundle", "inspect", "x.edgecl").out.split())
    shown = cli("bundle", "inspect", "x.edgecl", "--pub", "key.pub").out
    assert "verified, by" in shown
    assert "not verified" not in shown
    said = json.loads(cli("bundle", "inspect", "x.edgecl", "--json").out)
    assert (said["verified"], said["target"], said["machine"]) == (False, "rpi", "aarch64")
    assert json.loads(cli("bundle", "inspect", "x.edgecl", "--json", "--pub", "key.pub").out)["verified"] is True
    cli("bundle", "keygen", "other.pem")
    wrong = cli("bundle", "inspect", "x.edgecl", "--json", "--pub", "other.pub")
    assert (wrong.code, wrong.out) == (4, "")


def test_what_32_bit_means_is_said(cli: Cli, run: Path, tmp_path: Path) -> None:
    cli("bundle", "keygen", "key.pem")
    (tmp_path / "m.tflite").write_bytes(b"TFL3")
    made = cli("bundle", "create", str(run), "--target", "rpi-32", "-o", "x.edgecl", "--key", "key.pem", "--model", "m.tflite")
    assert "inference only, through tflite-runtime; it cannot learn" in made.out
    assert "inference only" in " ".join(cli("bundle", "inspect", "x.edgecl").out.split())


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["verify", "absent.edgecl", "--pub", "key.pub"], 4, "absent.edgecl: no such file"),
        (["verify", "key.pem", "--pub", "key.pub"], 4, "key.pem: is cut off"),
        (["keygen", "key.pem"], 4, "never overwritten"),
        (["rollback", "--root", "."], 4, "nothing is installed"),
        (["boot", "--root", "absent"], 4, "absent"),
        (["create", "absent", "--target", "host", "-o", "x", "--key", "key.pem"], 4, "absent"),
        (["create", "absent", "--target", "pie", "-o", "x", "--key", "key.pem"], 2, "did you mean 'rpi'"),
        (["create", "absent", "--target", "host", "-o", "x", "--key", "key.pem", "--memory", "9x"], 2, "no size"),
    ],
)
def test_errors_are_one_line(cli: Cli, args: list[str], code: int, said: str) -> None:
    cli("bundle", "keygen", "key.pem")
    done = cli("bundle", *args)
    assert done.code == code
    assert said in done.err
    assert done.err.count("\n") == 1
    assert done.out == ""
