"""Invented DICOM files for the tests: a small radiograph, with identifiers wherever a test wants them."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

SECRET = bytes(range(32))
CR_STORAGE = "1.2.840.10008.5.1.4.1.1.1"


def radiograph(
    number: int = 0, patient: str = "MRN-1", rows: int = 16, columns: int = 12, **more: Any
) -> Dataset:
    """A valid CR object of its own study; `more` sets attributes by keyword, None deletes one."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID = CR_STORAGE
    image.SOPInstanceUID = f"1.2.3.{number + 1}"
    image.StudyInstanceUID = f"1.2.4.{number + 1}"
    image.SeriesInstanceUID = f"1.2.5.{number + 1}"
    image.PatientID, image.PatientName, image.PatientBirthDate = patient, "Hong^Gildong", "19551231"
    image.Modality, image.ImageType = "CR", ["ORIGINAL", "PRIMARY"]
    image.Rows, image.Columns, image.SamplesPerPixel, image.PixelRepresentation = rows, columns, 1, 0
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
    image.PhotometricInterpretation = "MONOCHROME2"
    image.PixelData = np.random.default_rng(number).integers(0, 4096, (rows, columns), np.uint16).tobytes()
    for name, value in more.items():
        if value is None:
            delattr(image, name)
        else:
            setattr(image, name, value)
    return image


def encode(image: Dataset, syntax: UID = ExplicitVRLittleEndian) -> bytes:
    """The object as a DICOM file."""
    image.file_meta.TransferSyntaxUID = syntax
    buffer = BytesIO()
    dcmwrite(buffer, image, enforce_file_format=True)
    return buffer.getvalue()


def parse(data: bytes) -> Dataset:
    """A DICOM file as a data set."""
    return dcmread(BytesIO(data))


def save(image: Dataset, path: Path) -> Path:
    """Write the object, making folders as needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(image))
    return path
