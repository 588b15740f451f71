"""F1: the C++ kernels by ctypes. `load()` finds the library and the instruction set; `Op` and its parts mirror src/abi.h."""

from __future__ import annotations

import ctypes as c
import os
from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from edgecl.types import ConfigError

P, N = c.c_void_p, c.c_int32

LIBRARY = "_native.so"  # as build.py has it, which brings modules along that a training process need not hold


class View(c.Structure):
    _fields_ = (("x", P), ("scale", P), ("shift", P), ("relu", N), ("hi", c.c_float))


class Grad(c.Structure):
    _fields_ = (("d", P), ("mask", P), ("mscale", P), ("mshift", P), ("s", P), ("k", P), ("hi", c.c_float), ("unused", N))


class Csr(c.Structure):
    _fields_ = (("n", N), ("rows", N), ("rowptr", P), ("col", P), ("index", P), ("w", P))


class Layer(c.Structure):
    _fields_ = (
        *((name, P) for name in ("w", "v", "bias", "gbias", "fine")),
        *((name, N) for name in ("taps", "inputs", "full", "dense_grad")),
        *((name, Csr) for name in ("forward", "backward", "updated")),
        *((name, N) for name in ("unit", "updated_unit")),
    )


class Norm(c.Structure):
    _fields_ = tuple(
        (name, P)
        for name in (
            *("gamma", "beta", "running_mean", "running_var", "dgamma", "dbeta"),
            *("scale", "shift", "mean", "rstd", "k"),
        )
    )


class Op(c.Structure):
    _fields_ = (
        *((n, N) for n in ("kind", "n", "c", "h", "w", "o", "ho", "wo", "kh", "kw", "sh", "sw", "ph", "pw", "groups")),
        *((n, N) for n in ("accumulate", "band", "flag", "count")),
        *((n, c.c_float) for n in ("eps", "momentum", "rate", "decay")),
        ("a", View),
        ("b", View),
        ("g", Grad),
        ("layer", c.POINTER(Layer)),
        ("norm", c.POINTER(Norm)),
        ("out", P),
        ("stats", P),
        ("host", P),
    )


Kind = IntEnum(
    "Kind",
    "PACK UNPACK STORE STORE_GRAD GATHER CONV3 CONV3_DX CONV3_DW CONV1 CONV1_DX CONV1_DW CONV CONV_DX CONV_DW BIAS_GRAD "
    "STATS NORM NORM_EVAL NORM_REDUCE MAXPOOL MAXPOOL_DX AVGPOOL AVGPOOL_DX SGD SGD_FLAT CONV3_BOTH "
    "DEPTHWISE DEPTHWISE_DX DEPTHWISE_DW DEPTHWISE_BOTH "
    "ACTIVATE ACTIVATE_DX MULTIPLY MULTIPLY_DX JOIN JOIN_DX PAD PAD_DX "
    "SINGLE_IN SINGLE_COPY SINGLE_MAP SINGLE_POOL SINGLE_MEAN SINGLE_CONV3 SINGLE_CONV "
    "CONV1_BOTH",
    start=0,
)

Unit = IntEnum("Unit", "BY_KERNEL BY_WEIGHT BY_BLOCK", start=0)


def pointer(a: np.ndarray[Any, Any] | None) -> int | None:
    """Of a C-contiguous array, which the caller keeps alive."""
    return None if a is None else a.ctypes.data


def array(shape: int | tuple[int, ...], dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    """Zeros that begin at a multiple of 64 bytes, as vectors must."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    aligned: np.ndarray[Any, Any] = raw[start : start + size].view(dtype).reshape(shape)
    return aligned


class Kernels:
    """The library, bound to one instruction set. `lanes` is V: samples in a vector."""

    def __init__(self, library: c.CDLL, number: int, isa: str) -> None:
        self._library, self._number, self.isa = library, number, isa
        self.lanes = int(library.edgecl_lanes(number))

    def run(self, ops: c.Array[Op], threads: int = 1, *, half: bool = False) -> None:
        """Runs the operations in order; activations that they read and write are stored as floats, or in half precision."""
        self._library.edgecl_run(self._number, half, threads, ops, len(ops))


def program(ops: Sequence[Op]) -> c.Array[Op]:
    """Operations side by side, as `run` takes them."""
    return (Op * len(ops))(*ops)


def path() -> Path:
    """Where the library is, if it was built."""
    return Path(__file__).parent / LIBRARY


ABI = 2
"""Of src/choose.cpp: raised when a field changes its meaning but not its size."""


@lru_cache
def _library() -> c.CDLL:
    file = path()
    if not file.exists():
        raise ConfigError(
            "engine native: its kernels were not built; with a C++17 compiler (g++, or $CXX) install edgecl again, "
            "or run python -m edgecl.kernels"
        )
    try:
        library = c.CDLL(str(file))
    except OSError as e:
        raise ConfigError(f"engine native: {file} can't be loaded: {e}; run python -m edgecl.kernels") from None
    library.edgecl_name.restype = c.c_char_p
    library.edgecl_run.argtypes = (c.c_int, c.c_int, c.c_int, c.c_void_p, c.c_int)
    library.edgecl_run.restype = None
    ours = (c.sizeof(Op), c.sizeof(Layer), c.sizeof(Norm), len(Kind), ABI)
    if tuple(int(getattr(library, f"edgecl_{k}")()) for k in ("op_size", "layer_size", "norm_size", "kinds", "abi")) != ours:
        raise ConfigError(f"engine native: {file} is of another version; run python -m edgecl.kernels")
    return library


def isas() -> dict[str, bool]:
    """Instruction sets built in, the best first → whether this processor has it."""
    library = _library()
    return {library.edgecl_name(i).decode(): bool(library.edgecl_here(i)) for i in range(library.edgecl_count())}


def load(isa: str = "") -> Kernels:
    """The kernels for `isa`, or $EDGECL_ISA, or the best that this processor has.

    Raises ConfigError where they were not built, or the instruction set is not here.
    """
    found, wanted = isas(), isa or os.environ.get("EDGECL_ISA", "")
    usable = [name for name, here in found.items() if here]
    if wanted and wanted not in usable:
        raise ConfigError(f"EDGECL_ISA: {wanted!r} is not one of {', '.join(usable)}")
    name = wanted or usable[0]
    return Kernels(_library(), list(found).index(name), name)
