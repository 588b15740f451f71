"""Payloads that are not as `encode` makes them: refused in one line that names what is wrong."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from update_cases import CASES, NAMES, case, swapped, update_on

from edgecl.types import ConfigError
from edgecl.update import Base, Update, UpdateError, apply, cbor, decode, encode, most_bytes, peek, values
from edgecl.update import masks as entries
from edgecl.update.header import COUNT, MILLISECONDS, parse

PACKED = {"scales": "<u2", "levels": "i1", "halves": "<f2", "singles": "<f4"}


def body_of(payload: bytes) -> dict[str, Any]:
    return {k: bytes(v) if isinstance(v, memoryview) else v for k, v in parse(payload).items()}


def numbers(body: dict[str, Any], key: str) -> np.ndarray:
    """Of a packed key, however many there are."""
    size = np.dtype(PACKED[key]).itemsize
    raw = zlib.decompress(body[key]) if body[key][:1] == b"\x78" else body[key]
    return values.unpack("x", memoryview(raw), len(raw) // size, PACKED[key]).copy()


def forged(payload: bytes, **changes: Any) -> bytes:
    """With other values; a function is given the old one, an array is packed."""
    body = body_of(payload)
    for key, new in changes.items():
        value = new(numbers(body, key) if key in PACKED else body[key]) if callable(new) else new
        body[key] = values.pack(value) if isinstance(value, np.ndarray) else value
    return cbor.encode(body)


def put(index: Any, value: Any) -> Callable[[Any], Any]:
    """A change of one element."""

    def change(old: Any) -> Any:
        new = old.copy() if isinstance(old, (np.ndarray, list)) else bytearray(old)
        new[index] = value
        return bytes(new) if isinstance(new, bytearray) else new

    return change


KERNELS = "kernels"
FORGED: dict[str, tuple[dict[str, Any], str]] = {
    "format": ({"format": 2}, "is of format 2, but this edgecl reads format 1"),
    "format, a text": ({"format": "1"}, "has no format"),
    "a type": ({"steps": "7"}, "steps is of another type"),
    "another net": ({"net": "resnet18"}, "is of net 'resnet18', not of 'small_cnn'"),
    "base, short": ({"base": b"\0" * 31}, "base is no sha256"),
    "base": ({"base": b"\1" * 32}, "is of base 010101010101, not of 000000000000"),
    "values": ({"values": "int7"}, "values are 'int7'"),
    "values of others": ({"values": "int4"}, "a channel's largest level is not 7|a scale"),
    "values, float": ({"values": "fp16"}, "is sent as kind 1"),
    "classes, fewer": ({"classes": ["ant"], "samples": [0]}, "do not begin with those of its base"),
    "classes, others": ({"classes": ["ant", "cat", "bee"]}, "do not begin with those of its base"),
    "classes, twice": ({"classes": [*NAMES, "ant"], "samples": [0] * 4}, "classes: not at most 10000 different"),
    "classes, numbers": ({"classes": [1, 2, 3]}, "classes: not"),
    "classes, empty": ({"classes": [*NAMES, ""], "samples": [0] * 4}, "classes: not"),
    "classes, a line": ({"classes": [*NAMES, "a\nb"], "samples": [0] * 4}, "classes: not"),
    "classes, a long name": ({"classes": [*NAMES, "é" * 129], "samples": [0] * 4}, "classes: not"),
    "classes, many": ({"classes": [*map(str, range(10001))], "samples": [0] * 10001}, "classes: not"),
    "classes without rows": ({"classes": [*NAMES, "dog"], "samples": [0] * 4}, "scales: "),
    "samples, fewer": ({"samples": [1, 2]}, "samples are not a number for each class"),
    "samples, texts": ({"samples": ["1", "2", "3"]}, "samples are not a number"),
    "samples, many": ({"samples": [1, 2, COUNT]}, "a count is 2\\^63 or more"),
    "FLOPs, many": ({"executed": COUNT}, "a count is 2\\^63 or more"),
    "milliseconds": ({"milliseconds": MILLISECONDS}, "milliseconds are 2\\^48 or more"),
    "masks, fewer": ({"masks": lambda m: m[1:]}, "masks, not the base's"),
    "a mask, a number": ({"masks": put(0, 5)}, "its entry is no list"),
    "a mask, short": ({"masks": put(0, [1, 2])}, "its entry is no list"),
    "a mask, texts": ({"masks": put(0, ["a", 1, b""])}, "its entry is no list"),
    "a mask, a third kind": ({"masks": put(0, [2, 1, 0, b"\1"])}, "not in the shortest form|units"),
    "a mask, nothing lives": ({"masks": put(0, [0, 0, 0, b""])}, "no unit lives"),
    "a mask, more than there are": ({"masks": put(0, [0, 2**40, 0, b""])}, "of 64 units|units"),
    "a mask, all of it": ({"masks": put(0, [1, 0, 0, b""])}, "levels|scale|largest level"),
    "arrays, fewer": ({"arrays": lambda a: a[1:]}, "arrays, not the net's"),
    "arrays, a kind": ({"arrays": put(0, 9)}, "conv1.weight is sent as kind 9"),
    "arrays, levels for a vector": ({"arrays": put(1, 1)}, "is sent as kind 1"),
    "arrays, float32 where float16 does": ({"arrays": put(1, 3)}, "halves: "),
    "arrays, one less": ({"arrays": put(0, 0)}, "scales: "),
    "scales, none": ({"scales": b""}, "scales: "),
    "scales, negative": ({"scales": put(0, 0xBF80)}, "a scale is not finite"),
    "scales, infinite": ({"scales": put(0, 0x7F80)}, "a scale is not finite"),
    "scales, NaN": ({"scales": put(0, 0x7FC0)}, "a scale is not finite"),
    "scales, subnormal": ({"scales": put(0, 0x0001)}, "a scale is not finite"),
    "scales, 0": ({"scales": put(0, 0)}, "levels: "),
    "levels, -128": ({"levels": put(0, -128)}, "largest level is not 127"),
    "levels, small": ({"levels": lambda q: q // 2}, "largest level is not 127"),
    "levels, cut": ({"levels": lambda q: q[1:]}, "levels: "),
    "levels, longer": ({"levels": lambda q: np.append(q, q)}, "levels: "),
    "levels, no stream": ({"levels": b"\x78\x02abc"}, "levels: is no zlib stream"),
    "levels, a stream that ends early": ({"levels": b"\x78\x01abc"}, "levels: 0 bytes where"),
    "levels, bytes behind": ({"levels": lambda q: zlib.compress(q.tobytes()) + b"\0"}, "levels: "),
    "levels, a bomb": ({"levels": zlib.compress(bytes(10**7), 9)}, "levels: "),
    "halves, NaN": ({"halves": put(0, np.nan)}, "not finite"),
    "halves, infinite": ({"halves": put(3, -np.inf)}, "not finite"),
    "halves, none": ({"halves": lambda h: 0 * h}, "or none"),
    "singles, NaN": ({"singles": put(0, np.nan)}, "not finite"),
    "singles, large": ({"singles": put(0, 2e30)}, "not finite"),
    "singles, a variance": ({"singles": lambda s: -abs(s) - 9}, "running_var comes below 0"),
}  # fmt: skip


@pytest.mark.parametrize("what", FORGED)
def test_forged(what: str) -> None:
    changes, why = FORGED[what]
    base, update = case(KERNELS)
    bad = forged(encode(update, base), **changes)
    with pytest.raises(UpdateError, match=why) as error:
        decode(bad, base)
    assert str(error.value).startswith("update: ")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def test_keys() -> None:
    base, update = case(KERNELS)
    body = body_of(encode(update, base))
    for key in body:
        with pytest.raises(UpdateError, match=f"lacks key '{key}'|no format"):
            decode(cbor.encode({k: v for k, v in body.items() if k != key}), base)
    with pytest.raises(UpdateError, match="strange key 'more'"):
        decode(cbor.encode({**body, "more": 1}), base)
    with pytest.raises(UpdateError, match="behind its end"):
        decode(encode(update, base) + b"\0", base)
    with pytest.raises(UpdateError, match="no format"):
        peek(cbor.encode([1]))


def test_a_longer_form_of_a_mask() -> None:
    base, update = case("single weights")
    payload, layer = encode(update, base), next(iter(base.live))
    i = [k for k in base.net.layers() if k in base.live].index(layer)
    other = swapped(base.live[layer], 10**6, seed=9)
    whole = entries.write(other, update.live[layer])  # beside a mask that has nothing to do with it
    assert whole is not None
    assert len(whole) == 4
    with pytest.raises(UpdateError, match="not in the shortest form"):
        decode(forged(payload, masks=put(i, whole)), base)
    with pytest.raises(UpdateError, match="not in the shortest form"):
        decode(forged(encode(replace(update, live=base.live), base), masks=put(i, [0, 0, b"", 0, 0, b""])), base)


def test_float32_where_float16_does() -> None:
    base, update = case(KERNELS)
    delta = {k: np.full_like(d, 1e5) if k == "bn1.weight" else d for k, d in update.delta.items()}
    payload = encode(replace(update, delta=delta), base)
    assert np.array_equal(decode(payload, base).delta["bn1.weight"], delta["bn1.weight"])
    with pytest.raises(UpdateError, match=r"bn1\.weight is sent as float32, but float16 holds it"):
        decode(forged(payload, singles=lambda s: np.where(s == 1e5, np.float32(6e4), s)), base)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 2.0**101])
@pytest.mark.parametrize("array", ["conv2.weight", "bn1.bias", "bn2.running_var"])
def test_what_no_device_sends(array: str, bad: float) -> None:
    base, update = case("dense")
    delta = {k: d.copy() for k, d in update.delta.items()}
    delta[array].reshape(-1)[0] = bad
    with pytest.raises(UpdateError, match=f"{array} has changes that are not finite, or beyond"):
        encode(replace(update, delta=delta), base)


def test_arrays_of_another_form() -> None:
    base, update = case("dense")
    with pytest.raises(UpdateError, match=r"bn1\.weight is float64"):
        encode(
            replace(update, delta={k: d.astype(np.float64) if k == "bn1.weight" else d for k, d in update.delta.items()}), base
        )
    with pytest.raises(UpdateError, match=r"classifier\.weight is float32"):
        encode(replace(update, classes=(*NAMES, "dog"), samples=(0,) * 4), base)
    with pytest.raises(ConfigError, match="values is 'int3'"):
        encode(update, base, "int3")


def accepted(payload: bytes, base: Base) -> Update | None:
    """What `decode` makes of it, if it takes it; its promises are kept then."""
    try:
        found = decode(payload, base)
    except UpdateError:
        return None
    weights, live = apply(base, found)
    assert all(np.isfinite(a).all() for a in weights.values())
    assert all(a.min() >= 0 for k, a in weights.items() if k.endswith("running_var"))
    assert all(u.any() and u.shape == base.live[k].shape for k, u in live.items())
    again = encode(found, base, peek(payload).values)
    mine, other = body_of(again), body_of(payload)
    assert {k: v for k, v in mine.items() if k not in PACKED} == {k: v for k, v in other.items() if k not in PACKED}
    assert all(np.array_equal(d, found.delta[k], equal_nan=False) for k, d in decode(again, base).delta.items())
    return found


MADE = {name: case(name) for name in CASES}


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([*CASES]), st.sampled_from(values.KINDS), st.data())
def test_damage(name: str, kind: str, data: st.DataObject) -> None:
    base, update = MADE[name]
    bad = bytearray(encode(update, base, kind))
    for _ in range(data.draw(st.integers(1, 3))):
        bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    accepted(bytes(bad), base)


@pytest.mark.parametrize("name", CASES)
def test_every_cut_is_seen(name: str) -> None:
    base, update = MADE[name]
    payload = encode(update, base)
    for at in (*range(200), *range(200, len(payload), 997), len(payload) - 1):
        with pytest.raises(UpdateError):
            decode(payload[:at], base)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", values.KINDS)
def test_what_encode_makes_is_accepted(name: str, kind: str) -> None:
    base, update = MADE[name]
    payload = encode(update, base, kind)
    found = accepted(payload, base)
    assert found is not None
    assert len(payload) <= most_bytes(base)
    assert encode(found, base, kind) == payload


def test_an_update_of_a_smaller_base_is_none_of_a_larger() -> None:
    base, update = case(KERNELS)
    grown, _ = case("new classes")
    more = update_on(base, dict(update.live), (*NAMES, "dog"))
    assert decode(encode(more, base), base).classes == (*NAMES, "dog")
    with pytest.raises(UpdateError, match="do not begin"):
        decode(encode(more, base), grown._replace(classes=(*NAMES, "eel")))


def test_the_longest_payload() -> None:
    base, update = MADE["single weights"]
    many = (*NAMES, *(f"{i:0>256}" for i in range(9997)))
    largest = update_on(base, dict(update.live), many)
    payload = encode(replace(largest, samples=(COUNT - 1,) * 10_000), base, "fp32")
    assert 0.8 * most_bytes(base) < len(payload) <= most_bytes(base)


def test_a_masked_classifier_does_not_grow() -> None:
    base, update = case("dense")
    masked = base._replace(live={"classifier": np.ones(base.weights["classifier.weight"].shape, np.bool_)})
    assert encode(replace(update, live=masked.live), masked)
    for names in ((*NAMES, "dog"), (*NAMES, *map(str, range(97)))):
        more = encode(update_on(base, {}, names), base)
        with pytest.raises(UpdateError, match="layer classifier is masked, and can't grow"):
            decode(forged(more, masks=[None]), masked)
    assert len(encode(replace(update, live=masked.live), masked, "fp32")) < most_bytes(masked) < 4e6


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_a_layer_of_which_nothing_lives(kind: int) -> None:
    base, update = case("linear")
    layer = next(iter(base.live))
    dead = base._replace(live={**base.live, layer: np.zeros_like(base.live[layer])})
    at = [*update.delta].index(f"{layer}.weight")
    word = {1: "int8", 2: "fp16", 3: "fp32"}[kind]
    delta = {k: 0 * d if k == f"{layer}.weight" else d for k, d in update.delta.items()}
    payload = encode(replace(update, live=dict(dead.live), delta=delta), dead, word)
    assert decode(payload, dead).live[layer] is dead.live[layer]
    with pytest.raises(UpdateError, match=r"or none|did not change|scales: "):
        decode(forged(payload, arrays=put(at, kind)), dead)


def test_what_is_of_another_base_is_not_encoded() -> None:
    base, update = case("dense")
    with pytest.raises(UpdateError, match="is of base 111111111111, not of 000000000000"):
        encode(replace(update, base="1" * 64), base)
    below = {k: d - 9 if k == "bn1.running_var" else d for k, d in update.delta.items()}
    with pytest.raises(UpdateError, match=r"bn1\.running_var comes below 0"):
        encode(replace(update, delta=below), base)
