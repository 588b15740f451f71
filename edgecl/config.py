"""A run's configuration: frozen dataclasses, filled from defaults, the data set's habits, a file, options and the plan."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import reduce
from typing import Any, get_type_hints

import yaml

from edgecl.limits import CHOICES, RANGES
from edgecl.methods import METHODS, make_method, options
from edgecl.types import ConfigError


@dataclass(frozen=True)
class DataConfig:
    name: str = "digits"
    root: str = ""  # folder of the data sets; empty: EDGECL_DATA, else the cache
    classes_per_task: int = 2
    samples_per_class: int = 0  # 0: all
    tasks: int = 0  # learn only the first so many, and know no class of the others; 0: all


@dataclass(frozen=True)
class NetConfig:
    name: str = ""  # empty: the data set's usual net
    width: int = 0  # 0: full
    capacity: int = 0  # classes that the classifier has room for; 0: as many as the data has


@dataclass(frozen=True)
class TrainConfig:
    epochs: int = 0  # a task; the data set's usual number where nobody says
    batch: int = 32
    rate: float = 0.03
    schedule: str = "constant"  # or "cosine": within each task, down to 0
    momentum: float = 0.0
    weight_decay: float = 0.0
    average: float = 0.0  # share of a task's epochs, its last, whose mean weights the net becomes at the task's end
    bias_correction: bool = False  # at a task's end one number is added to the new classes' logits, fitted against the old ones
    snapshot_every: int = 1  # epochs; a task's end always has one
    snapshot_seconds: float = 0.0  # of training at least between two snapshots within a task: cards wear out


@dataclass(frozen=True)
class MemoryConfig:
    capacity: int = 500  # samples in the replay memory
    batch: int = 0  # samples a draw; 0: as many as train.batch
    compress: bool = False  # deflate its pixels in snapshots
    dense_draws: int = 0  # draws a step of the dense baseline, where a budget left fewer; 0: as many
    dense_batch: int = 0  # samples of each of them; 0: as many


@dataclass(frozen=True)
class MaskConfig:
    """Sparse weights. Stem, 1×1 shortcuts, batch norm and the classifier stay dense, as in SparCL."""

    sparsity: float = 0.0  # share of weights removed from the layers that are masked
    unit: str = "auto"  # auto: kernels for k×k, 4×4 blocks for 1×1, single weights for linear; or one of masks.UNITS
    start: str = "uniform"  # or "erk"


@dataclass(frozen=True)
class TdmConfig:
    """Task-aware dynamic masking: expand at a task's start, swap units within it, settle near its end."""

    enabled: bool = True
    expand: float = 0.01  # share of all units added at the start of a task
    swap: float = 0.01  # share of all units pruned and regrown at each update
    every: float = 0.1  # share of a task's epochs between updates
    settle: float = 0.9  # share of a task's epochs after which the mask shrinks to its size and rests
    alpha: float = 0.5  # weight of |∂ current| in the score
    beta: float = 0.5  # weight of |∂ replay|
    grow: str = "random"  # or "gradient", as RigL does
    steps: int = 10  # training steps whose gradients are averaged for the score


@dataclass(frozen=True)
class DdrConfig:
    """Dynamic data removal: drops what is no longer forgotten."""

    share: float = 0.0  # of a task's samples, dropped in all; 0: off
    times: int = 4  # removals
    until: float = 0.4  # share of a task's epochs after which nothing more is dropped


@dataclass(frozen=True)
class DgmConfig:
    """Dynamic gradient masking: updates only the units with the largest gradients."""

    share: float = 1.0  # of live units that are updated; 1: off
    every: int = 30  # steps between choices


@dataclass(frozen=True)
class FreezeConfig:
    """A prefix of the net that no longer learns: weights, masks and batch statistics stay, and no gradient goes through it."""

    until: str = ""  # its last node, or group of nodes such as layer2; empty: nothing is frozen
    after: int = 1  # tasks learned before it is frozen


