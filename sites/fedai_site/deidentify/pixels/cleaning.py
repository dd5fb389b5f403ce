"""Look, blank, look again: pixels leave only after a pass that found nothing.

Each round decodes the object anew, as the next reader will, and examines every frame. PS3.15 Annex E.3.1,
Clean Pixel Data.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset

from fedai_site.deidentify.pixels import frames, regions, surplus
from fedai_site.deidentify.pixels.blanking import blanked
from fedai_site.deidentify.pixels.boxes import Box, covered, merged, rectangles
from fedai_site.deidentify.pixels.detector import Floats, all_sizes, detector, one_size
from fedai_site.deidentify.pixels.facts import Gate, PixelFacts
from fedai_site.deidentify.pixels.frames import Layout, Stored
from fedai_site.deidentify.pixels.picture import png
from fedai_site.deidentify.pixels.views import distinct, views
from fedai_site.deidentify.silence import silenced
from fedai_site.quarantine import Quarantine, Reason

ROUNDS = 3
"""How often boxes may grow before the object goes to quarantine."""
LIMIT = 0.5
"""Share of a frame that the detector may blank; more would destroy the picture, so a person looks at it."""
SMALLEST = (7, 40)
"""Shorter and longer side, in pixels, below which no name can be read in a picture."""
SUSPICION = 0.3
"""Chance in one cell from which a fast pass becomes a full one."""
PRINCIPAL = 2
"""So many windows of a full pass are looked at in all sizes, the others in one."""
SURE_OTHERWISE = 0.85
"""Chance that a cell must reach in the other windows, which show what a screen does not."""
KEY_FRAMES = 3
"""Of frames that are times: so many, evenly spread, and the brightest and darkest of all, get the full
pass.
"""


@dataclass(frozen=True)
class PixelFindings:
    """What was looked at and done. `boxes`: for each frame, what was blanked (row0, col0, row1, col1)."""

    gate: str
    reason: str
    detector: str
    frames_examined: int
    boxes: tuple[tuple[Box, ...], ...]
    frames_changed: int
    passes: int
    clean: bool
    encoding: str = "unchanged"


def clean_pixels(dataset: Dataset, facts: PixelFacts) -> PixelFindings:
    """Blank text burned into the pixels of a data set whose header is clean already, in place.

    Sets Burned In Annotation (0028,0301) to NO after a pass that found nothing. Raises Quarantine: TEXT_LEFT
    with a
    picture, VIDEO, or PIXELS_NOT_EXAMINED for what can't be decoded.
    """
    with silenced():
        found = frames.layout(dataset)
        if found is None:
            return PixelFindings(Gate.NONE, "no pixels", "none", 0, (), 0, 0, True)
        gate, reason = facts.gate()
        findings = Cleaning(dataset, facts, found, gate is Gate.FULL).run(gate, reason)
        dataset.BurnedInAnnotation = "NO"
        return findings


class Cleaning:
    """The rounds over one object."""

    def __init__(self, dataset: Dataset, facts: PixelFacts, found: Layout, thorough: bool) -> None:
        self.dataset, self.facts, self.layout, self.thorough = dataset, facts, found, thorough
        self.shape = (found.rows, found.columns)
        self.detector = detector()
        padding = dataset.get("PixelPaddingValue")
        self.padding = padding if isinstance(padding, int) else None
        self.blanked: list[list[Box]] = [[] for _ in range(found.count)]
        self.encoding = "unchanged"

    def run(self, gate: Gate, reason: str) -> PixelFindings:
        """Rounds until one finds nothing. Raises Quarantine."""
        self.rewrite()
        for number in range(ROUNDS + 1):
            seen = self.look(1.0 + number)
            if not any(seen):
                changed = sum(map(bool, self.blanked))
                boxes = tuple(tuple(each) for each in self.blanked)
                name = self.detector.name
                return PixelFindings(
                    gate, reason, name, self.layout.count, boxes, changed, number + 1, True, self.encoding
                )
            if number == ROUNDS:
                break
            self.blank(seen)
        raise Quarantine(Reason.TEXT_LEFT, f"after {ROUNDS} rounds", self._picture(seen))

    def look(self, grown: float) -> list[list[Box]]:
        """For each frame the boxes that are still to be blanked."""
        if min(self.shape) < SMALLEST[0] or max(self.shape) < SMALLEST[1]:
            for _ in frames.read(self.dataset, self.layout):
                pass
            return [[] for _ in range(self.layout.count)]
        found = self._places(grown) if self.facts.is_volume or self.layout.count == 1 else self._times(grown)
        rows, columns = self.shape
        always = regions.always(self.facts, rows, columns)
        complete = []
        for boxes, done in zip(found, self.blanked, strict=True):
            outside = regions.outside(self.facts, boxes, rows, columns)
            complete.append(_new([*boxes, *outside, *always], done, self.shape))
        return complete

    def _places(self, grown: float) -> list[list[Box]]:
        """Each frame by itself, with all windows and sizes; a fast pass only as long as it suspects
        nothing.
        """
        return [
            self.examine(number, stored, colour, grown, self.thorough)
            for number, (stored, colour) in enumerate(frames.read(self.dataset, self.layout))
        ]

    def _times(self, grown: float) -> list[list[Box]]:
        """Frames one after another: every one in one window and size, some and their extremes in all; what is
        found in one is blanked in all.
        """
        key = set(np.linspace(0, self.layout.count - 1, KEY_FRAMES).astype(int).tolist())
        found: list[Box] = []
        least = most = last = None
        for number, (stored, colour) in enumerate(frames.read(self.dataset, self.layout)):
            if number not in key and last is not None and np.array_equal(stored, last):
                continue
            last = stored
            thorough, quick = self.thorough and number in key, number not in key
            found += self.examine(number, stored, colour, grown, thorough, quick=quick)
            if colour != "PALETTE COLOR":
                least = stored if least is None else np.minimum(least, stored)
                most = stored if most is None else np.maximum(most, stored)
        for extreme in (least, most):
            if extreme is not None:
                found += self.examine(0, extreme, colour, grown, self.thorough)
        union = _fewer(merged(found), self.shape)
        return [list(union) for _ in range(self.layout.count)]

    def examine(
        self, number: int, stored: Stored, colour: str, grown: float, thorough: bool, *, quick: bool = False
    ) -> list[Box]:
        """Boxes over the text of one frame: in all windows if `thorough`; else if a first look suspects text;
        if `quick`, in one size and without that.
        """
        rows, columns = self.shape
        pictures = list(distinct(views(stored, colour, self.dataset, thorough=thorough)))
        if not thorough and not quick and not any(self.suspects(picture) for _, picture in pictures):
            return []
        blank = covered(self.blanked[number], self.shape)
        found: list[Box] = []
        for order, picture in pictures:
            if order < PRINCIPAL:
                sizes = (1.0,) if quick else all_sizes(rows, columns)
                found += self.detector.boxes(picture, sizes, grown, blank=blank)
            else:
                sizes = one_size(rows, columns)
                found += self.detector.boxes(picture, sizes, grown, SURE_OTHERWISE, blank)
        return merged(found)

    def suspects(self, picture: Floats) -> bool:
        """Whether a quick look finds anything at all."""
        return float(self.detector.chance(picture).max(initial=0.0)) >= SUSPICION

    def blank(self, seen: list[list[Box]]) -> None:
        """Fill the boxes in the frames, put the frames back, and check that nothing else has changed."""
        changed: dict[int, Stored] = {}
        for number, (stored, colour) in enumerate(frames.read(self.dataset, self.layout)):
            if seen[number]:
                self._within_limit(number, seen)
                changed[number] = blanked(stored, seen[number], colour, self.padding)
                self.blanked[number] += seen[number]
        self.put(changed)

    def rewrite(self) -> None:
        """Encode anew the frames whose streams may hold bytes that no decoder reads."""
        uncertain = surplus.uncertain(self.dataset, self.layout)
        read = enumerate(frames.read(self.dataset, self.layout)) if uncertain else ()
        if uncertain:
            self.put({number: stored for number, (stored, _) in read if number in uncertain})

    def put(self, changed: dict[int, Stored]) -> None:
        """Write frames, and check that they read as they were written."""
        encoding = frames.write(self.dataset, self.layout, changed)
        self.encoding = (
            encoding if self.encoding in ("unchanged", encoding) else f"{self.encoding}, {encoding}"
        )
        self.layout = frames.layout(self.dataset) or self.layout
        for number, (stored, _) in enumerate(frames.read(self.dataset, self.layout)):
            if number in changed and not np.array_equal(stored, changed[number]):
                raise Quarantine(Reason.PIXELS_NOT_EXAMINED, "a frame that was written reads differently")

    def _within_limit(self, number: int, seen: list[list[Box]]) -> None:
        by_device = covered(regions.always(self.facts, *self.shape), self.shape)
        if self.facts.regions:
            by_device |= ~covered(self.facts.regions, self.shape)
        mask = covered([*self.blanked[number], *seen[number]], self.shape) & ~by_device
        if mask.mean() > LIMIT:
            share = f"{mask.mean():.0%} of a frame would have to be blanked"
            raise Quarantine(Reason.TEXT_LEFT, share, self._picture(seen))

    def _picture(self, seen: list[list[Box]]) -> bytes:
        """The first frame with something left, for the reviewer."""
        number = next(index for index, boxes in enumerate(seen) if boxes)
        for index, (stored, colour) in enumerate(frames.read(self.dataset, self.layout)):
            if index == number:
                picture = next(
                    views(stored, colour, self.dataset, thorough=False), np.zeros(self.shape, np.float32)
                )
                return png(picture, seen[number])
        raise LookupError(number)


def _new(boxes: Iterable[Box], done: list[Box], shape: tuple[int, int]) -> list[Box]:
    """Those of the boxes that aren't blank already."""
    mask = covered(done, shape)
    return [box for box in merged(boxes) if not mask[box[0] : box[2], box[1] : box[3]].all()]


def _fewer(boxes: list[Box], shape: tuple[int, int]) -> list[Box]:
    """Boxes of many frames that differ by a pixel or two, as the fewer rectangles of their union."""
    return merged(rectangles(covered(boxes, shape))) if len(boxes) > 32 else boxes
