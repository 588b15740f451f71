"""Maps the top-level folder of device profiles into the package; everything else is in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

VERSION = re.search(r'__version__ = "([^"]+)"', Path("edgecl/__init__.py").read_text())
assert VERSION, "edgecl/__init__.py has no __version__"

setup(
    version=VERSION[1],
    packages=[*find_packages(include=["edgecl", "edgecl.*"]), "edgecl._deploy"],
    package_dir={"edgecl._deploy": "deploy"},
    package_data={"edgecl._deploy": ["*.yaml"], "edgecl": ["py.typed"]},
)
