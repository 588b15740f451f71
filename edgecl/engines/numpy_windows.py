"""What slides over an image, in numpy: columns of a convolution, taps of a pool, and their way back."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from edgecl.nets.nodes import Conv2d, Pool, pair
from edgecl.types import F32


def padded(node: Conv2d | Pool, x: F32, value: float = 0.0) -> F32:
    """`x` [N, C, H, W] with the node's padding around each image."""
    h, w = pair(node.padding)
    return np.pad(x, ((0, 0), (0, 0), (h, h), (w, w)), constant_values=value) if h or w else x


def taps(node: Conv2d | Pool, image: npt.NDArray[np.float32], out: tuple[int, int]) -> Iterator[F32]:
    """For each place in the window a view [..., H', W'] of the padded `image` [..., H, W]: what that place sees."""
    (kh, kw), (sh, sw), (h, w) = pair(node.kernel), pair(node.stride), out
    for i in range(kh):
        for j in range(kw):
            yield image[..., i : i + sh * (h - 1) + 1 : sh, j : j + sw * (w - 1) + 1 : sw]


def columns(node: Conv2d, x: F32, out: tuple[int, int]) -> F32:
    """[G, C/G · kh · kw, N · H' · W']: column by column what a kernel is multiplied with."""
    n, c = x.shape[:2]
    image = np.swapaxes(padded(node, x), 0, 1)
    found = np.stack(list(taps(node, image, out)), axis=1)  # [C, kh · kw, N, H', W']
    return found.reshape(node.groups, c // node.groups * found.shape[1], n * out[0] * out[1])


def from_columns(node: Conv2d, found: F32, shape: tuple[int, ...], out: tuple[int, int]) -> F32:
    """The transposed of `columns`: adds up, for each pixel of x [N, C, H, W], what its columns hold."""
    return gathered(node, found.reshape(shape[1], -1, shape[0], *out).swapaxes(0, 1), shape)


def gathered(node: Conv2d | Pool, found: F32, shape: tuple[int, ...]) -> F32:
    """Adds `found` [taps, C, N, H', W'] into x's pixels; what fell on the padding is dropped. [N, C, H, W]."""
    (n, c, h, w), (ph, pw) = shape, pair(node.padding)
    image = np.zeros((c, n, h + 2 * ph, w + 2 * pw), found.dtype)
    for seen, one in zip(taps(node, image, found.shape[-2:]), found, strict=True):
        seen += one
    return np.ascontiguousarray(image[:, :, ph : ph + h, pw : pw + w].swapaxes(0, 1))
