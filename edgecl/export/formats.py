"""What `edgecl export --to` knows: a file format in float, and if wanted its int8."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection
from typing import NamedTuple

from edgecl.card import Card
from edgecl.export import litert, onnx, onnx_int8, predictors
from edgecl.export.predictors import Predict
from edgecl.export.reduce import Reduced
from edgecl.types import U8, ConfigError

INT8 = "-int8"


class Format(NamedTuple):
    """A file format: how it is written, made int8 and run here."""

    suffix: str  # of its files
    write: Callable[[Reduced, Card], bytes]
    predictor: Callable[[bytes], Predict]
    quantise: Callable[[bytes, Card, U8, str, Collection[str]], bytes] | None = None
    """int8 of a float file: calibrated on samples [N, C, H, W], for a chip, and what is named so left in float: a node of
    the net for its output, `<node>.weight` for its weights."""
    noise: Callable[[bytes, bytes, U8], dict[str, float]] | None = None
    """Signal to noise in dB of all that an int8 file rounds, beside its float one, by these names: the worst are tried in
    float."""
    chips: tuple[str, ...] = ()  # that int8 differs for; the first is the usual one


FORMATS: dict[str, Format] = {
    "onnx": Format(".onnx", onnx.write, predictors.of_onnx, onnx_int8.quantise, onnx_int8.noise, onnx_int8.CHIPS),
    "litert": Format(".tflite", litert.write, predictors.of_litert, litert.quantise, litert.noise),
}

TARGETS: tuple[str, ...] = tuple(name for k, f in FORMATS.items() for name in ((k, k + INT8) if f.quantise else (k,)))


def chosen(target: str, chip: str) -> tuple[Format, bool, str]:
    """The format, whether in int8, and the chip ("" where the file is the same for all).

    Raises ConfigError that names the nearest target or the chips where there is none such.
    """
    if target not in TARGETS:
        near = difflib.get_close_matches(target, TARGETS, 1)
        raise ConfigError(
            f"--to: unknown {target!r}; " + (f"did you mean {near[0]!r}?" if near else f"known: {', '.join(TARGETS)}")
        )
    format_, int8 = FORMATS[target.removesuffix(INT8)], target.endswith(INT8)
    chips = format_.chips if int8 else ()
    if chip and chip not in chips:
        raise ConfigError(
            f"--for: {chip!r}, but {target} " + (f"has {', '.join(chips)}" if chips else "is the same for every chip")
        )
    return format_, int8, chip or (chips[0] if chips else "")
