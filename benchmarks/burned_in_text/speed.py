"""`python -m benchmarks.burned_in_text.speed`: CPU seconds of searching and cleaning one object of 512 x 512
pixels.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pydicom
from fedai_site.deidentify.pixels import PixelFacts, clean_pixels
from fedai_site.quarantine import Quarantine
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from benchmarks.burned_in_text.corpus import case
from benchmarks.burned_in_text.real import pictures

SIDE = 512
GATES = {
    "full": PixelFacts(),
    "fast": PixelFacts(sop_class="1.2.840.10008.5.1.4.1.1.2", image_type=("ORIGINAL", "PRIMARY", "AXIAL")),
}


def image(grey: NDArray[np.uint8]) -> Dataset:
    """The picture, (SIDE, SIDE), as an object of 12 bits in 16."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.Rows = dataset.Columns = SIDE
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelData = (grey.astype("<u2") * 16).tobytes()
    dataset["PixelData"].VR = "OW"
    return dataset


def seconds(grey: NDArray[np.uint8], facts: PixelFacts) -> float:
    """CPU seconds to clean one picture, whatever comes of it."""
    dataset = image(grey)
    started = time.process_time()
    with suppress(Quarantine):
        clean_pixels(dataset, facts)
    return time.process_time() - started


def main() -> int:
    """Print one line for each gate, without text and with."""
    site_packages = Path(pydicom.__file__).parents[1]
    real = pictures("bench", (site_packages / "pydicom", site_packages / "data_store"))
    seconds(np.zeros((SIDE, SIDE), np.uint8), GATES["full"])  # loads torch
    for gate, facts in GATES.items():
        for kind in ("none", "text"):
            taken = []
            for number, name in enumerate(sorted(real)):
                grey = case(np.random.default_rng(number), kind, name, real[name]).picture
                around = [(0, max(0, SIDE - side)) for side in grey.shape]
                taken.append(seconds(np.pad(grey, around, mode="symmetric")[:SIDE, :SIDE], facts))
            print(f"{gate} pass, {kind:4}: {np.mean(taken):.2f} s (median {np.median(taken):.2f})")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
