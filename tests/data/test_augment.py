"""Augmentation: against a plain loop, in both namespaces, and fit to be captured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import array_api_compat.numpy as anp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecl.data import center_crops, draw_crops, prepare
from edgecl.types import F32, I64, U8, DataError, Preprocess

CIFAR = Preprocess((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2615), pad=4, flip=True)


def loop(x: U8, crop: I64, pre: Preprocess) -> F32:
    """One sample at a time, in float64: pad, crop, mirror, normalise."""
    h, w = x.shape[2:]
    out = []
    for image, (row, column, mirror) in zip(x, crop, strict=True):
        padded = np.pad(image, ((0, 0), (pre.pad, pre.pad), (pre.pad, pre.pad)))
        cut = padded[:, row : row + h, column : column + w]
        cut = cut[:, :, ::-1] if mirror else cut
        out.append((cut / 255 - np.reshape(pre.mean, (-1, 1, 1))) / np.reshape(pre.std, (-1, 1, 1)))
    return np.asarray(out, dtype=np.float32)


@st.composite
def cases(draw: st.DrawFn) -> tuple[U8, I64, Preprocess]:
    n, c, h, w = (draw(st.integers(1, top)) for top in (5, 3, 9, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pad, flip = draw(st.integers(0, 5)), draw(st.booleans())
    pre = Preprocess(tuple(rng.random(c).tolist()), tuple((rng.random(c) + 0.1).tolist()), pad, flip)
    return rng.integers(0, 256, (n, c, h, w), dtype=np.uint8), draw_crops(rng, n, pre), pre


@settings(deadline=None)
@given(cases())
def test_numpy_equals_the_loop(case: tuple[U8, I64, Preprocess]) -> None:
    out = prepare(anp, *case)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, loop(*case), rtol=1e-5, atol=1e-5)


@settings(deadline=None)
@given(cases())
def test_torch_equals_the_loop(case: tuple[U8, I64, Preprocess]) -> None:
    torch = pytest.importorskip("torch")
    import array_api_compat.torch as atorch

    x, crop, pre = case
    out = prepare(atorch, torch.from_numpy(x), torch.from_numpy(crop), pre)
    assert out.dtype == torch.float32
    np.testing.assert_allclose(out.numpy(), loop(*case), rtol=1e-5, atol=1e-5)


def test_draws_cover_their_ranges() -> None:
    crop = draw_crops(np.random.default_rng(0), 2000, CIFAR)
    assert crop.dtype == np.int64
    assert [sorted(set(column)) for column in crop.T] == [list(range(9)), list(range(9)), [0, 1]]
    assert not draw_crops(np.random.default_rng(0), 50, replace(CIFAR, pad=0, flip=False)).any()
    assert draw_crops(np.random.default_rng(0), 0, CIFAR).shape == (0, 3)


@settings(deadline=None)
@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 5), st.booleans())
def test_draws_do_not_depend_on_how_samples_are_grouped(n: int, m: int, pad: int, flip: bool) -> None:
    pre = replace(CIFAR, pad=pad, flip=flip)
    one, two = np.random.default_rng(7), np.random.default_rng(7)
    assert np.array_equal(draw_crops(one, n + m, pre), np.concatenate([draw_crops(two, n, pre), draw_crops(two, m, pre)]))


def test_center_crops_change_nothing() -> None:
    x = np.random.default_rng(0).integers(0, 256, (4, 3, 8, 8), dtype=np.uint8)
    still = prepare(anp, x, center_crops(4, CIFAR), replace(CIFAR, pad=0, flip=False))
    assert np.array_equal(prepare(anp, x, center_crops(4, CIFAR), CIFAR), still)


def test_other_channels_are_refused() -> None:
    with pytest.raises(DataError, match="samples have 1 channels, the preprocessing 3"):
        prepare(anp, np.zeros((2, 1, 8, 8), np.uint8), center_crops(2, CIFAR), CIFAR)


# Not asarray or clip: the one copies from the host, the other indexes by a mask in array-api-compat.
NEED_NO_HOST = {"arange", "astype", "concat", "float32", "full", "int64", "reshape", "take", "uint8"}


class Watched:
    """A namespace that notes which of its names are used."""

    def __init__(self, xp: Any) -> None:
        self.xp, self.used = xp, set[str]()

    def __getattr__(self, name: str) -> Any:
        self.used.add(name)
        return getattr(self.xp, name)


def names_used(pre: Preprocess) -> set[str]:
    """On a device without data: reading a value, a shape that depends on one, or an array left on the host would fail."""
    torch = pytest.importorskip("torch")
    import array_api_compat.torch as atorch

    xp = Watched(atorch)
    x = torch.empty((4, 3, 8, 8), dtype=torch.uint8, device="meta")
    crop = torch.empty((4, 3), dtype=torch.int64, device="meta")
    out = prepare(xp, x, crop, pre)
    assert (out.shape, out.device.type) == (x.shape, "meta")
    return xp.used


def test_nothing_is_copied_from_the_host_or_read_back() -> None:
    assert names_used(CIFAR) <= NEED_NO_HOST


def test_without_augmentation_no_pixel_is_moved() -> None:
    assert names_used(replace(CIFAR, pad=0, flip=False)) <= {"full", "concat", "astype", "float32"}


def test_a_cuda_graph_replays_it() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    import array_api_compat.torch as atorch

    rng = np.random.default_rng(0)
    draws = [(rng.integers(0, 256, (32, 3, 32, 32), dtype=np.uint8), draw_crops(rng, 32, CIFAR)) for _ in range(3)]
    x, crop = (torch.from_numpy(a).cuda() for a in draws[0])
    prepare(atorch, x, crop, CIFAR)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = prepare(atorch, x, crop, CIFAR)
    for images, crops in draws:
        x.copy_(torch.from_numpy(images))
        crop.copy_(torch.from_numpy(crops))
        graph.replay()
        np.testing.assert_allclose(out.cpu().numpy(), loop(images, crops, CIFAR), rtol=1e-5, atol=1e-5)
