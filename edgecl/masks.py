"""F2: weight and gradient masks as sets of units. Pure: masks and scores in, a new mask out, randomness passed in.

A *unit* is what lives or dies together: a single weight, the kernel of one (out, in) pair, a 4×4 block of such pairs with
all its taps, or an output channel. `live` is a bool array with one element a unit. Weights have shape [O, I, ...taps]:
[O, I, kh, kw] for a convolution (I = channels / groups), [O, I] for a linear layer.

`expand`, `unit_scores`, `cwi` and `top` take any array-API array (numpy, torch) and never wait for a device. The others run
once in many steps, on the host, in numpy. A unit that was pruned and comes back keeps no weight: whoever holds the weights
zeroes what `prune` dropped before `grow`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

import numpy as np
import numpy.typing as npt
from array_api_compat import array_namespace, device, is_numpy_array

from edgecl.nets.nodes import Conv2d, Linear, Node, Shape, pair
from edgecl.types import I64, Array, Bools, ConfigError, NumericError

UNITS = ("weight", "kernel", "block4x4", "channel")
BLOCK = 4
DENSE_ROLES = ("stem", "shortcut", "classifier")  # SparCL leaves them dense: few FLOPs, much accuracy


# ---- which units a layer has ----


def unit_shape(unit: str, weight_shape: Shape) -> Shape:
    """Shape of `live` for a weight [O, I, ...]: as the weight, (O, I), (⌈O/4⌉, ⌈I/4⌉) or (O,).

    Raises ConfigError for a unit that is not in UNITS.
    """
    o, i = weight_shape[:2]
    shapes = {"weight": tuple(weight_shape), "kernel": (o, i), "block4x4": (-(-o // BLOCK), -(-i // BLOCK)), "channel": (o,)}
    if unit not in shapes:
        raise ConfigError(f"mask.unit is {unit!r}; known: {', '.join(UNITS)}")
    return shapes[unit]


def default_unit(node: Node) -> str:
    """The unit that the kernels skip best: whole kernels, 4×4 blocks of a 1×1 convolution, single weights of a linear layer.

    Raises ConfigError for a node that multiplies no weights.
    """
    if isinstance(node, Conv2d):
        return "kernel" if prod(pair(node.kernel)) > 1 else "block4x4"
    if isinstance(node, Linear):
        return "weight"
    raise ConfigError(f"node {node.name}: {node.op} has no weights to mask")


def maskable(node: Node) -> bool:
    """Whether a mask applies: convolutions and linear layers, but for stem, 1×1 shortcuts, classifier and depthwise ones."""
    # A depthwise kernel is all that its channel reads: dropping one kills the channel and so the 1×1 weights around it. There
    # is little to save: 7 % of MobileNetV2's multiply-adds and 11 % of DS-CNN's at full width.
    depthwise = isinstance(node, Conv2d) and 1 < node.groups == node.out
    return isinstance(node, (Conv2d, Linear)) and node.role not in DENSE_ROLES and not depthwise


def expand(live: Array, unit: str, weight_shape: Shape) -> Array:
    """`live` in unit shape → a new bool array in the weight's shape, C-contiguous, in the namespace and device of `live`.

    Blocks at the edge are cut off. Raises ValueError if `live` is not in unit shape.
    """
    xp, shape = array_namespace(live), tuple(weight_shape)
    _same_shape("live", tuple(live.shape), unit_shape(unit, shape))
    if unit == "block4x4":
        rows, columns = live.shape
        blocks = xp.broadcast_to(live[:, None, :, None], (rows, BLOCK, columns, BLOCK))
        live = xp.reshape(blocks, (rows * BLOCK, columns * BLOCK))[: shape[0], : shape[1]]
    live = xp.reshape(live, (*live.shape, *(1,) * (len(shape) - len(live.shape))))
    # the copy makes it the caller's own: a broadcast view has zero strides, which no kernel can read
    return xp.reshape(xp.broadcast_to(live, shape), shape, copy=True)


# ---- scores ----


def unit_scores(values: Array, unit: str) -> Array:
    """Mean of non-negative `values` [O, I, ...] over the weights of each unit → unit shape, same dtype and device.

    A block at the edge averages the weights that exist. For the unit "weight" it is `values` itself. NaN passes through.
    """
    xp, n = array_namespace(values), len(values.shape)
    unit_shape(unit, tuple(values.shape))  # checks the unit's name
    if unit == "weight":
        return values
    if unit == "channel":
        return xp.mean(values, axis=tuple(range(1, n)))
    pairs = values if n == 2 else xp.mean(values, axis=tuple(range(2, n)))  # [O, I]
    return pairs if unit == "kernel" else _block_means(pairs)


def _block_means(pairs: Array) -> Array:
    o, i = pairs.shape
    if o % BLOCK == 0 and i % BLOCK == 0:
        return _block_sums(pairs) / BLOCK**2
    return _block_sums(pairs) / _block_sums(array_namespace(pairs).ones_like(pairs))


def _block_sums(pairs: Array) -> Array:
    """[O, I] → [⌈O/4⌉, ⌈I/4⌉], with zeros where a block has no weights."""
    xp, (o, i) = array_namespace(pairs), pairs.shape
    if o % BLOCK:
        pairs = xp.concat([pairs, _zeros(pairs, (-o % BLOCK, i))], axis=0)
    if i % BLOCK:
        pairs = xp.concat([pairs, _zeros(pairs, (pairs.shape[0], -i % BLOCK))], axis=1)
    blocks = xp.reshape(pairs, (pairs.shape[0] // BLOCK, BLOCK, pairs.shape[1] // BLOCK, BLOCK))
    return xp.sum(blocks, axis=(1, 3))


def _zeros(like: Array, shape: Shape) -> Array:
    return array_namespace(like).zeros(shape, dtype=like.dtype, device=device(like))


def cwi(weight: Array, g_current: Array, g_replay: Array | None, alpha: float, beta: float) -> Array:
    """Continual weight importance: |w| + α·|∂L_current/∂w| + β·|∂L_replay/∂w|, in the weight's shape (SparCL, §3.1).

    `g_replay` is None while the memory is empty.
    """
    xp = array_namespace(weight)
    score = xp.abs(weight) + alpha * xp.abs(g_current)
    return score if g_replay is None else score + beta * xp.abs(g_replay)


# ---- how many units live, and which at the start ----


def live_counts(
    shapes: Mapping[str, Shape], weight_shapes: Mapping[str, Shape], sparsity: float, kind: str = "uniform"
) -> dict[str, int]:
    """Live units of each layer in `shapes` (name → unit shape), so that 1 − sparsity of all their weights live.

    `uniform`: the same share in each layer. `erk`: a share in proportion to (n_in + n_out + kh + kw) / (n_in·n_out·kh·kw),
    at most 1, what a full layer can't take spread over the others (Evci et al. 2020, RigL). A layer's count is share × units
    rounded to the nearest (a half to the even) and at least 1: the whole is off by at most half a unit a layer, and by
    more only where the one unit is more than the layer's share. Blocks at the edge count as whole ones.

    Raises ConfigError if `sparsity` is outside [0, 1) or `kind` is unknown.
    """
    if not 0 <= sparsity < 1:
        raise ConfigError(f"mask.sparsity is {sparsity}: it is the share of weights masked, at least 0 and below 1")
    if kind not in SHARES:
        raise ConfigError(f"mask.kind is {kind!r}; known: {', '.join(SHARES)}")
    shares = SHARES[kind]({name: weight_shapes[name] for name in shapes}, 1 - sparsity)
    return {name: max(1, round(shares[name] * prod(shape))) for name, shape in shapes.items()}


def _uniform(weights: Mapping[str, Shape], density: float) -> dict[str, float]:
    return dict.fromkeys(weights, density)


def _erk(weights: Mapping[str, Shape], density: float) -> dict[str, float]:
    """Shares ε · Σ(shape) / Π(shape); layers over 1 become full, and ε is solved again for the rest."""
    full: set[str] = set()
    while len(full) < len(weights):
        free = {n: s for n, s in weights.items() if n not in full}
        budget = density * sum(map(prod, weights.values())) - sum(prod(weights[n]) for n in full)
        epsilon = budget / sum(map(sum, free.values()))
        shares = {n: epsilon * sum(s) / prod(s) for n, s in free.items()}
        over = {n for n, share in shares.items() if share > 1}
        if not over:
            return dict.fromkeys(full, 1.0) | shares
        full |= over
    return dict.fromkeys(weights, 1.0)


SHARES: dict[str, Callable[[Mapping[str, Shape], float], dict[str, float]]] = {"uniform": _uniform, "erk": _erk}


def start(rng: np.random.Generator, counts: Mapping[str, int], shapes: Mapping[str, Shape]) -> dict[str, Bools]:
    """Uniformly random masks with exactly `counts` live units, drawn in the order of `shapes`, as SparCL begins.

    Raises ValueError if a layer has fewer units than its count.
    """
    return {name: _marked(shape, rng.choice(prod(shape), counts[name], replace=False)) for name, shape in shapes.items()}


def _marked(shape: Shape, index: I64) -> Bools:
    live = np.zeros(shape, dtype=np.bool_)
    live.reshape(-1)[index] = True
    return live


# ---- changing a mask ----


def prune(live: Bools, score: npt.NDArray[np.floating], n: int) -> Bools:
    """A new mask without the n live units of the lowest score; of equal ones the first in memory order go.

    At least one unit stays; n ≤ 0 drops none. Raises NumericError for NaN, ValueError for a score not in unit shape.
    """
    score, out = _checked(score, live), live.copy()
    index = np.flatnonzero(live)
    out.reshape(-1)[index[_lowest(score[index], min(n, len(index) - 1))]] = False
    return out


def grow(live: Bools, n: int, rng: np.random.Generator | None = None, score: npt.NDArray[np.floating] | None = None) -> Bools:
    """A new mask with n dead units more: random ones (`rng`: SET, SparCL), or those of the highest score (`score`: RigL).

    Of equal scores the first in memory order come. If fewer than n are dead, all live; n ≤ 0 adds none.
    Raises NumericError for NaN, ValueError for a score not in unit shape, or unless just one of rng and score is given.
    """
    if (rng is None) == (score is None):
        raise ValueError("grow takes one of rng and score")
    out = live.copy()
    index = np.flatnonzero(~live)
    n = max(0, min(n, len(index)))
    if score is not None:
        chosen = _lowest(-_checked(score, live)[index], n)
    elif rng is not None:
        chosen = rng.choice(len(index), n, replace=False)
    out.reshape(-1)[index[chosen]] = True
    return out


def resize(live: Bools, target: int, score: npt.NDArray[np.floating], rng: np.random.Generator) -> Bools:
    """A mask with `target` live units (kept within 1 and all): the lowest scores pruned, or random units grown.

    So TDM is: expand = resize to s + 1 % at a task's start, settle = resize back to s near its end.
    """
    surplus = int(np.count_nonzero(live)) - target
    return prune(live, score, surplus) if surplus > 0 else grow(live, -surplus, rng=rng)


def top(score: Array, live: Array, k: int) -> Array:
    """The k live units of the highest score → bool in unit shape, exactly k True, all of them live (all of `live` if k is more).

    Of equal scores the first in memory order win, on every device. For gradient masks (SparCL's DGM), so it works on the
    device and waits for nothing: no index list, whose length the host would have to know, only a threshold and its ties.
    Raises NumericError for NaN in a numpy score; elsewhere NaN is the caller's to catch.
    """
    if is_numpy_array(score):
        _no_nan(score)
    xp, size = array_namespace(score, live), prod(live.shape)
    if k <= 0:
        return xp.zeros_like(live)
    flat = xp.reshape(xp.where(live, score, -float("inf")), (-1,))
    edge = xp.sort(flat, stable=False)[max(size - k, 0)]
    above = flat > edge
    ties = (flat == edge) & xp.reshape(live, (-1,))
    ties = ties & (xp.cumulative_sum(xp.astype(ties, xp.int32)) <= k - xp.sum(xp.astype(above, xp.int32)))
    return xp.reshape(above | ties, live.shape)


def _lowest(values: npt.NDArray[np.floating], n: int) -> I64:
    """Positions of exactly n of the lowest of `values` [U], in no order; of equal ones the first. O(U): no sort."""
    if n <= 0:
        return np.empty(0, dtype=np.int64)
    edge = np.partition(values, n - 1)[n - 1]
    below = np.flatnonzero(values < edge)
    return np.concatenate([below, np.flatnonzero(values == edge)[: n - len(below)]])


def _checked(score: npt.NDArray[np.floating], live: Bools) -> npt.NDArray[np.floating]:
    _same_shape("score", score.shape, live.shape)
    _no_nan(score)
    return score.reshape(-1)


def _no_nan(score: npt.NDArray[np.floating]) -> None:
    if np.isnan(score).any():
        raise NumericError(f"score: {int(np.isnan(score).sum())} of {score.size} values are NaN")


def _same_shape(what: str, shape: Shape, expected: Shape) -> None:
    if shape != expected:
        raise ValueError(f"{what} has shape {shape}, not {expected}")
