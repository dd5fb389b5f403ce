"""The images: read, shared out unevenly over the sites, written as DICOM, each of a patient of its own."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.federation import Export
from fedai.demo.hospital import write_image
from fedai.errors import DataError

WHERE = Path(__file__).parents[3] / "shared" / "data" / "mednist" / "mednist_600_per_class.npz"
ATTRIBUTION = (
    "Images: MedNIST, assembled from TCIA, the RSNA Bone Age Challenge and the NIH chest X-ray data; "
    "made available by Dr. Bradley J. Erickson, Department of Radiology, Mayo Clinic, under CC BY-SA 4.0."
)
SKEW = 0.5  # concentration of the Dirichlet distribution over sites; small is uneven
SEED = 32


@dataclass(frozen=True)
class Images:
    """`pixels` uint8 [N, rows, columns], `labels` int [N] into `classes`."""

    pixels: NDArray[np.uint8]
    labels: NDArray[Any]
    classes: tuple[str, ...]


def read_images(path: Path, per_class: int | None = None) -> Images:
    """`images`, `labels`, `classes` of an .npz file; the first `per_class` of each. Raises DataError."""
    try:
        with np.load(path, allow_pickle=False) as data:
            pixels, labels = data["images"], data["labels"].astype(np.int64)
            classes = tuple(str(name) for name in data["classes"])
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"no images can be read there: {error}", where=str(path)) from None
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or labels.shape != pixels.shape[:1]:
        raise DataError("images must be uint8 [N, rows, columns], with a label each", where=str(path))
    chosen = [np.flatnonzero(labels == number)[:per_class] for number in range(len(classes))]
    kept = np.sort(np.concatenate(chosen))
    return Images(pixels[kept], labels[kept], classes)


def share_out(
    labels: NDArray[Any], sites: int, *, skew: float = SKEW, seed: int = SEED
) -> list[NDArray[np.int64]]:
    """Indices of each site's images, each index once: a Dirichlet draw for each class says who gets what."""
    rng = np.random.default_rng(seed)
    names = np.unique(labels)
    shares = rng.dirichlet([skew] * sites, size=len(names))
    parts: list[list[NDArray[np.int64]]] = [[] for _ in range(sites)]
    for name, share in zip(names, shares, strict=True):
        members = rng.permutation(np.flatnonzero(labels == name))
        cuts = np.round(np.cumsum(share)[:-1] * len(members)).astype(int)
        for part, piece in zip(parts, np.split(members, cuts), strict=True):
            part.append(piece)
    return [np.sort(np.concatenate(part)) for part in parts]


def write_export(folder: Path, site: str, images: Images, chosen: NDArray[np.int64]) -> Export:
    """A folder of DICOM files and a table of labels. The patients are invented, one an image."""
    rows = []
    for number in chosen:
        patient = f"{site}-{number:05d}"
        write_image(folder / "images" / f"{number:05d}.dcm", images.pixels[number], patient=patient)
        rows.append((patient, images.classes[images.labels[number]]))
    labels = folder / "labels.csv"
    with labels.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("PatientID", "label"), *rows])
    return Export(folder / "images", labels)
