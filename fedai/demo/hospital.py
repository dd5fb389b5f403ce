"""Invented hospitals as a PACS would export them: DICOM files, a label table, and identities everywhere.

`write_hospital` writes one hospital and returns what it planted, so that a leak search has something to
look for. `write_image` writes one plain DICOM file around any grey picture. Besides intake and
de-identification this is the only module that uses pydicom; it opens no file of a real patient.
"""

from __future__ import annotations

import csv
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

from fedai.demo.exposures import (
    BIG_ENDIAN,
    CLASSES,
    EXPLICIT,
    HOSPITALS,
    JPEG2000,
    RLE,
    Exposure,
    Hospital,
    make_uid,
    plan_exposures,
    seen_at,
)
from fedai.demo.lettering import burn_in
from fedai.demo.names import dotted
from fedai.demo.phantom import Nodule, draw_anatomy, draw_nodules, radiograph
from fedai.errors import ConfigError

STRANGERS = 2  # rows of a label table that match no file
_FEW = 40  # files; fewer are written without further processes
_CR = "1.2.840.10008.5.1.4.1.1.1"
_DX = "1.2.840.10008.5.1.4.1.1.1.1"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Planted:
    """What a hospital contains. `identifiers` are all planted texts that name somebody, 5 characters or more.

    `images` is the folder of the export, `labels` the CSV file beside it. `files` counts all files of the
    export: `labelled` images with a label, `unlabelled` ones, `duplicates` of another file's object, and
    `broken` ones.
    """

    identifiers: tuple[str, ...]
    images: Path
    labels: Path
    labelled: int
    unlabelled: int
    duplicates: int
    broken: int

    @property
    def files(self) -> int:
        return self.labelled + self.unlabelled + self.duplicates + self.broken


def write_hospital(
    folder: Path,
    name: str,
    *,
    patients: int,
    seed: int,
    images_per_patient: tuple[int, int] = (1, 3),
    workers: int = 2,
    progress: Progress | None = None,
) -> Planted:
    """Writes hospital `name` ("north", "east" or "south"): `folder`/export/... and `folder`/labels.csv.

    `patients` of them are labelled; a few more are not, and a few files are broken. The same arguments give
    the same bytes, whatever `workers` (processes) is. `progress(done, all)` is called after each image.
    Raises ConfigError for an unknown name, or for more patients than there are names.
    """
    hospital = _find_hospital(name)
    try:
        plan = plan_exposures(hospital, patients, seed, images_per_patient)
    except ValueError as error:
        raise ConfigError(str(error), hint="ask for fewer patients") from error
    images, labels = folder / "export", folder / "labels.csv"
    _write_all(images, plan, workers, progress)
    strangers = _write_labels(labels, hospital.label_key, plan)
    broken = _write_broken(images, plan)
    labelled = sum(bool(exposure.label) for exposure in plan)
    texts = {text for exposure in plan for text in exposure.identifiers} | {*hospital.identifiers, *strangers}
    return Planted(tuple(sorted(texts)), images, labels, labelled, len(plan) - labelled, 1, broken)


def write_image(
    path: Path,
    pixels: NDArray[Any],
    *,
    patient: str,
    name: str = "",
    study_uid: str = "",
    series_uid: str = "",
    sop_uid: str = "",
    accession: str = "",
    bits: int | None = None,
    monochrome1: bool = False,
) -> str:
    """Writes `pixels` (uint8 or uint16 [rows, columns]) as a CR image and returns its SOPInstanceUID.

    `patient` is the PatientID; UIDs that are not given follow from it and the file's name. `bits` is the
    number of bits in use (by default all of the type's). Explicit little endian.
    """
    study, series, sop = (
        make_uid("image", kind, patient, path.name) for kind in ("study", "series", "object")
    )
    dataset = _start(_CR, sop_uid or sop, "ISO_IR 192")
    _set(dataset, PatientName=name, PatientID=patient, PatientBirthDate="", PatientSex="")
    _set(dataset, StudyInstanceUID=study_uid or study, SeriesInstanceUID=series_uid or series)
    _set(
        dataset, StudyDate="", StudyTime="", StudyID="", AccessionNumber=accession, ReferringPhysicianName=""
    )
    _set(dataset, Modality="CR", BodyPartExamined="CHEST", ViewPosition="PA", PatientOrientation=["L", "F"])
    _set(dataset, Manufacturer="fedai phantom", SeriesNumber=1, InstanceNumber=1)
    _set_pixels(dataset, pixels, bits or pixels.dtype.itemsize * 8, monochrome1=monochrome1)
    _save(dataset, path, EXPLICIT)
    return str(dataset.SOPInstanceUID)


