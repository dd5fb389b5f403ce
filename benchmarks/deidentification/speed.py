"""CT slices of 561 kB for the measurement of speed, and what the driver's seconds mean."""

from __future__ import annotations

from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from pydicom.uid import UID

from benchmarks.deidentification.identities import SCRIPTS, person
from benchmarks.deidentification.objects import invent
from benchmarks.deidentification.places import encode, patient, private
from benchmarks.deidentification.plants import Hand

BYTES = 561_000


def write_slices(folder: Path, count: int) -> None:
    """One series, 512 by 512 at 16 bits, with a patient, private blocks and a payload as vendors have."""
    folder.mkdir(parents=True, exist_ok=True)
    someone = person(Random("speed"), SCRIPTS[0])
    for number in range(count):
        item = invent("CT", Random(number), side=512)
        item.StudyInstanceUID, item.SeriesInstanceUID = UID("1.2.410.4.1"), UID("1.2.410.4.2")
        item.SOPInstanceUID = item.file_meta.MediaStorageSOPInstanceUID = UID(f"1.2.410.4.3.{number}")
        hand = Hand(Random(number), someone, someone.first_study)
        patient(item, hand)
        private(item, hand)
        rest = BYTES - len(encode(item)) - 12
        item.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(
            0x20, "OB", bytes(rest - rest % 2)
        )
        (folder / f"{number:04}.dcm").write_bytes(encode(item))


def ratio(told: dict[str, Any]) -> dict[str, float]:
    """Files a second of tool and plain copy (medians over the rounds), and how they compare."""
    tool, plain = (told["files"] / median(told[name]) for name in ("tool", "plain"))
    return {"files_per_second": tool, "plain": plain, "ratio": tool / plain}
