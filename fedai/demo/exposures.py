"""Three invented hospitals, and who is examined there when: the plan that `hospital` writes out as files."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedai.demo.names import Person, draw_people, draw_physicians
from fedai.demo.phantom import Disease, Scanner

CLASSES = ("clear", "nodule")
DENSE = Disease(radius=(0.045, 0.065), contrast=(0.40, 0.55))
FAINT = Disease(radius=(0.12, 0.16), contrast=(0.14, 0.20))
HOLLOW = Disease(radius=(0.07, 0.10), contrast=(-0.38, -0.25))
OWN = 0.9  # share of a hospital's nodules that are of the kind it mostly sees; the rest are of the two others
UNLABELLED = 4  # patients of each hospital whose label is missing

EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
JPEG2000 = "1.2.840.10008.1.2.4.90"
RLE = "1.2.840.10008.1.2.5"


@dataclass(frozen=True)
class Hospital:
    """What is particular to one hospital.

    `label_key` is the DICOM keyword of its label table; the transfer `syntaxes` are used in turn; `earlier`
    is the probability that a sick patient's first image of several still shows nothing. `disease`: the
    kind of nodule that most of its patients have; what a hospital rarely sees it learns from the others.
    """

    name: str
    title: str
    address: str
    device: tuple[str, str]  # StationName, DeviceSerialNumber
    prefix: str
    language: str
    charset: str
    modality: str
    scanner: Scanner
    disease: Disease
    label_key: str
    earlier: float
    corner: str
    syntaxes: tuple[str, ...]

    @property
    def identifiers(self) -> tuple[str, ...]:
        return (self.title, self.address, *self.device)


_NORTH = Hospital(
    name="north",
    title="Frostvik Östhamra Lasarett",
    address="Klyvargatan 77, Östhamra-Frostvik",
    device=("RÖNTG-FV2", "SNx48-7719q"),
    prefix="FRÖ-7K",
    language="nordic",
    charset="ISO_IR 192",
    modality="CR",
    scanner=Scanner(gamma=0.9, gain=0.8, noise=0.012, kernel=0.7, bits=12, prevalence=0.50),
    disease=DENSE,
    label_key="PatientID",
    earlier=0.0,
    corner="top left",
    syntaxes=(EXPLICIT,) * 9 + (IMPLICIT,),
)
_EAST = Hospital(
    name="east",
    title="해오름별빛의료원 Haeoreum Starlight",
    address="해오름별빛로 8-31",
    device=("HBM-DX-BYEOL1", "DRq/2209-e"),
    prefix="HBM.Q",
    language="korean",
    charset="ISO_IR 192",
    modality="DX",
    scanner=Scanner(
        gamma=0.92,
        gain=0.78,
        offset=0.1,
        noise=0.014,
        kernel=0.3,
        field_of_view=0.97,
        grid_period=3.4,
        grid_strength=0.008,
        bits=14,
        prevalence=0.35,
    ),
    disease=FAINT,
    label_key="AccessionNumber",
    earlier=0.15,
    corner="bottom right",
    syntaxes=(EXPLICIT,) * 8 + (JPEG2000, DEFLATED),
)
_SOUTH = Hospital(
    name="south",
    title="Clínica Valdemórreo-Sûr",
    address="Paseo Ñandubay 1904, Valdemórreo",
    device=("VALDEM_RX3", "zk.0081.CVS"),
    prefix="CVS_9z",
    language="latin",
    charset="ISO_IR 100",
    modality="CR",
    scanner=Scanner(
        gamma=1.0,
        gain=0.75,
        offset=0.02,
        noise=0.016,
        kernel=0.9,
        field_of_view=1.03,
        bits=10,
        monochrome1=True,
        prevalence=0.25,
    ),
    disease=HOLLOW,
    label_key="SOPInstanceUID",
    earlier=0.15,
    corner="bottom left",
    syntaxes=(EXPLICIT,) * 18 + (RLE, BIG_ENDIAN),
)
HOSPITALS = {hospital.name: hospital for hospital in (_NORTH, _EAST, _SOUTH)}


def seen_at(hospital: Hospital) -> tuple[Disease, ...]:
    """The kinds of nodules there, each as often as it occurs, in twentieths."""
    others = [other.disease for other in HOSPITALS.values() if other.disease is not hospital.disease]
    return (hospital.disease,) * round(20 * OWN) + tuple(others)


@dataclass(frozen=True)
class Exposure:
    """One image to be made, with all that it will say about its patient. `path` is relative to the export."""

    hospital: str
    path: Path
    person: Person
    date: str  # YYYYMMDD
    study_uid: str
    series_uid: str
    sop_uid: str
    accession: str
    referrer: str
    operator: str
    number: int
    syntax: str
    label: str  # "" for none
    nodules: int
    growth: float
    seed: tuple[int, ...]  # of the patient; the image's is (*seed, number)

    @property
    def identifiers(self) -> tuple[str, ...]:
        own = (self.study_uid, self.series_uid, self.sop_uid, self.accession, self.referrer, self.operator)
        return self.person.identifiers + own

    def key(self, keyword: str) -> str:
        """Its key in a label table by `keyword`: PatientID, AccessionNumber or SOPInstanceUID."""
        keys = {"PatientID": self.person.patient_id, "AccessionNumber": self.accession}
        return keys.get(keyword, self.sop_uid)


@dataclass(frozen=True)
class _Patient:
    person: Person
    seed: tuple[int, ...]
    nodules: int
    images: int
    labelled: bool


def plan_exposures(
    hospital: Hospital, patients: int, seed: int, images_per_patient: tuple[int, int]
) -> tuple[Exposure, ...]:
    """All exposures of a hospital, patient by patient; `UNLABELLED` patients come on top, without a label.

    Raises ValueError when the hospital hasn't as many different names to give.
    """
    key = (seed, zlib.crc32(hospital.name.encode()))
    rng = np.random.default_rng(key)
    people = draw_people(rng, hospital.language, hospital.prefix, patients + UNLABELLED)
    doctors = draw_physicians(rng, hospital.language, 12)
    nodules = _draw_disease(rng, hospital.scanner.prevalence, patients)
    plan: list[Exposure] = []
    for index, person in enumerate(people):
        images = int(rng.integers(images_per_patient[0], images_per_patient[1] + 1))
        patient = _Patient(person, (*key, index), nodules[index], images, index < patients)
        plan += _plan_patient(rng, hospital, patient, doctors, len(plan))
    return tuple(plan)


def _draw_disease(rng: np.random.Generator, prevalence: float, patients: int) -> list[int]:
    """Nodules of each patient: the share that has any is exact among the labelled ones."""
    nodules = np.zeros(patients + UNLABELLED, int)
    sick = rng.permutation(patients)[: round(prevalence * patients)]
    nodules[sick] = rng.choice([1, 2, 3], len(sick), p=[0.5, 0.3, 0.2])
    return [int(n) for n in nodules]


def _plan_patient(
    rng: np.random.Generator, hospital: Hospital, patient: _Patient, doctors: Sequence[str], before: int
) -> list[Exposure]:
    """One study a year; `before` is how many exposures the plan has already."""
    course = [patient.nodules] * patient.images
    if patient.images > 1 and rng.uniform() < hospital.earlier:
        course[0] = 0
    year, rest = int(rng.integers(2018, 2023)), f"{rng.integers(1, 13):02d}{rng.integers(1, 29):02d}"
    accession = f"{hospital.name[0].upper()}q{rng.integers(0, 16**6):06x}"
    return [
        _plan_image(
            rng, hospital, patient, number, nodules, f"{year + number}{rest}", accession, doctors, before
        )
        for number, nodules in enumerate(course, start=1)
    ]


def _plan_image(
    rng: np.random.Generator,
    hospital: Hospital,
    patient: _Patient,
    number: int,
    nodules: int,
    date: str,
    accession: str,
    doctors: Sequence[str],
    before: int,
) -> Exposure:
    person, marks = patient.person, [str(part) for part in (*patient.seed, number)]
    folder = Path(f"{person.native or person.label}_{person.patient_id}") / f"{date}_{hospital.modality}"
    return Exposure(
        hospital=hospital.name,
        path=folder / f"{person.family}_IM{number:04d}.dcm",
        person=person,
        date=date,
        study_uid=make_uid("study", *marks),
        series_uid=make_uid("series", *marks),
        sop_uid=make_uid("object", *marks),
        accession=f"{accession}.{number}",
        referrer=str(rng.choice(doctors[:8])),
        operator=str(rng.choice(doctors[8:])),
        number=number,
        syntax=hospital.syntaxes[(before + number) % len(hospital.syntaxes)],
        label=CLASSES[min(nodules, 1)] if patient.labelled else "",
        nodules=nodules,
        growth=1 + 0.06 * number,
        seed=patient.seed,
    )


def make_uid(*parts: str) -> str:
    """A UID that follows from the parts alone: 2.25 and a number of 128 bits (PS3.5 section B.2)."""
    digest = hashlib.sha256("\x1f".join(parts).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16])}"