# ---------------------------------------------------------------- the files of a hospital


def _find_hospital(name: str) -> Hospital:
    if name not in HOSPITALS:
        raise ConfigError(f"no hospital is called {name!r}", hint=f"there are {', '.join(HOSPITALS)}")
    return HOSPITALS[name]


def _write_all(folder: Path, plan: Sequence[Exposure], workers: int, progress: Progress | None) -> None:
    jobs = [(folder / exposure.path, exposure) for exposure in plan]
    if workers < 2 or len(jobs) < _FEW:
        _count(map(_write_exposure, jobs), len(jobs), progress)
        return
    with _start_pool(workers) as pool:
        _count(pool.imap_unordered(_write_exposure, jobs, chunksize=8), len(jobs), progress)


def _start_pool(workers: int) -> Pool:
    """Processes that never see Ctrl-C, from their first instruction on; it can't cut their start in two."""
    resource_tracker.ensure_running()  # its own start would let the signal through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited by whom it starts
    try:
        return multiprocessing.get_context("spawn").Pool(workers)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _count(done: Iterable[None], total: int, progress: Progress | None) -> None:
    for number, _ in enumerate(done, start=1):
        if progress:
            progress(number, total)


def _write_exposure(job: tuple[Path, Exposure]) -> None:
    path, exposure = job
    dataset = _describe(exposure)
    hospital = HOSPITALS[exposure.hospital]
    _set_pixels(dataset, _picture(exposure), hospital.scanner.bits, monochrome1=hospital.scanner.monochrome1)
    _save(dataset, path, exposure.syntax, exposure)


def _write_labels(path: Path, key: str, plan: Sequence[Exposure]) -> list[str]:
    """The label table; returns the keys of the rows that match no file."""
    rows = {exposure.key(key): exposure.label for exposure in plan if exposure.label}
    strangers = [f"{plan[0].person.patient_id}-gone{n}" for n in range(STRANGERS)]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([key, "label"])
        writer.writerows({**rows, **dict.fromkeys(strangers, CLASSES[0])}.items())
    return strangers


