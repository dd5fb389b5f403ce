"""Whether a volume can hold a head: by its shape, and by what its header says.

Headers lie and are cut short, so the shape decides first: a level that is too wide, or full of lung, is no
head. What can't be told apart from a head is tried against the template.
"""

from __future__ import annotations

import re
from enum import StrEnum

import numpy as np
from pydicom.dataset import Dataset
from scipy import ndimage

from fedai_site.deidentify.faces import tissue
from fedai_site.deidentify.faces.grid import Grid, Mask

MODALITIES = frozenset({"CT", "MR", "PT", "CBCT"})
VOLUMES = (
    "1.2.840.10008.5.1.4.1.1.2",  # CT, enhanced CT, legacy converted CT
    "1.2.840.10008.5.1.4.1.1.4",  # MR ...
    "1.2.840.10008.5.1.4.1.1.128",  # PET ...
    "1.2.840.10008.5.1.4.1.1.130",  # enhanced PET
    "1.2.840.10008.5.1.4.1.1.13.1.1",  # X-ray 3D angiographic
    "1.2.840.10008.5.1.4.1.1.13.1.2",  # X-ray 3D craniofacial
)
NO_IMAGES = frozenset({"1.2.840.10008.5.1.4.1.1.4.2"})  # MR spectroscopy
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


def _words(text: str) -> list[str]:
    return text.split()


HEAD_WORDS = frozenset(
    _words(
        """HEAD HEADNECK BRAIN SKULL CRANIUM CRANIAL CEREBRUM CEREBRAL NEURO FACE FACIAL ORBIT ORBITS EYE
        EYES NOSE NASAL SINUS SINUSES PNS EAR IAC PITUITARY SELLA SKULLBASE MAXILLA MANDIBLE JAW TMJ
        DENTAL TEETH MOUTH TEMPORALBONE NECK CSPINE CERVICAL CAROTID WHOLEBODY HNK CTSPINE"""
    )
)
OTHER_PARTS = frozenset(
    _words(
        """CHEST THORAX LUNG HEART BREAST RIB STERNUM CLAVICLE SHOULDER SCAPULA HUMERUS ELBOW FOREARM WRIST
        HAND FINGER THUMB ABDOMEN ABDOMENPELVIS LIVER KIDNEY PANCREAS PELVIS PROSTATE UTERUS BLADDER HIP
        FEMUR KNEE TIBIA FIBULA LEG ANKLE FOOT CALCANEUS TOE LSPINE TSPINE LUMBAR SSPINE SACRUM COCCYX
        AORTA EXTREMITY UPPERLIMB LOWERLIMB PHANTOM"""
    )
)
"""Values of Body Part Examined (PS3.16 Annex L) that are not near a head."""
DESCRIPTIONS = ("BodyPartExamined", "SeriesDescription", "StudyDescription", "ProtocolName")
RENDERED = frozenset(
    {"VRT", "VR", "SSD", "VOLREN", "RENDERED", "VOLUME_RENDERED", "VOLUME RENDERING", "SURFACE"}
)
COARSE = 6.0  # mm
LEAST_RUN = 40.0  # mm of levels one upon another
WIDTHS, DEPTHS = (
    (80.0, 245.0),
    (90.0, 285.0),
)  # mm that a head's cross-section may measure, newborns to large adults
LEAST_AREA = 4000.0  # mm2
LUNG = (-960.0, -450.0)  # Hounsfield units, in the mean over COARSE
MOST_LUNG = 0.25  # of a cross-section
CORE = 3  # voxels: tables and head holders are thinner than twice that


class Part(StrEnum):
    """What the header says that is shown."""

    HEAD = "head"
    OTHER = "other"
    UNKNOWN = "unknown"


def may_show_head(dataset: Dataset) -> bool:
    """Whether an object may be part of a volume that shows a head: by its kind alone, since body parts are
    mislabelled.
    """
    if not any(name in dataset for name in PIXELS):
        return False
    sop_class = str(dataset.get("SOPClassUID") or "")
    if sop_class in NO_IMAGES:
        return False
    in_space = "ImageOrientationPatient" in dataset or "PerFrameFunctionalGroupsSequence" in dataset
    modality = str(dataset.get("Modality") or "").strip().upper()
    is_volume = any(sop_class == known or sop_class.startswith(f"{known}.") for known in VOLUMES)
    return is_volume or ((modality in MODALITIES or not modality) and in_space)


def part_of(dataset: Dataset) -> Part:
    """What the header says: a word for the head anywhere wins, and another part counts as Body Part
    Examined only.
    """
    said = " ".join(str(dataset.get(name) or "") for name in DESCRIPTIONS).upper()
    words = set(re.split(r"[^A-Z]+", said))
    if words & HEAD_WORDS or re.search(r"C[- ]SPINE|WHOLE[- ]?BODY|두부|머리|안면|뇌", said):
        return Part.HEAD
    part = re.sub(r"[^A-Z]", "", str(dataset.get("BodyPartExamined") or "").upper())
    return Part.OTHER if part in OTHER_PARTS else Part.UNKNOWN


def is_rendered(dataset: Dataset) -> bool:
    """Whether an image is a picture of a surface or of many slices at once, in which a face can be seen
    directly.
    """
    return bool({str(value).upper() for value in dataset.get("ImageType") or []} & RENDERED)


def can_be_head(grid: Grid, modality: str) -> bool:
    """Whether `grid` (COARSE mm) has levels of a head's size for LEAST_RUN mm one upon another. False is
    certain.
    """
    level = tissue.threshold(grid.values, modality)
    body = np.nan_to_num(grid.values, nan=-np.inf) > level
    lung = (grid.values > LUNG[0]) & (grid.values < LUNG[1]) if modality == "CT" else np.zeros_like(body)
    run = longest = 0
    for slice_, air in zip(body, lung, strict=True):
        run = run + 1 if _is_head_sized(slice_, air, grid.spacing) else 0
        longest = max(longest, run)
    return longest * grid.spacing >= LEAST_RUN


def _is_head_sized(body: Mask, lung: Mask, spacing: float) -> bool:
    """Whether one of the bodies of an axial level, without what is thin, could be a head's."""
    filled = ndimage.binary_fill_holes(body)
    core = ndimage.binary_erosion(filled, iterations=CORE, border_value=1)
    labels, count = ndimage.label(core)
    for number in range(1, count + 1):
        part = ndimage.binary_dilation(labels == number, iterations=CORE) & filled
        rows, columns = np.nonzero(part.any(axis=1))[0], np.nonzero(part.any(axis=0))[0]
        depth, width = ((ends[-1] - ends[0] + 1) * spacing for ends in (rows, columns))
        cut = rows[0] == 0 or columns[0] == 0 or rows[-1] == len(body) - 1 or columns[-1] == body.shape[1] - 1
        least_width, least_depth = (0.0, 0.0) if cut else (WIDTHS[0], DEPTHS[0])
        fits = least_width <= width <= WIDTHS[1] and least_depth <= depth <= DEPTHS[1]
        large = part.sum() * spacing**2 >= LEAST_AREA
        if fits and large and lung[part].mean() <= MOST_LUNG:
            return True
    return False
