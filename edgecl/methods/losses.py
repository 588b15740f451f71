"""Losses with their gradients by hand, written once over the array API. N samples, K classes."""

from __future__ import annotations

from typing import Any

from edgecl.types import Array

_OUT = -1e9  # a masked logit: its probability is exactly 0 in float32


def one_hot(xp: Any, y: Array, like: Array) -> Array:
    """[N, K] in the type and place of `like` [N, K]."""
    classes = xp.arange(like.shape[1], dtype=y.dtype, device=like.device)
    return xp.astype(y[:, None] == classes[None, :], like.dtype)


def cross_entropy(xp: Any, logits: Array, y: Array, mask: Array, weight: Array) -> tuple[Array, Array]:
    """Weighted sum over the batch, and its gradient [N, K]; classes where `mask` ([K] or [N, K]) is 0 take no part.

    Every sample's own class must be unmasked.
    """
    target = one_hot(xp, y, logits)
    z = logits * mask + _OUT * (1 - mask)
    z = z - xp.max(z, axis=1, keepdims=True)
    e = xp.exp(z) * mask
    total = xp.sum(e, axis=1, keepdims=True)
    nll = xp.log(total[:, 0]) - xp.sum(z * target, axis=1)
    return xp.sum(nll * weight), (e / total - target) * weight[:, None]


def squared_error(xp: Any, logits: Array, stored: Array, weight: Array) -> tuple[Array, Array]:
    """Weighted sum over samples of the mean over classes of (logits - stored)², and its gradient.

    DER (Buzzega et al. 2020, eq. 5), whose authors' code takes the mean over classes where the paper writes ‖·‖².
    """
    diff = logits - stored
    k = logits.shape[1]
    return xp.sum(xp.sum(diff * diff, axis=1) * weight) / k, diff * weight[:, None] * (2 / k)
