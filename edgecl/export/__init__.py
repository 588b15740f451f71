"""F3: a snapshot as a model file for another runtime: ONNX or LiteRT, in float or int8. Imports neither before it must."""

from edgecl.export.reduce import Reduced, reduce

__all__ = ["Reduced", "reduce"]
