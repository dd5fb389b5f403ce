"""Invented images with text burned in, drawn with a font of its own: 5 x 7 dots, rows in hex."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from dicom_files import encode, parse, radiograph
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from scipy import ndimage

GLYPHS = {
    " ": "00 00 00 00 00 00 00",
    "0": "0E 11 13 15 19 11 0E",
    "1": "04 0C 04 04 04 04 0E",
    "2": "0E 11 01 02 04 08 1F",
    "3": "1F 02 04 02 01 11 0E",
    "5": "1F 10 1E 01 01 11 0E",
    "7": "1F 01 02 04 08 08 08",
    "9": "0E 11 11 0F 01 02 0C",
    "A": "0E 11 11 11 1F 11 11",
    "D": "1C 12 11 11 11 12 1C",
    "E": "1F 10 10 1E 10 10 1F",
    "G": "0E 11 10 17 11 11 0F",
    "H": "11 11 11 1F 11 11 11",
    "I": "0E 04 04 04 04 04 0E",
    "K": "11 12 14 18 14 12 11",
    "L": "10 10 10 10 10 10 1F",
    "M": "11 1B 15 15 11 11 11",
    "N": "11 11 19 15 13 11 11",
    "O": "0E 11 11 11 11 11 0E",
    "R": "1E 11 11 1E 14 12 11",
    "-": "00 00 00 1F 00 00 00",
}
NAME, NUMBER = "HONG GILDONG", "ID 1955-1231-07"
ULTRASOUND, CT, SECONDARY_CAPTURE = (
    "1.2.840.10008.5.1.4.1.1.6.1",
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.7",
)
ULTRASOUND_MULTIFRAME = "1.2.840.10008.5.1.4.1.1.3.1"


def stencil(text: str, dots: int = 2) -> NDArray[np.bool_]:
    """The text as a mask, each dot of the font so many pixels wide."""
    columns = []
    for letter in text:
        rows = [int(row, 16) for row in GLYPHS[letter].split()]
        columns.append(np.array([[row >> (4 - bit) & 1 for bit in range(5)] + [0] for row in rows]))
    return np.kron(np.concatenate(columns, 1), np.ones((dots, dots))).astype(bool)


def ink(shape: tuple[int, int], text: str, row: int, column: int, dots: int = 2) -> NDArray[np.bool_]:
    """Mask of the whole picture with the text at a place."""
    mask = np.zeros(shape, bool)
    letters = stencil(text, dots)
    mask[row : row + letters.shape[0], column : column + letters.shape[1]] = letters
    return mask


def anatomy(rows: int = 240, columns: int = 320, seed: int = 0) -> NDArray[np.float64]:
    """A body of soft ellipses with grain on black, 0..1, and no text."""
    rng = np.random.default_rng(seed)
    ys, xs = np.mgrid[0:rows, 0:columns]
    picture = np.zeros((rows, columns))
    for cy, cx, ry, rx, level in (
        (0.55, 0.5, 0.38, 0.4, 0.35),
        (0.5, 0.35, 0.15, 0.1, 0.25),
        (0.65, 0.6, 0.1, 0.16, 0.7),
    ):
        picture[((ys / rows - cy) / ry) ** 2 + ((xs / columns - cx) / rx) ** 2 < 1] = level
    grain = ndimage.gaussian_filter(rng.normal(size=picture.shape), 1.2) * 0.06
    return np.clip(ndimage.gaussian_filter(picture, 2) + grain * (picture > 0), 0, 1)


def image(pixels: NDArray[Any], **more: Any) -> Dataset:
    """A valid object around stored pixels: (rows, columns[, 3]), after frames if there are several."""
    frames = int(more.get("NumberOfFrames", 0))
    rows, columns = pixels.shape[1:3] if frames else pixels.shape[:2]
    bits = pixels.dtype.itemsize * 8
    dataset = radiograph(rows=rows, columns=columns)
    dataset.SOPClassUID, dataset.Modality, dataset.ImageType = (
        SECONDARY_CAPTURE,
        "OT",
        ["DERIVED", "SECONDARY"],
    )
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    if pixels.ndim - bool(frames) == 3:
        dataset.SamplesPerPixel, dataset.PlanarConfiguration, dataset.PhotometricInterpretation = 3, 0, "RGB"
    for name, value in more.items():
        setattr(dataset, name, value)
    stored = pixels.astype(pixels.dtype.newbyteorder("<"))
    if dataset.get("PlanarConfiguration") == 1:
        stored = np.moveaxis(stored, -1, -3)
    data = stored.tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    return dataset


def reread(dataset: Dataset, syntax: UID = ExplicitVRLittleEndian) -> Dataset:
    """The object as it comes from its file, compressed if the syntax is (RLE or JPEG 2000)."""
    if syntax.is_compressed:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.compress(syntax, generate_instance_uid=False)
        if dataset.SamplesPerPixel == 3 and syntax != "1.2.840.10008.1.2.5":
            dataset.PhotometricInterpretation = "YBR_RCT"
    return parse(encode(dataset, syntax))


def by_gdcm(dataset: Dataset, kind: str, folder: Path) -> Dataset:
    """The object in a transfer syntax that only gdcm writes, by gdcm's name of it."""
    import gdcm

    before, after = folder / "before.dcm", folder / "after.dcm"
    before.write_bytes(encode(dataset))
    reader = gdcm.ImageReader()
    reader.SetFileName(str(before))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, kind)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(after))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return parse(after.read_bytes())


def traces(picture: NDArray[Any], mask: NDArray[np.bool_]) -> float:
    """How much of the planted letters can still be read: correlation of their mask with the picture there."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    place = np.s_[max(0, rows[0] - 2) : rows[-1] + 3, max(0, columns[0] - 2) : columns[-1] + 3]
    grey = picture[place].astype(float)
    grey = grey.mean(-1) if grey.ndim == 3 else grey
    grey = grey - ndimage.uniform_filter(grey, 9)
    letters = mask[place] - ndimage.uniform_filter(mask[place].astype(float), 9)
    spread = grey.std() * letters.std()
    return (
        0.0
        if spread < 1e-9
        else abs(float(((grey - grey.mean()) * (letters - letters.mean())).mean() / spread))
    )
