"""F3: a snapshot as a model file for another runtime: ONNX or LiteRT, in float or int8. Imports neither before it must."""

from edgecl.export.formats import FORMATS, TARGETS, Format
from edgecl.export.make import FLOAT, INT8, Exported, export
from edgecl.export.metadata import read_card
from edgecl.export.reduce import Reduced, reduce

__all__ = ["FLOAT", "FORMATS", "INT8", "TARGETS", "Exported", "Format", "Reduced", "export", "read_card", "reduce"]
