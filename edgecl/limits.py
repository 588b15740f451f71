"""What a configuration's values may be, by dotted key."""

from __future__ import annotations

CHOICES: dict[str, tuple[str, ...]] = {
    "mask.unit": ("auto", "weight", "kernel", "block4x4", "channel"),
    "mask.start": ("uniform", "erk"),
    "tdm.grow": ("random", "gradient"),
    "train.schedule": ("constant", "cosine"),
    "engine.device": ("cpu", "cuda"),
    "engine.precision": ("fp32", "tf32", "bf16"),
    "engine.storage": ("fp32", "fp16"),
    "clock": ("auto", "always", "never"),
}

RANGES: dict[str, tuple[float, float]] = {
    "data.classes_per_task": (1, 1e6),
    "data.samples_per_class": (0, 1e9),
    "data.tasks": (0, 1e6),
    "net.width": (0, 1e5),
    "net.capacity": (0, 1e6),
    "train.epochs": (1, 1e6),
    "train.batch": (1, 4096),
    "train.rate": (0, 1e3),
    "train.momentum": (0, 0.9999),
    "train.weight_decay": (0, 1e3),
    "train.average": (0, 1),
    "train.snapshot_every": (1, 1e9),
    "train.snapshot_seconds": (0, 1e9),
    "memory.capacity": (1, 1e9),
    "memory.batch": (0, 4096),
    "mask.sparsity": (0, 0.9999),
    "tdm.expand": (0, 1),
    "tdm.swap": (0, 1),
    "tdm.every": (0.0001, 1),
    "tdm.settle": (0, 1),
    "tdm.alpha": (0, 1e9),
    "tdm.beta": (0, 1e9),
    "tdm.steps": (1, 1e6),
    "ddr.share": (0, 0.99),
    "ddr.times": (1, 1e4),
    "ddr.until": (0, 1),
    "dgm.share": (0.0001, 1),
    "dgm.every": (1, 1e9),
    "freeze.after": (0, 1e6),
    "engine.threads": (0, 1024),
    "seed": (0, 2**63),
}
