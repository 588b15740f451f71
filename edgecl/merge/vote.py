"""Which units live: a vote of the devices, as many seats a layer as the base has live units.

Devices of one base prune and grow their own units (SparCL's TDM), so that masks drift apart; a mean of the weights alone would
end dense. Weights are averaged first and the mask is cut back to its size then, as in Bibikar et al. 2022 (*Federated dynamic
sparse training*, algorithm 1); what decides is votes, with magnitude for less than one vote.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgecl import masks
from edgecl.merge.clip import F64
from edgecl.types import Bools


def vote(base: Bools, live: Sequence[Bools], voices: F64, base_votes: float, values: F64, unit: str) -> Bools:
    """The mask, in unit shape, with as many live units as `base`; the same for the same input.

    `voices` [n] are the devices'; the base votes for its own units with `base_votes` medians of them. `values` are the merged
    weights, in the weight's shape: the mean magnitude of a unit counts for up to one median voice. Of equal scores the first
    in memory order win.
    """
    one = float(np.median(voices)) or 1.0
    score = base * (base_votes * one)
    for mask, voice in zip(live, voices.tolist(), strict=True):
        score += mask * voice
    size: F64 = np.asarray(masks.unit_scores(np.abs(values), unit))
    score += one * size / max(float(size.max()), 1e-300)
    return masks.grow(np.zeros(base.shape, np.bool_), int(np.count_nonzero(base)), score=score)
