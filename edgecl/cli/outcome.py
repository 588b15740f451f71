"""What a finished run comes to: one dictionary, for --json and for the tables."""

from __future__ import annotations

from typing import Any

from edgecl.profiles import Profile, joules, seconds

Outcome = dict[str, Any]


def outcome(result: dict[str, Any], dense: dict[str, Any] | None, profile: Profile | None) -> Outcome:
    """`result` and `dense` as session.result has them; `dense` None where the baseline did not run; no profile for the host."""
    own = {**result, "dense": dense}
    if dense is not None:
        own["seconds_ratio"] = dense["seconds"] / result["seconds"] if result["seconds"] else None
    return {**own, "prediction": prediction(profile, result["dense_executed"]) if profile else None}


def prediction(profile: Profile, flops: float) -> dict[str, Any]:
    """What a profile says of dense training: never measured here, and no sparse speed-up in it."""
    took = seconds(profile, flops)
    figures = ("core_count", "peak_gflops_fp32", "training_efficiency", "power_load_w")
    return {
        "device": profile.name,
        "title": profile.title,
        "of": "dense training; a profile's prediction, not a measurement",
        "dense_seconds": took,
        "dense_joules": joules(profile, took),
        "figures": {k: vars(getattr(profile, k)) for k in figures},
    }
