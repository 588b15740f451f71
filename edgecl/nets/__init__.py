"""F1: networks as data."""

from edgecl.nets.graph import Net
from edgecl.nets.grown import grown, with_room
from edgecl.nets.prefix import checked, learning, prefix
from edgecl.nets.saved import beside, load_weights, save_net, starting, weights_file, with_classes
from edgecl.nets.torch_import import Imported, from_torch
from edgecl.nets.zoo import ZOO, build_net, full_width

__all__ = [
    "ZOO",
    "Imported",
    "Net",
    "beside",
    "build_net",
    "checked",
    "from_torch",
    "full_width",
    "grown",
    "learning",
    "load_weights",
    "prefix",
    "save_net",
    "starting",
    "weights_file",
    "with_classes",
    "with_room",
]
