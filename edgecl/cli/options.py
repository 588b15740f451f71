"""The options that `train` and `plan` share, and the configuration that they, a file and --set make."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from edgecl.config import Config

F = TypeVar("F", bound=Callable[..., Any])

KEYS = {
    "data": "data.name",
    "data_root": "data.root",
    "method": "method.name",
    "device": "device",
    "budget": "budget",
    "net": "net.name",
    "epochs": "train.epochs",
    "seed": "seed",
    "engine": "engine.name",
    "samples_per_class": "data.samples_per_class",
}
"""Option → the key of the configuration that it sets."""

PLANNING = (
    click.option("--data", metavar="NAME|PATH", help="Data set (see `edgecl data list`), or a .npz of your own. [digits]"),
    click.option("--data-root", metavar="DIR", help="Folder of the data sets. [$EDGECL_DATA, else ~/.cache/edgecl]"),
    click.option("--method", metavar="NAME", help="Continual-learning method (see `edgecl methods`). [derpp]"),
    click.option("--device", metavar="PROFILE", help="Device to predict time and energy for (see `edgecl doctor`). [host]"),
    click.option(
        "--budget",
        metavar="LIMITS",
        help="Fewer FLOPs than dense (23x), time (10min), memory (256MB), energy (5Wh), or several. [none]",
    ),
    click.option(
        "--net",
        metavar="NAME|PATH",
        help="Network: resnet18, mobilenetv2, ds_cnn, … (docs/nets.md), or a .yaml. [the data set's usual one]",
    ),
    click.option("--epochs", type=int, metavar="N", help="Epochs a task. [the data set's usual number]"),
    click.option("--seed", type=int, metavar="N", help="Seed of everything that is drawn at random. [0]"),
    click.option("--engine", metavar="NAME", help="What runs the network (see `edgecl doctor`). [auto: the best here]"),
    click.option("--samples-per-class", type=int, metavar="N", help="Keep the first N training samples of each class. [all]"),
    click.option("--config", type=click.Path(), metavar="FILE", help="YAML with keys to set, or a run's config.yaml."),
    click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Set a key, such as mask.sparsity=0.8; repeatable."),
)


def planning(command: F) -> F:
    """Adds the options above, in that order."""
    for option in reversed(PLANNING):
        command = option(command)
    return command


def given_names(given: Mapping[str, Any]) -> list[str]:
    """The planning options that the user gave, as they are written."""
    return ["--set" if k == "sets" else f"--{k.replace('_', '-')}" for k, v in given.items() if v not in (None, ())]


def choose(given: Mapping[str, Any]) -> tuple[Config, set[str]]:
    """The configuration, and the dotted keys that the user gave: these are pinned, the planner leaves them alone.

    A file is overruled by options. Raises ConfigError for what is unknown, out of range, or given twice.
    """
    from edgecl import config as configs
    from edgecl.data import resolve
    from edgecl.engines import AUTO, ENGINES
    from edgecl.types import ConfigError

    layers = [*_file(given["config"]), *_options(given)]
    names = [value for layer in layers for key, value in configs.leaves(layer) if key == "data.name"]
    name = str(names[-1]) if names else configs.DataConfig.name
    own = name.lower().endswith(".npz")
    if not own:
        layers.append({"data": {"name": resolve(name)}})  # an alias becomes the name itself
    config = configs.resolve("" if own else resolve(name), layers)
    if config.engine.name not in (AUTO, *ENGINES):
        raise ConfigError(f"engine.name: unknown engine {config.engine.name!r}; known: {', '.join((AUTO, *ENGINES))}")
    pinned: set[str] = set().union(*(configs.dotted(layer) for layer in layers))
    return _absolute(config), pinned


def _options(given: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A layer for each option and each --set. Raises ConfigError where both give one key different values."""
    from edgecl import config as configs
    from edgecl.types import ConfigError

    layers: list[Mapping[str, Any]] = []
    seen: dict[str, tuple[str, Any]] = {}
    options = [(f"--{k.replace('_', '-')}", configs.nest(KEYS[k], given[k])) for k in KEYS if given[k] is not None]
    for how, layer in [*options, *(("--set", configs.parse_set(s)[1]) for s in given["sets"])]:
        for key, value in configs.leaves(layer):
            before, old = seen.setdefault(key, (how, value))
            if old != value and how != before:
                raise ConfigError(f"{key} is given twice: {old!r} by {before}, {value!r} by {how}")
        layers.append(layer)  # of two --set the later wins
    return layers


def _absolute(config: Config) -> Config:
    """Paths from the root on, so that --resume finds them from any folder."""
    if config.data.root:
        config = config.set("data.root", _from_root(config.data.root))
    elif config.data.name.lower().endswith(".npz"):
        config = config.set("data.name", _from_root(config.data.name))
    for key, value in (("net.name", config.net.name), ("device", config.device)):
        config = config.set(key, _from_root(value)) if value.endswith((".yaml", ".yml")) else config
    return config


def _from_root(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def _file(path: str | None) -> list[Mapping[str, Any]]:
    """The layer in a file: all its keys, or those under `config` where it is a run's. Raises ConfigError that names the file."""
    if path is None:
        return []
    import yaml

    from edgecl import config as configs
    from edgecl.types import ConfigError

    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as e:
        raise ConfigError(f"{path}: {(e.strerror or str(e)).lower()}") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as e:
        raise ConfigError(f"{path}: is not YAML: {' '.join(str(e).split())}") from None
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path}: holds no keys and values")
    values = values["config"] if isinstance(values.get("config"), Mapping) else values
    try:
        configs.merge(configs.Config(), values)
    except ConfigError as e:
        raise ConfigError(f"{path}: {e}") from None
    return [values]
