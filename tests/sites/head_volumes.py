"""Invented heads and other bodies as volumes, real ones where the system's packages have them, and DICOM
series of them.

Volumes are (slices, rows, columns) float32; affines take (column, row, slice, 1) to LPS millimetres.
Invented heads lie in the template's space: x to the left, y to the back, z to the crown, the brain's middle
near (0, 16, 10).
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.faces import heads

Loaded = TypeVar("Loaded")
SOP_CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
}
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
TISSUES = {"CT": (-1000, 40, 35, 900, -90, 8), "MR": (0, 90, 140, 12, 200, 60)}
"""Air, muscle, brain, bone, fat under the skin, eyes."""
Volume = NDArray[np.float32]
Affine = NDArray[np.float64]
NOSE, EYES, BRAIN = (0.0, -86.0, -66.0), ((30.0, -56.0, -29.0), (-30.0, -56.0, -29.0)), (0.0, 10.0, 20.0)
"""Where they are in `mean_head`."""


def _ball(at: NDArray[np.float64], center: tuple[float, ...], radii: tuple[float, ...]) -> NDArray[np.bool_]:
    parts = [((axis - middle) / radius) ** 2 for axis, middle, radius in zip(at, center, radii, strict=True)]
    return np.asarray(sum(parts) <= 1)


def space(
    low: tuple[float, ...], high: tuple[float, ...], spacing: float
) -> tuple[NDArray[np.float64], Affine]:
    """Points (3, z, y, x) of a box in LPS mm, and its affine."""
    axes = [np.arange(a, b, spacing) for a, b in zip(low, high, strict=True)]
    z, y, x = np.meshgrid(*axes[::-1], indexing="ij")
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = low
    return np.stack([x, y, z]), affine


@cache
def mean_head(modality: str, spacing: float = 2.0) -> tuple[Volume, Affine]:
    """The template's own head, a tenth smaller, with chin, noise and the contrast of `modality`."""
    from fedai_site.deidentify.faces.template import load_template

    template = load_template()
    at, affine = space((-90.0, -112.0, -116.0), (90.0, 118.0, 98.0), spacing)
    places = at * 1.1 + np.array([0.0, 0.0, -4.0]).reshape(3, 1, 1, 1)
    grey, head, from_brain = (
        template.at(values, places, outside)
        for values, outside in ((template.grey, 0.0), (template.head, 0.0), (template.from_brain, 99.0))
    )
    noise = np.random.default_rng(3).normal(0, 1, grey.shape).astype(np.float32)
    if modality != "CT":
        return np.abs(grey + 3 * noise), affine
    x, y, z = places
    skull = (from_brain > 2) & (from_brain < 9) & (head > 0.5) & ((y > -40) | (z > -20))
    airway = (head > 0.5) & (grey < 38) & (from_brain > 4)
    volume = np.where(head > 0.5, np.where(grey > 150, -80.0, 45.0), -1000.0)
    volume[airway & (np.abs(x) < 45) & (y < 10) & (z < -25)] = -900
    volume[skull] = 900
    volume[from_brain < 0] = 20 + grey[from_brain < 0] / 8
    return np.asarray(volume + 12 * noise, np.float32), affine


def chest(modality: str = "CT", width: float = 170.0) -> tuple[Volume, Affine]:
    """An invented trunk from the collar bones to the liver, `width` mm from the middle to its side."""
    at, affine = space((-220.0, -170.0, -180.0), (220.0, 170.0, 120.0), 4.0)
    air, muscle, _, bone, fat, _ = TISSUES[modality]
    volume = np.full(at[0].shape, air, np.float32)
    trunk = (at[0] / width) ** 2 + (at[1] / (width * 0.65)) ** 2 <= 1
    inner = (at[0] / (width - 20)) ** 2 + (at[1] / (width * 0.65 - 20)) ** 2 <= 1
    volume[trunk], volume[inner] = fat, muscle
    for side in (-1, 1):
        lung = _ball(at, (side * width * 0.45, 0, 10), (width * 0.33, width * 0.45, 120))
        volume[lung] = -800 if modality == "CT" else air + 5
    volume[(at[0] ** 2 + (at[1] - width * 0.45) ** 2) < 20**2] = bone
    return volume, affine


def knee(modality: str = "MR") -> tuple[Volume, Affine]:
    """An invented leg around the knee, about as wide as a head."""
    at, affine = space((-90.0, -100.0, -90.0), (90.0, 100.0, 90.0), 2.5)
    air, muscle, brain, bone, fat, _ = TISSUES[modality]
    volume = np.full(at[0].shape, air, np.float32)
    volume[(at[0] / 68) ** 2 + (at[1] / 72) ** 2 <= 1] = fat
    volume[(at[0] / 60) ** 2 + (at[1] / 62) ** 2 <= 1] = muscle
    for sign in (-1, 1):
        marrow = _ball(at, (0, -8, sign * 72), (38, 34, 66))
        volume[marrow] = fat if modality == "MR" else bone / 2
    volume[_ball(at, (0, -58, 6), (22, 10, 22))] = brain
    return volume, affine


