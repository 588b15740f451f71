"""The nets by their usual names. A builder takes the input shape, the classes and a width, and returns a Net."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from edgecl.nets.blocks import Image, conv_bn
from edgecl.nets.graph import Net
from edgecl.nets.nodes import Add, Flatten, GlobalPool, Linear, Node, Pool, Relu
from edgecl.nets.small import ds_cnn, har_cnn1d, mobilenetv2
from edgecl.types import ConfigError


def _basic_block(name: str, source: str, channels: int, out: int, stride: int) -> list[Node]:
    """Two 3×3 convolutions and a shortcut (He et al. 2016, fig. 2)."""
    n = f"{name}."
    body = [
        *conv_bn(f"{n}conv1", f"{n}bn1", source, out, 3, stride),
        Relu(f"{n}relu1", (f"{n}bn1",)),
        *conv_bn(f"{n}conv2", f"{n}bn2", f"{n}relu1", out, 3),
    ]
    shortcut = source
    if stride != 1 or channels != out:
        body += conv_bn(f"{n}shortcut.0", f"{n}shortcut.1", source, out, 1, stride, role="shortcut")
        shortcut = f"{n}shortcut.1"
    return [*body, Add(f"{n}add", (f"{n}bn2", shortcut)), Relu(name, (f"{n}add",))]


def resnet18(input: Image, classes: int, width: int = 64) -> Net:
    """ResNet-18 with a 3×3 stem and no max pool, as continual-learning papers use it for 32×32 (Rebuffi et al. 2017)."""
    nodes: list[Node] = [*conv_bn("conv1", "bn1", "x", width, 3, role="stem"), Relu("relu", ("bn1",))]
    source, channels = "relu", width
    for stage in range(4):
        for block in range(2):
            name, out = f"layer{stage + 1}.{block}", width * 2**stage
            nodes += _basic_block(name, source, channels, out, 2 if stage and not block else 1)
            source, channels = name, out
    nodes += [GlobalPool("pool", (source,)), Linear("classifier", ("pool",), classes, role="classifier")]
    return Net("resnet18", input, classes, tuple(nodes), "classifier", "pool")


def mlp(input: Image, classes: int, width: int = 256) -> Net:
    """Two hidden layers, as in Mammoth's MNIST set-ups (there of 100 units)."""
    nodes = (
        Flatten("flatten", ("x",)),
        Linear("fc1", ("flatten",), width),
        Relu("relu1", ("fc1",)),
        Linear("fc2", ("relu1",), width),
        Relu("relu2", ("fc2",)),
        Linear("classifier", ("relu2",), classes, role="classifier"),
    )
    return Net("mlp", input, classes, nodes, "classifier", "relu2")


def small_cnn(input: Image, classes: int, width: int = 32) -> Net:
    """Four 3×3 convolutions for small pictures (8×8 digits, 28×28), halved once."""
    nodes: list[Node] = []
    source = "x"
    for i, out in enumerate((width, width, 2 * width, 2 * width)):
        nodes += conv_bn(f"conv{i + 1}", f"bn{i + 1}", source, out, 3, role="" if i else "stem")
        nodes.append(Relu(f"relu{i + 1}", (f"bn{i + 1}",)))
        source = f"relu{i + 1}"
        if i == 1:
            nodes.append(Pool("pool1", (source,), "max", 2, 2))
            source = "pool1"
    nodes += [GlobalPool("pool", (source,)), Linear("classifier", ("pool",), classes, role="classifier")]
    return Net("small_cnn", input, classes, tuple(nodes), "classifier", "pool")


@dataclass(frozen=True)
class Entry:
    """A net of the zoo: its builder and the width that counts as full (the dense baseline's)."""

    build: Callable[[Image, int, int], Net]
    width: int
    about: str


ZOO: dict[str, Entry] = {
    "resnet18": Entry(resnet18, 64, "ResNet-18 for 32×32 images"),
    "small_cnn": Entry(small_cnn, 32, "four 3×3 convolutions for digits"),
    "mlp": Entry(mlp, 256, "two hidden layers"),
    "mobilenetv2_100": Entry(mobilenetv2, 32, "MobileNetV2, its strides for 32×32 or for large images"),
    "ds_cnn": Entry(ds_cnn, 64, "DS-CNN for log-mel speech, time × frequency"),
    "har_cnn1d": Entry(har_cnn1d, 64, "1-D convolutions for windows of motion sensors"),
}

ALIASES = {"mobilenetv2": "mobilenetv2_100"}


def full_width(name: str) -> int:
    """The width at which a net counts as full; 0 for a net read from a file, whose width is fixed."""
    name = ALIASES.get(name, name)
    return ZOO[name].width if name in ZOO else 0


def build_net(name: str, input: Image, classes: int, width: int = 0) -> Net:
    """A zoo net by name, or a description from a `.yaml` file (models/ has one). Width 0 means full.

    Raises ConfigError for an unknown name or a file that does not fit the data.
    """
    if name.endswith((".yaml", ".yml")):
        return _from_file(Path(name), input, classes, width)
    name = ALIASES.get(name, name)
    if name not in ZOO:
        raise ConfigError(f"net.name: unknown net {name!r}; known: {', '.join(ZOO)}, or a .yaml description")
    if width < 0:
        raise ConfigError(f"net.width: {width} is negative")
    return ZOO[name].build(input, classes, width or ZOO[name].width)


def _from_file(path: Path, input: Image, classes: int, width: int) -> Net:
    if width:
        raise ConfigError(f"net.width: {path} has its widths in the file")
    try:
        net = Net.from_dict(yaml.safe_load(path.read_text()))
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror}") from None
    except ConfigError as e:
        raise ConfigError(f"{path}: {e}") from None
    except (yaml.YAMLError, TypeError, ValueError) as e:
        raise ConfigError(f"{path}: not a net description ({' '.join(str(e).split())})") from None
    if (net.input, net.classes) != (input, classes):
        more = "" if net.input != input else "; edgecl.nets.with_classes gives a net a new classifier"
        made = f"made for input {net.input} and {net.classes} classes, the data has {input} and {classes}"
        raise ConfigError(f"{path}: {made}{more}")
    return net