def _write_broken(folder: Path, plan: Sequence[Exposure]) -> int:
    """Files as they lie about in real exports: one good copy, and useless ones, whose number is returned."""
    first, last = plan[0], plan[-1]
    place, whole = folder / "LOST+FOUND", (folder / last.path).read_bytes()
    place.mkdir(parents=True, exist_ok=True)
    (folder / f"Copy of {first.person.family}.dcm").write_bytes((folder / first.path).read_bytes())
    note = f"{last.person.label}, {last.person.phone}: please call back.\n"
    useless = {f"{last.person.family} cut off.dcm": whole[: len(whole) * 3 // 5], "EMPTY.dcm": b""}
    useless[f"{last.person.given} note.txt"] = note.encode()
    for name, content in useless.items():
        (place / name).write_bytes(content)
    _save(_describe(last), place / "NOPIXELS.dcm", EXPLICIT)
    short = _describe(last)
    _set_pixels(short, np.zeros((512, 512), np.uint16), 12, monochrome1=False)
    short.PixelData = short.PixelData[:-1024]
    _save(short, place / "SHORT.dcm", EXPLICIT)
    return len(useless) + 2


# ---------------------------------------------------------------- one image


def _picture(exposure: Exposure) -> NDArray[np.uint16]:
    """The radiograph with the patient's name, ID and dates burned in, uint16 [512, 512]."""
    hospital = HOSPITALS[exposure.hospital]
    rng = np.random.default_rng(exposure.seed)
    anatomy = draw_anatomy(rng)
    drawn = draw_nodules(rng, anatomy, exposure.nodules, seen_at(hospital))
    nodules = tuple(_grow(nodule, exposure.growth) for nodule in drawn)
    pixels = radiograph(
        np.random.default_rng((*exposure.seed, exposure.number)), hospital.scanner, nodules, anatomy
    )
    person = exposure.person
    lines = (f"{person.family}, {person.given}", f"{person.patient_id} {dotted(person.birth)}")
    white = 0 if hospital.scanner.monochrome1 else 2**hospital.scanner.bits - 1
    burn_in(pixels, lines, white, corner=hospital.corner)
    return pixels


def _grow(nodule: Nodule, factor: float) -> Nodule:
    return Nodule(nodule.x, nodule.y, nodule.radius * factor, nodule.contrast)


def _describe(exposure: Exposure) -> Dataset:
    """The header of an exposure, identities and all, without pixels."""
    hospital = HOSPITALS[exposure.hospital]
    dataset = _start(_DX if hospital.modality == "DX" else _CR, exposure.sop_uid, hospital.charset)
    _set_patient(dataset, exposure)
    _set_study(dataset, exposure)
    _set_equipment(dataset, exposure, hospital)
    _set_history(dataset, exposure, hospital)
    _set_private(dataset, exposure)
    if hospital.modality == "DX":
        _set_digital(dataset, hospital)
    return dataset


def _start(sop_class: str, sop_uid: str, charset: str) -> Dataset:
    dataset = Dataset()
    _set(dataset, SpecificCharacterSet=charset, SOPClassUID=sop_class, SOPInstanceUID=sop_uid)
    return dataset


def _set(dataset: Dataset, **values: Any) -> None:
    for keyword, value in values.items():
        setattr(dataset, keyword, value)


def _item(**values: Any) -> Dataset:
    dataset = Dataset()
    _set(dataset, **values)
    return dataset


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    return _item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def _set_patient(dataset: Dataset, exposure: Exposure) -> None:
    person = exposure.person
    _set(dataset, PatientName=person.name, PatientID=person.patient_id, PatientBirthDate=person.birth)
    _set(dataset, PatientSex=person.sex, PatientAge=f"{int(exposure.date[:4]) - int(person.birth[:4]):03d}Y")
    _set(dataset, PatientAddress=person.street, PatientTelephoneNumbers=person.phone)
    _set(dataset, PatientMotherBirthName=person.relative.replace(" ", "^"))
    dataset.PatientComments = (
        f"{person.label}, born {dotted(person.birth)}; call {person.relative} at {person.phone}"
    )
    dataset.AdditionalPatientHistory = f"{person.native.replace('^', '') or person.label}: cough since spring"
    dataset.OtherPatientIDsSequence = [_item(PatientID=person.other_id, TypeOfPatientID="TEXT")]


def _set_study(dataset: Dataset, exposure: Exposure) -> None:
    person = exposure.person
    _set(dataset, StudyInstanceUID=exposure.study_uid, SeriesInstanceUID=exposure.series_uid)
    for part in ("Study", "Series", "Acquisition", "Content"):
        _set(dataset, **{f"{part}Date": exposure.date, f"{part}Time": f"1{exposure.number % 10}3015"})
    _set(dataset, StudyID=str(exposure.number), AccessionNumber=exposure.accession)
    _set(dataset, ReferringPhysicianName=exposure.referrer, OperatorsName=exposure.operator)
    _set(dataset, StudyDescription=f"Chest PA {person.family}", SeriesDescription=f"PA {person.given}")
    _set(dataset, SeriesNumber=1, InstanceNumber=exposure.number, PatientOrientation=["L", "F"])
    dataset.ImageComments = f"Compared with the earlier film of {person.label} ({person.patient_id})"


def _set_equipment(dataset: Dataset, exposure: Exposure, hospital: Hospital) -> None:
    scanner = hospital.scanner
    _set(dataset, Modality=hospital.modality, BodyPartExamined="CHEST", ViewPosition="PA")
    _set(
        dataset,
        Manufacturer="fedai phantom",
        ManufacturerModelName=f"Invented {hospital.modality} {scanner.bits}",
    )
    _set(dataset, InstitutionName=hospital.title, InstitutionAddress=hospital.address)
    _set(dataset, StationName=hospital.device[0], DeviceSerialNumber=hospital.device[1], KVP="120")
    _set(dataset, ImagerPixelSpacing=[round(0.7 * scanner.field_of_view, 3)] * 2, BurnedInAnnotation="YES")


def _set_history(dataset: Dataset, exposure: Exposure, hospital: Hospital) -> None:
    """Identities that sit inside sequences, down to the second level."""
    person = exposure.person
    desk = _item(
        PersonIdentificationCodeSequence=[_code("q-" + exposure.accession, "99FEDAI", exposure.referrer)],
        InstitutionName=hospital.title,
    )
    request = _item(
        RequestedProcedureID=f"RP{exposure.number}",
        RequestedProcedureDescription=f"Nodule? {person.label}",
        ScheduledProcedureStepID=f"SP{exposure.number}",
        ScheduledProcedureStepDescription=f"{person.given}, bed by the window",
        AccessionNumber=exposure.accession,
    )
    before = _item(PatientName=person.name, PatientID=person.other_id)
    change = _item(
        ModifiedAttributesSequence=[before],
        AttributeModificationDateTime=exposure.date + "120000",
        ModifyingSystem=hospital.device[0],
        SourceOfPreviousValues=hospital.title,
        ReasonForTheAttributeModification="COERCE",
    )
    _set(dataset, ReferringPhysicianIdentificationSequence=[desk], RequestAttributesSequence=[request])
    dataset.OriginalAttributesSequence = [change]


def _set_private(dataset: Dataset, exposure: Exposure) -> None:
    """A private block with the name as text, as bytes and inside a private sequence."""
    person = exposure.person
    block = dataset.private_block(0x0029, "INVENTED PACS 1.0", create=True)
    block.add_new(0x01, "LO", person.label)
    block.add_new(0x02, "OB", _even(person.label.encode() + b"\0" + person.phone.encode()))
    block.add_new(0x03, "SQ", [_item(PatientName=person.name, PatientID=person.patient_id)])


def _even(content: bytes) -> bytes:
    return content + b"\0" * (len(content) % 2)


def _set_digital(dataset: Dataset, hospital: Hospital) -> None:
    """What the DX image IOD asks for beyond CR (PS3.3 section A.26)."""
    chest = _code("51185008", "SCT", "Chest")
    view = _code("399348003", "SCT", "postero-anterior")
    view.ViewModifierCodeSequence = []
    _set(dataset, PresentationIntentType="FOR PRESENTATION", ImageType=["ORIGINAL", "PRIMARY", ""])
    _set(dataset, ImageLaterality="U", AnatomicRegionSequence=[chest], ViewCodeSequence=[view])
    _set(dataset, PixelIntensityRelationship="LOG", PixelIntensityRelationshipSign=-1)
    _set(dataset, RescaleIntercept="0", RescaleSlope="1", RescaleType="US", PresentationLUTShape="IDENTITY")
    _set(
        dataset,
        LossyImageCompression="00",
        DetectorType="SCINTILLATOR",
        AcquisitionContextSequence=[],
        PositionerType="",
    )
    levels = 2**hospital.scanner.bits
    _set(dataset, WindowCenter=str(levels // 2), WindowWidth=str(levels))


def _set_pixels(dataset: Dataset, pixels: NDArray[Any], bits: int, *, monochrome1: bool) -> None:
    _set(
        dataset, SamplesPerPixel=1, PhotometricInterpretation="MONOCHROME1" if monochrome1 else "MONOCHROME2"
    )
    _set(dataset, Rows=pixels.shape[0], Columns=pixels.shape[1], BitsAllocated=pixels.dtype.itemsize * 8)
    _set(dataset, BitsStored=bits, HighBit=bits - 1, PixelRepresentation=0)
    dataset.PixelData = _even(np.ascontiguousarray(pixels).tobytes())
    dataset["PixelData"].VR = "OB" if pixels.dtype.itemsize == 1 else "OW"


def _save(dataset: Dataset, path: Path, syntax: str, exposure: Exposure | None = None) -> None:
    """Writes a file in the given transfer syntax; an exposure's texts go into preamble and file meta too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = UID(EXPLICIT if syntax in (JPEG2000, RLE) else syntax)
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
        dataset.SOPClassUID,
        dataset.SOPInstanceUID,
    )
    dataset.file_meta, dataset.preamble = meta, b"\0" * 128
    if exposure:
        meta.SourceApplicationEntityTitle = exposure.accession
        dataset.preamble = exposure.person.label.encode()[:128].ljust(128, b"\0")
    if syntax in (JPEG2000, RLE):
        dataset.compress(UID(syntax), generate_instance_uid=False)
    if syntax == BIG_ENDIAN:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").byteswap().tobytes()
    dataset.save_as(path, enforce_file_format=True)
