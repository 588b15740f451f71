"""Maps the top-level folder of device profiles into the package and builds the kernels; all else is in pyproject.toml."""

import re
import runpy
from pathlib import Path

from setuptools import Command, Distribution, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

VERSION = re.search(r'__version__ = "([^"]+)"', Path("edgecl/__init__.py").read_text())
assert VERSION, "edgecl/__init__.py has no __version__"

built = runpy.run_path("edgecl/kernels/build.py")
build_into, LIBRARY = built["build_into"], built["LIBRARY"]


class BuildKernels(Command):  # type: ignore[misc]
    """python setup.py build_kernels: compiles the native engine's kernels beside their source."""

    description = "compile the native engine's kernels"
    user_options: list[tuple[str, str, str]] = []  # noqa: RUF012, as setuptools declares it

    def initialize_options(self) -> None:
        pass

    def finalize_options(self) -> None:
        pass

    def run(self) -> None:
        build_into(Path("edgecl/kernels"))


class BuildPy(build_py):  # type: ignore[misc]
    """The package, with the kernels for this machine in it, or a notice where they can't be built."""

    def run(self) -> None:
        super().run()
        folder = Path("edgecl/kernels") if self.editable_mode else Path(self.build_lib, "edgecl", "kernels")
        if not self.editable_mode:
            (folder / LIBRARY).unlink(missing_ok=True)  # of another build, for another machine perhaps
        build_into(folder)


class PlatformWheel(bdist_wheel):  # type: ignore[misc]
    """py3-none-<platform>: the kernels are called by ctypes, so one wheel serves every Python of a platform."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


class PlatformDistribution(Distribution):  # type: ignore[misc]
    """One that holds code for a machine, though setuptools builds none of it."""

    def has_ext_modules(self) -> bool:
        return True


setup(
    distclass=PlatformDistribution,
    version=VERSION[1],
    packages=[*find_packages(include=["edgecl", "edgecl.*"]), "edgecl._deploy"],
    package_dir={"edgecl._deploy": "deploy"},
    package_data={
        "edgecl._deploy": ["*.yaml", "bundle/*"],
        "edgecl": ["py.typed"],
        "edgecl.hub.pages": ["templates/*", "static/*"],
        "edgecl.kernels": ["src/*"],
    },
    cmdclass={"build_py": BuildPy, "build_kernels": BuildKernels, "bdist_wheel": PlatformWheel},
)
