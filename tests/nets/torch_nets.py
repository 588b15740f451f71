"""Modules as users write them, none of them in the zoo: after MobileNetV3, DenseNet, RegNet, ResNet-D, EfficientNet, and 1-D."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn


def conv(i: int, o: int, k: int, s: int = 1, g: int = 1, act: Callable[[], nn.Module] | None = None) -> nn.Sequential:
    layers = [nn.Conv2d(i, o, k, s, k // 2, groups=g, bias=False), nn.BatchNorm2d(o)]
    return nn.Sequential(*layers, *([act()] if act else []))


class Squeeze(nn.Module):
    """Squeeze-and-excitation with 1×1 convolutions."""

    def __init__(self, c: int, act: Callable[[], nn.Module], gate: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.pool, self.act, self.gate = nn.AdaptiveAvgPool2d(1), act(), gate()
        self.down, self.up = nn.Conv2d(c, c // 4, 1), nn.Conv2d(c // 4, c, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gate(self.up(self.act(self.down(self.pool(x)))))


class Inverted(nn.Module):
    """Up, depthwise, gate, down; summed in place where the shape stays."""

    def __init__(self, i: int, o: int, k: int, s: int, act: Callable[[], nn.Module], gate: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.up, self.dw = conv(i, 4 * i, 1, act=act), conv(4 * i, 4 * i, k, s, 4 * i, act)
        self.se, self.down, self.skip = Squeeze(4 * i, nn.ReLU, gate), conv(4 * i, o, 1), s == 1 and i == o

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.down(self.se(self.dw(self.up(x))))
        if self.skip:
            y += x
        return y


class MobileNetV3(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        swish, gate = partial(nn.Hardswish, inplace=True), nn.Hardsigmoid
        self.stem = conv(3, 8, 3, 2, act=swish)
        self.blocks = nn.Sequential(*(Inverted(i, 12, 3, s, swish, gate) for i, s in ((8, 1), (12, 2), (12, 1))))
        self.head, self.hidden = conv(12, 24, 1, act=swish), nn.Linear(24, 20)
        self.act, self.drop, self.classifier = nn.Hardswish(), nn.Dropout(0.2), nn.Linear(20, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.adaptive_avg_pool2d(self.head(self.blocks(self.stem(x))), 1)
        return self.classifier(self.drop(self.act(self.hidden(torch.flatten(x, 1)))))


class DenseLayer(nn.Module):
    def __init__(self, i: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(i), nn.Conv2d(i, 2 * growth, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(2 * growth), nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv1(F.relu(self.norm1(x), inplace=True))
        return torch.cat([x, self.conv2(F.relu(self.norm2(y)))], 1)


class DenseNet(nn.Module):
    """With its stem of stride 2 and padded max pool, and a transition by mean pool."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.pool = conv(3, 8, 7, 2, act=nn.ReLU), nn.MaxPool2d(3, 2, 1)
        self.block1 = nn.Sequential(DenseLayer(8, 4), DenseLayer(12, 4))
        self.transition = nn.Sequential(nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 1, bias=False), nn.AvgPool2d(2, 2))
        self.block2, self.norm, self.fc = DenseLayer(8, 4), nn.BatchNorm2d(12), nn.Linear(12, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.block2(self.transition(self.block1(self.pool(self.stem(x))))))
        x = F.adaptive_avg_pool2d(F.relu(x), (1, 1))
        return self.fc(x.view(x.size(0), -1))


class Bottleneck(nn.Module):
    """1×1, grouped 3×3, 1×1; `pooled` puts a mean pool before the shortcut's convolution, as ResNet-D does."""

    def __init__(self, i: int, o: int, s: int, groups: int, pooled: bool) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = conv(i, o, 1, act=nn.ReLU), conv(o, o, 3, s, groups, nn.ReLU), conv(o, o, 1)
        pool = nn.AvgPool2d(2, s, ceil_mode=True, count_include_pad=False) if pooled and s > 1 else nn.Identity()
        self.downsample = nn.Sequential(pool, conv(i, o, 1, 1 if pooled else s)) if s > 1 or i != o else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.conv3(self.conv2(self.conv1(x))) + self.downsample(x))


class RegNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 8, 3, 2, act=nn.ReLU)
        self.trunk = nn.Sequential(
            Bottleneck(8, 12, 2, 3, False), Bottleneck(12, 12, 1, 3, False), Bottleneck(12, 16, 2, 4, False)
        )
        self.fc = nn.Linear(16, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.trunk(self.stem(x)).mean([2, 3]))


class ResNetD(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, 6, 3, 2, act=nn.ReLU), conv(6, 8, 3, act=nn.ReLU), nn.MaxPool2d(3, 2, 1))
        self.layers = nn.Sequential(Bottleneck(8, 8, 1, 1, True), Bottleneck(8, 16, 2, 1, True))
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(16, 7, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.pool(self.layers(self.stem(x))).squeeze(-1).squeeze(-1))


class EfficientNet(nn.Module):
    """SiLU, gates by sigmoid, and a padding by hand of one side more, as TensorFlow's "same"."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 8, 3, 2, bias=False), nn.BatchNorm2d(8, eps=1e-3), nn.SiLU()
        )
        silu = partial(nn.SiLU, inplace=True)
        self.blocks = nn.Sequential(Inverted(8, 8, 3, 1, silu, nn.Sigmoid), Inverted(8, 12, 5, 2, silu, nn.Sigmoid))
        self.fc = nn.Linear(12, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(self.stem(x)).mean((-2, -1), keepdim=True)
        return self.fc(F.dropout(x, 0.1, self.training).flatten(1))


class Signal(nn.Module):
    """1-D, with ReLU6, dilation 1, every 1-D op, and a gate of linear layers as SENet's authors wrote it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.pool = nn.Conv1d(6, 8, 9, 2, 4), nn.BatchNorm1d(8), nn.MaxPool1d(3, 2, 1)
        self.conv2, self.bn2, self.act = nn.Conv1d(8, 12, 5, padding="same", groups=2), nn.BatchNorm1d(12), nn.ReLU6()
        self.gate = nn.Sequential(nn.Linear(12, 3), nn.ReLU(), nn.Linear(3, 12), nn.Sigmoid())
        self.mean, self.bn3, self.fc = nn.AdaptiveAvgPool1d(1), nn.BatchNorm1d(12, affine=False), nn.Linear(12, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.pad(self.pool(F.relu(self.bn1(self.conv1(x)))), (1, 2))
        x = F.avg_pool1d(self.act(self.bn2(self.conv2(x))), 2)
        b, c, _ = x.shape
        x = x * self.gate(self.mean(x).view(b, c)).view(b, c, 1)
        return self.fc(self.bn3(self.mean(x).squeeze(-1)))


MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mobilenetv3": (MobileNetV3, (3, 32, 32)),
    "densenet": (DenseNet, (3, 33, 40)),
    "regnet": (RegNet, (3, 32, 32)),
    "resnet_d": (ResNetD, (3, 32, 32)),
    "efficientnet": (EfficientNet, (3, 32, 30)),
    "signal": (Signal, (6, 128)),
}


def trained(name: str, seed: int = 0) -> nn.Module:
    """The module with statistics, scales and shifts that are not 0 and 1, in training mode."""
    torch.manual_seed(seed)
    make, shape = MODULES[name]
    module = make()
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn_like(p))
        for _ in range(3):
            module(2 * torch.randn(8, *shape))
    return module
