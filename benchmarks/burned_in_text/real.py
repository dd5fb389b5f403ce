"""Real pictures without text, from public test data, split by picture between training and bench.

Sources: pydicom's and pydicom-data's test files (MIT), deid-data (PyPI, MIT), Debian's mricron-data (ch2 and
inia19
MR templates, BSD-3-Clause). A crop of each, chosen by eye, that shows no text.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Source:
    """A file by name, the side it belongs to, the textless part (row0, col0, row1, col1), and the frames."""

    name: str
    side: str
    crop: tuple[int, int, int, int] | None = None
    frames: tuple[int, ...] = (0,)


SOURCES = (
    Source("693_UNCR.dcm", "bench"),
    Source("J2K_pixelrep_mismatch.dcm", "bench"),
    Source("MR2_UNCR.dcm", "bench"),
    Source("MR-SIEMENS-DICOM-WithOverlays.dcm", "bench"),
    Source("RG1_UNCR.dcm", "bench"),
    Source("JPEG-LL.dcm", "bench"),
    Source("CT_small.dcm", "bench"),
    Source("eCT_Supplemental.dcm", "bench"),
    Source("US1_UNCR.dcm", "bench", (128, 40, 225, 600)),
    Source("JPGLosslessP14SV1_1s_1f_8b.dcm", "bench", (150, 200, 600, 740)),
    Source("color3d_jpeg_baseline.dcm", "bench", (60, 100, 380, 560), (0, 60)),
    Source("gdcm-US-ALOKA-16.dcm", "bench", (95, 45, 420, 600)),
    Source("OBXXXX1A_2frame.dcm", "bench", (100, 150, 420, 640)),
    Source("explicit_VR-UN.dcm", "train"),
    Source("bad_sequence.dcm", "train"),
    Source("RG3_UNCR.dcm", "train", (0, 0, 1300, 1760)),
    Source("cat.dcm", "train", (0, 0, 2200, 3072)),
    Source("image1.dcm", "train"),
    Source("image5.dcm", "train"),
    Source("ctbrain1.dcm", "train"),
    Source("GREYSCALE_CINE.dcm", "train", (75, 110, 590, 680), (0, 13)),
    Source("RGB_CINE.dcm", "train", (60, 160, 560, 520), (0, 25)),
    Source("ultrasound-multiframe.dcm", "train", (60, 110, 560, 560), (0, 10, 20)),
    Source("liver.dcm", "train"),
    Source("MR_small.dcm", "train"),
    Source("SC_jpeg_no_color_transform_2.dcm", "train"),
)
TEMPLATES = ("ch2.nii.gz", "ch2better.nii.gz", "inia19-t1-brain.nii.gz")
LARGEST = 1100
"""Pictures larger than that are also kept at half their size."""


@cache
def files(folders: tuple[Path, ...]) -> dict[str, Path]:
    """All files under the folders by name; the first of a name counts."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                found.setdefault(path.name, path)
    return found


def windowed(values: NDArray[np.generic], low: float, high: float) -> Floats:
    """Percentiles low..high of the values mapped to 0..255."""
    least, most = np.percentile(values, [low, high])
    scaled = (values.astype(np.float32) - np.float32(least)) / np.float32(max(most - least, 1e-6))
    return np.clip(scaled * 255, 0, 255).astype(np.float32)


def pictures(side: str, folders: tuple[Path, ...]) -> dict[str, Floats]:
    """Name -> float32 (H, W) in display grey levels, for each source of the side that is there."""
    found = files(folders)
    result: dict[str, Floats] = {}
    for source in SOURCES:
        if source.side == side and source.name in found:
            for frame, values in _frames(found[source.name], source):
                result[f"{source.name}#{frame}"] = windowed(values, 0.2, 99.8)
    if side == "train":
        for name in TEMPLATES:
            if name in found:
                result.update(_slices(found[name]))
    return result


def by_file(named: dict[str, Floats]) -> list[list[Floats]]:
    """The pictures of each file together."""
    groups: dict[str, list[Floats]] = {}
    for name, picture in named.items():
        groups.setdefault(name.split("#")[0], []).append(picture)
    return list(groups.values())


def _frames(path: Path, source: Source) -> list[tuple[int, NDArray[np.generic]]]:
    dataset = pydicom.dcmread(path, force=True)
    pixels = dataset.pixel_array
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        pixels = pydicom.pixels.apply_color_lut(pixels, dataset)
    if dataset.get("NumberOfFrames", 1) in (None, 1):
        pixels = pixels[None]
    grey = pixels.astype(np.float32).mean(-1) if pixels.shape[-1] == 3 else pixels
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        grey = grey.max() - grey.astype(np.int32)
    row0, col0, row1, col1 = source.crop or (0, 0, *grey.shape[1:3])
    return [(frame, grey[frame, row0:row1, col0:col1]) for frame in source.frames]


def _slices(path: Path) -> dict[str, Floats]:
    """Every 12th slice across each of the three axes of an uncompressed-in-gzip NIfTI volume."""
    data = gzip.decompress(path.read_bytes())
    shape = np.frombuffer(data, "<i2", 3, 42)
    kinds = {2: "<u1", 4: "<i2", 8: "<i4", 16: "<f4", 512: "<u2"}
    start = int(np.frombuffer(data, "<f4", 1, 108)[0])
    kind = kinds[int(np.frombuffer(data, "<i2", 1, 70)[0])]
    volume = np.frombuffer(data, kind, int(shape.prod()), start).reshape(shape[::-1])
    result: dict[str, Floats] = {}
    for axis in range(3):
        for at in range(shape[2 - axis] // 4, 3 * shape[2 - axis] // 4, 12):
            slice_ = np.flipud(np.take(volume, at, axis))
            result[f"{path.name}#{axis}-{at}"] = windowed(slice_, 0, 99.8)
    return result
