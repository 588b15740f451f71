"""A wheel of this checkout that takes its dependencies from where the tests have them, so that no network is needed."""

from __future__ import annotations

import site
import sysconfig
import zipfile
from pathlib import Path

import edgecl

PACKAGE = Path(edgecl.__file__).parent
DEPLOY = PACKAGE.parent / "deploy"
METADATA = f"Metadata-Version: 2.1\nName: edgecl\nVersion: {edgecl.__version__}\nLicense: Apache-2.0\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def wheel_of_this_checkout(folder: Path, machine: str) -> Path:
    """The folder, with the wheel in it; where it is installed, `machine` is what Python believes to run on."""
    folder.mkdir()
    files = {f"edgecl/{p.relative_to(PACKAGE).as_posix()}": p.read_bytes() for p in PACKAGE.rglob("*.py")}
    files |= {f"edgecl/kernels/{p.name}": p.read_bytes() for p in (PACKAGE / "kernels").glob("*.so")}
    files |= {f"edgecl/_deploy/{p.relative_to(DEPLOY).as_posix()}": p.read_bytes() for p in DEPLOY.rglob("*") if p.is_file()}
    files["edgecl/_deploy/__init__.py"] = b""
    places = [*site.getsitepackages(), sysconfig.get_path("purelib")]
    others = {line for p in places for pth in Path(p).glob("*.pth") for line in pth.read_text().splitlines()}
    shared = [*places, *(line for line in others if line.startswith("/") and not Path(line, "edgecl").exists())]
    believe = f"import platform; platform.machine = lambda: {machine!r}"
    files["edgecl_tests_dependencies.pth"] = "\n".join([*dict.fromkeys(shared), believe]).encode()
    info = f"edgecl-{edgecl.__version__}.dist-info"
    files |= {f"{info}/METADATA": METADATA.encode(), f"{info}/WHEEL": WHEEL.encode()}
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"]).encode()
    with zipfile.ZipFile(folder / f"edgecl-{edgecl.__version__}-py3-none-any.whl", "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return folder


def wheel(folder: Path, name: str, licence: str = "License: MIT") -> Path:
    """The folder, with a wheel in it that holds no more than its metadata."""
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / name, "w") as archive:
        archive.writestr(
            f"{'-'.join(name.split('-')[:2])}.dist-info/METADATA", f"Metadata-Version: 2.1\n{licence}\n\nLicense: no\n"
        )
    return folder
