"""The kernels' build and its absence; and that training with them needs no torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgecl import kernels
from edgecl.kernels import build
from edgecl.types import ConfigError

SMALL = """
import sys
from pathlib import Path
from edgecl import config, session, train
sets = [{"data": {"name": "digits", "samples_per_class": 20}, "train": {"epochs": 1}, "engine": {"name": "native"}}]
chosen = config.resolve("digits", sets)
stream = session.read_stream(chosen)
setup, state = session.begin(Path(sys.argv[1]), session.make(chosen, stream, set()), stream)
steps = sum(not isinstance(e, dict) for e in train.train(setup, state))
assert steps > 5 and session.result(setup, state)["accuracy"]
sys.exit("torch" in sys.modules)
"""


def test_training_imports_no_torch(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SMALL, str(tmp_path / "run")]
    assert subprocess.run(command, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode == 0


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
def test_without_a_compiler_the_build_says_so_and_goes_on(
    compiler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CXX", compiler)
    assert build.build_into(tmp_path) is False
    assert "kernels were NOT built" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_without_kernels_the_engine_says_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "__file__", str(tmp_path / "__init__.py"))
    kernels._library.cache_clear()
    try:
        with pytest.raises(ConfigError, match=r"kernels were not built.*python -m edgecl\.kernels"):
            kernels.load()
        (tmp_path / build.LIBRARY).write_text("not a library")
        with pytest.raises(ConfigError, match="can't be loaded"):
            kernels.load()
    finally:
        kernels._library.cache_clear()


def test_every_machine_has_kernels() -> None:
    assert [name for name, _, _ in build.variants("x86_64")] == ["avx512", "avx2", "base"]
    assert [name for name, _, _ in build.variants("aarch64")] == ["base"]
