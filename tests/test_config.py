"""Configuration: what wins over what, and a line that names the key for everything that can't be."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecl import config as C
from edgecl.config import Config, merge, parse_set, resolve
from edgecl.limits import CHOICES, RANGES
from edgecl.methods import METHODS, options
from edgecl.types import ConfigError

KEYS = sorted(C.dotted(Config().to_dict()))


def refused(*layers: Any) -> str:
    with pytest.raises(ConfigError) as error:
        resolve("digits", layers)
    assert "\n" not in str(error.value)
    return str(error.value)


def set_to(text: str) -> dict[str, Any]:
    return parse_set(text)[1]


# ---- what wins ----


def test_later_layers_win_key_by_key() -> None:
    config = resolve("digits", [{"train": {"epochs": 7, "rate": 0.2}}, {"train": {"rate": 0.3}}])
    assert (config.train.epochs, config.train.rate, config.train.batch) == (7, 0.3, 16)  # file, option, usual of digits
    assert config.train.momentum == 0.0  # default


def test_what_is_usual_for_a_data_set() -> None:
    assert (resolve("cifar10", []).net.name, resolve("cifar10", []).train.epochs) == ("resnet18", 50)
    assert resolve("cifar10", []).train.batch == 32
    assert resolve("", []) == resolve("my.npz", [])


def test_few_samples_make_a_short_run_unless_epochs_are_given() -> None:
    few = {"data": {"samples_per_class": 500}}
    assert resolve("cifar10", [few]).train.epochs == 5
    assert resolve("cifar10", [{"train": {"epochs": 9}}, few]).train.epochs == 9
    assert resolve("cifar10", [few, {"data": {"samples_per_class": 0}}]).train.epochs == 50


def test_no_epochs_and_no_net_are_the_usual_ones() -> None:
    empty = [set_to("train.epochs=0"), set_to("net.name=")]
    config = resolve("cifar10", [{"train": {"epochs": 9}, "net": {"name": "mlp"}}, *empty])
    assert (config.train.epochs, config.net.name) == (50, "resnet18")
    assert resolve("cifar10", [*empty, {"data": {"samples_per_class": 500}}]).train.epochs == 5


def test_tf32_is_of_gpus() -> None:
    assert refused(set_to("engine.precision=tf32")) == "engine.precision: tf32 needs engine.device=cuda"
    assert resolve("digits", [set_to("engine={precision: tf32, device: cuda}")]).engine.precision == "tf32"


def test_a_config_is_not_changed_by_what_is_laid_over_it() -> None:
    config = resolve("digits", [])
    before = config.to_dict()
    changed = config.set("mask.sparsity", 0.5)
    assert (changed.mask.sparsity, config.to_dict()) == (0.5, before)
    changed.to_dict()["method"]["name"] = "other"
    assert changed.method["name"] == "derpp"


def test_the_name_of_a_method_is_enough() -> None:
    assert resolve("digits", [{"method": "er"}]).method == {"name": "er", **options("er")}
    assert resolve("digits", [{"method": {"alpha": 0.3}}]).method["alpha"] == 0.3  # of the method as it is


def test_options_stay_with_their_method() -> None:
    kept = resolve("digits", [{"method": {"alpha": 0.3}}, {"method": {"name": "derpp", "beta": 0.7}}])
    assert (kept.method["alpha"], kept.method["beta"]) == (0.3, 0.7)
    left = resolve("digits", [{"method": {"alpha": 0.3}}, {"method": "er"}, {"method": "derpp"}])
    assert left.method["alpha"] == options("derpp")["alpha"]


def test_every_option_of_the_method_is_in_the_record() -> None:
    assert resolve("digits", []).to_dict()["method"] == {"name": "derpp", **options("derpp")}


# ---- what is refused ----


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mask.sparcity=0.5", "unknown key 'mask.sparcity'; did you mean 'mask.sparsity'?"),
        ("masks.sparsity=0.5", "unknown key 'masks'; did you mean 'mask'?"),
        ("sparsity=0.5", "unknown key 'sparsity'; did you mean 'mask.sparsity'?"),
        ("rate=0.1", "unknown key 'rate'; did you mean 'train.rate'?"),
        ("train.epoch=3", "unknown key 'train.epoch'; did you mean 'train.epochs'?"),
        ("method=derp", "method: unknown method 'derp'; did you mean 'derpp'?"),
        ("method.name=[derpp]", "method.name: expected str, got ['derpp']"),
        ("train.epochs=5.0", "train.epochs: expected int, got 5.0"),
        ("train.epochs=true", "train.epochs: expected int, got True"),
        ("tdm.enabled=1", "tdm.enabled: expected bool, got 1"),
        ("train.rate=fast", "train.rate: expected float, got 'fast'"),
        ("train=3", "train: expected keys and values, got 3"),
        ("method=3", "method: expected keys and values, got 3"),
        ("train.epochs=-1", "train.epochs: -1 is not between 1 and 1e+06"),
        ("mask.sparsity=1", "mask.sparsity: 1.0 is not between 0 and 0.9999"),
        ("train.rate=.nan", "train.rate: nan is not between 0 and 1000"),
        ("train.rate=.inf", "train.rate: inf is not between 0 and 1000"),
        ("mask.unit=row", "mask.unit: 'row' is not one of auto, weight, kernel, block4x4, channel"),
        ("method.class_mask=all", "method.class_mask: 'all' is not one of task, seen, none"),
    ],
)
def test_a_line_names_the_key(text: str, said: str) -> None:
    assert refused(set_to(text)) == said


def test_no_known_key_is_near() -> None:
    assert refused({"mask": {"qqqq": 1}}) == "unknown key 'mask.qqqq'; known: mask.sparsity, mask.unit, mask.start"


def test_an_option_of_another_method_is_named() -> None:
    said = refused({"method": {"name": "er", "alpha": 0.1}})
    assert said == "unknown key 'method.alpha': er has class_mask, forward; alpha is an option of derpp"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1])
def test_an_option_of_a_method_out_of_range(value: float) -> None:
    assert refused({"method": {"alpha": value}}).startswith("method.alpha: ")


def test_a_file_that_is_no_mapping() -> None:
    assert refused(["mask", "train"]) == "configuration: expected keys and values, got ['mask', 'train']"


# ---- --set ----


def test_set_reads_yaml() -> None:
    assert parse_set("mask.sparsity=0.9") == ("mask.sparsity", {"mask": {"sparsity": 0.9}})
    assert parse_set("data.root=a=b") == ("data.root", {"data": {"root": "a=b"}})
    assert parse_set("method={name: er}")[1] == {"method": {"name": "er"}}


def test_set_takes_numbers_as_people_write_them() -> None:
    config = resolve("digits", [set_to("train.rate=1e-3"), set_to("mask.sparsity=0"), set_to("budget=23")])
    assert (config.train.rate, config.mask.sparsity, config.budget) == (0.001, 0.0, "23")


@pytest.mark.parametrize("text", ["train.rate", "=3", "seed=[1", "seed=2024-13-01", "seed=!!python/name:os.system", "seed=\x00"])
def test_set_that_can_not_be_read(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^--set"):
        parse_set(text)


def test_dotted_names_what_is_given() -> None:
    assert C.dotted({"mask": {"unit": "kernel"}, "budget": "2x", "train": {}}) == {"mask.unit", "budget"}


# ---- all keys ----


def test_limits_name_keys_that_exist() -> None:
    assert set(CHOICES) | set(RANGES) <= set(KEYS)


def test_every_number_has_a_range() -> None:
    numbers = {key for key in KEYS if type(C.get(Config(), key)) in (int, float)}
    assert {key for key in numbers if not key.startswith("method.")} == set(RANGES)


def valid(key: str) -> st.SearchStrategy[Any]:
    """Values that the key may have."""
    old = C.get(Config(), key)
    if key in CHOICES:
        return st.sampled_from([c for c in CHOICES[key] if c != "tf32"])  # that needs a GPU
    if isinstance(old, bool):
        return st.booleans()
    if isinstance(old, str):
        return st.text("ab/.1:é", min_size=1, max_size=6)  # an empty net.name is the usual one
    low, high = RANGES[key]
    return st.integers(int(low), int(high)) if isinstance(old, int) else st.floats(low, high)


anything = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers(), max_size=2)
)
plain_keys = st.sampled_from([k for k in KEYS if not k.startswith("method.")])
methods = st.sampled_from(sorted(METHODS))


def nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


@settings(max_examples=150, deadline=None)
@given(st.lists(plain_keys.flatmap(lambda k: st.tuples(st.just(k), valid(k))), max_size=6), methods)
def test_valid_values_resolve_and_survive_yaml(pairs: list[tuple[str, Any]], method: str) -> None:
    config = resolve("digits", [*(nested(k, v) for k, v in pairs), {"method": method}])
    for key, value in dict(pairs).items():
        assert C.get(config, key) == value
    assert resolve("", [config.to_dict()]) == config
    assert resolve("", [yaml.safe_load(yaml.safe_dump(config.to_dict()))]) == config


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([*KEYS, "mask", "method", "", "x.y", "method.name.z"]), anything)
def test_anything_else_is_one_line_that_names_the_key(key: str, value: Any) -> None:
    said = ""
    try:
        config = resolve("digits", [nested(key, value)])
    except ConfigError as e:
        said = str(e)
    if said:
        assert "\n" not in said
        assert key.split(".")[0] in said
    else:
        assert resolve("", [config.to_dict()]) == config


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=12))
def test_any_text_after_set_is_read_or_refused(text: str) -> None:
    try:
        key, value = parse_set(text)
        merge(Config(), value)
    except ConfigError:
        pass
    else:
        assert key in KEYS or key.split(".")[0] in Config().to_dict()
