"""A process of its own runs the package that called it, not one that lies in the working directory."""

from __future__ import annotations

import subprocess
from pathlib import Path

from edgecl import __version__
from edgecl.cli import again


def test_a_checkout_in_the_working_directory_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "edgecl").mkdir()
    (tmp_path / "edgecl" / "__init__.py").write_text("raise SystemExit('the wrong package')")
    ran = subprocess.run(again.command("--version"), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == f"edgecl, version {__version__}\n"
