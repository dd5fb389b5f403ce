"""What the original header says about its pixels: enough to decide how closely they are looked at."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from fedai_site.deidentify.pixels.boxes import Box
from fedai_site.deidentify.silence import silenced

ORIGINALS = {
    "1.2.840.10008.5.1.4.1.1.2": "CT",
    "1.2.840.10008.5.1.4.1.1.2.1": "enhanced CT",
    "1.2.840.10008.5.1.4.1.1.4": "MR",
    "1.2.840.10008.5.1.4.1.1.4.1": "enhanced MR",
    "1.2.840.10008.5.1.4.1.1.128": "PET",
    "1.2.840.10008.5.1.4.1.1.130": "enhanced PET",
    "1.2.840.10008.5.1.4.1.1.20": "nuclear medicine",
}
"""SOP classes whose original primary images come straight from reconstruction (PS3.4 table B.5-1)."""
NUMBERS = {
    "1.2.840.10008.5.1.4.1.1.481.2": "dose grid",
    "1.2.840.10008.5.1.4.1.1.66.4": "segmentation",
    "1.2.840.10008.5.1.4.1.1.30": "parametric map",
}
"""SOP classes whose pixels are numbers or labels on a grid and not a picture of a screen."""
VOLUMES = frozenset({*ORIGINALS, *NUMBERS})
"""SOP classes whose frames are places, not times: what is at one place says nothing about the next."""
ULTRASOUND = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.6.1",
        "1.2.840.10008.5.1.4.1.1.3.1",
        "1.2.840.10008.5.1.4.1.1.6",
        "1.2.840.10008.5.1.4.1.1.3",
    }
)
NOT_STRAIGHT = frozenset({"DERIVED", "SECONDARY", "LOCALIZER", "SCREEN SAVE", "SCREENSAVE", "DOSE", "REPORT"})


class Gate(StrEnum):
    """How closely pixels are looked at."""

    FULL = "full"
    FAST = "fast"
    NONE = "none"


@dataclass(frozen=True)
class PixelFacts:
    """Values of the original header, upper case and stripped; empty where there is none."""

    modality: str = ""
    sop_class: str = ""
    image_type: tuple[str, ...] = ()
    burned_in_annotation: str = ""
    manufacturer: str = ""
    model: str = ""
    conversion_type: str = ""
    regions: tuple[Box, ...] = ()

    @classmethod
    def of(cls, original: Dataset) -> PixelFacts:
        """The facts of a data set; what can't be read counts as missing, which means a closer look."""
        with silenced():
            return cls(
                modality=_text(original, "Modality"),
                sop_class=_text(original, "SOPClassUID"),
                image_type=tuple(part.strip() for part in _text(original, "ImageType").split("\\")),
                burned_in_annotation=_text(original, "BurnedInAnnotation"),
                manufacturer=_text(original, "Manufacturer"),
                model=_text(original, "ManufacturerModelName"),
                conversion_type=_text(original, "ConversionType"),
                regions=_regions(original),
            )

    def gate(self) -> tuple[Gate, str]:
        """How closely to look, and why."""
        if self.burned_in_annotation == "YES":
            return Gate.FULL, "its header says that it shows annotations"
        if self.sop_class in NUMBERS:
            return Gate.FAST, f"a {NUMBERS[self.sop_class]}"
        if self.sop_class not in ORIGINALS:
            return Gate.FULL, "not an original CT, MR, PET or NM image"
        if self.image_type[:2] != ("ORIGINAL", "PRIMARY") or NOT_STRAIGHT & set(self.image_type):
            return Gate.FULL, "derived, secondary, a localizer or of no stated type"
        if self.conversion_type:
            return Gate.FULL, "converted from something else"
        return Gate.FAST, f"an original primary {ORIGINALS[self.sop_class]} image"

    @property
    def is_volume(self) -> bool:
        """Whether frames are places: a box found in one frame isn't blanked in the others."""
        return self.sop_class in VOLUMES


def _text(dataset: Dataset, name: str) -> str:
    try:
        value = dataset.get(name)
        parts = [value] if isinstance(value, str) or value is None else list(value)
        return "\\".join(str(part or "").strip().upper() for part in parts)
    except (AttributeError, LookupError, TypeError, ValueError, NotImplementedError):
        return ""


def _regions(original: Dataset) -> tuple[Box, ...]:
    """The areas of (0018,6011) that show echoes: PS3.3 C.8.5.5, corners inclusive."""
    try:
        sequence = original.get("SequenceOfUltrasoundRegions") or Sequence()
        corners = [
            (
                int(item.RegionLocationMinY0),
                int(item.RegionLocationMinX0),
                int(item.RegionLocationMaxY1) + 1,
                int(item.RegionLocationMaxX1) + 1,
            )
            for item in sequence
        ]
    except (AttributeError, LookupError, TypeError, ValueError, NotImplementedError):
        return ()
    return tuple(box for box in corners if box[0] < box[2] and box[1] < box[3])
