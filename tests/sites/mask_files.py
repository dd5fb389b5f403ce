"""Invented segmentations (SEG) and structure sets (RTSTRUCT) for the tests, and images that lie in space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from dicom_files import radiograph
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import pack_bits
from pydicom.uid import ExplicitVRLittleEndian

SEG_STORAGE, STRUCTURE_SET_STORAGE = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.481.3"
FRAME = "1.2.6.1"
CT_STORAGE = "1.2.840.10008.5.1.4.1.1.2"


def slice_of(number: int, patient: str = "MRN-1", rows: int = 20, columns: int = 17, **more: Any) -> Dataset:
    """An axial CT slice with square pixels of 0.5 mm, 2 mm after the one before."""
    place: dict[str, Any] = {
        "SOPClassUID": CT_STORAGE,
        "Modality": "CT",
        "BodyPartExamined": "CHEST",
        "StudyInstanceUID": f"1.2.4.9{sum(patient.encode())}",
        "SeriesInstanceUID": f"1.2.5.9{sum(patient.encode())}",
        "FrameOfReferenceUID": FRAME,
        "PixelSpacing": [0.5, 0.5],
        "SliceThickness": 2,
        "ImagePositionPatient": [-4.0, -5.0, 2.0 * number],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "RescaleIntercept": -1024,
        "RescaleSlope": 1,
    }
    return radiograph(number, patient, rows, columns, **{**place, **more})


def square(rows: int = 20, columns: int = 17, at: int = 4, size: int = 6) -> np.ndarray:
    mask = np.zeros((rows, columns), np.bool_)
    mask[at : at + size, at : at + size + 1] = True
    return mask


def _drawing(image: Dataset, kind: str, modality: str, number: int) -> Dataset:
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = kind, f"1.2.7.{number}.{image.SOPInstanceUID.split('.')[-1]}"
    made.StudyInstanceUID, made.SeriesInstanceUID = image.StudyInstanceUID, f"1.2.8.{number}"
    made.PatientID, made.PatientName, made.PatientBirthDate = image.PatientID, "Hong^Gildong", "19551231"
    made.Modality = modality
    return made


def _item(**values: Any) -> Dataset:
    item = Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return item


def segmentation(
    frames: Sequence[tuple[Dataset, str, np.ndarray]],
    *,
    fractional: bool = False,
    number: int = 1,
    **more: Any,
) -> Dataset:
    """A SEG of frames: image, label, mask (bool, or fraction 0 to 1); `more` as of `radiograph`."""
    first = frames[0][0]
    made = _drawing(first, SEG_STORAGE, "SEG", number)
    labels = list(dict.fromkeys(label for _, label, _ in frames))
    made.SegmentationType = "FRACTIONAL" if fractional else "BINARY"
    made.NumberOfFrames, made.Rows, made.Columns = len(frames), *frames[0][2].shape
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PixelRepresentation = 1, "MONOCHROME2", 0
    bits = 8 if fractional else 1
    made.BitsAllocated, made.BitsStored, made.HighBit = bits, bits, bits - 1
    if "FrameOfReferenceUID" in first:
        made.FrameOfReferenceUID = first.FrameOfReferenceUID
    made.SegmentSequence = [
        _item(SegmentNumber=n, SegmentLabel=label, SegmentAlgorithmType="MANUAL")
        for n, label in enumerate(labels, 1)
    ]
    made.PerFrameFunctionalGroupsSequence = [
        _groups(image, labels.index(label) + 1) for image, label, _ in frames
    ]
    pixels = np.stack([mask for _, _, mask in frames])
    if fractional:
        made.MaximumFractionalValue = 200
        data = np.rint(pixels * 200).astype(np.uint8).tobytes()
        made.PixelData = data + bytes(len(data) % 2)
    else:
        made.PixelData = pack_bits(pixels.astype(np.uint8).ravel())
    return _changed(made, more)


def _groups(image: Dataset, segment: int) -> Dataset:
    source = _item(ReferencedSOPClassUID=image.SOPClassUID, ReferencedSOPInstanceUID=image.SOPInstanceUID)
    groups = _item(
        DerivationImageSequence=[_item(SourceImageSequence=[source])],
        SegmentIdentificationSequence=[_item(ReferencedSegmentNumber=segment)],
    )
    if "ImagePositionPatient" in image:
        groups.PlanePositionSequence = [_item(ImagePositionPatient=image.ImagePositionPatient)]
        groups.PlaneOrientationSequence = [_item(ImageOrientationPatient=image.ImageOrientationPatient)]
    return groups


def structure_set(
    contours: Mapping[str, Sequence[tuple[Dataset, np.ndarray]]], *, number: int = 2, **more: Any
) -> Dataset:
    """An RTSTRUCT: ROI name -> (image, points [N, 3] in mm) of each contour."""
    first = next(iter(contours.values()))[0][0]
    made = _drawing(first, STRUCTURE_SET_STORAGE, "RTSTRUCT", number)
    made.StructureSetLabel = "Hong plan"
    made.StructureSetROISequence = [
        _item(ROINumber=n, ROIName=name, ReferencedFrameOfReferenceUID=FRAME)
        for n, name in enumerate(contours, 1)
    ]
    made.ROIContourSequence = [
        _item(ReferencedROINumber=n, ContourSequence=[_contour(image, points) for image, points in drawn])
        for n, drawn in enumerate(contours.values(), 1)
    ]
    return _changed(made, more)


def _contour(image: Dataset, points: np.ndarray) -> Dataset:
    return _item(
        ContourImageSequence=[
            _item(ReferencedSOPClassUID=image.SOPClassUID, ReferencedSOPInstanceUID=image.SOPInstanceUID)
        ],
        ContourGeometricType="CLOSED_PLANAR",
        NumberOfContourPoints=len(points),
        ContourData=[f"{value:.4f}" for value in points.ravel()],
    )


def circle(image: Dataset, centre: tuple[float, float], radius: float, points: int = 60) -> np.ndarray:
    """A circle in the plane of an axial slice, around (x, y) in mm from its first pixel."""
    angles = np.linspace(0, 2 * np.pi, points, endpoint=False)
    x, y, z = (float(value) for value in image.ImagePositionPatient)
    across = x + centre[0] + radius * np.cos(angles)
    return np.stack([across, y + centre[1] + radius * np.sin(angles), np.full(points, z)], axis=1)


def _changed(made: Dataset, more: Mapping[str, Any]) -> Dataset:
    for name, value in more.items():
        if value is None:
            delattr(made, name)
        else:
            setattr(made, name, value)
    return made
