"""F1: networks as data."""

from edgecl.nets.graph import Net
from edgecl.nets.zoo import ZOO, build_net, full_width

__all__ = ["ZOO", "Net", "build_net", "full_width"]
