"""Invented sites with outlines: radiographs with a bright square of each patient, and SEG files of these."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
from dicom_files import radiograph, save
from fedai_site.adding import Added, add_data
from fedai_site.home import SiteHome, create_home
from homes import settings_for
from mask_files import segmentation
from studies import merged

from fedai.study import Study

SIDE = 24
NAMES = {"Hong GTV": "lesion"}
FACTS: dict[str, Any] = {
    "name": "outlines",
    "purpose": "Tests on invented images.",
    "task": {"kind": "segmentation", "structures": ["lesion"], "tolerance_mm": 1.0},
    "sites": ["north"],
    "cohort": {"modality": ["CR"], "minimum_patients": 2},
    "preprocessing": {"image_size": [16, 16]},
    "network": {"name": "UNet", "channels": [8, 16], "strides": [2], "num_res_units": 1},
    "training": {
        "rounds": 2, "local_epochs": 4, "batch_size": 8, "seed": 3,
        "optimizer": {"name": "AdamW", "learning_rate": 0.01}, "loss": {"name": "DiceCE"},
    },
    "rounds": {"quorum": 1, "grace_s": 60, "deadline_s": 120, "waiting_s": 60, "max_update_mb": 8},
    "split": {"validation": 0.2, "test": 0.4},
    "judgement": {"local_models": False},
}  # fmt: skip


def outline_study(**changes: Any) -> Study:
    return Study.model_validate(merged(copy.deepcopy(FACTS), changes))


def write_patients(folder: Path, site: str, patients: int, *, seed: int = 1, empty: int = 0) -> list[str]:
    """An image and a SEG of each patient, of the first `empty` without a lesion; gives what names them."""
    rng = np.random.default_rng(seed)
    planted = []
    for number in range(patients):
        pixels, mask = rng.integers(0, 1500, (SIDE, SIDE), np.uint16), np.zeros((SIDE, SIDE), np.bool_)
        if number >= empty:
            top, left = rng.integers(2, 10, 2)
            mask[top : top + rng.integers(7, 12), left : left + rng.integers(7, 12)] = True
        pixels[mask] += 2000
        patient, name = f"MRN-{site}-{number:04d}", f"Planted{site.title()}{number}^Invented"
        image = radiograph(
            1000 * seed + number, patient, SIDE, SIDE, PatientName=name, PixelSpacing=[0.4, 0.6],
            PixelData=pixels.tobytes(),
        )  # fmt: skip
        save(image, folder / f"{name}.dcm")
        drawn = segmentation([(image, "Hong GTV", mask)], PatientName=name)
        save(drawn, folder / f"{name} outlined.dcm")
        planted += [name, name.partition("^")[0], patient]
    return planted


def make_outlined(folder: Path, patients: int, name: str = "north", **more: Any) -> tuple[SiteHome, Added]:
    """A home with these patients."""
    home = create_home(folder / name, settings_for(folder / "server", name))
    write_patients(folder / f"{name}-export", name, patients, **more)
    added = add_data(home.folder, folder / f"{name}-export", None, structures=NAMES)
    return home, added