@cache
def ch2() -> tuple[Volume, Affine]:
    """The real MR of a head. Skips the test where its package isn't installed."""
    return _or_skip(heads.ch2)


@cache
def ch2_brain() -> NDArray[np.bool_]:
    """The brain of ch2 as its authors drew it."""
    return _or_skip(heads.ch2_brain)


@cache
def cranium() -> tuple[Volume, Affine]:
    """The real CT of a head. Skips the test where its package isn't installed."""
    return _or_skip(heads.cranium)


def _or_skip(load: Callable[[], Loaded]) -> Loaded:
    try:
        return load()
    except FileNotFoundError as error:
        pytest.skip(str(error))


def flipped(affine: Affine, *axes: int) -> Affine:
    """An affine that lies: the patient's `axes` (0 left, 1 back, 2 up) point the other way."""
    signs = np.ones(4)
    signs[list(axes)] = -1
    return np.asarray(np.diag(signs) @ affine)


def index_of(affine: Affine, point: tuple[float, ...]) -> tuple[int, ...]:
    """The voxel (z, y, x) at LPS millimetres."""
    x, y, z = np.rint(np.linalg.solve(affine[:3, :3], np.array(point) - affine[:3, 3])).astype(int)
    return int(z), int(y), int(x)


def stored(volume: Volume, modality: str) -> tuple[NDArray[np.generic], float]:
    """What a scanner would store, and the rescale intercept."""
    if modality == "CT":
        return np.clip(np.rint(volume) + 1024, 0, 4095).astype(np.uint16), -1024.0
    return np.clip(np.rint(volume), 0, 4095).astype(np.uint16), 0.0


def series(volume: Volume, affine: Affine, modality: str, **more: Any) -> list[Dataset]:
    """One object for each slice; `more` sets attributes of all by keyword, None leaves one out."""
    values, intercept = stored(volume, modality)
    return [
        slice_(values[number], affine, number, modality, intercept, **more) for number in range(len(values))
    ]


def slice_(
    values: NDArray[np.generic],
    affine: Affine,
    number: int,
    modality: str,
    intercept: float = 0.0,
    **more: Any,
) -> Dataset:
    """One CT, MR or PET object with the place of slice `number`."""
    across, down, step = affine[:3, 0], affine[:3, 1], affine[:3, 2]
    sizes = [float(np.linalg.norm(vector)) for vector in (down, across, step)]
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID, image.SOPInstanceUID = SOP_CLASSES[modality], f"1.2.3.{number + 1}"
    image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = "1.2.4", "1.2.5", "1.2.6"
    image.Modality, image.ImageType, image.InstanceNumber = (
        modality,
        ["ORIGINAL", "PRIMARY", "AXIAL"],
        number + 1,
    )
    image.ImagePositionPatient = [round(float(value), 4) for value in affine[:3, 3] + step * number]
    image.ImageOrientationPatient = [
        round(float(value), 6) for value in [*across / sizes[1], *down / sizes[0]]
    ]
    image.PixelSpacing, image.SliceThickness = sizes[:2], sizes[2]
    image.Rows, image.Columns = values.shape
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
    image.PixelRepresentation = 0
    if modality != "MR":
        image.RescaleSlope, image.RescaleIntercept = 1.0, intercept
    image.PixelData = values.astype("<u2").tobytes()
    for name, value in more.items():
        if value is not None:
            setattr(image, name, value)
        elif name in image:
            delattr(image, name)
    return image


def enhanced(volume: Volume, affine: Affine, **more: Any) -> Dataset:
    """All slices of an MR as one object, their places in functional groups."""
    slices = series(volume, affine, "MR")
    image = slices[0]
    image.SOPClassUID, image.NumberOfFrames = ENHANCED_MR, len(slices)
    image.PixelData = b"".join(part.PixelData for part in slices)
    shared, measures, turn = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, turn.ImageOrientationPatient = image.PixelSpacing, image.ImageOrientationPatient
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = Sequence([measures]), Sequence([turn])
    image.SharedFunctionalGroupsSequence = Sequence([shared])
    image.PerFrameFunctionalGroupsSequence = Sequence([_placed(part) for part in slices])
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(image, name)
    for name, value in more.items():
        setattr(image, name, value)
    return image


def _placed(part: Dataset) -> Dataset:
    group, place = Dataset(), Dataset()
    place.ImagePositionPatient = part.ImagePositionPatient
    group.PlanePositionSequence = Sequence([place])
    return group


def pixels(image: Dataset) -> NDArray[np.generic]:
    """Stored values as written, after a round through a file."""
    from pydicom import dcmread, dcmwrite

    buffer = io.BytesIO()
    dcmwrite(buffer, image, enforce_file_format=True)
    return np.asarray(dcmread(io.BytesIO(buffer.getvalue())).pixel_array)
