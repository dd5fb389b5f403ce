"""Invented exports of any size: small radiographs, a folder for each patient."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

SIDE = 32
OF_A_PATIENT = 50
ROOT = "1.2.826.0.1.3680043.8.498"
OBJECT, SERIES, STUDY = (f"{ROOT}.{kind}.10000000" for kind in (1, 2, 3))
PATIENT, ACCESSION = "P00000000", "A00000000"


def write_export(folder: Path, first: int, last: int) -> None:
    """Write the objects number `first` to `last` - 1, each with pixels and UIDs of its own."""
    template = _template()
    start = template.rindex(b"\0" * (2 * SIDE * SIDE))
    noise = np.random.default_rng(first)
    for number in range(first, last):
        patient = number // OF_A_PATIENT
        data = template[:start] + noise.integers(0, 4096, SIDE * SIDE, np.uint16).tobytes()
        uids = {OBJECT: 10**7 + number, SERIES: 10**7 + patient, STUDY: 10**7 + patient}
        for text, value in {**uids, PATIENT: patient, ACCESSION: patient}.items():
            data = data.replace(text.encode(), f"{text[:-8]}{value:08d}".encode())
        path = folder / f"{patient:08d}" / f"{number:08d}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _template() -> bytes:
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID, image.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", OBJECT
    image.StudyInstanceUID, image.SeriesInstanceUID = STUDY, SERIES
    image.PatientID, image.PatientName, image.PatientBirthDate, image.PatientSex = (
        PATIENT,
        f"Invented^{PATIENT}",
        "19551231",
        "F",
    )
    image.AccessionNumber, image.StudyDate, image.StudyTime = ACCESSION, "20200102", "101112"
    image.ReferringPhysicianName, image.StudyID, image.InstitutionName = (
        "Doctor^Invented",
        "1",
        "Invented Hospital",
    )
    image.Modality, image.ImageType, image.BodyPartExamined = "CR", ["ORIGINAL", "PRIMARY"], "CHEST"
    image.StudyDescription, image.SeriesDescription = "chest pa", "pa"
    image.SeriesNumber, image.InstanceNumber, image.Manufacturer = 1, 1, "Invented"
    image.Rows, image.Columns, image.SamplesPerPixel, image.PixelRepresentation = SIDE, SIDE, 1, 0
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
    image.PhotometricInterpretation = "MONOCHROME2"
    image.PixelData = bytes(2 * SIDE * SIDE)
    buffer = BytesIO()
    dcmwrite(buffer, image, enforce_file_format=True)
    return buffer.getvalue()
