"""Nets made for small devices: MobileNetV2 for pictures, DS-CNN for speech, a 1-D net for motion."""

from __future__ import annotations

from edgecl.nets.blocks import Image, conv_bn, divisible
from edgecl.nets.graph import Net
from edgecl.nets.nodes import Add, BatchNorm, Conv2d, GlobalPool, Linear, Node, Pool, Relu, Relu6

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, blocks and first stride (Sandler et al. 2018, table 2)."""

LARGE = 64  # pixels a side from which MobileNetV2 begins as its authors have it


def mobilenetv2(input: Image, classes: int, width: int = 32) -> Net:
    """MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381), without its dropout; `width` is the stem's channels.

    Pictures below 64×64 are halved three times, not five: stem and second stage have stride 1, as in the CIFAR port of
    kuangliu/pytorch-cifar that others copied; that port's 1×1 shortcuts, which the paper has not, are left out.
    All channels scale with the width, the last 1280 too, in multiples of 4.
    """
    large, scale = min(input[1:]) >= LARGE, width / 32
    nodes: list[Node] = [*conv_bn("stem", "stem.bn", "x", divisible(width), 3, 2 if large else 1, "stem")]
    nodes.append(Relu6("stem.act", ("stem.bn",)))
    source, channels = "stem.act", divisible(width)
    for stage, (expand, out, blocks, first) in enumerate(STAGES):
        for block in range(blocks):
            stride = first if not block and (large or stage != 1) else 1
            block_nodes = _inverted(f"blocks.{stage}.{block}", source, channels, divisible(out * scale), expand, stride)
            nodes += block_nodes
            source, channels = block_nodes[-1].name, divisible(out * scale)
    nodes += [*conv_bn("head", "head.bn", source, divisible(1280 * scale), 1), Relu6("head.act", ("head.bn",))]
    nodes += [GlobalPool("pool", ("head.act",)), Linear("classifier", ("pool",), classes, role="classifier")]
    return Net("mobilenetv2_100", input, classes, tuple(nodes), "classifier", "pool")


def _inverted(name: str, source: str, channels: int, out: int, expand: int, stride: int) -> list[Node]:
    """1×1 up, 3×3 depthwise, 1×1 down without an activation; the input is added where the shape stays (fig. 4)."""
    nodes: list[Node] = []
    wide, inner = channels * expand, source
    if expand != 1:
        nodes += [*conv_bn(f"{name}.up", f"{name}.bn1", source, wide, 1), Relu6(f"{name}.act1", (f"{name}.bn1",))]
        inner = f"{name}.act1"
    nodes += conv_bn(f"{name}.dw", f"{name}.bn2", inner, wide, 3, stride, groups=wide)
    nodes.append(Relu6(f"{name}.act2", (f"{name}.bn2",)))
    nodes += conv_bn(f"{name}.down", f"{name}.bn3", f"{name}.act2", out, 1)
    return [*nodes, Add(f"{name}.add", (f"{name}.bn3", source))] if stride == 1 and channels == out else nodes


def ds_cnn(input: Image, classes: int, width: int = 64) -> Net:
    """DS-CNN-S of Zhang et al. 2017 (*Hello edge*, arXiv:1711.07128) for 1 × time × frequency, there 1×49×10.

    A 10×4 convolution of stride 2, four separable 3×3 blocks, mean, classifier. The first one's padding, 5 and 1, halves
    any even or odd size as "same" does; `width` is the channels of every layer.
    """
    stem = Conv2d("stem", ("x",), width, (10, 4), 2, (5, 1), role="stem")
    nodes: list[Node] = [stem, BatchNorm("stem.bn", ("stem",)), Relu("stem.act", ("stem.bn",))]
    source = "stem.act"
    for i in range(4):
        name = f"blocks.{i}"
        nodes += [*conv_bn(f"{name}.dw", f"{name}.bn1", source, width, 3, groups=width), Relu(f"{name}.act1", (f"{name}.bn1",))]
        nodes += [*conv_bn(f"{name}.pw", f"{name}.bn2", f"{name}.act1", width, 1), Relu(f"{name}.act2", (f"{name}.bn2",))]
        source = f"{name}.act2"
    nodes += [GlobalPool("pool", (source,)), Linear("classifier", ("pool",), classes, role="classifier")]
    return Net("ds_cnn", input, classes, tuple(nodes), "classifier", "pool")


def har_cnn1d(input: Image, classes: int, width: int = 64) -> Net:
    """Three 1-D convolutions of 9 taps and max pools of 3 over windows of sensor readings, C × 1 × L, such as 6×1×128.

    After Ronao and Cho 2016 (*Human activity recognition with smartphone sensors using deep learning neural networks*),
    whose channels double once too; batch norm and a global mean stand for their dropout and layer of 1,000 units.
    """
    nodes: list[Node] = []
    source = "x"
    for i, out in enumerate((width, 2 * width, 2 * width), 1):
        nodes += conv_bn(f"conv{i}", f"bn{i}", source, out, (1, 9), role="stem" if i == 1 else "")
        nodes += [Relu(f"relu{i}", (f"bn{i}",)), Pool(f"pool{i}", (f"relu{i}",), "max", (1, 3), (1, 3), (0, 1))]
        source = f"pool{i}"
    nodes += [GlobalPool("pool", (source,)), Linear("classifier", ("pool",), classes, role="classifier")]
    return Net("har_cnn1d", input, classes, tuple(nodes), "classifier", "pool")
