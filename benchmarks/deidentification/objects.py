"""Invented objects of many kinds, valid enough for readers, without any identifier yet."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

STORAGE = "1.2.840.10008.5.1.4.1.1."
CLASSES = {
    "CT": "2", "CR": "1", "DX": "1.1", "MR": "4", "US": "6.1", "SC": "7", "PT": "128", "NM": "20",
    "XA": "12.1",
    "MG": "1.2", "RTSTRUCT": "481.3", "RTPLAN": "481.5", "SR": "88.33", "ECG": "9.1.1", "KO": "88.59",
    "PR": "11.1", "RTDOSE": "481.2", "OP": "77.1.5.1", "ENHANCED CT": "2.1", "US MULTI": "3.1",
    "VL": "77.1.4",
    "PDF": "104.1", "RAW": "66", "SEG": "66.4",
}  # fmt: skip
MODALITY = {"PDF": "OT", "RAW": "OT", "SC": "OT", "ENHANCED CT": "CT", "US MULTI": "US", "VL": "XC"}
COLOUR = frozenset({"US", "SC", "OP", "US MULTI", "VL"})
WITHOUT_PIXELS = frozenset({"PDF", "RAW", "RTSTRUCT", "RTPLAN", "SR", "ECG", "KO", "PR"})


def invent(kind: str, random: Random, side: int = 64) -> Dataset:
    """An object of this kind (a key of CLASSES), with pixels where the kind has them, without UIDs."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = STORAGE + CLASSES[kind]
    made.Modality = MODALITY.get(kind, kind)
    made.Manufacturer = random.choice(("SIEMENS", "GE MEDICAL SYSTEMS", "Philips", "Canon"))
    made.SeriesNumber, made.InstanceNumber = random.randrange(1, 9), random.randrange(1, 200)
    if kind not in WITHOUT_PIXELS:
        made.ImageType = (
            ["ORIGINAL", "PRIMARY", "AXIAL"] if kind in ("CT", "MR", "PT") else ["DERIVED", "PRIMARY"]
        )
        made.BodyPartExamined = random.choice(("CHEST", "ABDOMEN", "PELVIS"))
        _pixels(made, kind, random, side)
    MORE.get(kind, lambda _: None)(made)
    return made


def _pixels(made: Dataset, kind: str, random: Random, side: int) -> None:
    frames = 3 if kind in ("US MULTI", "ENHANCED CT", "NM") else 1
    made.Rows = made.Columns = side
    made.SamplesPerPixel = 3 if kind in COLOUR else 1
    made.PhotometricInterpretation = "RGB" if kind in COLOUR else "MONOCHROME2"
    if kind in COLOUR:
        made.PlanarConfiguration = 0
    bits = 8 if kind in COLOUR else 12
    made.BitsAllocated, made.BitsStored, made.HighBit = (8, 8, 7) if bits == 8 else (16, 12, 11)
    made.PixelRepresentation = 0
    if frames > 1:
        made.NumberOfFrames = frames
    made.PixelData = image(random, frames, side, made.SamplesPerPixel, bits).tobytes()
    made["PixelData"].VR = "OB" if bits == 8 else "OW"


def image(random: Random, frames: int, side: int, samples: int, bits: int) -> NDArray[np.uint16 | np.uint8]:
    """A body in the middle of a dark field with noise; uint8 or uint16 [frames, side, side, samples]."""
    noise = np.random.default_rng(random.randrange(2**32))
    rows, columns = np.mgrid[0:side, 0:side] / side - 0.5
    body = ((rows / 0.4) ** 2 + (columns / 0.3) ** 2 < 1) * (0.45 + 0.1 * np.sin(14 * rows + 9 * columns))
    values = body[None, :, :, None] + noise.normal(0.04, 0.01, (frames, side, side, samples))
    scaled = np.clip(values, 0, 1) * (2**bits - 1)
    return scaled.astype(np.uint8 if bits == 8 else np.uint16)


def _item(**attributes: object) -> Dataset:
    item = Dataset()
    for name, value in attributes.items():
        setattr(item, name, value)
    return item


def code(value: str, scheme: str, meaning: str) -> Dataset:
    return _item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def _ct(made: Dataset) -> None:
    made.PixelSpacing, made.SliceThickness, made.KVP = ["0.7", "0.7"], "5", "120"
    made.ImagePositionPatient, made.ImageOrientationPatient = ["0", "0", "0"], ["1", "0", "0", "0", "1", "0"]
    made.RescaleIntercept, made.RescaleSlope, made.PatientPosition = "-1024", "1", "HFS"


def _structures(made: Dataset) -> None:
    made.StructureSetLabel = "plan"
    region = _item(ROINumber=1, ROIName="heart", ROIGenerationAlgorithm="MANUAL")
    made.StructureSetROISequence = Sequence([region])
    contour = _item(ContourGeometricType="POINT", NumberOfContourPoints=1, ContourData=["1", "2", "3"])
    made.ROIContourSequence = Sequence([_item(ReferencedROINumber=1, ContourSequence=Sequence([contour]))])
    made.RTROIObservationsSequence = Sequence([_item(ObservationNumber=1, ReferencedROINumber=1)])


def _plan(made: Dataset) -> None:
    made.RTPlanLabel, made.RTPlanGeometry = "plan", "PATIENT"
    made.BeamSequence = Sequence([_item(BeamNumber=1, BeamName="left", BeamType="STATIC")])


def _report(made: Dataset) -> None:
    made.CompletionFlag, made.VerificationFlag, made.ValueType = "COMPLETE", "UNVERIFIED", "CONTAINER"
    made.ContinuityOfContent = "SEPARATE"
    made.ConceptNameCodeSequence = Sequence([code("18782-3", "LN", "Radiology Study observation")])
    text = _item(RelationshipType="CONTAINS", ValueType="TEXT", TextValue="normal")
    text.ConceptNameCodeSequence = Sequence([code("121071", "DCM", "Finding")])
    made.ContentSequence = Sequence([text])


def _waveform(made: Dataset) -> None:
    group = _item(
        WaveformOriginality="ORIGINAL", NumberOfWaveformChannels=1, NumberOfWaveformSamples=8,
        SamplingFrequency="500", WaveformBitsAllocated=16, WaveformSampleInterpretation="SS",
    )  # fmt: skip
    group.add_new(0x54001010, "OW", bytes(range(16)))
    made.WaveformSequence = Sequence([group])


def _presentation(made: Dataset) -> None:
    made.ContentLabel, made.PresentationLUTShape = "STATE", "IDENTITY"


MORE: dict[str, Callable[[Dataset], None]] = {
    "CT": _ct, "MR": _ct, "PT": _ct, "RTSTRUCT": _structures, "RTPLAN": _plan, "SR": _report, "KO": _report,
    "ECG": _waveform, "PR": _presentation,
}  # fmt: skip
