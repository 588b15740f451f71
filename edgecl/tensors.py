"""F0: named arrays to the bytes of a safetensors file and back, exactly, and boolean masks packed eight to a byte.

Written here rather than by the library: its numpy writer stores strided arrays wrong without a word, gives metadata in
an order that changes from run to run, and its `save` needs a second copy of all arrays. The library reads, and so checks.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edgecl.types import U8, Bools, Named

Arrays: TypeAlias = dict[str, npt.NDArray[Any]]

DTYPES = {
    "<f8": "F64",
    "<f4": "F32",
    "<f2": "F16",
    "<i8": "I64",
    "<i4": "I32",
    "<i2": "I16",
    "|i1": "I8",
    "<u8": "U64",
    "<u4": "U32",
    "<u2": "U16",
    "|u1": "U8",
    "|b1": "BOOL",
}
METADATA = "__metadata__"  # safetensors' own name: no array can have it


def encode(arrays: Named, metadata: Mapping[str, str] | None = None) -> Iterator[bytes | memoryview]:
    """The file in chunks, an array at a time, none copied that is contiguous; equal arrays give equal bytes.

    Wide types come first, so that every array is aligned; the header keeps the order of `arrays`.
    Raises ValueError that names the array whose type or name safetensors can't hold.
    """
    tags = {name: _tag(name, a) for name, a in arrays.items()}
    order = sorted(arrays, key=lambda name: -arrays[name].itemsize)  # stable
    ends = np.cumsum([0, *(arrays[name].nbytes for name in order)]).tolist()
    spans = {name: ends[i : i + 2] for i, name in enumerate(order)}
    entries = {name: {"dtype": tags[name], "shape": a.shape, "data_offsets": spans[name]} for name, a in arrays.items()}
    header = json.dumps(({METADATA: metadata} if metadata else {}) | entries, ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)
    yield struct.pack("<Q", len(header)) + header
    for name in order:
        a = np.asarray(arrays[name], arrays[name].dtype.newbyteorder("<"), order="C")
        yield a.reshape(-1).view(np.uint8).data


def decode(data: bytes) -> tuple[Arrays, dict[str, str]]:
    """The arrays, new and writable, in the order in which `encode` got them; and the metadata.

    Raises ValueError if `data` is no safetensors file.
    """
    import safetensors.numpy  # only here: a megabyte that a process which only writes need not hold

    try:
        arrays = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, KeyError) as e:  # KeyError: a type that numpy lacks
        raise ValueError(f"not a safetensors file for numpy: {e}") from e
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    metadata = header.pop(METADATA, {})
    return {name: a if a.flags.writeable else a.copy() for name in header for a in [arrays[name]]}, metadata


def pack(masks: Mapping[str, Bools]) -> tuple[dict[str, U8], dict[str, str]]:
    """Arrays and metadata for `encode`: element i of a mask, in C order, is bit i % 8 (of value 1 << i % 8) of byte i // 8.

    The shapes are in the metadata, as JSON. Raises ValueError that names a mask that is not boolean.
    """
    for name, mask in masks.items():
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            raise ValueError(f"mask {name!r} has type {getattr(mask, 'dtype', type(mask).__name__)}, not bool")
    packed = {name: np.packbits(mask.reshape(-1), bitorder="little") for name, mask in masks.items()}
    return packed, {"shapes": json.dumps({name: mask.shape for name, mask in masks.items()})}


def unpack(packed: Named, metadata: Mapping[str, str]) -> dict[str, Bools]:
    """The masks that `pack` got. Raises ValueError if a shape is missing or does not fit its bytes."""
    try:
        shapes = json.loads(metadata["shapes"])
        return {name: _unpacked(bits, shapes[name]) for name, bits in packed.items()}
    except (KeyError, TypeError) as e:
        raise ValueError(f"no shape of a mask: {e}") from e


def _unpacked(bits: npt.NDArray[Any], shape: list[int]) -> Bools:
    if bits.dtype != np.uint8 or bits.shape != (-(-prod(shape) // 8),):
        raise ValueError(f"{bits.size} bytes are no mask of shape {shape}")
    return np.unpackbits(bits, count=prod(shape), bitorder="little").view(np.bool_).reshape(shape)


def _tag(name: str, a: npt.NDArray[Any]) -> str:
    """safetensors' word for the array's type."""
    tag = DTYPES.get(a.dtype.newbyteorder("<").str) if isinstance(a, np.ndarray) else None
    if tag is None or name == METADATA:
        what = "that name" if tag else f"type {getattr(a, 'dtype', type(a).__name__)}"
        raise ValueError(f"safetensors can't hold array {name!r}: {what}")
    return tag
