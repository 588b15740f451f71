"""From stored uint8 samples to a network's input. Random numbers are drawn on the host, pixels are moved by the engine.

N samples, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from array_api_compat import device

from edgecl.types import I64, Array, DataError, Preprocess


def draw_crops(rng: np.random.Generator, n: int, pre: Preprocess) -> I64:
    """[n, 3]: row and column of the crop in the padded image, in 0..2·pad, and 1 to mirror; zeros for what `pre` lacks.

    Drawn sample by sample, so that n and then m samples draw what n + m would.
    """
    side = 2 * pre.pad + 1
    return rng.integers(0, [side, side, 1 + pre.flip], size=(n, 3), dtype=np.int64)


def center_crops(n: int, pre: Preprocess) -> I64:
    """[n, 3] that leave a sample as it is stored."""
    return np.tile(np.asarray([[pre.pad, pre.pad, 0]], dtype=np.int64), (n, 1))


def prepare(xp: Any, x: Array, crop: Array, pre: Preprocess) -> Array:
    """Pads with black, crops, mirrors and normalises: float32 [N, C, H, W] from x uint8 [N, C, H, W] and crop int64 [N, 3].

    The order is torchvision's RandomCrop, RandomHorizontalFlip, ToTensor, Normalize. Nothing here waits for a device, has
    a shape that depends on values, or copies from the host, so that a step can be captured in a CUDA graph.
    With pad 0 and no flip `crop` plays no part: for evaluation `replace(pre, pad=0, flip=False)` gives what center crops do.
    Raises DataError if `pre` has another number of channels.
    """
    if x.shape[1] != len(pre.mean):
        raise DataError(f"samples have {x.shape[1]} channels, the preprocessing {len(pre.mean)}")
    if pre.pad or pre.flip:
        x = _moved(xp, x, crop, pre.pad)
    scale, shift = affine(xp, pre, device(x))
    return xp.astype(x, xp.float32) * scale + shift


def affine(xp: Any, pre: Preprocess, place: Any) -> tuple[Array, Array]:
    """(x / 255 - mean) / std as x · scale + shift, float32 [1, C, 1, 1] each, on the device `place`."""
    scale = [1 / (255 * s) for s in pre.std]
    shift = [-m / s for m, s in zip(pre.mean, pre.std, strict=True)]
    return _channels(xp, scale, place), _channels(xp, shift, place)


def _channels(xp: Any, values: Sequence[float], place: Any) -> Array:
    """Filled on the device: an array from a list would be a copy from the host, which a capture forbids."""
    return xp.concat([xp.full((1, 1, 1, 1), v, dtype=xp.float32, device=place) for v in values], axis=1)


def _moved(xp: Any, x: Array, crop: Array, pad: int) -> Array:
    """uint8 [N, C, H, W]: one gather does crop and mirror; what it would take from the padding becomes 0."""
    n, c, h, w = x.shape
    index, inside = _pixels(xp, crop, h, w, pad)
    planes = xp.reshape(xp.arange(n * c, dtype=xp.int64, device=device(x)) * (h * w), (n, c, 1, 1))
    flat = xp.reshape(planes + index, (-1,))
    return xp.reshape(xp.take(xp.reshape(x, (-1,)), flat, axis=0), (n, c, h, w)) * inside


def _pixels(xp: Any, crop: Array, h: int, w: int, pad: int) -> tuple[Array, Array]:
    """[N, 1, H, W] each: where in its plane a pixel comes from (int64), and 1 unless that is padding (uint8).

    No clip: in array-api-compat it indexes by masks, whose shapes depend on values.
    """
    i, j = (xp.arange(size, dtype=xp.int64, device=device(crop)) for size in (h, w))
    row = crop[:, 0:1] + i - pad  # [N, H]
    column = crop[:, 1:2] + j + crop[:, 2:3] * (w - 1 - 2 * j) - pad  # [N, W]
    rows_in, columns_in = (row >= 0) & (row < h), (column >= 0) & (column < w)
    inside = (rows_in[:, :, None] & columns_in[:, None, :])[:, None]
    index = (row[:, :, None] * w + column[:, None, :])[:, None]
    return index * xp.astype(inside, xp.int64), xp.astype(inside, xp.uint8)
