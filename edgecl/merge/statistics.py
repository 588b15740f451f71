"""Batch statistics of a merged net, taken anew: those of its parts are not its own.

Averaged weights give activations that no device had, so that averaged running statistics miss them, as with weights averaged
along a run (Izmailov et al. 2018, *Averaging weights leads to wider optima*, §3.2: a pass over the data sets them anew). The hub
has few samples, but a mean and a variance a channel need no more: its held-out ones, or the base's replay memory.
"""

from __future__ import annotations

from itertools import chain

import numpy as np

from edgecl.data import center_crops, prepare
from edgecl.engines import make_engine, pick
from edgecl.merge.contribution import Merged, unit_of
from edgecl.nets.nodes import BatchNorm
from edgecl.tensors import Arrays
from edgecl.types import I64, U8, DataError, Pass, Preprocess

BATCH, BATCHES = 32, 100


def recalibrated(merged: Merged, pre: Preprocess, x: U8, engine: str = "auto", threads: int = 1) -> Merged:
    """The same with running means and variances of samples x [N, C, H, W] as stored: of BATCHES batches drawn from them.

    Later batches count more. The same for the same input on the same machine. A net without batch norm is given back as it is.
    Raises DataError for samples of another form, or fewer than 2.
    """
    if x.dtype != np.uint8 or x.shape[1:] != merged.net.input or len(x) < 2:
        raise DataError(f"samples to take statistics of are {x.dtype} {list(x.shape)}, the net's {list(merged.net.input)}")
    norms = [n for n in merged.net.nodes if isinstance(n, BatchNorm)]
    if not norms:
        return merged
    still = {f"momentum.{k}": np.zeros(s, np.float32) for k, s in merged.net.weights().items()}
    zeros = {k: np.zeros(s, np.float32) for k, s in merged.net.buffers().items()}
    runner = make_engine(pick(engine).name, merged.net, threads=threads)
    runner.load({**merged.weights, **still, **zeros})
    if merged.live:
        runner.set_masks(merged.live, {k: unit_of(merged.weights[f"{k}.weight"].shape, m.shape) for k, m in merged.live.items()})
    for rows in _batches(len(x)):
        part = runner.asarray(x[rows])
        crop = runner.asarray(center_crops(len(rows), pre))
        runner.forward([prepare(runner.xp, part, crop, pre)], [Pass((0,))])
    found: Arrays = {k: np.array(runner.arrays()[k], np.float32) for k in zeros}
    for n in norms:  # an average that began at 0 is too small by what of the 0 is left
        for k in (f"{n.name}.running_mean", f"{n.name}.running_var"):
            found[k] /= np.float32(1 - (1 - n.momentum) ** BATCHES)
    return merged._replace(weights={**merged.weights, **found}, notes=(*merged.notes, f"batch statistics of {len(x)} samples"))


def _batches(n: int) -> list[I64]:
    """Positions of BATCHES batches: one random order of all samples after the other."""
    rng, size = np.random.default_rng(0), min(BATCH, n)
    orders = list(chain.from_iterable(rng.permutation(n) for _ in range(-(-size * BATCHES // n))))
    return [np.array(orders[i * size : (i + 1) * size], np.int64) for i in range(BATCHES)]
