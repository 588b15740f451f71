"""Kernels called one by one on every instruction set that this processor has, and what they should give, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgecl.engines.native_layers import Statistics, Weights
from edgecl.engines.native_nodes import BOTH
from edgecl.engines.native_values import family, geometry
from edgecl.kernels import Grad, Kernels, Kind, Op, View, array, isas, load, pointer, program
from edgecl.nets.nodes import BatchNorm, Conv2d, pair

A = np.ndarray[Any, Any]
ISAS = [name for name, here in isas().items() if here]
on_isas = pytest.mark.parametrize("isa", ISAS)


def blocked(kernels: Kernels, x: A) -> A:
    """[N, C, H, W] as the kernels lay it out."""
    n, c, h, w = x.shape
    out, host = array(-(-n // kernels.lanes) * kernels.lanes * c * h * w), np.ascontiguousarray(x, np.float32)
    kernels.run(program([Op(kind=Kind.PACK, n=n, c=c, h=h, w=w, out=pointer(out), host=pointer(host))]))
    return out


def plain(kernels: Kernels, a: A, shape: tuple[int, ...], view: View | None = None) -> A:
    """Back to [N, C, H, W]."""
    n, c, h, w = shape
    host = array(shape)
    op = Op(kind=Kind.UNPACK, n=n, c=c, h=h, w=w, a=view or View(pointer(a)), host=pointer(host))
    kernels.run(program([op]))
    return host


class Layered:
    """A convolution with masks, on blocked arrays full of NaN where nothing was written."""

    def __init__(self, isa: str, node: Conv2d, x: A, w: A, live: A | None, updated: A | None, threads: int = 1) -> None:
        self.kernels, self.node, self.x, self.threads = load(isa), node, x, threads
        self.w = array(w.shape)
        self.w[...] = w if live is None else w * live
        self.layer = Weights(node, self.w, None, None, None)
        self.layer.set_live(live)
        if updated is not None:
            self.layer.set_updated(updated)
        self.out_shape = (len(x), *node.out_shape(x.shape[1:]))
        self.input = blocked(self.kernels, x)

    def op(self, offset: int, **more: Any) -> Op:
        _, c, h, w = self.x.shape
        kind, sides = int(family(self.node, c)) + offset, geometry(self.node, self.out_shape[1:])
        return Op(kind=kind, n=len(self.x), c=c, h=h, w=w, layer=self.layer.pointer, **sides, **more)

    def run(self, *ops: Op) -> None:
        flag = 1 if max(pair(self.node.stride)) > 1 else 2
        gathers = [Op(kind=Kind.GATHER, layer=self.layer.pointer)] if self.layer.copied else []
        gathers += [Op(kind=Kind.GATHER, layer=self.layer.pointer, flag=flag)] if self.layer.transposes else []
        self.kernels.run(program([*gathers, *ops]), self.threads)

    def space(self, shape: tuple[int, ...]) -> A:
        n, c, h, w = shape
        out = array(-(-n // self.kernels.lanes) * self.kernels.lanes * c * h * w)
        out.fill(np.nan)
        return out

    def forward(self) -> A:
        out = self.space(self.out_shape)
        self.run(self.op(0, a=View(pointer(self.input)), out=pointer(out)))
        return plain(self.kernels, out, self.out_shape)

    def statistics(self, band: int = 4) -> tuple[A, A]:
        """Mean and variance of the output's channels, from what the convolution notes of them as it writes."""
        n, o, ho, wo = self.out_shape
        out, v = self.space(self.out_shape), self.kernels.lanes
        stats = array(-(-n // v) * -(-ho // band) * o * 2 * v)
        stats.fill(np.nan)
        p = {f"b.{k}": array(o) for k in ("weight", "bias", "running_mean", "running_var")}
        state = Statistics(BatchNorm("b", ("n",), momentum=1.0), p, p)
        common = {"stats": pointer(stats), "band": band}
        norm = Op(kind=Kind.NORM, n=n, c=o, h=ho, w=wo, norm=state.pointer, momentum=1.0, **common)
        self.run(self.op(0, a=View(pointer(self.input)), out=pointer(out), **common), norm)
        return p["b.running_mean"], p["b.running_var"]

    def dx(self, d: A, onto: A | None = None) -> A:
        out = self.space(self.x.shape) if onto is None else blocked(self.kernels, onto)
        grad = blocked(self.kernels, d)
        self.run(self.op(1, g=Grad(pointer(grad)), out=pointer(out), accumulate=int(onto is not None)))
        return plain(self.kernels, out, self.x.shape)

    def dw(self, d: A, everything: bool = False) -> A:
        """In the weight's shape; 0 where no gradient was asked for."""
        dense = self.layer.want_all() if everything else None
        grad = blocked(self.kernels, d)
        self.run(self.op(2, a=View(pointer(self.input)), g=Grad(pointer(grad))))
        return self.listed() if dense is None else dense.reshape(self.w.shape)

    def both(self, d: A, view: View | None = None, **more: Any) -> tuple[A, A]:
        """(input gradient, weight gradient) of one operation, where the family has one."""
        self.layer.want_updated()
        out, grad, first = self.space(self.x.shape), blocked(self.kernels, d), family(self.node, self.x.shape[1])
        read = view or View(pointer(self.input))
        self.run(self.op(BOTH[first] - first, a=read, g=Grad(pointer(grad)), out=pointer(out), **more))
        return plain(self.kernels, out, self.x.shape), self.listed()

    def listed(self) -> A:
        """What was found of the weight gradient, in the weight's shape."""
        listed, taps = self.layer.updated, self.layer.listed_taps
        found = np.zeros((self.w.size // taps, taps), np.float32)
        found[listed.index[: listed.n]] = listed.values[: listed.n * taps].reshape(-1, taps)
        return found.reshape(self.w.shape)


def taps_of(node: Conv2d, x: A) -> tuple[A, list[tuple[int, int]]]:
    """x with its zeros, in float64, and the places of the taps."""
    p, q = pair(node.padding)
    return np.pad(x.astype(np.float64), ((0, 0), (0, 0), (p, p), (q, q))), list(np.ndindex(*pair(node.kernel)))


def window(node: Conv2d, padded: A, i: int, j: int, shape: tuple[int, ...]) -> A:
    (s, t), (ho, wo) = pair(node.stride), shape[2:]
    view: A = padded[:, :, i : i + s * (ho - 1) + 1 : s, j : j + t * (wo - 1) + 1 : t]
    return view


def exact(node: Conv2d, x: A, w: A, d: A) -> tuple[A, A, A]:
    """(output, input gradient, weight gradient) of a convolution, for the output's gradient d."""
    parts = [np.split(a, node.groups, axis) for a, axis in ((x, 1), (w, 0), (d, 1))]
    found = [exact_group(node, *part) for part in zip(*parts, strict=True)]
    out, dx, dw = zip(*found, strict=True)
    return np.concatenate(out, 1), np.concatenate(dx, 1), np.concatenate(dw, 0)


def exact_group(node: Conv2d, x: A, w: A, d: A) -> tuple[A, A, A]:
    padded, places = taps_of(node, x)
    out, dx, dw = np.zeros(d.shape), np.zeros(padded.shape), np.zeros(w.shape)
    for i, j in places:
        seen, k = window(node, padded, i, j, d.shape), w[:, :, i, j].astype(np.float64)
        out += np.einsum("nchw,oc->nohw", seen, k)
        dw[:, :, i, j] = np.einsum("nchw,nohw->oc", seen, d.astype(np.float64))
        window(node, dx, i, j, d.shape)[...] += np.einsum("nohw,oc->nchw", d.astype(np.float64), k)
    p, q = pair(node.padding)
    return out, dx[:, :, p : p + x.shape[2], q : q + x.shape[3]], dw


def error(a: A, b: A, scale: float) -> float:
    """Largest difference in parts of `scale`; NaN counts as infinite."""
    e = np.abs(a.astype(np.float64) - b).max(initial=0.0)
    return float(e) / scale if np.isfinite(e) else float("inf")
