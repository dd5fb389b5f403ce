"""The catalogue of devices: regions.yaml says which of them always write where."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

from fedai_site.deidentify.pixels.boxes import Box, covered
from fedai_site.deidentify.pixels.facts import PixelFacts

CATALOGUE = Path(__file__).with_name("regions.yaml")


class When(BaseModel):
    """Which objects an entry is about. What isn't given matches."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    modality: str = ""
    sop_class: str = ""
    manufacturer: str = ""
    model: str = ""

    def matches(self, facts: PixelFacts) -> bool:
        """Whether an object is meant."""
        return (
            self.modality in ("", facts.modality)
            and self.sop_class in ("", facts.sop_class)
            and f" {self.manufacturer}".rstrip() in f" {facts.manufacturer}"
            and self.model in facts.model
        )


class Device(BaseModel):
    """One entry of the catalogue; boxes as shares of rows and columns."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    why: str
    when: When
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    outside_regions: bool = False


@cache
def catalogue(path: Path = CATALOGUE) -> tuple[Device, ...]:
    """All entries in their order."""
    return tuple(Device.model_validate(entry) for entry in yaml.safe_load(path.read_text("utf-8")))


def always(facts: PixelFacts, rows: int, columns: int) -> list[Box]:
    """Boxes that are blanked whatever the detector finds."""
    sides = (rows, columns, rows, columns)
    return [
        (round(top * sides[0]), round(left * sides[1]), round(bottom * sides[2]), round(right * sides[3]))
        for device in catalogue()
        if device.when.matches(facts)
        for top, left, bottom, right in device.boxes
    ]


def outside(facts: PixelFacts, found: list[Box], rows: int, columns: int) -> list[Box]:
    """Boxes over all that lies outside the stated ultrasound regions, if text was found there."""
    if not any(device.outside_regions and device.when.matches(facts) for device in catalogue()):
        return []
    inside = covered(facts.regions, (rows, columns))
    if not inside.any() or not (covered(found, (rows, columns)) & ~inside).any():
        return []
    return strips(facts.regions, rows, columns)


def strips(regions: tuple[Box, ...], rows: int, columns: int) -> list[Box]:
    """Disjoint boxes over what no region covers."""
    edges_down = sorted({0, rows, *(min(max(side, 0), rows) for box in regions for side in (box[0], box[2]))})
    edges_across = sorted(
        {0, columns, *(min(max(side, 0), columns) for box in regions for side in (box[1], box[3]))}
    )
    inside = covered(regions, (rows, columns))
    return [
        (top, left, bottom, right)
        for top, bottom in pairwise(edges_down)
        for left, right in pairwise(edges_across)
        if not inside[top, left]
    ]
