"""Import of torch modules: the same logits, weights by their own names, and one clear line for what a net can't say."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import yaml
from torch_nets import MODULES, trained

from edgecl.engines import make_engine
from edgecl.masks import maskable
from edgecl.nets import Imported, Net, from_torch
from edgecl.nets.nodes import Concat, Conv2d, GlobalPool, Mul, Pool
from edgecl.types import ConfigError, Pass

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@cache
def imported(name: str) -> Imported:
    return from_torch(module_of(name), torch.zeros(2, *MODULES[name][1]))


@cache
def module_of(name: str) -> Any:
    return trained(name)


def logits(net: Net, arrays: Any, x: np.ndarray) -> np.ndarray:
    engine = make_engine("torch", net)
    engine.load(arrays)
    found: np.ndarray = engine.numpy(engine.predict(engine.asarray(x.reshape(len(x), *net.input))))
    return found


@pytest.mark.parametrize("name", MODULES)
def test_logits_are_the_modules(name: str) -> None:
    net, arrays, _ = imported(name)
    x, module = torch.randn(5, *MODULES[name][1]), copy.deepcopy(module_of(name))
    with torch.no_grad():
        wanted = module.eval()(x).numpy()
    assert np.abs(logits(net, arrays, x.numpy()) - wanted).max() < 1e-4
    assert wanted.std() > 0.01  # there is something to compare
    assert Net.from_dict(yaml.safe_load(yaml.safe_dump(net.to_dict()))) == net


def test_the_module_is_left_as_it_was() -> None:
    module = trained("signal").double()
    module.bn1.eval()
    before = copy.deepcopy(module.state_dict())
    from_torch(module, torch.zeros(2, 6, 128))
    assert module.training
    assert not module.bn1.training
    assert all(torch.equal(a, before[k]) and a.dtype == before[k].dtype for k, a in module.state_dict().items())


@pytest.mark.parametrize("name", MODULES)
def test_weights_keep_their_names(name: str) -> None:
    module = module_of(name)
    net, arrays, _ = imported(name)
    theirs = {k: v for k, v in module.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert set(theirs) <= set(arrays) == {*net.weights(), *net.buffers()}
    assert all(np.array_equal(arrays[k].reshape(v.shape), v.numpy()) for k, v in theirs.items())
    assert set(arrays) - set(theirs) == ({"bn3.weight", "bn3.bias"} if name == "signal" else set())


@pytest.mark.parametrize("name", MODULES)
def test_an_imported_net_learns(name: str) -> None:
    """A few steps towards one class of each sample lower the loss."""
    net, arrays, _ = imported(name)
    rng = np.random.default_rng(0)
    engine = make_engine("torch", net)
    engine.load(arrays)
    x, y = engine.asarray(rng.normal(size=(8, *net.input)).astype(np.float32)), np.arange(8) % net.classes
    losses = []
    for _ in range(6):
        z = engine.numpy(engine.forward([x], (Pass((0,)),))[0].logits).astype(np.float64)
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        losses.append(-np.log(p[np.arange(8), y]).mean())
        engine.backward([engine.asarray(((p - np.eye(net.classes)[y]) / 8).astype(np.float32))])
        engine.step(engine.asarray(np.float32(0.05)))
    assert losses[-1] < losses[0]
    assert any(not np.array_equal(arrays[k], a) for k, a in engine.arrays().items())


def kinds(net: Net, kind: type) -> list[Any]:
    return [n for n in net.nodes if isinstance(n, kind)]


def test_what_the_nets_are_made_of() -> None:
    """Each module brings what it is here for."""
    nets = {name: imported(name).net for name in MODULES}
    assert len(kinds(nets["mobilenetv3"], Mul)) == 3
    assert len(kinds(nets["densenet"], Concat)) == 3
    assert {n.groups for n in kinds(nets["regnet"], Conv2d)} == {1, 3, 4}
    assert [(n.kind, n.kernel, n.stride, n.padding) for n in kinds(nets["resnet_d"], Pool)] == [
        ("max", 3, 2, 1),
        ("avg", 2, 2, 0),
    ]
    assert nets["signal"].input == (6, 1, 128)
    assert {n.kernel for n in kinds(nets["signal"], Conv2d)} == {(1, 9), (1, 5), 1}
    assert [n.keep for n in kinds(nets["signal"], GlobalPool)] == [True, False]


@pytest.mark.parametrize(
    ("name", "dense"),
    [
        ("regnet", {"stem.0", "trunk.0.downsample.1.0", "trunk.2.downsample.1.0", "fc"}),
        ("resnet_d", {"stem.0.0", "layers.1.downsample.1.0", "fc"}),
        ("densenet", {"stem.0", "fc"}),
        ("mobilenetv3", {"stem.0", "blocks.0.dw.0", "blocks.1.dw.0", "blocks.2.dw.0", "classifier"}),
    ],
)
def test_roles(name: str, dense: set[str]) -> None:
    net = imported(name).net
    assert {k for k, node in net.layers().items() if not maskable(node)} == dense


def test_features_and_notes() -> None:
    module, x = trained("mobilenetv3"), torch.zeros(2, 3, 32, 32)
    net, _, notes = imported("mobilenetv3")
    assert (net.name, net.logits, net.features, net.classes) == ("MobileNetV3", "classifier", "act.hardswish", 7)
    assert len(notes) == 1
    assert "drop" in notes[0]
    other = from_torch(module, x, features="blocks.1.down.1", name="mine").net
    assert (other.name, other.shapes()[other.features]) == ("mine", (12 * 8 * 8,))
    with pytest.raises(ConfigError, match=r"features 'nothing' is no node; known: stem\.0, "):
        from_torch(module, x, features="nothing")
    assert len(imported("resnet_d").notes) == 1  # the first block's shortcut
    assert imported("signal").notes[0] == "bn3: a batch norm without a scale and a shift gets both, 1 and 0"
    assert any("dropout" in n for n in imported("efficientnet").notes)


def test_a_flat_input() -> None:
    module = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3)).eval()
    net, arrays, _ = from_torch(module, torch.zeros(2, 5))
    x = torch.randn(6, 5)
    assert net.input == (5, 1, 1)
    assert np.abs(logits(net, arrays, x.numpy()) - module(x).detach().numpy()).max() < 1e-5


def test_a_pool_that_is_read_twice_stays_an_image() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool, self.conv, self.fc = nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 3, 1), nn.Linear(6, 4)

        def forward(self, x: Any) -> Any:
            y = self.pool(x)
            z = y.flatten(1)
            return self.fc(torch.cat([z, self.conv(y).flatten(1)], 1))

    module = Twice().eval()
    net, arrays, _ = from_torch(module, torch.zeros(2, 3, 4, 4))
    x = torch.randn(3, 3, 4, 4)
    assert np.abs(logits(net, arrays, x.numpy()) - module(x).detach().numpy()).max() < 1e-5


def test_functions_with_parameters_of_their_own() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel, self.shift = nn.Parameter(torch.randn(4, 3, 3, 3)), nn.Parameter(torch.randn(4))
            self.rows, self.offset = nn.Parameter(torch.randn(2, 4 * 3 * 3)), nn.Parameter(torch.randn(2))

        def forward(self, x: Any) -> Any:
            y = F.max_pool2d(F.conv2d(x, self.kernel, bias=self.shift, stride=2), kernel_size=2, stride=1, padding=1)
            y = F.avg_pool2d(F.silu(y).clamp(min=0.0), kernel_size=2, stride=1)
            return F.linear(y.reshape(len(y), -1), weight=self.rows, bias=self.offset)

    module, x = Bare(), torch.randn(4, 3, 7, 7)
    net, arrays, _ = from_torch(module, x)
    assert np.abs(logits(net, arrays, x.numpy()) - module(x).detach().numpy()).max() < 1e-4
    assert np.array_equal(arrays["kernel.weight"], module.kernel.detach().numpy())
    assert np.array_equal(arrays["rows.bias"], module.offset.detach().numpy())


# ---- what a net can't say ----


class Odd(nn.Module):
    """A convolution, what is odd, mean, classifier."""

    def __init__(self, odd: Callable[[Any], Any], layer: Any = None) -> None:
        super().__init__()
        self.conv, self.odd, self.layer, self.fc = nn.Conv2d(3, 4, 3), odd, layer, nn.Linear(4, 2)

    def forward(self, x: Any) -> Any:
        y = self.odd(self.conv(x))
        y = self.layer(y) if self.layer else y
        return self.fc(y.mean((2, 3)))


def same(x: Any) -> Any:
    return x


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "gelu": (lambda: Odd(same, nn.GELU()), r"edgecl has no op for gelu, in layer \(GELU\)"),
    "softmax": (
        lambda: Odd(lambda x: x.softmax(1)),
        r"edgecl has no op for softmax\.int, in the module itself, .*test_torch_import\.py, line \d+, in ",
    ),
    "a number added": (lambda: Odd(lambda x: x + 3), r"add\.Tensor of 3, not of what the net computes, in the module itself"),
    "alpha": (lambda: Odd(lambda x: torch.add(x, x, alpha=2)), r"add\.Tensor with alpha 2"),
    "dilation": (lambda: Odd(same, nn.Conv2d(4, 4, 3, dilation=2)), r"conv2d with dilation \[2, 2\], in layer \(Conv2d\)"),
    "even same": (lambda: Odd(same, nn.Conv2d(4, 4, 2, padding="same")), r"padding 'same' and an even kernel \(2, 2\)"),
    "transposed": (lambda: Odd(same, nn.ConvTranspose2d(4, 4, 3)), r"no op for conv_transpose2d\.input, in layer"),
    "ceil": (lambda: Odd(same, nn.MaxPool2d(4, 4, ceil_mode=True)), r"max_pool2d with ceil_mode, which makes \(4, 4, 4\)"),
    "uncounted": (lambda: Odd(same, nn.AvgPool2d(3, 1, 1, count_include_pad=False)), r"count_include_pad=False"),
    "uneven": (lambda: Odd(same, nn.AdaptiveAvgPool2d(3)), r"adaptive_avg_pool2d from 14×14 to 3×3, whose windows differ"),
    "hardtanh": (lambda: Odd(same, nn.Hardtanh()), r"hardtanh from .* edgecl has relu and relu6"),
    "reflected": (lambda: Odd(same, nn.ReflectionPad2d(1)), r"pad in mode reflect"),
    "cat of rows": (lambda: Odd(lambda x: torch.cat([x, x], 2)), r"cat along axis 2, not along the channels"),
    "mean of one side": (lambda: Odd(lambda x: x.mean(3, keepdim=True)), r"mean over axes \[3\]"),
    "scale a pixel": (lambda: Odd(lambda x: x * x.mean((2, 3)).mean()), r"edgecl has no op for mean, "),
    "shuffle": (lambda: Odd(lambda x: x.view(2, 2, 2, 14, 14).transpose(1, 2).reshape(2, 4, 14, 14)), r"edgecl only flattens"),
    "no statistics": (lambda: Odd(same, nn.BatchNorm2d(4, track_running_stats=False)), r"(no op for|without running) .*layer"),
    "shared": (
        lambda: nn.Sequential(c := nn.Conv2d(3, 3, 1), c, nn.Flatten(), nn.Linear(768, 2)),
        r"weights of [01] are used twice, which a net can.t say, in . \(Conv2d\)",
    ),
    "no logits": (lambda: nn.Conv2d(3, 2, 3), r"output has shape \(2, 14, 14\) a sample, which are no logits"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_net_cannot_say_is_named(case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises(ConfigError, match="^from_torch: .*" + message) as caught:
        from_torch(make(), torch.zeros(2, 3, 16, 16))
    assert "\n" not in str(caught.value)


def test_modules_that_are_no_classifiers() -> None:
    class Two(nn.Module):
        def forward(self, x: Any, y: Any = None) -> Any:
            return x.flatten(1), x.mean((2, 3))

    class Asks(nn.Module):
        def forward(self, x: Any) -> Any:
            return x.flatten(1) if x.sum() > 0 else x.mean((2, 3))

    x = torch.zeros(2, 3, 4, 4)
    with pytest.raises(ConfigError, match="the module returns 2 values, not just its logits"):
        from_torch(Two(), x)
    with pytest.raises(ConfigError, match=r"torch\.export can't trace Asks: ") as caught:
        from_torch(Asks(), x)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="example_input is no tensor"):
        from_torch(Two(), x[0, 0, 0])
