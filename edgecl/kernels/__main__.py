"""python -m edgecl.kernels: builds the kernels beside their source."""

import sys
from pathlib import Path

from edgecl.kernels.build import build_into

sys.exit(0 if build_into(Path(__file__).parent) else 1)
