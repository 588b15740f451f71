"""Arrays to bytes and back: every bit, shape, type, name and their order; the library reads the same; damage is refused."""

from __future__ import annotations

import json
from math import prod
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecl import tensors

FEW = settings(max_examples=60, deadline=None)
names = st.text(max_size=6).filter(lambda s: s != tensors.METADATA)
shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    """Any bits: signalling NaNs, infinities, −0; 0-d and empty shapes; transposed, so that memory is not in C order."""
    dtype, shape = np.dtype(draw(st.sampled_from(list(tensors.DTYPES)))), draw(shapes)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = prod(shape)
    flat = rng.random(size) < 0.5 if dtype.kind == "b" else np.frombuffer(rng.bytes(size * dtype.itemsize), dtype)
    a = flat.reshape(shape)
    return a.T if draw(st.booleans()) else a


def encoded(named: dict[str, Any], metadata: dict[str, str] | None = None) -> bytes:
    return b"".join(tensors.encode(named, metadata))


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    """Names in order, types, shapes and bits."""
    return list(a) == list(b) and all(
        (a[k].dtype, a[k].shape, a[k].tobytes()) == (b[k].dtype, b[k].shape, b[k].tobytes()) for k in a
    )


@FEW
@given(named=st.dictionaries(names, arrays(), max_size=5), metadata=st.dictionaries(st.text(max_size=4), st.text(), max_size=2))
def test_round_trip(named: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    data = encoded(named, metadata)
    back, meta = tensors.decode(data)
    assert same(named, back)
    assert meta == metadata
    assert data == encoded(back, metadata)
    assert all(a.flags.writeable and a.flags.c_contiguous for a in back.values())


@FEW
@given(named=st.dictionaries(names, arrays(), max_size=5))
def test_the_library_reads_the_same_and_every_array_is_aligned(named: dict[str, np.ndarray]) -> None:
    data = encoded(named)
    read = safetensors.numpy.load(data)
    assert same(named, {k: read[k] for k in named})
    size = int.from_bytes(data[:8], "little")
    for name, entry in json.loads(data[8 : 8 + size]).items():
        assert (8 + size + entry["data_offsets"][0]) % named[name].itemsize == 0


def test_a_file_byte_by_byte() -> None:
    named = {"b": np.array([[1, 2]], np.uint8), "a": np.array(1.0, np.float32)}
    header = (
        b'{"b": {"dtype": "U8", "shape": [1, 2], "data_offsets": [4, 6]}, '
        b'"a": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}'
    )
    assert encoded(named) == (128).to_bytes(8, "little") + header.ljust(128) + b"\x00\x00\x80\x3f\x01\x02"


def test_another_byte_order_keeps_its_values() -> None:
    back, _ = tensors.decode(encoded({"a": np.array([1, 258], ">i4")}))
    assert back["a"].dtype == np.dtype("<i4")
    assert back["a"].tolist() == [1, 258]


@pytest.mark.parametrize("bad", [np.array([{}]), np.array(["a"]), np.zeros(1, np.complex128), np.zeros(1, np.longdouble), 1.0])
def test_types_that_do_not_fit_are_named(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"can't hold array 'fc.weight': type "):
        encoded({"fc.weight": bad})


def test_names_that_do_not_fit_are_refused() -> None:
    for name in (tensors.METADATA, "\ud800"):
        with pytest.raises(ValueError, match=r"__metadata__|surrogates"):
            encoded({name: np.zeros(1)})


@FEW
@given(masks=st.dictionaries(names, st.tuples(shapes, st.integers(0, 2**32 - 1)), max_size=4))
def test_masks_round_trip(masks: dict[str, tuple[tuple[int, ...], int]]) -> None:
    named = {k: np.random.default_rng(seed).random(shape) < 0.5 for k, (shape, seed) in masks.items()}
    named = {k: np.asarray(m, bool) for k, m in named.items()}  # a random number of shape () is no array
    packed, metadata = tensors.pack(named)
    assert all(packed[k].nbytes == (m.size + 7) // 8 for k, m in named.items())
    assert same(named, tensors.unpack(*tensors.decode(encoded(packed, metadata))))


def test_bit_order_of_a_mask() -> None:
    packed, metadata = tensors.pack({"a": np.array([[1, 0, 0, 0, 0], [0, 0, 0, 1, 1]], bool)})
    assert packed["a"].tolist() == [0b00000001, 0b00000011]
    assert metadata == {"shapes": '{"a": [2, 5]}'}


def test_a_mask_has_to_be_boolean_and_its_shape_to_fit() -> None:
    with pytest.raises(ValueError, match=r"mask 'a' has type float32, not bool"):
        tensors.pack({"a": np.ones(3, np.float32)})  # type: ignore[dict-item]
    bits = np.zeros(2, np.uint8)
    for metadata in ({}, {"shapes": "{}"}, {"shapes": '{"a": [17]}'}, {"shapes": '{"a": 3}'}, {"shapes": "?"}):
        with pytest.raises(ValueError, match=r"shape|mask|Expecting"):
            tensors.unpack({"a": bits}, metadata)


def test_damaged_files_are_refused() -> None:
    good = encoded({"a": np.arange(4.0)}, {"k": "v"})
    header = good[8 : -4 * 8]
    bad = [good[:n] for n in range(len(good))]
    bad += [good + b"\0", (2**63).to_bytes(8, "little") + good[8:], b"\xff" * 8 + good[8:]]
    bad += [good.replace(b'"F64"', b'"F99"'), good.replace(b"[4]", b"[5]"), good.replace(header, b" " * len(header))]
    bad += [good.replace(b"[0, 32]", b"[8, 40]"), good.replace(b'"shape"', b'"shade"')]
    bf16 = b'{"a": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}'  # right, but not for numpy
    bad.append(len(bf16).to_bytes(8, "little") + bf16 + b"\0\0")
    for data in bad:
        with pytest.raises(ValueError, match=r"not a safetensors file"):
            tensors.decode(data)
