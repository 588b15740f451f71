"""What the zoo's builders share."""

from __future__ import annotations

from edgecl.nets.nodes import BatchNorm, Conv2d, Node, Pair, pair

Image = tuple[int, int, int]


def conv_bn(
    name: str, bn: str, source: str, out: int, kernel: Pair, stride: Pair = 1, role: str = "", groups: int = 1
) -> list[Node]:
    """A convolution and its batch norm; an odd kernel of stride 1 keeps the picture's size."""
    kh, kw = pair(kernel)
    padding = kh // 2 if kh == kw else (kh // 2, kw // 2)
    return [Conv2d(name, (source,), out, kernel, stride, padding, groups, role=role), BatchNorm(bn, (name,))]


def divisible(channels: float, by: int = 4) -> int:
    """The nearest multiple of `by`, at least that and at least 90 % of `channels`.

    As MobileNetV2's authors scale widths, but they take multiples of 8; 4 is the side of the blocks that masks drop.
    """
    rounded = max(by, int(channels + by / 2) // by * by)
    return rounded if rounded >= 0.9 * channels else rounded + by