@dataclass(frozen=True)
class EngineConfig:
    name: str = "auto"  # the best that runs here; a run records which one that was
    device: str = "cpu"
    threads: int = 0  # 0: the engine's choice
    precision: str = "fp32"  # on CUDA also "tf32", "bf16"
    storage: str = "fp32"  # of activations between operations: native also has "fp16"
    deterministic: bool = True  # on CUDA: the same bits in every run; false lets cuDNN choose by timing


@dataclass(frozen=True)
class Config:
    data: DataConfig = field(default_factory=DataConfig)
    net: NetConfig = field(default_factory=NetConfig)
    method: Mapping[str, Any] = field(default_factory=lambda: {"name": "derpp", **options("derpp")})
    train: TrainConfig = field(default_factory=TrainConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    mask: MaskConfig = field(default_factory=MaskConfig)
    tdm: TdmConfig = field(default_factory=TdmConfig)
    ddr: DdrConfig = field(default_factory=DdrConfig)
    dgm: DgmConfig = field(default_factory=DgmConfig)
    freeze: FreezeConfig = field(default_factory=FreezeConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    device: str = "host"  # profile in deploy/ that predictions are made for
    budget: str = ""  # "23x": 23 times fewer FLOPs than the dense baseline
    clock: str = "auto"  # whether 23x holds for training time too; auto: where this machine is calibrated and some plan can
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for YAML."""
        return {**asdict(self), "method": dict(self.method)}

    def set(self, key: str, value: Any) -> Config:
        """A copy with one value changed; `key` is dotted. Raises ConfigError that names the key and the nearest known."""
        return merge(self, nest(key, value))


USUAL: dict[str, dict[str, Any]] = {
    "cifar10": {"net": {"name": "resnet18"}, "train": {"epochs": 50}},
    "digits": {
        "net": {"name": "small_cnn"},
        "train": {"epochs": 20, "batch": 16, "rate": 0.05, "schedule": "cosine"},
        "memory": {"capacity": 100},
    },
    "": {"net": {"name": "small_cnn"}, "train": {"epochs": 20}},
}
"""What a data set is usually trained with; "" for data from a file."""

SHORT: dict[str, dict[str, Any]] = {"cifar10": {"train": {"epochs": 5}}}
"""Laid over USUAL when `data.samples_per_class` asks for a short run: 50 epochs of dense ResNet-18 are hours on a CPU."""


def resolve(dataset: str, layers: Iterable[Mapping[str, Any]]) -> Config:
    """Defaults, then what is usual for `dataset` (a registry name, or "" for a file), then `layers`, later ones winning.

    No epochs and no net, as a layer may say, are the usual ones.
    """
    given, usual = list(layers), merge(Config(), USUAL.get(dataset, USUAL[""]))
    config = reduce(merge, given, usual)
    if config.data.samples_per_class and dataset in SHORT:
        usual = merge(usual, SHORT[dataset])
        config = reduce(merge, given, usual)
    for key in ("train.epochs", "net.name"):
        config = config.set(key, get(config, key) or get(usual, key))
    check(config)
    return config


def merge(config: Config, values: Mapping[str, Any]) -> Config:
    """A copy with nested `values` laid over it; unknown keys and wrong types raise ConfigError."""
    merged: Config = _merge(config, _mapping("configuration", values), "")
    return merged


def _merge(config: Any, values: Mapping[str, Any], prefix: str) -> Any:
    hints = get_type_hints(type(config))
    known = [f.name for f in fields(config)]
    changed: dict[str, Any] = {}
    for key, value in values.items():
        where = prefix + str(key)
        if key not in known:
            raise ConfigError(f"unknown key {where!r}{_nearest_key(str(key), known, prefix)}")
        old = getattr(config, key)
        if where == "method":
            changed[key] = _method(old, value)
        elif is_dataclass(old):
            changed[key] = _merge(old, _mapping(where, value), f"{where}.")
        else:
            changed[key] = _typed(where, value, hints[key])
    return replace(config, **changed)


def _method(old: Mapping[str, Any], value: Any) -> dict[str, Any]:
    """`name` or a mapping with its options; options of another method are dropped when the name changes."""
    value = {"name": value} if isinstance(value, str) else dict(_mapping("method", value))
    name = _typed("method.name", value.get("name", old["name"]), str)
    if name not in METHODS:
        raise ConfigError(f"method: unknown method {name!r}{nearest(name, METHODS, '')}")
    known = options(name)
    kept = {k: v for k, v in old.items() if k in known} if name == old["name"] else {}
    for key, given in value.items():
        if key != "name" and key not in known:
            others = [other for other in METHODS if key in options(other)]
            hint = f"; {key} is an option of {', '.join(others)}" if others else ""
            raise ConfigError(f"unknown key 'method.{key}': {name} has {', '.join(known)}{hint}")
        if key != "name":
            kept[key] = _typed(f"method.{key}", given, type(known[key]))
    return {"name": name, **known, **kept}


def _mapping(where: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: expected keys and values, got {value!r}")
    return value


def _typed(where: str, value: Any, kind: type) -> Any:
    if kind is float and type(value) in (int, str):  # YAML takes 1e-3, which lacks a dot, for text
        with suppress(ValueError, OverflowError):
            return float(value)
    if kind is str and (value is None or type(value) in (int, float)):  # nothing after the = is no text
        return "" if value is None else str(value)
    if type(value) is not kind:
        raise ConfigError(f"{where}: expected {kind.__name__}, got {value!r}")
    return value


def nearest(word: str, known: Iterable[str], prefix: str) -> str:
    """`; did you mean …?` where some known word is close, else the list of them."""
    known = list(known)
    close = difflib.get_close_matches(word, known, 1, 0.5)
    return f"; did you mean {prefix + close[0]!r}?" if close else f"; known: {', '.join(prefix + k for k in known)}"


def _nearest_key(word: str, known: list[str], prefix: str) -> str:
    """As `nearest`, but a key of another section is found too: sparsity → mask.sparsity."""
    every = {key.rpartition(".")[2]: key for key in sorted(dotted(Config().to_dict()), reverse=True)}
    every |= {key: prefix + key for key in known}
    close = difflib.get_close_matches(word, every, 1, 0.6)
    return f"; did you mean {every[close[0]]!r}?" if close else nearest(word, known, prefix)


def check(config: Config) -> None:
    """Raises ConfigError for a value out of its range."""
    for key, choices in CHOICES.items():
        if get(config, key) not in choices:
            raise ConfigError(f"{key}: {get(config, key)!r} is not one of {', '.join(choices)}")
    for key, (low, high) in RANGES.items():
        value = get(config, key)
        if not low <= value <= high:
            raise ConfigError(f"{key}: {value!r} is not between {low:g} and {high:g}")
    if (config.engine.precision, config.engine.device) == ("tf32", "cpu"):
        raise ConfigError("engine.precision: tf32 needs engine.device=cuda")
    make_method(config.method["name"], {key: value for key, value in config.method.items() if key != "name"})


def get(config: Config, key: str) -> Any:
    """The value at a dotted key."""
    value: Any = config
    for part in key.split("."):
        value = value[part] if isinstance(value, Mapping) else getattr(value, part)
    return value


def nest(key: str, value: Any) -> dict[str, Any]:
    """`value` under a dotted key."""
    nested: Any = value
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return dict(nested)


def parse_set(text: str) -> tuple[str, dict[str, Any]]:
    """`key.sub=value` → (dotted key, nested mapping); the value is read as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {text!r}: expected key.sub=value")
    try:
        return key, nest(key, yaml.safe_load(value))
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: a date such as 2024-13-01
        raise ConfigError(f"--set {key}: can't read the value {value!r}") from None


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of a nested mapping."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def dotted(values: Mapping[str, Any]) -> set[str]:
    """Dotted keys of a nested mapping: what a user has pinned."""
    return {key for key, _ in leaves(values)}
