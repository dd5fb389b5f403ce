"""A small study that trains in a blink, and the tasks, replies and networks that belong to it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from fedai.study import Study

SMALL: dict[str, Any] = {
    "name": "small",
    "purpose": "Tests.",
    "task": {"classes": ["clear", "nodule"]},
    "sites": ["north", "east", "south"],
    "cohort": {"modality": ["CR"], "minimum_patients": 2},
    "preprocessing": {"image_size": [16, 16]},
    "network": {
        "name": "ResNet",
        "layers": [1, 1, 1, 1],
        "block_inplanes": [4, 4, 8, 8],
        "conv1_t_stride": 1,
        "normalization": "group",
    },
    "training": {"rounds": 2, "batch_size": 4, "seed": 7},
    "split": {"validation": 0.25, "test": 0.25},
    "rounds": {"quorum": 2, "grace_s": 1, "deadline_s": 5, "waiting_s": 5},
}
SIX = ["abdomen", "breast", "chest", "ct", "hand", "head"]


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes` put in, key by key, however deep."""
    out = copy.deepcopy(base)
    for key, value in changes.items():
        out[key] = (
            merged(out[key], value) if isinstance(value, dict) and isinstance(out.get(key), dict) else value
        )
    return out


def small_study(**changes: Any) -> Study:
    """The small study with changes, such as `training={"seed": 8}`."""
    return Study.model_validate(merged(SMALL, changes))


def draw_images(cases: int, *, size: int = 16, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [cases, 1, size, size] noise and int64 [cases] labels; a bright square marks the second class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(cases, dtype=np.int64) % 2
    images = rng.integers(0, 120, (cases, 1, size, size), np.uint8)
    images[labels == 1, :, 4:9, 4:9] += 120
    return images, labels
